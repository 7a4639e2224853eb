"""Intervals for samples that come in groups, as the frames of a prompt do: whole groups are drawn, with replacement
(Efron & Tibshirani 1993, ch. 8), and seeds with them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
DRAWS = 4_000


@dataclass(frozen=True)
class Within:
    """A figure and its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f} to {self.high:.2f}]"


class Resampled:
    """Draws of the groups of test samples, the same ones for every model. `groups`: of each sample."""

    def __init__(self, groups: Sequence[str], draws: int = DRAWS, seed: int = 0) -> None:
        names, self._codes = np.unique(np.asarray(groups), return_inverse=True)
        self._rng = np.random.default_rng(seed)
        drawn = self._rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
        # The first draw is the test set as it is.
        self._times = np.concatenate([np.ones((1, len(names)), np.int64), drawn])
        self._samples = self._times @ np.bincount(self._codes)

    def accuracy(self, rights: Sequence[Bools]) -> Floats:
        """[1 + draws]: the mean accuracy of several models, in percent; first of the test set as it is."""
        right = np.mean([right.astype(np.float64) for right in rights], axis=0)
        return np.asarray(100 * (self._times @ np.bincount(self._codes, right)) / self._samples)

    def of_seeds(self, rights: Sequence[Bools]) -> Floats:
        """As `accuracy`, but in each draw seeds are drawn too, with replacement: what other seeds would have given."""
        each = np.stack([self.accuracy([right]) for right in rights])
        seeds = self._rng.integers(len(rights), size=(len(rights), each.shape[1]))
        seeds[:, 0] = np.arange(len(rights))
        return np.asarray(np.take_along_axis(each, seeds, axis=0).mean(0))


def within(values: Floats) -> Within:
    """Of the figure of the test set, and of the draws after it."""
    low = np.percentile(values[1:], 2.5, method="lower")  # not between two: one may be infinite
    high = np.percentile(values[1:], 97.5, method="higher")
    return Within(float(values[0]), float(low), float(high))


def kept(student: Floats, single: Floats, ensemble: Floats) -> Within:
    """How much of what an ensemble gains over one model a student keeps, in percent: (student - single) / (ensemble -
    single). Infinite where an ensemble gains nothing in some draws."""
    with np.errstate(divide="ignore", invalid="ignore"):
        shares = 100 * (student - single) / (ensemble - single)
    gained = ensemble - single
    return within(np.where(gained > 0, shares, np.where(student > single, np.inf, -np.inf)))
