"""What a variant's answers are worth: against the labels, the teacher's, the baseline's, and torch's."""

import math
from collections.abc import Callable
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from compressor.report.latency import baseline_of, teacher_of, told
from compressor.report.read import Results
from compressor.spec.report import ClassShare, Estimate, TableRow
from compressor.statistics import (
    Interval,
    agreement,
    auc,
    balanced_accuracy,
    difference,
    mcnemar,
    per_class_recall,
    retention,
    retention_per_class,
    top1,
    wilson_interval,
)

__all__ = ["Answers", "Parity", "answers_of", "parity_of", "table_row"]

Logits = NDArray[np.float64]
Ints = NDArray[np.int64]
SAMPLES, OF_CLASS = "test samples", "test samples of the class"


class Own(TypedDict):
    """The fields of Row and TableRow that are made from a model's predictions and the labels alone."""

    accuracy: Estimate | None
    balanced_accuracy: Estimate | None
    auc: Estimate | None
    worst_class: ClassShare | None


class Answers(Own):
    """The fields of Row that are made from predictions and labels."""

    worst_retention: ClassShare | None
    retention: Estimate | None
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


def answers_of(results: Results, name: str) -> Answers:
    """All figures of a variant's answers; null where its logits, or those that it is compared with, are missing."""
    found: Answers = {
        "accuracy": None,
        "balanced_accuracy": None,
        "auc": None,
        "worst_class": None,
        "worst_retention": None,
        "retention": None,
        "difference": None,
        "agreement": None,
        "mcnemar_p": None,
        "baseline_difference": None,
    }
    if name not in results.logits:
        return found
    logits, labels, names = results.logits[name], results.labels, results.bundle.student.class_names
    predictions = top1(logits)
    right = predictions == labels
    found = {**found, **_own(predictions, logits, results)}
    theirs = _teachers(results, name)
    if theirs is not None:
        teacher_right = theirs == labels
        found["retention"] = _estimate(lambda: retention(right, teacher_right))
        found["difference"] = _estimate(lambda: difference(right, teacher_right))
        found["agreement"] = _estimate(lambda: agreement(predictions, theirs))
        found["mcnemar_p"] = mcnemar(right, teacher_right).p_value
        found["worst_retention"] = _worst(retention_per_class(right, teacher_right, labels, len(names)), names)
    baseline = baseline_of(results, name)
    if baseline is not None and baseline.name in results.logits:
        before = top1(results.logits[baseline.name]) == labels
        found["baseline_difference"] = _estimate(lambda: difference(right, before))
    return found


def table_row(results: Results) -> TableRow | None:
    """What the answers of a teacher's table are worth; None where there is none, or it does not answer the test."""
    teacher, table = results.bundle.teacher, results.bundle.teacher_table
    if results.table is None or teacher is None or table is None or table.kind is None:
        return None
    return TableRow(source=teacher.source, kind=table.kind, **_own(results.table.top1, results.table.logits, results))


def _own(predictions: Ints, logits: Logits | None, results: Results) -> Own:
    labels, names = results.labels, results.bundle.student.class_names
    area = None
    if logits is not None and len(names) == 2 and np.isfinite(logits).all():
        area = _estimate(lambda: auc(logits[:, 1] - logits[:, 0], labels == 1))
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
    if teacher is None or teacher.name == name or teacher.name not in results.logits:
        return None
    return top1(results.logits[teacher.name])


def _estimate(figure: Callable[[], Interval]) -> Estimate | None:
    found = told(figure)
    return None if found is None else _as_estimate(found, SAMPLES)


def _as_estimate(found: Interval, of: str) -> Estimate:
    return Estimate(value=found.value, low=found.low, high=found.high, n=found.n, of=of)


def _worst_class(predictions: Ints, labels: Ints, names: tuple[str, ...]) -> ClassShare:
    recalls, counts = per_class_recall(predictions, labels, len(names))
    worst = int(np.nanargmin(recalls))
    right = int(((predictions == worst) & (labels == worst)).sum())
    recall = wilson_interval(right, int(counts[worst]))
    return ClassShare(class_name=names[worst], share=_as_estimate(recall, OF_CLASS))


def _worst(shares: tuple[Interval | None, ...], names: tuple[str, ...]) -> ClassShare | None:
    """The class with the lowest share, the first of equals; None where no class has one."""
    known = [(found, name) for found, name in zip(shares, names, strict=True) if found is not None]
    if not known:
        return None
    found, name = min(known, key=lambda item: item[0].value)
    return ClassShare(class_name=name, share=_as_estimate(found, OF_CLASS))


def parity_of(results: Results, name: str) -> Parity:
    """The lowest cosine, the SQNR, the share of the same top-1, and how many samples are not finite, against torch."""
    if name not in results.logits:
        return {"parity_cosine": None, "parity_sqnr_db": None, "parity_agreement": None, "not_finite": 0}
    ours, torchs = results.logits[name], results.references[name]
    finite = np.isfinite(ours).all(axis=1) & np.isfinite(torchs).all(axis=1)
    cosines = _cosines(ours[finite], torchs[finite])
    return {
        "parity_cosine": float(cosines.min()) if len(cosines) else None,
        "parity_sqnr_db": _sqnr_db(torchs[finite], ours[finite]),
        "parity_agreement": agreement(top1(ours), top1(torchs)).value,
        "not_finite": int((~finite).sum()),
    }


def _sqnr_db(signal: Logits, answers: Logits) -> float | None:
    """10 log10(sum of squares of the signal / that of the difference); None where there is no signal or no noise."""
    energy, noise = float((signal**2).sum()), float(((answers - signal) ** 2).sum())
    return 10 * math.log10(energy / noise) if energy > 0 and noise > 0 else None


def _cosines(one: Logits, other: Logits) -> Logits:
    """The cosine a row [N]; two rows of zeros are alike (1), a row of zeros is like nothing else (0)."""
    one_scale, other_scale = np.abs(one).max(axis=1, initial=0), np.abs(other).max(axis=1, initial=0)
    one, other = (
        part / np.where(scale > 0, scale, 1)[:, None] for part, scale in ((one, one_scale), (other, other_scale))
    )
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(axis=1) / np.where(norms > 0, norms, 1)
    return np.where((one_scale == 0) & (other_scale == 0), 1.0, np.clip(cosines, -1, 1))
