"""Whether others had a part of the machine while a session ran: other processes, a hypervisor, the cgroup's quota."""

from collections.abc import Iterator

from compressor.report.render.text import number
from compressor.schema.language.measurement import LanguageMeasurement
from compressor.schema.measurement import Measurement, Round

__all__ = ["block_share", "crowding", "rounds_text"]

# Of the cores that may be used. One busy process is 6 % of 16 cores and more of fewer; the services of an idle system
# are far below.
FOREIGN_SHARE = 0.05
# Of these cores. A vCPU that is away for 2 % of the time is away in the midst of some of the slowest tenth of calls,
# which is what p90 is made of.
STEAL_SHARE = 0.02
# Of the rounds' time, since a quota stops all of the group at once: ten stops of 50 ms in 100 s still are no tenth of
# the calls. Some come from loading, when every runtime starts its threads.
QUOTA_SHARE = 0.005
# The quantile of each block that ratios compare in a crowded session: of six calls, the second fastest. A call that was
# interrupted takes a time slice longer, a call of some ms often twice as long, so the median of a block jumps between
# the two; its faster calls do not. On a quiet machine a block's median and this hardly differ.
CROWDED_SHARE = 0.2


def crowding(measurement: Measurement | LanguageMeasurement) -> tuple[str, ...]:
    """Who had a part of the machine, a line each with the numbers; none: the session had it for itself."""
    before = measurement.machine_before
    cores = before.cores if before.affinity is None else len(before.affinity)
    return (*_other_load(measurement.rounds, cores), *_quota(measurement))


def block_share(measurement: Measurement) -> float:
    """The quantile of each block that ratios compare: the median, or in a crowded session that of its faster calls."""
    return CROWDED_SHARE if crowding(measurement) else 0.5


def rounds_text(measurement: Measurement) -> str:
    """What a ratio's n counts: "rounds", and what of each block was compared where it was not the median."""
    crowded = f"rounds, of each block the fastest {100 * CROWDED_SHARE:g} % of the calls"
    return crowded if crowding(measurement) else "rounds"


def _other_load(rounds: tuple[Round, ...], cores: int) -> Iterator[str]:
    foreign, wall = 0.0, 0.0
    for played in rounds:
        if played.busy_cpu_s is not None and played.own_cpu_s is not None:
            foreign, wall = foreign + played.busy_cpu_s - played.own_cpu_s, wall + played.wall_s
    if wall > 0 and foreign / (wall * cores) >= FOREIGN_SHARE:
        used = f"{number(foreign / wall)} of {cores} cores over {number(wall)} s"
        yield f"other processes used {number(100 * foreign / (wall * cores))} % of the machine ({used})"
    taken = [(played.wall_s, played.steal_s) for played in rounds if played.steal_s is not None]
    wall, stolen = sum(wall for wall, _ in taken), sum(stolen for _, stolen in taken)
    if wall > 0 and stolen / (wall * cores) > STEAL_SHARE:
        took = f"{number(stolen)} s on {cores} cores in {number(wall)} s"
        yield f"the hypervisor took {number(100 * stolen / (wall * cores))} % of the machine away (steal: {took})"


def _quota(measurement: Measurement | LanguageMeasurement) -> Iterator[str]:
    before, after = measurement.machine_before.quota_throttled_s, measurement.machine_after.quota_throttled_s
    if before is None or after is None:
        return
    stopped, wall = after - before, sum(played.wall_s for played in measurement.rounds)
    if stopped > QUOTA_SHARE * wall and stopped > 0:
        yield f"the cgroup's CPU quota stopped the session for {number(stopped)} s, its rounds took {number(wall)} s"
