"""The log-softmax, in numpy and in float64."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.stats.intervals import Floats

__all__ = ["log_softmax"]


def log_softmax(logits: NDArray[Any], temperature: float = 1.0) -> Floats:
    """log softmax(z / T) over the last dimension: [..., C] -> float64 [..., C]. The largest logit is taken off first,
    so that nothing overflows. NaN where a row holds a NaN or +inf; -inf is a probability of 0."""
    scaled = np.asarray(logits, np.float64) / temperature
    shifted = scaled - scaled.max(axis=-1, keepdims=True)
    result: Floats = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return result
