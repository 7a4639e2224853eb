"""Parity: how close a runtime's logits are to torch's on the same inputs, and how close each precision has to be.

The same figures and thresholds judge a measured artefact on the test inputs, which needs no labels, and every candidate
of the ladder to int8 on validation.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compressor.schema.quantization import Score
from compressor.stats.accuracy import top1
from compressor.stats.classes import ONE_SIDED
from compressor.stats.intervals import Floats, normal_quantile

__all__ = [
    "PARITY",
    "Parity",
    "ParityFigures",
    "closeness",
    "parity_figures",
    "parity_judged",
    "parity_to_spare",
    "score_parity",
]


@dataclass(frozen=True)
class Parity:
    """The lowest cosine that any sample may have, the least SQNR of all samples together in decibels, and the least
    share of samples with the same top-1. A sample that is no farther off than that SQNR lets one of mean energy be
    need not hold the cosine: near a tie the logits of two classes are all near zero, and their direction is noise."""

    cosine: float
    sqnr_db: float
    agreement: float


# By requested precision. One sample may always disagree: in a small test set a single near tie would otherwise fail
# the line, and the cosine, which every sample must hold, already bounds how far that sample's logits may be off.
PARITY = {
    "fp32": Parity(0.9999, 40, 0.999),
    "f32": Parity(0.9999, 40, 0.999),
    "fp16": Parity(0.999, 30, 0.995),
    "f16": Parity(0.999, 30, 0.995),
    "bf16": Parity(0.99, 20, 0.98),
    "int8": Parity(0.5, 8, 0.9),
}


@dataclass(frozen=True)
class ParityFigures:
    """Of `n` samples `same` have torch's top-1, and `not_finite` a NaN or an infinity on either side, which count for
    nothing else. `cosine`: the lowest over the samples that have to hold it (`Parity`), None where none is finite;
    `sqnr_db`: the energy of torch's logits over that of the difference, in decibels, None where there is no signal or
    no noise."""

    n: int
    same: int
    not_finite: int
    cosine: float | None
    sqnr_db: float | None


def parity_figures(pairs: Iterable[tuple[NDArray[Any], NDArray[Any]]], precision: str) -> ParityFigures:
    """The figures of the runtime's logits and torch's, float [some samples, classes] each, pair by pair. `precision`
    (of the table PARITY; else all count) says which samples have to hold the cosine."""
    n = same = not_finite = 0
    cosines, signals, noises = [np.empty(0)], [np.empty(0)], [np.empty(0)]
    for runtime_logits, torch_logits in pairs:
        ours, torchs = np.asarray(runtime_logits, np.float64), np.asarray(torch_logits, np.float64)
        answers = top1(ours)
        n, same = n + len(ours), same + int(((answers == top1(torchs)) & (answers >= 0)).sum())
        finite = np.isfinite(ours).all(axis=1) & np.isfinite(torchs).all(axis=1)
        if not finite.all():
            not_finite += int((~finite).sum())
            ours, torchs = ours[finite], torchs[finite]
        cosines.append(_cosines(ours, torchs))
        signals.append((torchs**2).sum(axis=1))
        noises.append(((ours - torchs) ** 2).sum(axis=1))
    cosine, signal, noise = (np.concatenate(part) for part in (cosines, signals, noises))
    energy, error = float(signal.sum()), float(noise.sum())
    sqnr = 10 * math.log10(energy / error) if 0 < energy < math.inf and 0 < error < math.inf else None
    if precision in PARITY and len(cosine):
        wanted = PARITY[precision]
        near = noise <= signal.mean() / 10 ** (wanted.sqnr_db / 10)
        cosine = cosine[~near | (cosine >= wanted.cosine)]
    lowest = float(cosine.min()) if len(cosine) else None
    return ParityFigures(n, same, not_finite, lowest, sqnr)


def parity_judged(precision: str, figures: ParityFigures) -> tuple[Literal["pass", "fail"], str]:
    """Whether the logits are torch's as closely as `precision` (of the table PARITY) has to be, and why. At most
    `1 - agreement` of the samples may have another top-1, and one always may; every sample must hold the cosine, but
    for near ties (`Parity`); a sample that is not finite fails."""
    wanted, disagreeing = PARITY[precision], figures.n - figures.same
    if figures.not_finite:
        return "fail", f"{figures.not_finite} samples have logits that are not finite (NaN or infinity)"
    if figures.cosine is None or figures.cosine < wanted.cosine:
        return "fail", "the logits differ from torch's on the same inputs: the lowest cosine is below the threshold"
    if figures.sqnr_db is not None and figures.sqnr_db < wanted.sqnr_db:
        return "fail", f"the logits differ from torch's: {figures.sqnr_db:.1f} dB of signal to noise, all samples"
    said = f"{disagreeing} of {figures.n} samples get another top-1 than from torch"
    return "fail" if disagreeing > 1 and figures.same < wanted.agreement * figures.n else "pass", said


def parity_to_spare(precision: str, figures: ParityFigures) -> bool:
    """Whether logits are so close to torch's that those of other samples, which judge it in the end, can be expected to
    hold parity too: at most half of the noise and half of the way from a cosine of 1 that `precision` permits, and
    enough samples of the same top-1 less 1.645 standard errors of their share (the normal approximation, one-sided
    95 %)."""
    wanted, n, same = PARITY[precision], figures.n, figures.same
    share = same / n if n else 0.0
    shown = share - normal_quantile(ONE_SIDED) * math.sqrt(share * (1 - share) / n) if n else 0.0
    return (
        parity_judged(precision, figures)[0] == "pass"
        and (figures.cosine or 0.0) >= (1 + wanted.cosine) / 2
        and (figures.sqnr_db is None or figures.sqnr_db >= wanted.sqnr_db + 10 * math.log10(2))
        and (n - same <= 1 or shown >= wanted.agreement)
    )


def score_parity(score: Score) -> ParityFigures:
    """The figures of a score on validation."""
    return ParityFigures(score.n, score.same, score.not_finite, score.cosine, score.sqnr_db)


def closeness(score: Score) -> str:
    """The parity of a score for people: `lowest cosine 0.970, SQNR 38.1 dB`."""
    cosine = "no finite logits" if score.cosine is None else f"lowest cosine {score.cosine:.3f}"
    return f"{cosine}, {'no noise' if score.sqnr_db is None else f'SQNR {score.sqnr_db:.1f} dB'}"


def _cosines(first: Floats, second: Floats) -> Floats:
    """The cosine a row [N]; two rows of zeros are alike (1), a row of zeros is like nothing else (0)."""
    first_scale, second_scale = np.abs(first).max(axis=1, initial=0), np.abs(second).max(axis=1, initial=0)
    first, second = (
        part / np.where(scale > 0, scale, 1)[:, None] for part, scale in ((first, first_scale), (second, second_scale))
    )
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    cosines: Floats = (first * second).sum(axis=1) / np.where(norms > 0, norms, 1)
    return np.where((first_scale == 0) & (second_scale == 0), 1.0, np.clip(cosines, -1, 1))
