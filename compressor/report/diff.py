"""What got better, worse, or cannot be told, beside the baseline: for every student variant that both have."""

from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compressor.files.reading import JSON_BYTES, read_text
from compressor.report.before import Before, before_of, size_before
from compressor.report.checks.artefact import ran_as_asked
from compressor.report.checks.conditions import Grounds
from compressor.report.latency import baseline_of, figure_at
from compressor.report.read import Results
from compressor.schema.release import Change, ClassChange, Flip, ReleaseDiff, VariantDiff
from compressor.schema.report import Estimate, Row
from compressor.stats import (
    Interval,
    balanced_accuracy,
    balanced_difference,
    changed_classes,
    difference,
    widen,
    wilson_interval,
)

__all__ = ["LISTED", "release_diff"]

LISTED = 50
"""Samples that are named of a variant's negative flips."""

SHOWN = 0.95
Bools = NDArray[np.bool_]
Outcome = Literal["better", "worse", "same", "open"]
Figure = Literal["accuracy", "balanced_accuracy"]


def release_diff(results: Results, rows: tuple[Row, ...], grounds: Grounds) -> ReleaseDiff | None:
    """The difference to the baseline; None where there is none."""
    bundle, shared = results.bundle, results.shared
    if bundle.baseline is None and shared is None:
        return None
    ours = [row for row in rows if row.role == "student"]
    n = len(results.labels)
    if shared is not None:
        release = shared.release
        known: tuple[str, str | None, str | None] = (release.student, release.kdc, release.measured)
        counts = (len(shared.now), n - len(shared.now), release.n - len(shared.now), shared.relabelled)
        theirs = [(variant.runtime, variant.precision) for variant in release.variants]
    else:  # a bundle that an earlier kdc measured beside its baseline
        assert bundle.baseline is not None
        known, counts = (bundle.baseline.architecture, None, None), (n, 0, 0, 0)
        theirs = [(variant.runtime, variant.precision) for variant in bundle.variants if variant.role == "baseline"]
    asked = {(row.runtime, row.precision) for row in rows if row.role in ("student", "reference")}
    names = _Names(results)
    return ReleaseDiff(
        student=known[0],
        kdc=known[1],
        measured=known[2],
        shared=counts[0],
        added=counts[1],
        removed=counts[2],
        relabelled=counts[3],
        added_variants=tuple(row.name for row in ours if (row.runtime, row.precision) not in theirs),
        removed_variants=tuple("-".join(pair) for pair in theirs if pair not in asked),
        variants=tuple(
            _variant(row, results, grounds, names) for row in ours if (row.runtime, row.precision) in theirs
        ),
    )


class _Names:
    """The test samples' names, read when the first is asked for."""

    def __init__(self, results: Results) -> None:
        self._path, self._n, self._names = results.ids, len(results.labels), list[str]()

    def __getitem__(self, row: int) -> str:
        if not self._names:
            lines = read_text(self._path, most=JSON_BYTES).removesuffix("\n").split("\n")
            # A name that holds a line break would shift all that come after it.
            self._names = lines if len(lines) == self._n else [f"test sample {number}" for number in range(self._n)]
        return self._names[row]


def _variant(row: Row, results: Results, grounds: Grounds, names: _Names) -> VariantDiff:
    changes = list(_costs(row, results, grounds))
    before = before_of(results, row.name)
    if isinstance(before, str) or row.name not in results.answers:
        missing = before if isinstance(before, str) else "its own predictions were not measured"
        return VariantDiff(variant=row.name, predictions=None, missing=missing, changes=tuple(changes))
    return _predicted(row, results, before, changes, names)


