"""Augmented views as a pure function of (picture, key): the same key gives the same view, in any process, after any
resumption, for teacher and student alike."""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from compressor.spec.recipe import Views

__all__ = ["keyed_order", "keyed_uniform", "random_views"]

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


def random_views(pictures: Tensor, numbers: NDArray[np.float64], views: Views, size: tuple[int, int]) -> Tensor:
    """Random-resized crops, mirrored where asked for, as ONE affine resampling of the batch.

    `pictures`: uint8 [B, H, W, 3]; `numbers`: uniform [B, 5], from `keyed_uniform`; returns float32 [B, 3, *size] in
    [0, 1] (channels_last in memory). The crop's area and aspect follow Szegedy et al. 2015 (arXiv 1409.4842, sec. 6).
    """
    area = views.scale[0] + (views.scale[1] - views.scale[0]) * numbers[:, 0]
    low, high = np.log(views.ratio[0]), np.log(views.ratio[1])
    aspect = np.exp(low + (high - low) * numbers[:, 1])
    width, height = np.minimum(np.sqrt(area * aspect), 1.0), np.minimum(np.sqrt(area / aspect), 1.0)
    mirror = np.where(numbers[:, 4] < 0.5, -1.0, 1.0) if views.hflip else np.ones(len(numbers))
    theta = np.zeros((len(numbers), 2, 3), np.float32)
    theta[:, 0, 0] = width * mirror
    theta[:, 0, 2] = (2 * numbers[:, 2] - 1) * (1 - width)
    theta[:, 1, 1] = height
    theta[:, 1, 2] = (2 * numbers[:, 3] - 1) * (1 - height)
    pixels = pictures.permute(0, 3, 1, 2).float().div_(255)
    grid = F.affine_grid(torch.from_numpy(theta).to(pixels.device), [len(numbers), 3, *size], align_corners=False)
    return F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
