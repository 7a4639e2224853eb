"""What verdicts on latency rest on: that the session ran on the profile's device, as the profile says, undisturbed.

differences    to the profile's device and conditions: elsewhere, absolute latencies are not the device's
disturbances   what made this session slower than the machine is: from the machine before and after, and from each round
"""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from compressor.report.checks.interference import crowding
from compressor.report.latency import aa_of, no_aa
from compressor.report.read import Results
from compressor.report.render.text import number, relative
from compressor.schema.language.measurement import LanguageMeasurement
from compressor.schema.measurement import Machine, Measurement, Round
from compressor.schema.profile import Profile
from compressor.stats import Interval, look_confidence

__all__ = [
    "Grounds",
    "bias",
    "changes",
    "disturbances",
    "grounds_of",
    "machine_differences",
    "of_the_machine",
    "thread_differences",
]

AnySession = Measurement | LanguageMeasurement

# Turbo steps come and go by some per cent; a tenth less clock is a tenth more latency.
CLOCK_FELL = 0.9
# Rounds with a known clock, so that a quarter of them is at least two: one reading is no trend.
CLOCK_ROUNDS = 8
# A Raspberry Pi lowers its clock from here on, and other boards without a fan not far above.
HOT_C = 85.0
# Ratios of interleaved blocks vary by about 1.4 % between sessions. An interval that lies beyond 2 % altogether is no
# noise: something sets this process apart from its twin, and then absolute figures may be off by as much.
AA_BIAS = 0.02


@dataclass(frozen=True)
class Grounds:
    """What verdicts on latency rest on.

    `elsewhere`: how the machine differs from the profile's device; `otherwise`: how batch and threads differ from the
    profile's; `disturbed`: see `disturbances`, and `slower`: all of that can only have made it slower; `lost`: why the
    session broke off. `confidence`: of the intervals that verdicts are taken from; `aa`: the A/A ratio at it, and
    `no_aa`: why there is none.
    """

    elsewhere: tuple[str, ...]
    otherwise: tuple[str, ...]
    disturbed: tuple[str, ...]
    slower: bool
    lost: str | None
    confidence: float
    aa: Interval | None
    no_aa: str

    @property
    def differences(self) -> tuple[str, ...]:
        """Everything that makes absolute latencies not the device's."""
        return self.elsewhere + self.otherwise


def grounds_of(results: Results) -> Grounds:
    """What the verdicts on a session rest on; without a measurement nothing speaks against it, and nothing for it."""
    measurement, profile = results.measurement, results.bundle.profile
    if measurement is None:
        return Grounds((), (), (), True, None, look_confidence(1), None, "no A/A: nothing was measured")
    confidence = look_confidence(measurement.looks)
    aa = aa_of(measurement, confidence)
    return Grounds(
        elsewhere=tuple(machine_differences(profile, measurement)),
        otherwise=tuple(_setting_differences(profile, measurement)),
        disturbed=disturbances(measurement),
        slower=not _shifts(measurement),
        lost=measurement.lost,
        confidence=confidence,
        aa=aa,
        no_aa=no_aa(measurement) or ("" if aa is not None else "no A/A: too few rounds"),
    )


def machine_differences(profile: Profile, measurement: AnySession) -> Iterator[str]:
    """What makes the machine that was measured another one than the profile's device."""
    machine, after = measurement.machine_before, measurement.machine_after
    yield from profile.differences(machine)
    if (machine.arch, machine.cpu, machine.cores) != (after.arch, after.cpu, after.cores):
        yield f"the machine changed while it measured, to {after.cpu} ({after.arch}, {after.cores} cores)"


def _setting_differences(profile: Profile, measurement: Measurement) -> Iterator[str]:
    if measurement.batch != profile.batch:
        yield f"batch is {measurement.batch}, the profile's {profile.batch}"
    yield from thread_differences(profile, measurement)


def thread_differences(profile: Profile, measurement: AnySession) -> Iterator[str]:
    """Other numbers of threads than the profile's."""
    threads = {contestant.threads for contestant in measurement.contestants if contestant.error is None}
    for count in sorted(threads - {profile.threads}):
        yield f"threads are {count}, the profile's {profile.threads}"


def disturbances(measurement: Measurement) -> tuple[str, ...]:
    """What disturbed the session, a line each with its numbers; none: nothing that the system tells of.

    Waiting for another measurement to end is none: nothing ran then.
    """
    return (*of_the_machine(measurement), *_bias(measurement))


def of_the_machine(measurement: AnySession) -> tuple[str, ...]:
    """The disturbances that the machine itself tells of, and not the times that were measured."""
    before, after = measurement.machine_before, measurement.machine_after
    return (*crowding(measurement), *_heat(before, after), *_clock(measurement.rounds), *changes(before, after))


def _shifts(measurement: Measurement) -> tuple[str, ...]:
    """Disturbances that may have made latencies shorter as well as longer; all the others only make them longer."""
    return (*changes(measurement.machine_before, measurement.machine_after), *_bias(measurement))


def _heat(before: Machine, after: Machine) -> Iterator[str]:
    if before.throttle_count is not None and after.throttle_count is not None:
        times = after.throttle_count - before.throttle_count
        if times > 0:
            yield f"the CPU throttled {times} time{'s' if times > 1 else ''} because of its heat"
    if words := " / ".join(dict.fromkeys(filter(None, (before.throttled, after.throttled)))):
        yield f"the firmware says: {words}"
    hottest = max(
        (machine.temperature_c for machine in (before, after) if machine.temperature_c is not None), default=0.0
    )
    if hottest >= HOT_C:
        yield f"the CPU is {number(hottest)} °C hot, and boards throttle from {HOT_C:g} °C on"


def _clock(rounds: tuple[Round, ...]) -> Iterator[str]:
    clocks = [played.mhz for played in rounds if played.mhz is not None]
    if len(clocks) < CLOCK_ROUNDS:
        return
    quarter = len(clocks) // 4
    first, last = median(clocks[:quarter]), median(clocks[-quarter:])
    if last < CLOCK_FELL * first:
        where = f"medians of the first and the last {quarter} of {len(clocks)} rounds"
        yield f"the clock fell from {number(first, 4)} to {number(last, 4)} MHz ({where})"


def changes(before: Machine, after: Machine) -> Iterator[str]:
    """What of the machine's conditions changed while it measured."""
    pairs: tuple[tuple[str, object, object], ...] = (
        ("the governor", before.governor, after.governor),
        ("the power mode", before.power_mode, after.power_mode),
        ("the CPUs that may be used", _listed(before.affinity), _listed(after.affinity)),
        ("the number of usable cores", before.usable_cores, after.usable_cores),
    )
    for name, was, became in pairs:
        if was is not None and became is not None and was != became:
            yield f"{name} changed from {was} to {became}"


def _listed(cpus: tuple[int, ...] | None) -> str | None:
    return None if cpus is None else ", ".join(map(str, sorted(cpus)))


def _bias(measurement: Measurement) -> Iterator[str]:
    yield from bias(aa_of(measurement, look_confidence(measurement.looks)))


def bias(aa: Interval | None) -> Iterator[str]:
    """That the same artefact twice differs by more than noise."""
    if aa is not None and (aa.low > 1 + AA_BIAS or aa.high < 1 - AA_BIAS):
        differs = f"{relative(aa.value)} % [{relative(aa.low)} to {relative(aa.high)}]"
        yield f"A/A: the same artefact twice differs by {differs}, all of it beyond ±{100 * AA_BIAS:g} %"