def _predicted(row: Row, results: Results, before: Before, changes: list[Change], names: _Names) -> VariantDiff:
    classes, labels = results.bundle.student.class_names, results.labels[before.rows]
    answers = results.answers[row.name].top1[before.rows]
    now, then, identical = answers == labels, before.top1 == labels, np.array_equal(answers, before.top1)
    paired: tuple[tuple[Figure, float, float, Interval], ...] = (
        ("accuracy", then.mean(), now.mean(), difference(now, then)),
        (
            "balanced_accuracy",
            balanced_accuracy(before.top1, labels, len(classes)).value,
            balanced_accuracy(answers, labels, len(classes)).value,
            balanced_difference(now, then, labels, len(classes)),
        ),
    )
    for figure, old, new, change in paired:
        outcome = "same" if identical else _outcome(change, 0.0, more_is_better=True)
        told = _estimate(change, "test samples")
        changes.append(Change(figure=figure, before=float(old), now=float(new), change=told, outcome=outcome))
    worse, better = changed_classes(now, then, labels, len(classes))
    lost = np.flatnonzero(then & ~now)
    return VariantDiff(
        variant=row.name,
        predictions=before.made,
        missing=None,
        changes=tuple(changes),
        worse_classes=tuple(_class_change(number, classes, labels, then, now) for number in worse),
        better_classes=tuple(_class_change(number, classes, labels, then, now) for number in better),
        negative_flips=_share(len(lost), len(labels)),
        positive_flips=_share(int((now & ~then).sum()), len(labels)),
        flips=tuple(
            Flip(
                sample=names[int(before.rows[index])],
                class_name=classes[labels[index]],
                taken_for=None if answers[index] < 0 else classes[answers[index]],
            )
            for index in _some(lost)
        ),
    )


def _some(rows: NDArray[np.int64]) -> list[int]:
    """At most `LISTED` of them, from the first to the last: a test set that is sorted begins with one class."""
    taken = np.linspace(0, len(rows) - 1, LISTED).astype(np.int64) if len(rows) > LISTED else np.arange(len(rows))
    return [int(row) for row in rows[taken]]


def _costs(row: Row, results: Results, grounds: Grounds) -> Iterator[Change]:
    """Size, which is exact; and p50, where both ran in this session: of two sessions nothing can be told."""
    size = size_before(results, row.name)
    if size:
        ratio = row.size_bytes / size
        exact = Interval(ratio, ratio, ratio, 1)
        yield Change(
            figure="size_bytes",
            before=size,
            now=row.size_bytes,
            change=_estimate(exact, "artefact"),
            outcome=_outcome(exact, 1.0, more_is_better=False),
        )
    raced = baseline_of(results, row.name)
    then = None if raced is None else figure_at("p50_ms", results, raced.name, SHOWN)
    ratio_of_p50 = figure_at("slowdown", results, row.name, SHOWN)
    if raced is None or row.p50_ms is None or then is None or ratio_of_p50 is None:
        return
    # What A/A differs by, this may too; without one, nothing tells noise from effects.
    shown = None if grounds.aa is None else widen(ratio_of_p50, grounds.aa)
    sound = grounds.lost is None and _as_asked(results, row.name) and _as_asked(results, raced.name)
    yield Change(
        figure="p50_ms",
        before=then.value,
        now=row.p50_ms.value,
        change=_estimate(shown or ratio_of_p50, "rounds"),
        outcome=_outcome(shown, 1.0, more_is_better=False) if shown is not None and sound else "open",
    )


def _as_asked(results: Results, name: str) -> bool:
    """Whether a variant ran in its own precision: the latency of another says nothing of it."""
    variant = next(variant for variant in results.bundle.variants if variant.name == name)
    executed = results.contestants[name].executed_precision
    return ran_as_asked(variant.runtime, variant.precision, executed, variant.weight_bytes)[0] == "pass"


def _outcome(change: Interval, none: float, *, more_is_better: bool) -> Outcome:
    """`none`: what a change is where nothing changed."""
    if change.low == change.high == none:
        return "same"
    if change.low <= none <= change.high:
        return "open"
    return "better" if (change.low > none) == more_is_better else "worse"


def _estimate(interval: Interval, of: str) -> Estimate:
    return Estimate(value=interval.value, low=interval.low, high=interval.high, n=interval.n, of=of)


def _share(count: int, n: int) -> Estimate:
    return _estimate(wilson_interval(count, n), "test samples")


def _class_change(
    number: int, classes: tuple[str, ...], labels: NDArray[np.int64], then: Bools, now: Bools
) -> ClassChange:
    of_class = labels == number
    return ClassChange(
        class_name=classes[number],
        n=int(of_class.sum()),
        before=int(then[of_class].sum()),
        now=int(now[of_class].sum()),
    )
