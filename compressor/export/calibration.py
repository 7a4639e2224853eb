"""Activation ranges from training images: one pass over them, three ways of reading what was seen.

minmax      everything that was seen
percentile  all but one value in ten thousand, half of it cut at each end
entropy     the clipping whose 8-bit copy of the distribution diverges least from it (Migacz, "8-bit Inference with
            TensorRT", GTC 2017, pages 19 to 24)

Memory does not grow with the number of images: a histogram a tensor is kept, not the values.
"""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray

from compressor.errors import KdcError
from compressor.export.base import Source
from compressor.export.onnx.session import Floats, open_session
from compressor.schema.quantization import Scheme
from compressor.tasks.base import Arrays

__all__ = ["FEWEST", "METHODS", "Histogram", "activation_ranges", "batches"]

METHODS = ("minmax", "percentile", "entropy")
FEWEST = 32
"""Calibration images below which a range would be an accident."""
PERCENTILE = 99.99
BINS = 4096


class Histogram:
    """Of all values of one tensor: bins of equal width around 0, whose width doubles when a value lies outside."""

    def __init__(self) -> None:
        self.low, self.high = np.inf, -np.inf
        self.limit = 0.0
        self.counts = np.zeros(2 * BINS, np.int64)

    def add(self, values: Floats) -> None:
        """Count `values` (any shape). Raises KdcError for NaN and infinity."""
        low, high = float(values.min()), float(values.max())
        if not np.isfinite([low, high]).all():
            raise KdcError("the network gives values that are not finite on training images", "look at its weights")
        self.low, self.high = min(self.low, low), max(self.high, high)
        most = max(-low, high)
        if self.limit == 0 and most > 0:
            self.limit = float(2.0 ** np.ceil(np.log2(most)))
        while self.limit < most:
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.pad(pairs, BINS // 2)
            self.limit *= 2
        if self.limit:
            # The limit is a power of two, so this is exact: bins that were merged later are those counted at once.
            bins = np.floor(values.ravel() * np.float32(BINS / self.limit)).astype(np.int32) + BINS
            self.counts += np.bincount(np.minimum(bins, 2 * BINS - 1), minlength=2 * BINS)
        else:
            self.counts[BINS] += values.size

    @property
    def edges(self) -> NDArray[np.float64]:
        """[bins + 1], from -limit to limit."""
        return np.linspace(-self.limit, self.limit, 2 * BINS + 1)


def batches(source: Source, most: int | None = None) -> Iterator[Arrays]:
    """Calibration samples as the network takes them, `profile.batch` at a time; the last ones, where they do not fill a
    batch, are left out. Raises KdcError where there are fewer than FEWEST."""
    size = source.profile.batch
    count = min(len(source.calibration), len(source.calibration) if most is None else most)
    available, needed = len(source.calibration), max(FEWEST, size)
    if available < needed:
        raise KdcError(
            f"{available} training images are too few to calibrate with: {needed} are needed",
            "give more training data, or a smaller batch",
        )
    for start in range(0, count - size + 1, size):
        yield source.calibration.fed(np.arange(start, start + size))


def activation_ranges(
    model: onnx.ModelProto, tensors: Sequence[str], inputs: Iterable[Arrays], scheme: Scheme
) -> dict[str, dict[str, tuple[float, float]]]:
    """Method -> tensor -> (low, high), from one pass of the fp32 model over `inputs`."""
    histograms = {name: Histogram() for name in tensors}
    session = open_session(model, tensors)
    for batch in inputs:
        for name, value in session.run(batch).items():
            histograms[name].add(value)
    ways = {"minmax": _minmax, "percentile": _percentile, "entropy": _entropy}
    return {method: {name: ways[method](seen, scheme) for name, seen in histograms.items()} for method in METHODS}


def _minmax(seen: Histogram, scheme: Scheme) -> tuple[float, float]:
    return seen.low, seen.high


def _percentile(seen: Histogram, scheme: Scheme) -> tuple[float, float]:
    if not seen.limit:
        return 0.0, 0.0
    share = np.concatenate([[0.0], np.cumsum(seen.counts)]) / seen.counts.sum()
    cut = (1 - PERCENTILE / 100) / 2
    low = seen.edges[np.searchsorted(share, cut, side="right") - 1]
    high = seen.edges[np.searchsorted(share, 1 - cut, side="left")]
    return max(seen.low, float(low)), min(seen.high, float(high))


def _entropy(seen: Histogram, scheme: Scheme) -> tuple[float, float]:
    """Of magnitudes, as the paper does it: one threshold for both signs, cut down to what was seen."""
    if not seen.limit:
        return 0.0, 0.0
    magnitudes = seen.counts[BINS:] + seen.counts[:BINS][::-1]
    levels = 256 if scheme.activations == "uint8" and seen.low >= 0 else 128
    limit = _threshold(magnitudes.astype(np.float64), levels) * seen.limit / BINS
    return max(seen.low, -limit), min(seen.high, limit)


def _threshold(counts: NDArray[np.float64], levels: int) -> int:
    """How many bins to keep of `counts` [bins] so that `levels` steps tell them apart best: the smallest divergence
    KL(P || Q) of P, the kept bins with all that is clipped in the last one, from Q, the mean of each step spread over
    the bins of it that are not empty. The first bin is zero above all, which every threshold represents exactly."""
    counts = counts.copy()
    counts[0] = counts[1]
    filled = np.nonzero(counts)[0]
    last = int(filled[-1]) + 1 if len(filled) else 1
    if last <= levels:
        return last
    kept = np.unique(np.linspace(levels, last, 128).astype(int))
    return int(min(kept, key=lambda n: _divergence(counts, int(n), levels)))


def _divergence(counts: NDArray[np.float64], kept: int, levels: int) -> float:
    reference = counts[:kept].copy()
    reference[-1] += counts[kept:].sum()
    step = np.arange(kept) * levels // kept
    filled = counts[:kept] > 0
    members = np.maximum(np.bincount(step, filled, levels), 1)
    spread = np.where(filled, (np.bincount(step, counts[:kept], levels) / members)[step], 0.0)
    p, q = reference / reference.sum(), spread / max(spread.sum(), 1.0)
    both = (p > 0) & (q > 0)
    lost = p[(p > 0) & (q <= 0)].sum()  # what lands in a bin that Q holds for empty
    return float((p[both] * np.log(p[both] / q[both])).sum() + lost * 30)
