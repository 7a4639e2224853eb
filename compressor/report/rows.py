"""The figures of one variant, recomputed from raw samples and logits."""

from collections.abc import Callable
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from compressor.report.read import Results
from compressor.spec.bundle import Variant
from compressor.spec.report import ClassRecall, Estimate, Row
from compressor.statistics import (
    Interval,
    agreement,
    auc,
    balanced_accuracy,
    paired_ratio,
    per_class_recall,
    percentile,
    retention,
    top1,
    wilson_interval,
)

__all__ = ["row_for", "teacher_of"]

Logits = NDArray[np.float64]


class _Accuracy(TypedDict):
    accuracy: Estimate | None
    balanced_accuracy: Estimate | None
    auc: Estimate | None
    worst_class: ClassRecall | None
    retention: Estimate | None
    agreement: Estimate | None


class _Parity(TypedDict):
    parity_cosine: float | None
    parity_agreement: float | None
    not_finite: int


def teacher_of(results: Results) -> Variant | None:
    """The variant that the others are compared with: the first of role "teacher" that ran, else the first of all."""
    teachers = [variant for variant in results.bundle.variants if variant.role == "teacher"]
    ran = [variant for variant in teachers if _ran(results, variant.name)]
    return next(iter([*ran, *teachers]), None)


def row_for(variant: Variant, results: Results, teacher: Variant | None) -> Row:
    """One row of the report. Figures that need what was not measured, or more of it, are null."""
    contestant = results.contestants.get(variant.name)
    ran = contestant if _ran(results, variant.name) else None
    source = results.bundle.student if variant.role == "student" else results.bundle.teacher
    compared = teacher if teacher is not None and teacher.name != variant.name else None
    blocks = _blocks(results, variant.name)
    return Row(
        name=variant.name,
        role=variant.role,
        architecture=source.architecture,
        runtime=variant.runtime,
        precision=variant.precision,
        executed_precision=ran.executed_precision if ran else None,
        runtime_version=contestant.runtime_version if contestant else None,
        threads=contestant.threads if contestant else None,
        measured=ran is not None,
        error=contestant.error if contestant else None,
        parameters=variant.parameters,
        macs=variant.macs,
        size_bytes=sum({entry.path: entry.bytes for entry in variant.files}.values()),
        calls=sum(len(times) for times in blocks.values()),
        p50_ms=_latency(blocks, 0.5),
        p90_ms=_latency(blocks, 0.9),
        p50_ratio=_told(lambda: paired_ratio(_blocks(results, compared.name), blocks), "rounds") if compared else None,
        load_ms=ran.load_ms if ran else None,
        first_ms=ran.first_ms if ran else None,
        peak_rss_mb=ran.peak_rss_mb if ran else None,
        **_accuracy(results, variant.name, compared.name if compared else None),
        **_parity(results, variant.name),
    )


def _ran(results: Results, name: str) -> bool:
    contestant = results.contestants.get(name)
    return contestant is not None and contestant.error is None


def _blocks(results: Results, name: str) -> dict[int, tuple[float, ...]]:
    """round -> wall times of a variant that ran to its end; of one that broke off, none count."""
    if results.measurement is None or not _ran(results, name):
        return {}
    return {block.round: block.wall_ms for block in results.measurement.blocks if block.variant == name}


def _told(figure: Callable[[], Interval], of: str) -> Estimate | None:
    """The figure, or None where the samples are too few (or too one-sided) to tell it."""
    try:
        found = figure()
    except ValueError:
        return None
    return Estimate(value=found.value, low=found.low, high=found.high, n=found.n, of=of)


def _latency(blocks: dict[int, tuple[float, ...]], q: float) -> Estimate | None:
    lengths = sorted({len(times) for times in blocks.values()})
    calls = "–".join(str(length) for length in dict.fromkeys([*lengths[:1], *lengths[-1:]]))
    return _told(lambda: percentile(list(blocks.values()), q), f"blocks of {calls} calls")


def _accuracy(results: Results, name: str, teacher: str | None) -> _Accuracy:
    figures = _Accuracy(
        accuracy=None, balanced_accuracy=None, auc=None, worst_class=None, retention=None, agreement=None
    )
    if name not in results.logits:
        return figures
    logits, labels, samples = results.logits[name], results.labels, "test samples"
    predictions, classes = top1(logits), logits.shape[1]
    right = predictions == labels
    figures["accuracy"] = _told(lambda: wilson_interval(int(right.sum()), len(labels)), samples)
    figures["balanced_accuracy"] = _told(lambda: balanced_accuracy(predictions, labels, classes), samples)
    figures["worst_class"] = _worst_class(predictions, labels, results.bundle.student.class_names)
    if classes == 2 and np.isfinite(logits).all():
        figures["auc"] = _told(lambda: auc(logits[:, 1] - logits[:, 0], labels == 1), samples)
    if teacher is not None and teacher in results.logits:
        theirs = top1(results.logits[teacher])
        figures["retention"] = _told(lambda: retention(right, theirs == labels), samples)
        figures["agreement"] = _told(lambda: agreement(predictions, theirs), samples)
    return figures


def _worst_class(predictions: NDArray[np.int64], labels: NDArray[np.int64], names: tuple[str, ...]) -> ClassRecall:
    recalls, counts = per_class_recall(predictions, labels, len(names))
    worst = int(np.nanargmin(recalls))
    right = int(((predictions == worst) & (labels == worst)).sum())
    recall = _told(lambda: wilson_interval(right, int(counts[worst])), "test samples of the class")
    assert recall is not None
    return ClassRecall(class_name=names[worst], recall=recall)


def _parity(results: Results, name: str) -> _Parity:
    """The lowest cosine, the share of the same top-1, and how many samples are not finite, against torch."""
    if name not in results.logits:
        return {"parity_cosine": None, "parity_agreement": None, "not_finite": 0}
    ours, torchs = results.logits[name], results.references[name]
    finite = np.isfinite(ours).all(axis=1) & np.isfinite(torchs).all(axis=1)
    cosines = _cosines(ours[finite], torchs[finite])
    return {
        "parity_cosine": float(cosines.min()) if len(cosines) else None,
        "parity_agreement": agreement(top1(ours), top1(torchs)).value,
        "not_finite": int((~finite).sum()),
    }


def _cosines(one: Logits, other: Logits) -> Logits:
    """The cosine a row [N]; two rows of zeros are alike (1), a row of zeros is like nothing else (0)."""
    one_scale, other_scale = np.abs(one).max(axis=1, initial=0), np.abs(other).max(axis=1, initial=0)
    one, other = (
        part / np.where(scale > 0, scale, 1)[:, None] for part, scale in ((one, one_scale), (other, other_scale))
    )
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines = (one * other).sum(axis=1) / np.where(norms > 0, norms, 1)
    return np.where((one_scale == 0) & (other_scale == 0), 1.0, np.clip(cosines, -1, 1))
