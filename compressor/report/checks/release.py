"""The lines that hold a variant against the same variant of an earlier bundle (`--baseline`).

    max_accuracy_loss     paired on the test samples that both have, by the whole 95 % interval; and no class is lost
    max_negative_flips    share of these samples that were right and are wrong, likewise
    max_growth            the files' size, exact

The first has a default where there is a baseline (`Budget.accuracy_loss`), so that whoever gives one is told of a loss.
As a default it demands no proof: it fails where the whole interval breaks it, and is open where its figure breaks it
and the interval shows some loss.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from compressor.report.before import NO_BASELINE, Before, before_of, has_baseline, size_before
from compressor.report.checks.accuracy import named_classes
from compressor.report.checks.artefact import REASONS, broke_off, check_of, not_run
from compressor.report.checks.conditions import Grounds
from compressor.report.read import Results
from compressor.report.render.text import NOT_MEASURED, number
from compressor.schema.report import Check, Row, Verdict
from compressor.stats import (
    LOST,
    ClassCounts,
    Interval,
    class_counts,
    difference,
    judge,
    judge_classes,
    wilson_interval,
)

__all__ = ["Pair", "judge_loss", "pair_of", "release_lines"]

Bools = NDArray[np.bool_]


def release_lines(row: Row, results: Results, grounds: Grounds) -> list[Check]:
    """The budget's lines against the baseline."""
    budget, checks = results.bundle.profile.budget, []
    loss, asked = budget.accuracy_loss(), "max_accuracy_loss" in budget.model_fields_set
    beside = pair_of(row, results, grounds)
    pair, why = (None, beside) if isinstance(beside, str) else (beside, "")
    if loss is not None and (asked or has_baseline(results, row.name)):
        checks.append(_loss_line(row, loss, asked, pair, why))
    if budget.max_negative_flips is not None:
        checks.append(_flip_line(row, budget.max_negative_flips, pair, why))
    if budget.max_growth is not None:
        checks.append(_growth_line(row, budget.max_growth, results))
    return checks


def pair_of(row: Row, results: Results, grounds: Grounds) -> "Pair | str":
    """The variant's predictions beside the baseline's, or why there are none."""
    before = before_of(results, row.name)
    if why := not_run(row.measured, row.error) or (before if isinstance(before, str) else ""):
        return why
    if row.name not in results.answers or isinstance(before, str):
        return broke_off(grounds) or "the runner left no logits"
    return Pair(row.name, results, before)


class Pair:
    """A variant beside the baseline's, on the samples that both have: right or wrong, bool [S]."""

    def __init__(self, name: str, results: Results, before: Before) -> None:
        self.results, self.before = results, before
        self.labels = results.labels[before.rows]
        self.now: Bools = results.answers[name].top1[before.rows] == self.labels
        self.then: Bools = before.top1 == self.labels
        self.lost, self.gained = int((self.then & ~self.now).sum()), int((self.now & ~self.then).sum())

    @property
    def loss(self) -> Interval:
        """The baseline's accuracy - this one's."""
        change = difference(self.now, self.then)
        return Interval(-change.value, -change.high, -change.low, change.n)

    @property
    def flips(self) -> Interval:
        """The share that was right and is wrong."""
        return wilson_interval(self.lost, len(self.labels))

    @property
    def counts(self) -> ClassCounts:
        """By class, beside the baseline."""
        return class_counts(self.now, self.labels, len(self.results.bundle.student.class_names), self.then)

    @property
    def counted(self) -> str:
        """`n = 9000 test samples`, and whether that is all of them."""
        n, whole = len(self.labels), len(self.results.labels)
        return f"n = {n} test samples" if n == whole else f"n = {n} test samples that both have, of {whole}"

    def caveats(self) -> Iterator[str]:
        shared = self.results.shared
        if self.before.made == "stored":
            yield "the baseline's predictions are those that it made when it was measured"
        if self.before.instead:
            yield f"in this session {self.before.instead}"
        if self.before.made == "stored" and shared is not None and shared.relabelled:
            yield f"{shared.relabelled} of these samples have another label now, which judges both"


