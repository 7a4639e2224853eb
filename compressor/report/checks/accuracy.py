"""The lines on what a variant keeps of accuracy, each held against one variant.

    max_drop     on validation, against the student in fp32: accuracy, balanced accuracy, and no class lost
    min_accuracy, min_balanced_accuracy, min_retention, min_balanced_retention    on test, by their whole 95 % interval
    min_class_retention, min_class_recall    on test: no class is lost (`stats.judge_classes`)

The last three have a default (`Budget.class_lines`), since the others cannot see a class that is lost. As a default,
min_balanced_retention passes where its figure keeps the limit, and fails where its whole interval breaks it.
"""

from collections.abc import Iterator

import numpy as np

from compressor.report.answers import IS_A_TABLE, counts_of
from compressor.report.checks.artefact import (
    broke_off,
    check_of,
    interval_line,
    not_run,
    parity_verdict,
    precision_verdict,
)
from compressor.report.checks.conditions import Grounds
from compressor.report.latency import teacher_of
from compressor.report.read import Results
from compressor.report.render.text import NOT_MEASURED, estimate, number
from compressor.schema.profile import CLASS_LINES, Budget
from compressor.schema.report import Check, Estimate, Row, Verdict
from compressor.stats import LOST, ClassCounts, Classes, judge_classes, keeps, score_counts

__all__ = ["accuracy_lines", "drop_lines", "named_classes"]

NAMED = 3
"""Classes that a reason names."""


def drop_lines(row: Row, results: Results) -> list[Check]:
    """Whether the variant keeps the accuracy of the student in fp32, on validation; exact, since that was counted."""
    max_drop, names = results.bundle.profile.max_drop, results.bundle.student.class_names
    limit, score = f"≤ {100 * max_drop:g} points", row.score
    if score is None:
        if row.precision != "int8":
            return []  # parity sees what a float precision loses
        why = "no runtime on the machine of the export could run it"
        return [check_of(row, "max_drop", limit, NOT_MEASURED, "unmeasured", why)]
    stand_in = f", computed by {score.stand_in}" if score.stand_in else ""
    drop, balanced = (f"{100 * share:+.2f}" for share in (score.drop, score.balanced_drop))
    value = f"{drop} points, balanced {balanced} (n = {score.n} validation samples{stand_in})".replace("-", "−")
    reason = f"{score.correct} right, the student in fp32 {score.reference_correct}"
    if max_drop * score.n < 1:
        reason += f"; one sample is {number(100 / score.n)} points: so few cannot show a loss of {100 * max_drop:g}"
    verdict: Verdict = "pass" if keeps(score, max_drop) else "fail"
    counts = score_counts(score)
    outcome = judge_classes(counts, LOST)
    if classes := (*outcome.lost, *outcome.doubtful):
        reason += f"; lost: {named_classes(counts, classes, names, 'samples right', 'in fp32')}"
    return [check_of(row, "max_drop", limit, value, verdict, reason)]


def accuracy_lines(row: Row, results: Results, grounds: Grounds, teacher: Row | None) -> list[Check]:
    """The budget's lines on what the variant keeps. `teacher`: its row, where the bundle has one."""
    checks, budget = [], results.bundle.profile.budget
    missing = not_run(row.measured, row.error)
    if budget.min_accuracy is not None:
        checks.append(interval_line(row, "min_accuracy", row.accuracy, budget.min_accuracy, missing, grounds))
    if (limit := budget.min_balanced_accuracy) is not None:
        checks.append(interval_line(row, "min_balanced_accuracy", row.balanced_accuracy, limit, missing, grounds))
    why = missing or _no_teacher(teacher, results, grounds)
    if budget.min_retention is not None:
        checks.append(interval_line(row, "min_retention", row.retention, budget.min_retention, why, grounds))
    answered = teacher_of(results) is not None or results.table is not None
    lines = budget.class_lines(against_teacher=answered)
    if (limit := lines.get("min_balanced_retention")) is not None:
        check = interval_line(row, "min_balanced_retention", row.balanced_retention, limit, why, grounds)
        asked = "min_balanced_retention" in budget.model_fields_set
        checks.append(check if asked else _by_default(check, row.balanced_retention, limit))
    for line in CLASS_LINES[1:]:
        if line in lines:
            alone = line == "min_class_recall"
            checks.append(_class_line(row, line, lines[line], results, missing if alone else why, grounds))
    if not why and "min_class_recall" not in (*lines, *budget.model_fields_set):
        checks.extend(_untaught_line(row, results))
    return checks


