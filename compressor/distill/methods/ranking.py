"""Which of several trials is the best: by the figure on validation that the recipe's `keep_by` names, paired by
sample."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.distill.loop.guards import LearningError
from compressor.errors import KdcError
from compressor.files.atomic import write_atomically
from compressor.schema.accuracy import Accuracy
from compressor.schema.estimate import Estimate
from compressor.schema.race import AnyTrial, RankedTrial, Trial
from compressor.schema.recipe import KeepBy
from compressor.stats import auc_difference, balanced_difference, difference, top1

__all__ = ["FIGURES", "estimate_of", "keep_answers", "lead_between", "ranked", "told", "told_lead"]

FIGURES: dict[KeepBy, str] = {
    "accuracy": "accuracy",
    "balanced": "balanced accuracy",
    "auc": "AUC",
    "bits_per_byte": "bits a byte",
}
"""What each is called."""

FILES: dict[KeepBy, str] = {
    "accuracy": "right.npy",
    "balanced": "right.npy",
    "auc": "margins.npy",
    "bits_per_byte": "nats.npy",
}
"""What a trial keeps of its answers, so that it can be compared by sample: see `keep_answers`."""


def estimate_of(by: KeepBy, score: Accuracy) -> Estimate:
    """A figure of `score`. Raises LearningError where it is not defined: an AUC of answers that are not finite."""
    value, low, high = {
        "accuracy": (score.accuracy, score.low, score.high),
        "balanced": (score.balanced, score.balanced_low, score.balanced_high),
        "auc": (score.auc, score.auc_low, score.auc_high),
    }[by]
    if value is None or low is None or high is None:
        raise LearningError(f"its answers on {score.split} are not finite numbers, so that they have no {FIGURES[by]}")
    return Estimate(value=value, low=low, high=high, n=score.n, of=f"{score.split} samples")


def ranked(trial: Trial, by: KeepBy, score: Estimate) -> AnyTrial:
    """`trial` with what it is ranked by, where that is not its accuracy."""
    if by == "accuracy":
        return trial
    assert by != "bits_per_byte", "there are no trials of language models"
    return RankedTrial(**dict(trial), by=by, score=score)


def keep_answers(folder: Path, by: KeepBy, logits: NDArray[np.float32], labels: NDArray[np.int64]) -> None:
    """Write what `lead_between` reads, all of it or nothing: which samples are right, bool [N]; for the AUC by how much
    the second class leads, float64 [N], which orders samples as its probability does and does not round to 1.

    logits: [N, C]; labels: [N].
    """
    kept: NDArray[Any] = logits[:, 1].astype(np.float64) - logits[:, 0] if by == "auc" else top1(logits) == labels
    with write_atomically(folder / FILES[by]) as temporary, temporary.open("wb") as file:
        np.save(file, kept)


def lead_between(by: KeepBy, first: Path, second: Path, labels: NDArray[np.int64]) -> Estimate:
    """The figure of the trial in the folder `first` - that of the one in `second`, paired by sample. `labels`: of
    validation [N]. Raises KdcError where a file is damaged."""
    ours, theirs = (_read(folder / FILES[by], len(labels)) for folder in (first, second))
    if by == "auc":
        gap = auc_difference(ours, theirs, labels == 1)
    elif by == "balanced":
        gap = balanced_difference(ours, theirs, labels, int(labels.max()) + 1)
    else:
        gap = difference(ours, theirs)
    return Estimate(value=gap.value, low=gap.low, high=gap.high, n=gap.n, of="validation samples")


def told(by: KeepBy, value: float) -> str:
    """A figure for people: `92.00%`; an AUC, which is no share of samples, as `0.9512`."""
    return f"{value:.4f}" if by == "auc" else f"{value:.2%}"


def told_lead(by: KeepBy, lead: Estimate) -> str:
    """A difference for people, of shares in points."""
    if by == "auc":
        return f"{lead.value:+.4f} [{lead.low:+.4f} to {lead.high:+.4f}], n={lead.n}"
    return f"{100 * lead.value:+.2f} points [{100 * lead.low:+.2f} to {100 * lead.high:+.2f}], n={lead.n}"


def _read(path: Path, n: int) -> NDArray[Any]:
    try:
        kept: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise KdcError(f"{path} is damaged", "start again with --overwrite") from error
    if kept.shape != (n,):
        raise KdcError(f"{path} is damaged: it is not of {n} validation samples", "start again with --overwrite")
    return kept
