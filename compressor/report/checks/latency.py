"""The budget's lines on latency, judged by their whole interval at the confidence that the session's looks leave.

    p50_ms, p90_ms                only on the profile's device; most disturbances make a session slower than the
                                  device, never faster, so what it fails is open, and what it passes is passed
    min_speedup, max_slowdown     from paired blocks, so on any machine and whatever disturbed it; their interval is
                                  widened by the A/A comparison, and without one they are not judged

A session that broke off decides none of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from compressor.report.answers import IS_A_TABLE
from compressor.report.checks.artefact import broke_off, elsewhere, not_run, parity_verdict, ran_as_asked
from compressor.report.checks.conditions import Grounds
from compressor.report.latency import (
    LatencyFigure,
    baseline_of,
    common_rounds,
    figure_at,
    teacher_of,
    wall_blocks,
)
from compressor.report.read import Results
from compressor.report.render.text import NOT_MEASURED, confidence_percent, estimate, number
from compressor.schema.bundle import Variant
from compressor.schema.profile import Budget
from compressor.schema.report import Check, Estimate, Row, Verdict
from compressor.stats import MIN_BLOCKS, Interval, judge, percentile_needs, widen

__all__ = ["judged_interval", "latency_checks", "more_would_tell"]


@dataclass(frozen=True)
class Line:
    """A line of the budget: the figure of Row that it holds to its limit. `paired`: a ratio of paired blocks."""

    figure: LatencyFigure
    at_most: bool
    paired: bool
    unit: str


LINES = {
    "p50_ms": Line("p50_ms", at_most=True, paired=False, unit="ms"),
    "p90_ms": Line("p90_ms", at_most=True, paired=False, unit="ms"),
    "min_speedup": Line("p50_ratio", at_most=False, paired=True, unit="times as fast as the teacher"),
    "max_slowdown": Line("slowdown", at_most=True, paired=True, unit="times the baseline's p50"),
}


@dataclass(frozen=True)
class Judgement:
    """A verdict and why. `straddles`: it is open only because the interval straddles the limit: more would tell."""

    verdict: Verdict
    reason: str
    straddles: bool = False


def latency_checks(row: Row, results: Results, grounds: Grounds, teacher: Row | None) -> list[Check]:
    """Every line on latency that the budget has, held against one student variant. `teacher`: its row, if any."""
    shown: dict[str, Estimate | None] = {
        "p50_ms": row.p50_ms,
        "p90_ms": row.p90_ms,
        "min_speedup": row.p50_ratio,
        "max_slowdown": row.slowdown,
    }
    checks = []
    for name, limit in _limits(results.bundle.profile.budget):
        judgement = _judge(name, limit, row.name, results, grounds)
        if name == "min_speedup" and teacher is not None and parity_verdict(teacher)[0] == "fail":
            judgement = Judgement("unmeasured", f"the teacher's own parity does not hold: {parity_verdict(teacher)[1]}")
        line, figure, value = LINES[name], shown[name], NOT_MEASURED
        if figure is not None:
            unit = line.unit if line.unit == "ms" else "×"
            value = f"{estimate(figure)} {unit} (n = {figure.n} {figure.of})"
        check = Check(
            variant=row.name,
            line=name,
            limit=f"{'≤' if line.at_most else '≥'} {limit:g} {line.unit}",
            value=value,
            verdict=judgement.verdict,
            reason=judgement.reason,
        )
        checks.append(check)
    return checks


def more_would_tell(variant: Variant, results: Results, grounds: Grounds) -> tuple[str, ...]:
    """The lines on latency that more rounds could decide for this variant. Needs no logits."""
    limits = _limits(results.bundle.profile.budget)
    return tuple(name for name, limit in limits if _judge(name, limit, variant.name, results, grounds).straddles)


def _limits(budget: Budget) -> Iterator[tuple[str, float]]:
    for name in LINES:
        limit = getattr(budget, name)
        if limit is not None:
            yield name, limit


def _judge(name: str, limit: float, variant: str, results: Results, grounds: Grounds) -> Judgement:
    line = LINES[name]
    if why := _not_judged(name, variant, results, grounds):
        return Judgement("unmeasured", why)
    interval = judged_interval(name, variant, results, grounds)
    if interval is None:
        return Judgement("unmeasured", _too_few(name, variant, results, grounds))
    if broke := broke_off(grounds):
        return Judgement("inconclusive", broke)
    verdict = judge(interval.low, interval.high, limit, at_most=line.at_most)
    reason = _reason(verdict, interval, line, grounds)
    if line.paired or not grounds.disturbed:
        return Judgement(verdict, reason, straddles=verdict == "inconclusive")
    disturbed = f"disturbed ({'; '.join(grounds.disturbed)})"
    if verdict == "fail":
        slower = ", which makes it slower" if grounds.slower else ""
        return Judgement("inconclusive", f"{reason}, but the session was {disturbed}{slower}")
    if verdict == "pass" and not grounds.slower:
        return Judgement("inconclusive", f"{reason}, but the session was {disturbed}, which may have made it faster")
    but = f"{reason}, though the session was {disturbed}" if verdict == "pass" else f"{reason}; {disturbed}"
    return Judgement(verdict, but, straddles=verdict == "inconclusive")


def judged_interval(name: str, variant: str, results: Results, grounds: Grounds) -> Interval | None:
    """The interval that is held against the limit of a line on latency; None where it cannot be told."""
    line = LINES[name]
    interval = figure_at(line.figure, results, variant, grounds.confidence)
    return widen(interval, grounds.aa) if interval is not None and line.paired and grounds.aa is not None else interval


def _reason(verdict: Verdict, interval: Interval, line: Line, grounds: Grounds) -> str:
    """Why an interval passes, fails, or leaves it open; with the interval, which is wider than the 95 % shown."""
    percent, widened = confidence_percent(grounds.confidence), ", widened by the A/A," if line.paired else ""
    shown = f"{percent} % interval [{number(interval.low, 4)}–{number(interval.high, 4)}]{widened}"
    if verdict == "inconclusive":
        return f"the {shown} straddles the limit: more rounds would tell"
    return f"the whole {shown} {'keeps to' if verdict == 'pass' else 'breaks'} the limit"


def _not_judged(name: str, variant: str, results: Results, grounds: Grounds) -> str:
    """Why a line cannot be judged, whatever the samples say; empty where it can."""
    contestant = results.contestants.get(variant)
    missing = not_run(contestant is not None, contestant.error if contestant is not None else None)
    if missing or not LINES[name].paired:
        return missing or elsewhere(grounds)
    if grounds.otherwise:
        return f"not measured as the profile says: {'; '.join(grounds.otherwise)}"
    if name == "min_speedup" and results.bundle.teacher_table is not None:
        return f"{IS_A_TABLE}, which has no latency"
    if name == "min_speedup":
        return _compared("the teacher", teacher_of(results), results) or grounds.no_aa
    if results.bundle.baseline is None and results.shared is not None:
        return "the baseline did not race in this session: kdc measure BUNDLE --baseline EARLIER_BUNDLE"
    if results.bundle.baseline is None:
        return "the bundle has no baseline to be held against: give one with --baseline BUNDLE"
    return _compared("the same variant of the baseline", baseline_of(results, variant), results) or grounds.no_aa


def _compared(role: str, variant: Variant | None, results: Results) -> str:
    """Why there is nothing to compare with; empty where there is."""
    contestant = results.contestants.get(variant.name) if variant is not None else None
    if variant is None:
        return f"the bundle does not hold {role}"
    if contestant is None:
        return f"{role} was not measured"
    if contestant.error is not None:
        return f"{role} was not measured: {contestant.error}"
    verdict, why = ran_as_asked(variant.runtime, variant.precision, contestant.executed_precision, variant.weight_bytes)
    return "" if verdict == "pass" else f"{role} did not run as it should: {why}"


def _too_few(name: str, variant: str, results: Results, grounds: Grounds) -> str:
    if not LINES[name].paired:
        calls = sum(len(times) for times in wall_blocks(results, variant).values())
        needed = percentile_needs({"p50_ms": 0.5, "p90_ms": 0.9}[name])
        return f"too few samples: needs {needed} timed calls in at least {MIN_BLOCKS} blocks, found {calls} calls"
    reference = teacher_of(results) if name == "min_speedup" else baseline_of(results, variant)
    count = common_rounds(results, variant, reference.name) if reference is not None else 0
    percent = confidence_percent(grounds.confidence)
    return f"too few rounds for a {percent} % interval: needs at least {MIN_BLOCKS} in which both ran, found {count}"
