"""Images mixed with others, as a pure function of (images, key), like the views that are mixed."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.randomness import keyed_uniform
from compressor.schema.recipe import Views
from compressor.tasks.image_classification.views import coverage, onto

__all__ = ["Mix", "mix_of", "mixed", "mixed_labels"]

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
    weight = np.where(cut, 1 - _area(box), share)
    return Mix(partner, weight.astype(np.float32), box)


def mixed(images: Tensor, partners: Tensor, mix: Mix) -> Tensor:
    """Views mixed with their partners' views; all float32 [B, 3, h, w], returned channels_last in memory.

    What each model's preprocessing subtracts and divides by may come before or after. Raises ValueError where the
    shapes differ.
    """
    if images.shape != partners.shape or len(images) != len(mix.weight):
        raise ValueError(
            f"shapes differ: own {tuple(images.shape)}, partners {tuple(partners.shape)}, mix of {len(mix.weight)}"
        )
    count, channels, height, width = images.shape
    box = np.zeros((count, 4)) if mix.box is None else mix.box.astype(np.float64)
    blended = _area(box) == 0
    box[blended] = 0, 0, 1, 1
    share = np.where(blended, 1 - mix.weight.astype(np.float64), 1.0)
    down = coverage(box[:, 1], box[:, 3], height) * share[:, None]
    # All colours of a line of pixels in one row: elsewise the innermost loop would have 3 steps.
    across = np.repeat(coverage(box[:, 0], box[:, 2], width), channels, axis=1)
    theirs = onto(down, images.device)[:, :, None] * onto(across, images.device)[:, None, :]
    lines = [views.permute(0, 2, 3, 1).reshape(count, height, width * channels) for views in (images, partners)]
    out = (1 - theirs).mul_(lines[0]).add_(theirs.mul_(lines[1]))
    return out.view(count, height, width, channels).permute(0, 3, 1, 2)


def mixed_labels(labels: Tensor, partner_labels: Tensor, mix: Mix, classes: int) -> Tensor:
    """Probabilities of the `classes`, float32 [B, C], on the labels' device: `weight` of the own label, the rest of the
    partner's (eq. 2 of mixup, eq. 1 of cutmix). Labels: int64 [B], below 0 where an image has none: a row is zeros
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


def _area(box: NDArray[np.floating]) -> NDArray[np.float64]:
    corners = box.astype(np.float64)
    return (corners[:, 2] - corners[:, 0]) * (corners[:, 3] - corners[:, 1])
