"""What the page judges with: of every student and line of the budget, what a limit is held against, so that judge.js
decides in the browser what `kdc check` would decide of a bundle with that budget.

No rule is written down twice here: each line is judged by the checks themselves, once with a limit that everything
keeps to and once with one that everything breaks. Where both verdicts are the same, no limit changes it.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from compressor.report.answers import counts_of
from compressor.report.before import has_baseline, size_before
from compressor.report.checks.artefact import REQUIRED_LINES
from compressor.report.checks.conditions import Grounds, grounds_of
from compressor.report.checks.latency import judged_interval
from compressor.report.checks.release import Pair, pair_of
from compressor.report.choice import ON_TEST_LABELS
from compressor.report.gate import checks_for
from compressor.report.html.text import shown
from compressor.report.latency import teacher_of
from compressor.report.next_step import profile_to_type
from compressor.report.read import Results
from compressor.report.render.text import megabytes
from compressor.schema.profile import ACCURACY_LOSS, Budget
from compressor.schema.report import Check, Estimate, Report, Row
from compressor.stats import CHANCE, LOST, ONE_SIDED, Interval, judge_classes, normal_quantile

__all__ = ["LINES", "BudgetLine", "instrument", "raw_blocks"]

MOST_SAMPLE_BYTES = 400_000
"""Of raw samples in the page; of more, whole rounds are left out evenly, and the page says so."""
MOST_COUNTS = 120_000
"""Counts of classes in the page; of more, lines on classes stand as the report judges them."""
MOST_NAMES = 5_000


@dataclass(frozen=True)
class BudgetLine:
    """A line of the budget that can be moved. `kind`: what is held against the limit: an exact figure, an interval of
    a latency or of a share, the counts of every class, or what was lost against a baseline. `figure`: the field of Row
    that has it, where one has."""

    name: str
    kind: Literal["exact", "latency", "share", "classes", "loss"]
    at_most: bool
    unit: str
    label: str
    figure: str = ""


LINES = (
    BudgetLine("size_mb", "exact", True, "MB", "size"),
    BudgetLine("p50_ms", "latency", True, "ms", "median latency", "p50_ms"),
    BudgetLine("p90_ms", "latency", True, "ms", "latency, 90th percentile", "p90_ms"),
    BudgetLine("min_speedup", "latency", False, "×", "times as fast as the teacher", "p50_ratio"),
    BudgetLine("max_slowdown", "latency", True, "×", "p50 / the baseline's", "slowdown"),
    BudgetLine("peak_rss_mb", "exact", True, "MB", "memory at its peak", "peak_rss_mb"),
    BudgetLine("model_rss_mb", "exact", True, "MB", "memory that the model adds"),
    BudgetLine("min_accuracy", "share", False, "%", "accuracy", "accuracy"),
    BudgetLine("min_balanced_accuracy", "share", False, "%", "balanced accuracy", "balanced_accuracy"),
    BudgetLine("min_retention", "share", False, "%", "retention", "retention"),
    BudgetLine("min_balanced_retention", "share", False, "%", "balanced retention", "balanced_retention"),
    BudgetLine("min_class_retention", "classes", False, "%", "retention in every class"),
    BudgetLine("min_class_recall", "classes", False, "%", "recall in every class"),
    BudgetLine("max_accuracy_loss", "loss", True, "%", "accuracy lost against the baseline"),
    BudgetLine("max_negative_flips", "share", True, "%", "right before and wrong now"),
    BudgetLine("max_growth", "exact", True, "×", "size / the baseline's"),
)
"""In the order of reports."""

EASY = {line.name: 1e9 if line.at_most else 1e-9 for line in LINES}
HARD = {line.name: 1e-9 if line.at_most else 1e9 for line in LINES if line.kind == "latency"}

Judged = Mapping[tuple[str, str], Check]


def instrument(report: Report, results: Results, allow_unmeasured: bool) -> dict[str, Any]:
    """What judge.js takes, as JSON: names are shown as text, and numbers are exact."""
    students = [row for row in report.rows if row.role == "student"]
    names, classes = {row.name for row in students}, report.class_names
    budget, movable = results.bundle.profile.budget, {line.name for line in LINES}
    return {
        "profile": profile_to_type(report),
        "allow_unmeasured": allow_unmeasured,
        "elsewhere": bool(report.differences),
        "budget": {name: value for name, value in budget if name in budget.model_fields_set & movable},
        "against_teacher": teacher_of(results) is not None or results.table is not None,
        "lines": [
            {"name": line.name, "kind": line.kind, "at_most": line.at_most, "unit": line.unit, "label": line.label}
            for line in LINES
        ],
        "students": _students(students, report, results),
        "base_checks": [
            {"line": check.line, **_outcome(check)} for check in report.checks if check.variant not in names
        ],
        "counts": _counts(students, results),
        "rows": [shown(row.name) for row in report.rows],
        "class_names": [shown(name, 60) for name in classes] if len(classes) <= MOST_NAMES else [],
        "rules": {"chance": CHANCE, "z": normal_quantile(ONE_SIDED)},
        "on_test_labels": ON_TEST_LABELS,
        "required_lines": REQUIRED_LINES,
        "accuracy_loss": ACCURACY_LOSS,
        "chosen": _chosen(report, students) if _settled(results) else None,
    }


def _settled(results: Results) -> bool:
    """Whether the bundle is held against another baseline than its own (`release.results_beside`): that does not
    change what ships."""
    return results.shared is not None and results.bundle.baseline is None and results.bundle.release is None


def _chosen(report: Report, students: Sequence[Row]) -> dict[str, Any]:
    names = [row.name for row in students]
    return {"winner": None if report.winner is None else names.index(report.winner), "why": shown(report.why, 1200)}


def _students(students: Sequence[Row], report: Report, results: Results) -> list[dict[str, Any]]:
    session = results, grounds_of(results)
    easy, hard, unasked = (_judged(limits, report, *session) for limits in (EASY, HARD, {}))
    movable = {line.name for line in LINES}
    listed = []
    for row in students:
        against, alone = counts_of(results, row.name), counts_of(results, row.name, alone=True)
        if _too_many(students, report):
            against = alone = None
        judged = {check.line: check for check in report.checks if check.variant == row.name}
        bases = {line.name: _basis(line, row, easy, hard, session) for line in LINES}
        if _too_many(students, report):
            bases |= {line.name: _standing(judged.get(line.name)) for line in LINES if line.kind == "classes"}
        listed.append(
            {
                "name": shown(row.name),
                "row": report.rows.index(row),
                "p50": row.p50_ms.value if row.p50_ms else None,
                "fixed": [{"line": name, **_outcome(check)} for name, check in judged.items() if name not in movable],
                "bases": bases,
                "has_baseline": has_baseline(results, row.name),
                "untaught": _untaught(row, unasked, results),
                "right": [] if alone is None else alone.right.tolist(),
                "both": [] if against is None else against.both.tolist(),
            }
        )
    return listed


def _untaught(row: Row, unasked: Judged, results: Results) -> dict[str, str] | None:
    """Of classes that the teacher knows nothing of: a line that stands as long as nobody asks for min_class_recall."""
    against_teacher = teacher_of(results) is not None or results.table is not None
    check = unasked.get((row.name, "min_class_recall"))
    return _outcome(check) if check is not None and against_teacher else None


def _too_many(students: Sequence[Row], report: Report) -> bool:
    return 2 * len(students) * len(report.class_names) > MOST_COUNTS


def _standing(check: Check | None) -> dict[str, str]:
    """A line on classes where their counts are too many for the page: as the report judges it, whatever the limit."""
    why = "the counts of so many classes are not in this page"
    if check is None:
        return {"fixed": "unmeasured", "reason": why, "shown": ""}
    return {"fixed": check.verdict, "reason": f"{shown(check.reason, 300)} ({why})", "shown": shown(check.value)}


def _counts(students: Sequence[Row], results: Results) -> dict[str, list[int]]:
    """Samples by class, and how many of them the teacher has right: the same for every student that left answers."""
    against = next((counts for row in students if (counts := counts_of(results, row.name)) is not None), None)
    alone = next((counts for row in students if (counts := counts_of(results, row.name, alone=True)) is not None), None)
    return {
        "n": [] if alone is None else alone.n.tolist(),
        "base": [] if against is None else against.base.tolist(),
    }


def _judged(limits: Mapping[str, float], report: Report, results: Results, grounds: Grounds) -> Judged:
    """Every student held against a budget of these limits. They may lie beyond what a profile can ask for."""
    profile = results.bundle.profile.model_copy(update={"budget": Budget.model_construct(set(limits), **limits)})
    asked = replace(results, bundle=results.bundle.model_copy(update={"profile": profile}))
    teacher = teacher_of(results)
    teacher_row = next((row for row in report.rows if teacher is not None and row.name == teacher.name), None)
    checks = (
        check for row in report.rows if row.role == "student" for check in checks_for(row, asked, grounds, teacher_row)
    )
    return {(check.variant, check.line): check for check in checks}


def _outcome(check: Check) -> dict[str, str]:
    return {"verdict": check.verdict, "reason": shown(check.reason, 400)}


def _basis(line: BudgetLine, row: Row, easy: Judged, hard: Judged, session: tuple[Results, Grounds]) -> dict[str, Any]:
    check = easy[row.name, line.name]
    broken = hard[row.name, line.name] if line.kind == "latency" else None
    told = {"shown": shown(check.value)}
    if check.verdict == "unmeasured" or (broken is not None and broken.verdict == check.verdict):
        return {**told, "fixed": check.verdict, "reason": shown(check.reason, 400)}
    if line.kind == "classes":
        return told
    if line.kind == "exact":
        return {**told, "value": _exact(line.name, row, session[0])}
    if broken is not None:
        interval = judged_interval(line.name, row.name, *session)
        assert interval is not None  # it was judged
        return {**told, **_ends(interval), "holds": check.verdict, "breaks": broken.verdict}
    if line.figure:
        return {**told, **_ends(getattr(row, line.figure)), "holds": "pass", "breaks": "fail"}
    pair = pair_of(row, *session)
    assert isinstance(pair, Pair)  # it was judged
    if line.kind == "share":
        return {**told, **_ends(pair.flips), "holds": "pass", "breaks": "fail"}
    classes = judge_classes(pair.counts, LOST)
    floor = "fail" if classes.lost else "inconclusive" if classes.doubtful else ""
    return {**told, **_ends(pair.loss), "floor": floor, "reason": shown(check.reason, 400)}


def _ends(figure: Interval | Estimate) -> dict[str, float]:
    return {"value": figure.value, "low": figure.low, "high": figure.high}


def _exact(line: str, row: Row, results: Results) -> float | None:
    if line == "size_mb":
        return megabytes(row.size_bytes)
    if line == "max_growth":
        before = size_before(results, row.name)
        return row.size_bytes / before if before else None
    if row.peak_rss_mb is None or line == "peak_rss_mb":
        return row.peak_rss_mb
    return None if row.idle_rss_mb is None else round(row.peak_rss_mb - row.idle_rss_mb, 3)


def raw_blocks(report: Report, results: Results) -> dict[str, Any]:
    """The timed calls of every variant of the report, a list a round, in the order of measuring; `of`: how many there
    are, `kept`: how many of them are here, `every`: of how many rounds one is here."""
    if results.measurement is None:
        return {"of": 0, "kept": 0, "every": 1, "confidence": 0.95, "variants": []}
    names = {row.name: number for number, row in enumerate(report.rows) if row.measured}
    blocks = [block for block in results.measurement.blocks if block.variant in names]
    count = sum(len(block.wall_ms) for block in blocks)
    every = -(-sum(len(repr(time)) + 1 for block in blocks for time in block.wall_ms) // MOST_SAMPLE_BYTES) or 1
    variants: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
    for block in _thinned(blocks, every):
        variants[block.variant].append(block.wall_ms)
    kept = sum(len(times) for rounds in variants.values() for times in rounds)
    listed = [{"row": names[name], "blocks": rounds} for name, rounds in variants.items()]
    confidence = report.session.confidence if report.session else 0.95
    return {"of": count, "kept": kept, "every": every, "confidence": confidence, "variants": listed}


def _thinned(blocks: Iterable[Any], every: int) -> list[Any]:
    """Of all variants the same rounds, evenly over the session."""
    listed = list(blocks)
    rounds = sorted({block.round for block in listed})
    wanted = set(rounds[::every])
    return [block for block in listed if block.round in wanted]
