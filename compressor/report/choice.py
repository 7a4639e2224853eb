"""The choice: the fastest student variant among those that may be shipped. It never looks at test labels.

A variant may be shipped if it fails none of the lines that do not rest on them: it runs, at the precision asked for,
with torch's answers; it keeps its accuracy on validation, in all and in every class (max_drop); it fits the budget in
size, latency and memory. What is decided on test labels (accuracy, retention, classes, what was lost against the
baseline) judges the choice afterwards, and is no part of it.
"""

from compressor.report.render.text import number
from compressor.schema.profile import CLASS_LINES
from compressor.schema.report import Check, Row

__all__ = ["ON_TEST_LABELS", "choose"]

ON_TEST_LABELS = (
    "min_accuracy",
    "min_balanced_accuracy",
    "min_retention",
    *CLASS_LINES,
    "max_accuracy_loss",
    "max_negative_flips",
)


def choose(rows: tuple[Row, ...], checks: tuple[Check, ...], elsewhere: bool) -> tuple[str | None, str]:
    """The name of the variant to ship, or None, and why. `elsewhere`: it was not measured on the profile's device."""
    students = [row for row in rows if row.role == "student"]
    failed = {row.name: _failed(row.name, checks) for row in students}
    fit = [row for row in students if not failed[row.name]]
    as_asked = {check.variant for check in checks if check.line == "precision" and check.verdict == "pass"}
    timed = [row for row in fit if row.p50_ms is not None and row.name in as_asked]
    if not students:
        return None, "the bundle has no student variant"
    if not fit:
        return None, "each fails a line: " + "; ".join(f"{name} {', '.join(lines)}" for name, lines in failed.items())
    if not timed:
        return None, "none that may be shipped was timed at its precision"
    untimed = [row for row in fit if row not in timed]
    if untimed and elsewhere:
        waiting = ", ".join(row.name for row in untimed)
        return None, f"{waiting} may be faster, and cannot be timed here: measure on the profile's device"
    best = min(timed, key=_p50)
    return best.name, _why(best, timed, untimed, failed, elsewhere)


def _failed(name: str, checks: tuple[Check, ...]) -> list[str]:
    judged = [check for check in checks if check.variant == name and check.line not in ON_TEST_LABELS]
    return [check.line for check in judged if check.verdict == "fail"]


def _p50(row: Row) -> float:
    assert row.p50_ms is not None
    return row.p50_ms.value


def _why(best: Row, timed: list[Row], untimed: list[Row], failed: dict[str, list[str]], elsewhere: bool) -> str:
    """What it won against, and what could not take part."""
    out = [f"{name} (fails {', '.join(lines)})" for name, lines in failed.items() if lines]
    runners_up = sorted((row for row in timed if row is not best), key=_p50)
    parts = [f"the fastest of {len(timed)} that may be shipped: p50 {number(_p50(best))} ms"]
    if runners_up:
        parts[0] += f", next {runners_up[0].name} {number(_p50(runners_up[0]))} ms"
    if out:
        parts.append(f"out: {', '.join(out)}")
    if untimed:
        parts.append(f"not timed: {', '.join(row.name for row in untimed)}")
    if elsewhere:
        parts.append("chosen on this machine, which is not the profile's device: measure there before you ship")
    return "; ".join(parts)
