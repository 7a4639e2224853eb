"""What a variant's answers are worth: against the labels, the teacher's, the baseline's, and torch's."""

from collections.abc import Callable
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from compressor.report.latency import baseline_of, teacher_of, told
from compressor.report.read import Answers, Results
from compressor.schema.report import ClassShare, Estimate, TableRow
from compressor.stats import (
    ClassCounts,
    Interval,
    agreement,
    auc,
    balanced_accuracy,
    balanced_retention,
    class_counts,
    difference,
    mcnemar,
    per_class_recall,
    retention,
    retention_per_class,
    wilson_interval,
)

__all__ = ["IS_A_TABLE", "Compared", "Parity", "answers_of", "counts_of", "parity_of", "table_row"]

Ints = NDArray[np.int64]
SAMPLES, OF_CLASS = "test samples", "test samples of the class"
IS_A_TABLE = "the teacher is a table of answers"
"""How reasons begin for which something cannot be judged, whatever is measured."""


class Figures(TypedDict):
    """The fields of Row and TableRow that are made from a model's predictions and the labels alone."""

    accuracy: Estimate | None
    balanced_accuracy: Estimate | None
    auc: Estimate | None
    worst_class: ClassShare | None


class Compared(Figures):
    """The fields of Row that are made from predictions and labels."""

    worst_retention: ClassShare | None
    retention: Estimate | None
    balanced_retention: Estimate | None
    difference: Estimate | None
    agreement: Estimate | None
    mcnemar_p: float | None
    baseline_difference: Estimate | None


class Parity(TypedDict):
    """The fields of Row that are made from a runtime's logits and torch's."""

    parity_cosine: float | None
    parity_sqnr_db: float | None
    parity_agreement: float | None
    not_finite: int


def answers_of(results: Results, name: str) -> Compared:
    """All figures of a variant's answers; null where its logits, or those that it is compared with, are missing."""
    figures: Compared = {
        "accuracy": None,
        "balanced_accuracy": None,
        "auc": None,
        "worst_class": None,
        "worst_retention": None,
        "retention": None,
        "balanced_retention": None,
        "difference": None,
        "agreement": None,
        "mcnemar_p": None,
        "baseline_difference": None,
    }
    if name not in results.answers:
        return figures
    answers, labels, names = results.answers[name], results.labels, results.bundle.student.class_names
    right = answers.top1 == labels
    figures = {**figures, **_figures(answers, results)}
    theirs = _teachers(results, name)
    if theirs is not None:
        teacher_right = theirs == labels
        figures["retention"] = _estimate(lambda: retention(right, teacher_right))
        figures["balanced_retention"] = _estimate(lambda: balanced_retention(right, teacher_right, labels, len(names)))
        figures["difference"] = _estimate(lambda: difference(right, teacher_right))
        figures["agreement"] = _estimate(lambda: agreement(answers.top1, theirs))
        figures["mcnemar_p"] = mcnemar(right, teacher_right).p_value
        figures["worst_retention"] = _worst(retention_per_class(right, teacher_right, labels, len(names)), names)
    baseline = baseline_of(results, name)
    if baseline is not None and baseline.name in results.answers:
        before = results.answers[baseline.name].top1 == labels
        figures["baseline_difference"] = _estimate(lambda: difference(right, before))
    return figures


def counts_of(results: Results, name: str, *, alone: bool = False) -> ClassCounts | None:
    """What the variant has right of each class's test samples, beside the teacher or `alone`; None where either's
    answers are missing."""
    theirs = None if alone else _teachers(results, name)
    if name not in results.answers or (theirs is None and not alone):
        return None
    base = None if theirs is None else theirs == results.labels
    right = results.answers[name].top1 == results.labels
    return class_counts(right, results.labels, len(results.bundle.student.class_names), base)


def table_row(results: Results) -> TableRow | None:
    """What the answers of a teacher's table are worth; None where there is none, or it does not answer the test."""
    teacher, table = results.bundle.teacher, results.bundle.teacher_table
    if results.table is None or teacher is None or table is None or table.kind is None:
        return None
    return TableRow(source=teacher.source, kind=table.kind, **_figures(results.table, results))


def _figures(answers: Answers, results: Results) -> Figures:
    labels, names = results.labels, results.bundle.student.class_names
    predictions, margin = answers.top1, answers.margin
    area = None if margin is None else _estimate(lambda: auc(margin, labels == 1))
    return {
        "accuracy": _estimate(lambda: wilson_interval(int((predictions == labels).sum()), len(labels))),
        "balanced_accuracy": _estimate(lambda: balanced_accuracy(predictions, labels, len(names))),
        "auc": area,
        "worst_class": _worst_class(predictions, labels, names),
    }


def _teachers(results: Results, name: str) -> Ints | None:
    """The teacher's top-1 [N], from its table or from the variant that ran; None for the teacher itself."""
    if results.table is not None:
        return results.table.top1
    teacher = teacher_of(results)
    if teacher is None or teacher.name == name or teacher.name not in results.answers:
        return None
    return results.answers[teacher.name].top1


def _estimate(figure: Callable[[], Interval]) -> Estimate | None:
    interval = told(figure)
    return None if interval is None else _as_estimate(interval, SAMPLES)


def _as_estimate(interval: Interval, of: str) -> Estimate:
    return Estimate(value=interval.value, low=interval.low, high=interval.high, n=interval.n, of=of)


def _worst_class(predictions: Ints, labels: Ints, names: tuple[str, ...]) -> ClassShare:
    recalls, counts = per_class_recall(predictions, labels, len(names))
    worst = int(np.nanargmin(recalls))
    right = int(((predictions == worst) & (labels == worst)).sum())
    recall = wilson_interval(right, int(counts[worst]))
    return ClassShare(class_name=names[worst], share=_as_estimate(recall, OF_CLASS))


def _worst(shares: tuple[Interval | None, ...], names: tuple[str, ...]) -> ClassShare | None:
    """The class with the lowest share, the first of equals; None where no class has one."""
    known = [(share, name) for share, name in zip(shares, names, strict=True) if share is not None]
    if not known:
        return None
    share, name = min(known, key=lambda item: item[0].value)
    return ClassShare(class_name=name, share=_as_estimate(share, OF_CLASS))


def parity_of(results: Results, name: str) -> Parity:
    """The lowest cosine, the SQNR, the share of the same top-1, and how many samples are not finite, against torch."""
    parity = results.answers[name].parity if name in results.answers else None
    if parity is None:
        return {"parity_cosine": None, "parity_sqnr_db": None, "parity_agreement": None, "not_finite": 0}
    return {
        "parity_cosine": parity.cosine,
        "parity_sqnr_db": parity.sqnr_db,
        "parity_agreement": parity.same / parity.n,
        "not_finite": parity.not_finite,
    }