def _loss_line(row: Row, limit: float, asked: bool, pair: Pair | None, why: str) -> Check:
    said = f"≤ {100 * limit:g} point{'' if limit == 0.01 else 's'}, no class lost"
    if pair is None:
        return check_of(row, "max_accuracy_loss", said, NOT_MEASURED, "unmeasured", why)
    loss = pair.loss
    shown = [f"{100 * part:+.2f}".replace("-", "−").replace("+0.00", "0.00").replace("−0.00", "0.00") for part in
             (loss.value, loss.low, loss.high)]  # fmt: skip
    value = f"{shown[0]} [{shown[1]} to {shown[2]}] points lost ({pair.counted})"
    verdict, reason = judge_loss(loss, limit, asked)
    names = pair.results.bundle.student.class_names
    counts = pair.counts
    classes = judge_classes(counts, LOST)
    if classes.lost or classes.doubtful:
        verdict = "fail" if classes.lost or verdict == "fail" else "inconclusive"
        word = "lost" if classes.lost else "in doubt (too few samples to be sure, too low for chance)"
        named = named_classes(counts, classes.lost or classes.doubtful, names, "test samples right", "the baseline")
        reason = f"{word}: {named}; in all, {reason}"
    reason = "; ".join([f"{reason}; {pair.lost} were right and are wrong, {pair.gained} the reverse", *pair.caveats()])
    return check_of(row, "max_accuracy_loss", said, value, verdict, reason)


def judge_loss(loss: Interval, limit: float, asked: bool) -> tuple[Verdict, str]:
    """Whether so much may be lost, and why; `asked`: the profile says so, and it is no default."""
    verdict: Verdict = judge(loss.low, loss.high, limit, at_most=True)
    if verdict == "inconclusive" and not asked and (loss.value <= limit or loss.low <= 0):
        shown = "no loss beyond chance," if loss.low <= 0 else "a loss, whose figure keeps to the limit,"
        most = f"up to {number(100 * loss.high)} points"
        return "pass", f"the samples show {shown} and do not rule out {most} (kdc's default asks for no proof)"
    return verdict, REASONS[verdict]


def _flip_line(row: Row, limit: float, pair: Pair | None, why: str) -> Check:
    said = f"≤ {100 * limit:g} % right before, wrong now"
    if pair is None:
        return check_of(row, "max_negative_flips", said, NOT_MEASURED, "unmeasured", why)
    share = pair.flips
    parts = (number(100 * part) for part in (share.value, share.low, share.high))
    value = "{} [{}–{}] %: {} of {}".format(*parts, pair.lost, pair.counted.removeprefix("n = "))
    verdict: Verdict = judge(share.low, share.high, limit, at_most=True)
    reason = "; ".join([f"{REASONS[verdict]}; {pair.gained} were wrong and are right", *pair.caveats()])
    return check_of(row, "max_negative_flips", said, value, verdict, reason)


def _growth_line(row: Row, limit: float, results: Results) -> Check:
    said, before = f"≤ {limit:g} times the baseline's size", size_before(results, row.name)
    if before is None:
        none = results.bundle.baseline is None and results.shared is None
        why = NO_BASELINE if none else "the baseline does not have this variant"
        return check_of(row, "max_growth", said, NOT_MEASURED, "unmeasured", why)
    if before == 0:
        return check_of(row, "max_growth", said, NOT_MEASURED, "unmeasured", "the baseline's variant has no bytes")
    ratio = row.size_bytes / before
    verdict = judge(ratio, ratio, limit, at_most=True)
    reason = f"{row.size_bytes} bytes, the baseline's {before}"
    return check_of(row, "max_growth", said, f"{number(ratio, 4)} ×", verdict, reason)
