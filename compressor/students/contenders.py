"""Which candidates are worth training: those that the budget admits, measured coarsely first, and then for longer."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from compressor.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, KdcError
from compressor.measure.devices import DeviceUrl
from compressor.progress import Progress
from compressor.schema.profile import Budget, Profile
from compressor.schema.race import Contender, Neighbour
from compressor.schema.students import Figures, Student
from compressor.students.api import Wanted, students
from compressor.students.table import COSTS, LATENCY, answered, over_budget

__all__ = ["FIELD", "Device", "choose_contenders", "deciding"]

FIELD = 4
"""Contenders of a race."""
LONG = 30
"""Blocks of an artefact that may be trained, where the coarse look has 12."""
MARGIN = 0.1
"""What a contender's latency must have to spare: it is measured again when it is trained, perhaps on a slower day."""


@dataclass(frozen=True)
class Device:
    """Where candidates are measured, and with which interpreter there."""

    url: DeviceUrl
    python: str | None = None


def deciding(budget: Budget) -> tuple[str, ...]:
    """The lines of a budget that tell students apart before any is trained."""
    return tuple(name for name in (*LATENCY, *COSTS, "min_speedup") if getattr(budget, name) is not None)


def choose_contenders(
    profile: Profile, wanted: Wanted, teacher: tuple[str, int] | None, device: Device, progress: Progress
) -> tuple[tuple[Contender, ...], str]:
    """At most FIELD candidates that certainly hold what latency, size and memory decide, and why it is these.

    They have MARGIN to spare; where none has, they hold the lines just so, and a warning says it. Of each family the
    one that computes most, and of those the ones that compute most. `teacher`: its name and input size, where it can be
    measured as candidates are, for `min_speedup`. Raises KdcError (exit code 1) where no candidate holds the budget.
    """
    if profile.budget.min_speedup is None:
        teacher = None
    elif teacher is None:
        progress.warn("budget.min_speedup is not judged before training: the teacher is none of timm's networks")
    wanted = replace(wanted, beside=(teacher,) if teacher is not None else ())
    measured = _figures(profile, wanted, device, progress)
    long: set[str] = set()
    while True:
        budget = _budget(measured, profile, teacher)
        for margin in (MARGIN, 0.0):
            rows = _judged(measured, budget, teacher, margin)
            field = _field(rows)
            if field:
                break
        else:
            raise _none_holds(rows, profile)
        names = [row.figures.student for row in field]
        if set(names) <= long:
            break
        progress.note(f"measured for longer: {', '.join(names)}")
        longer = replace(wanted, names=tuple(names), rounds=LONG, surgery=False)  # these alone, as they are named
        measured |= _figures(profile, longer, device, progress)
        long |= set(names)
    if not margin:
        progress.warn(
            f"no candidate holds the latency that the budget of {profile.name} allows with {MARGIN:.0%} to spare; "
            f"{', '.join(names)} hold{'s' if len(names) == 1 else ''} it just so, which another day may undo"
        )
    ran = {row.figures.student for row in rows if row.figures.p50_ms is not None}
    admitted = {row.figures.student for row in rows if row.admitted}
    why = (
        f"of {len(ran)} candidates the budget of {profile.name} ({', '.join(deciding(profile.budget))}) admits "
        f"{len(admitted)} with {margin:.0%} to spare, and of their families these compute most"
    )
    return tuple(_contender(row, rows, budget) for row in field), why


_Measured = dict[tuple[str, int, str], Figures]


def _figures(profile: Profile, wanted: Wanted, device: Device, progress: Progress) -> _Measured:
    """By student, input size and variant."""
    answer = students(profile, wanted, device.url, python=device.python, progress=progress)
    rows = (row.figures for row in answer.rows)
    return {(row.student, row.input_size, row.variant): row for row in rows}


def _is(row: Figures, teacher: tuple[str, int] | None) -> bool:
    return teacher is not None and (row.student, row.input_size) == (f"timm:{teacher[0]}", teacher[1])


