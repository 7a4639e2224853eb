"""Random numbers as pure functions of keys: the same ones in any process, and after any resumption."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["keyed_order", "keyed_uniform"]

U64 = np.uint64


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The finalizer of SplitMix64 (Steele, Lea & Flood 2014): scatters every bit of the input over the output."""
    with np.errstate(over="ignore"):
        x = x + U64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> U64(30))) * U64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> U64(27))) * U64(0x94D049BB133111EB)
    return x ^ (x >> U64(31))


def keyed_uniform(seed: int, samples: NDArray[np.int64], view: int, draws: int) -> NDArray[np.float64]:
    """Uniform numbers in [0, 1), [N, draws]: a pure function of (seed, sample, view, number of the draw)."""
    state = _mix(_mix(np.full(len(samples), seed, U64)) ^ samples.astype(U64))
    state = _mix(state ^ U64(view))
    bits = _mix(state[:, None] ^ _mix(np.arange(draws, dtype=U64))[None, :])
    return (bits >> U64(11)).astype(np.float64) * 2.0**-53


def keyed_order(seed: int, n: int, epoch: int) -> NDArray[np.int64]:
    """A permutation of `range(n)` for this epoch, the same wherever it is drawn."""
    return np.random.Generator(np.random.PCG64([seed, epoch])).permutation(n)
