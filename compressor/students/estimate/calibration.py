"""The roofline's constants, moved as far as measured figures ask; and how far estimates are off for networks that had
no part in it."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.schema.unmeasured import Accuracy
from compressor.students.estimate.layers import PRODUCTS, Layer
from compressor.students.estimate.roofline import PASSES, Constants, Floats, latencies_ms, work_of

__all__ = ["FOLDS", "LEAST", "LEAST_FAMILIES", "Measured", "accuracy_of", "calibrated", "left_out", "split_families"]

LEAST, LEAST_FAMILIES = 8, 4
"""Networks and families without which nothing is calibrated."""
FOLDS = 5
NOISE = 0.1
"""What estimates and figures differ by anyhow, as a logarithm. Beyond it a difference counts by its size, not its
square, so that one odd network does not turn the others."""
ALL_PRODUCTS = 1.0
SPREADS = np.concatenate([np.full(len(PRODUCTS), 0.3), np.full(len(PASSES), 0.7), [0.5, 0.7], np.full(3, 0.7)])
"""How far each constant may lie from where it starts, a standard deviation as a logarithm: the machine as a whole from
its peak (ALL_PRODUCTS), and each kind of product from the others, bandwidths and overheads."""


@dataclass(frozen=True)
class Measured:
    """A network with its p50 in ms. `drift`: by how much slower than usual the machine was meanwhile."""

    family: str
    layers: Sequence[Layer]
    p50_ms: float
    drift: float = 1.0


def calibrated(rows: Sequence[Measured], begin: Constants, arithmetic: str) -> Constants:
    """The constants that explain the figures of `rows` best: those with the least squares of the differences of the
    logarithms, weighed against how far the constants moved from `begin`."""
    from scipy.optimize import least_squares

    work, known = work_of([row.layers for row in rows]), np.log([row.p50_ms / row.drift for row in rows])
    origin = np.log(begin.vector())

    def moved(steps: Floats) -> Constants:
        together = np.zeros_like(origin)
        together[: len(PRODUCTS)] = steps[0] * ALL_PRODUCTS
        return Constants.of(np.exp(origin + together + steps[1:] * SPREADS))

    def differences(steps: Floats) -> Floats:
        off = (np.log(latencies_ms(work, moved(steps), arithmetic)) - known) / NOISE
        return np.concatenate([np.sign(off) * np.sqrt(2 * (np.sqrt(1 + off**2) - 1)), steps])

    return moved(least_squares(differences, np.zeros(len(origin) + 1)).x)


def left_out(
    rows: Sequence[Measured], begin: Constants, arithmetic: str, splits: Sequence[frozenset[str]]
) -> list[tuple[NDArray[np.int64], Floats]]:
    """For each split, the networks of these families by their numbers, and their estimates (ms) by what the others
    calibrate."""
    answers = []
    for families in splits:
        out = np.array([number for number, row in enumerate(rows) if row.family in families], np.int64)
        constants = calibrated([row for row in rows if row.family not in families], begin, arithmetic)
        work = work_of([rows[number].layers for number in out])
        answers.append((out, latencies_ms(work, constants, arithmetic)))
    return answers


def split_families(rows: Sequence[Measured], parts: int, seed: int) -> list[frozenset[str]]:
    """The families of `rows`, drawn into so many parts; fewer where there are not as many."""
    families = sorted({row.family for row in rows})
    order = np.random.default_rng(seed).permutation(len(families))
    split = [frozenset(families[number] for number in order[part::parts]) for part in range(parts)]
    return [part for part in split if part]


def accuracy_of(estimates: Floats, measured: Floats, of: str) -> Accuracy:
    """How far estimates are off. Both [N], of the same networks."""
    from scipy.stats import spearmanr

    errors = np.abs(estimates / measured - 1)
    return Accuracy(
        median_error=round(float(np.median(errors)), 4),
        worst_error=round(float(errors.max()), 4),
        spearman=round(float(spearmanr(estimates, measured).statistic), 4),
        n=len(estimates),
        of=of,
    )