def _budget(measured: _Measured, profile: Profile, teacher: tuple[str, int] | None) -> Budget:
    """The budget, with its line on the teacher's time as one on milliseconds. A bundle has the teacher as the profile's
    first float variant; here it is the first of those that are measured before training."""
    budget = profile.budget
    if teacher is None or budget.min_speedup is None:
        return budget
    theirs = [row for row in measured.values() if _is(row, teacher)]
    pairs = (f"{target.runtime}-{name}" for target in profile.targets for name in target.precisions if name != "int8")
    ran = {row.variant: row for row in theirs}
    base = next(ran[name] for name in pairs if name in ran)  # a slow runtime is not measured where there are others
    if base.p50_ms is None:
        raise KdcError(f"the teacher could not be measured as the candidates are: {base.error}")
    limit = _rounded(base.p50_ms.value / budget.min_speedup)
    return budget.model_copy(update={"p50_ms": min(budget.p50_ms or math.inf, limit)})


def _judged(measured: _Measured, budget: Budget, teacher: tuple[str, int] | None, margin: float) -> tuple[Student, ...]:
    """The candidates, held to the budget with a margin: a machine is not equally fast every day."""
    limits = {name: getattr(budget, name) for name in LATENCY}
    tighter = {name: _rounded(limit / (1 + margin)) for name, limit in limits.items() if limit is not None}
    rows = [row for row in measured.values() if not _is(row, teacher)]
    return answered(rows, budget.model_copy(update=tighter))


def _rounded(limit: float) -> float:
    """Of a limit that was computed, as many digits as people read."""
    return float(f"{limit:.3g}")


def _field(rows: Sequence[Student]) -> list[Student]:
    """The contenders, the most computing first, each as the fastest variant that the budget admits. A network that was
    changed for speed runs only where the one that it was made from does not hold the budget."""
    fastest: dict[str, Student] = {}
    for row in rows:  # the fastest first
        if row.admitted:
            fastest.setdefault(row.figures.student, row)
    needed = [row for name, row in fastest.items() if "+" not in name or name.split("+")[0] not in fastest]
    ordered = sorted(needed, key=lambda row: -(row.figures.macs or 0))
    largest = {row.figures.family: row for row in reversed(ordered)}
    of_families = [row for row in ordered if largest[row.figures.family] is row]
    others = [row for row in ordered if largest[row.figures.family] is not row]
    field = [*of_families, *others][:FIELD]
    return sorted(field, key=lambda row: -(row.figures.macs or 0))


def _contender(row: Student, rows: Sequence[Student], budget: Budget) -> Contender:
    figures = row.figures
    front = [other for other in rows if other.on_front and other.figures.variant == figures.variant]
    slower = [other for other in front if _p50(other) > _p50(row) and other is not row]
    faster = [other for other in front if _p50(other) < _p50(row) and other is not row]
    return Contender(
        student=figures.student,
        family=figures.family,
        parameters=figures.parameters,
        macs=figures.macs,
        variant=figures.variant,
        p50_ms=figures.p50_ms,
        size_mb=figures.size_mb,
        measured=figures.measured,
        larger=_neighbour(min(slower, key=_p50, default=None), budget),
        smaller=_neighbour(max(faster, key=_p50, default=None), budget),
    )


def _neighbour(row: Student | None, budget: Budget) -> Neighbour | None:
    if row is None or row.figures.p50_ms is None:
        return None
    figures = row.figures
    p50 = row.figures.p50_ms
    return Neighbour(
        student=figures.student, p50_ms=p50, size_mb=figures.size_mb or 0.0, over=over_budget(figures, budget)[1]
    )


def _p50(row: Student) -> float:
    return row.figures.p50_ms.value if row.figures.p50_ms is not None else math.inf


def _none_holds(rows: Sequence[Student], profile: Profile) -> KdcError:
    ran = [row for row in rows if row.figures.p50_ms is not None]
    if not ran:
        reasons = Counter(row.figures.error for row in rows)
        told = "; ".join(f"{reason} ({count} of {len(rows)})" for reason, count in reasons.most_common(3))
        return KdcError(f"none of the candidates could be measured: {told}", exit_code=EXIT_INCONCLUSIVE)
    nearest = min(ran, key=lambda row: (len(row.over), _p50(row)))
    what = "; ".join(nearest.over) or "an interval holds a limit"
    return KdcError(
        f"no candidate certainly holds the budget of {profile.name}; the nearest is "
        f"{nearest.figures.student} as {nearest.figures.variant}: {what}",
        f"kdc students --profile {profile.name} shows all; another budget, or name the student: --student timm:NAME",
        EXIT_GATE_FAILED,
    )