def _untaught_line(row: Row, results: Results) -> Iterator[Check]:
    """Classes that the teacher knows nothing of have none to be held against, as where there is no teacher at all: the
    default of min_class_recall, for these alone."""
    bound = Budget().class_lines(against_teacher=False)["min_class_recall"]
    beside, alone = counts_of(results, row.name), counts_of(results, row.name, alone=True)
    if beside is None or alone is None or not (unknown := (beside.n > 0) & (beside.base == 0)).any():
        return
    judged = judge_classes(alone, bound)
    lost, doubtful = (tuple(number for number in part if unknown[number]) for part in (judged.lost, judged.doubtful))
    verdict: Verdict = "fail" if lost else "inconclusive" if doubtful else "pass"
    names, count = results.bundle.student.class_names, int(unknown.sum())
    recalls = np.where(unknown, alone.right / np.maximum(alone.n, 1), 2.0)
    lowest = int(recalls.argmin())
    value = f"lowest: {names[lowest]} {100 * recalls[lowest]:.1f} % (n = {alone.n[lowest]} of the class)"
    reason = f"{_classes(count)} of which the teacher is right on no sample: "
    if lost or doubtful:
        word = "lost" if lost else "in doubt (too few samples to be sure, too low for chance)"
        reason += f"{word}: {named_classes(alone, lost or doubtful, names, 'test samples right', '')}"
    else:
        reason += "none looks lost"
    yield check_of(row, "min_class_recall", f"each class ≥ {100 * bound:g} %", value, verdict, reason)


def _by_default(check: Check, figure: Estimate | None, limit: float) -> Check:
    """A line that nobody asked for demands no proof: a class of three samples would leave every student open."""
    if check.verdict != "inconclusive" or figure is None or figure.value < limit:
        return check
    reason = "the figure keeps to the limit; its 95 % interval does not, which kdc's default does not ask for"
    return check.model_copy(update={"verdict": "pass", "reason": reason})


def _class_line(row: Row, line: str, bound: float, results: Results, why: str, grounds: Grounds) -> Check:
    alone = line == "min_class_recall"
    limit = f"each class ≥ {100 * bound:g} %" + ("" if alone else " of the teacher's recall")
    worst = row.worst_class if alone else row.worst_retention
    value = NOT_MEASURED
    if worst is not None:
        value = f"lowest: {worst.class_name} {estimate(worst.share, percent=True)} % (n = {worst.share.n} of the class)"
    counts = counts_of(results, row.name, alone=alone)
    if why or counts is None:
        return check_of(row, line, limit, value, "unmeasured", why or broke_off(grounds) or "the runner left no logits")
    outcome = judge_classes(counts, bound)
    reason = "; ".join(_class_reasons(outcome, counts, results))
    return check_of(row, line, limit, value, outcome.verdict, reason)


def _class_reasons(outcome: Classes, counts: ClassCounts, results: Results) -> Iterator[str]:
    names = results.bundle.student.class_names
    against = "" if counts.alone else "the teacher"
    if outcome.lost:
        yield f"lost: {named_classes(counts, outcome.lost, names, 'test samples right', against)}"
    if outcome.doubtful:
        few = "too few samples to be sure, too low for chance"
        yield f"in doubt ({few}): {named_classes(counts, outcome.doubtful, names, 'test samples right', against)}"
    if not outcome.lost and not outcome.doubtful:
        if outcome.verdict == "inconclusive":
            yield "all classes together are below the limit"
        elif outcome.judged == 1:
            yield "the only class that can be judged does not look lost"
        else:
            yield f"none of {outcome.judged} classes looks lost"
    if unknown := np.flatnonzero((counts.n > 0) & (counts.base == 0)).tolist():
        named = ", ".join(names[number] for number in unknown[:NAMED]) + (", …" if len(unknown) > NAMED else "")
        yield f"not judged, since the teacher is right on no sample of it: {named}"
    if without := int((counts.n == 0).sum()):
        yield f"nothing is known of {_classes(without)} without a test sample"


def _classes(count: int) -> str:
    return f"{count} class{'' if count == 1 else 'es'}"


def named_classes(
    counts: ClassCounts, classes: tuple[int, ...], names: tuple[str, ...], right: str, against: str
) -> str:
    """`class rare: 0 of 6 test samples right, the teacher 6`, for the first few."""
    said = [
        f"class {names[number]}: {counts.right[number]} of {counts.n[number]} {right}"
        + (f", {against} {counts.base[number]}" if against else "")
        for number in classes[:NAMED]
    ]
    unnamed = len(classes) - NAMED
    return ", ".join(said) + (f" and {unnamed} more" if unnamed > 0 else "")


def _no_teacher(teacher: Row | None, results: Results, grounds: Grounds) -> str:
    """Why nothing can be held against the teacher's answers; empty where it can."""
    table = results.bundle.teacher_table
    if table is not None:
        if results.table is None:
            return f"{IS_A_TABLE}: {table.missing}"
        return "" if (results.table.top1 == results.labels).any() else "the teacher is right on no test sample"
    if teacher is None or not teacher.measured or teacher.accuracy is None:
        return f"the teacher was not measured{f': {teacher.error}' if teacher is not None and teacher.error else ''}"
    if teacher.accuracy.value == 0:
        return "the teacher is right on no test sample"
    verdict, reason = parity_verdict(teacher)
    if verdict != "pass":
        return f"the teacher's own parity does not hold: {reason}"
    verdict, reason = precision_verdict(teacher, grounds)
    return f"the teacher did not run as it should: {reason}" if verdict == "fail" else ""
