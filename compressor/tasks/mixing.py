"""What samples are mixed with, as a pure function of their key, like the views that are mixed; and their labels."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.randomness import keyed_uniform
from compressor.schema.views import Views

__all__ = ["Mix", "area_of", "mix_of", "mixed_labels", "onto"]

MIXING = 1 << 40  # above every seed of a recipe: no number of a view decides about a mix too


class _Draw(IntEnum):
    PARTNER = 0
    WHETHER = 1
    CUT = 2
    SHARE = 3
    X = 4
    Y = 5


@dataclass(frozen=True)
class Mix:
    """What each view of a batch is mixed with.

    `partner`: int64 [B], a number in the training split; its view of the same number is what is mixed in. `weight`:
    float32 [B], the share of a sample's own image and label; 1: not mixed. `box`: float32 [B, 4], x0, y0, x1, y1 in
    shares of the view's sides, the part that is taken from the partner (cutmix). An empty box (0, 0, 0, 0), or no
    boxes: the whole view is blended, by `weight` (mixup).
    """

    partner: NDArray[np.int64]
    weight: NDArray[np.float32]
    box: NDArray[np.float32] | None


def mix_of(seed: int, samples: NDArray[np.int64], view: int, n: int, views: Views) -> Mix | None:
    """How the views of `samples`, [B], are mixed; None where neither mixup nor cutmix is on.

    A pure function of (seed, sample, view): the partner comes from all `n` training samples, not from the batch, so
    that what a teacher said about a mixed view holds whenever it is shown again.
    mixup: Zhang et al. 2018 (arXiv 1710.09412, eq. 2); cutmix: Yun et al. 2019 (arXiv 1905.04899, eq. 1 and 2): a box
    of the share 1 - λ, its middle anywhere in the view. `weight` is what the box leaves after it is cut to the view.
    """
    if not (views.mixup or views.cutmix):
        return None
    numbers = keyed_uniform(seed + MIXING, samples, view, len(_Draw))
    # The largest number below 1 times n may round to n.
    partner = np.minimum((numbers[:, _Draw.PARTNER] * n).astype(np.int64), n - 1)
    cut = numbers[:, _Draw.CUT] < (0.5 if views.mixup and views.cutmix else float(views.cutmix > 0))
    share = np.where(
        numbers[:, _Draw.WHETHER] < views.mix_probability,
        _beta(np.where(cut, views.cutmix, views.mixup), numbers[:, _Draw.SHARE]),
        1.0,
    )
    if not views.cutmix:
        return Mix(partner, share.astype(np.float32), None)
    middle, half = numbers[:, [_Draw.X, _Draw.Y]], np.sqrt(1 - share)[:, None] / 2
    corners = np.concatenate([middle - half, middle + half], 1).clip(0, 1)
    box = np.where((cut & (share < 1))[:, None], corners, 0.0).astype(np.float32)
    weight = np.where(cut, 1 - area_of(box), share)
    return Mix(partner, weight.astype(np.float32), box)


def mixed_labels(labels: Tensor, partner_labels: Tensor, mix: Mix, classes: int) -> Tensor:
    """Probabilities of the `classes`, float32 [B, C], on the labels' device: `weight` of the own label, the rest of the
    partner's (eq. 2 of mixup, eq. 1 of cutmix). Labels: int64 [B], below 0 where a sample has none: a row is zeros
    where one is missing that counts in it. Raises ValueError where the shapes differ."""
    if labels.shape != partner_labels.shape or labels.shape != mix.weight.shape:
        raise ValueError(
            f"shapes differ: labels {tuple(labels.shape)}, partners' {tuple(partner_labels.shape)}, "
            f"mix {mix.weight.shape}"
        )
    weight = onto(mix.weight.astype(np.float64), labels.device)[:, None]
    every = torch.arange(classes, device=labels.device)
    probabilities = (labels[:, None] == every) * weight + (partner_labels[:, None] == every) * (1 - weight)
    known = ((labels >= 0)[:, None] | (weight == 0)) & ((partner_labels >= 0)[:, None] | (weight == 1))
    return probabilities * known


def _beta(alpha: NDArray[np.float64], uniform: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numbers of the distribution Beta(alpha, alpha), [B], by the inverse of its cumulative distribution function."""
    from scipy.special import betaincinv  # loads slowly, and few recipes mix

    return np.asarray(betaincinv(alpha, alpha, uniform), np.float64)


def area_of(box: NDArray[np.floating]) -> NDArray[np.float64]:
    corners = box.astype(np.float64)
    return (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])


def onto(numbers: NDArray[np.float64], device: torch.device) -> Tensor:
    """The numbers in float32 on `device`, without waiting for it."""
    tensor = torch.from_numpy(numbers.astype(np.float32))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
