"""What quantization costs a layer: how far its noise lies below its signal."""

import math
from collections.abc import Mapping, Sequence

__all__ = ["EIGHT_BITS_DB", "lost_db", "sqnr_db"]

EIGHT_BITS_DB = 6.02 * 8 + 1.76
"""What rounding to 8 bits leaves of a sine that fills them (W. R. Bennett, "Spectra of Quantized Signals", Bell System
Technical Journal, 1948): nothing more can be expected of a layer in 8 bits, however little its inputs have lost."""


def sqnr_db(signal: float, noise: float) -> float | None:
    """10·log10(signal / noise), the signal-to-quantization-noise ratio in decibels; None where there is no noise.

    Args:
        signal: Σx², above 0.
        noise: Σ(x − x̂)².
    """
    return None if noise == 0 else 10 * math.log10(signal / noise)


def lost_db(sqnr: Mapping[str, float | None], name: str, reads: Sequence[str]) -> tuple[float | None, float]:
    """The lowest SQNR of what the layer `name` reads, None where none of it has any noise; and by how much the layer's
    own falls short of that, or of `EIGHT_BITS_DB` where that is less: what is lost in this layer, and not before it."""
    heard = [ratio for layer in reads if (ratio := sqnr.get(layer)) is not None]
    before = min(heard, default=None)
    gives = sqnr[name]
    if gives is None:
        return before, 0.0
    return before, min(EIGHT_BITS_DB, math.inf if before is None else before) - gives
