"""Losses on features: what layers hold, pair by pair, once a connector has made the pairs comparable.

All of them are means over elements within a pair, and sums over the pairs, as in the papers.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.losses.numbers import TINY, counting, pair_squares, pairs, token_squares, unit

__all__ = ["attention_maps", "attention_transfer", "hidden_states", "hint", "pkd", "pooled", "review_kd"]

LEVELS = (4, 2, 1)  # of the pyramid of review_kd: cells a side
OVER = (0, 1)  # batch and positions, of maps as rows [B, positions, C]


def hint(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """FitNets' hints: the mean of `(f_s − f_t)²` over all elements, summed over the pairs.

    Romero et al. 2015 (arXiv 1412.6550), eq. 3; their ½ and their sum over elements are left to the weight. The paper's
    regressor is the connector. Features of one shape, e.g. [B, C, H, W]; returns a scalar >= 0. Raises ValueError
    where they do not come in pairs of one shape.
    """
    return _squares(student_features, teacher_features)


def pkd(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Hints whose scale does not matter: `½ mean (n_s − n_t)²`, n the map with each channel brought to mean 0 and
    variance 1 over batch and positions. That is `1 − r`, r Pearson's correlation, a mean over the channels; summed over
    the pairs.

    Cao et al. 2022 (PKD), arXiv 2207.02039, eq. 4 and 5. A channel that does not vary correlates with nothing, and
    passes no gradient on. Maps [B, C, H, W] of one shape; returns a scalar in [0, 2] a pair. Raises ValueError for
    other shapes, or where they do not come in pairs of one shape.
    """
    _require(student_features, 4, "maps [B, C, H, W]")
    loss = []
    for student, teacher in pairs(student_features, teacher_features):
        # Position after position: what networks on CPU have in memory, so that nothing is copied.
        rows = (maps.flatten(2).transpose(1, 2) for maps in (student, teacher))
        loss.append(1 - _Correlation.apply(*rows).mean())
    return torch.stack(loss).sum()


class _Correlation(torch.autograd.Function):
    """Pearson's correlation of the channels of [B, positions, C], over the first two; 0 where one does not vary.

    With its own derivative: `dr/ds = (t / |t| − r s / |s|) / |s|` of the centred ones, in two passes over the maps;
    that of the single operations takes nine.
    """

    @staticmethod
    def forward(ctx: Any, student: Tensor, teacher: Tensor) -> Tensor:
        student_centred, student_energy, student_varies = _centred(student)
        teacher_centred, teacher_energy, teacher_varies = _centred(teacher)
        vary = student_varies & teacher_varies
        student_energy, teacher_energy = (torch.where(vary, e, 1.0) for e in (student_energy, teacher_energy))
        inverse = torch.where(vary, 1.0 / (student_energy.sqrt() * teacher_energy.sqrt()), 0.0)
        correlation = (student_centred * teacher_centred).sum(OVER) * inverse
        ctx.save_for_backward(student_centred, teacher_centred, student_energy, teacher_energy, inverse, correlation)
        return correlation

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None]:
        student, teacher, student_energy, teacher_energy, inverse, correlation = ctx.saved_tensors
        (gradient,) = gradients

        def towards(side: Tensor, other: Tensor, energy: Tensor) -> Tensor:
            return torch.addcmul(other * (gradient * inverse), side, -gradient * correlation / energy)

        wanted = ctx.needs_input_grad
        return (
            towards(student, teacher, student_energy) if wanted[0] else None,
            towards(teacher, student, teacher_energy) if wanted[1] else None,
        )


def _centred(maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The maps without the mean of each channel, what is left squared [C], and whether that is more than rounding."""
    mean = maps.mean(OVER, keepdim=True)
    centred = maps - mean
    squares = centred.square().sum(OVER)
    taken_off = mean.flatten().square() * (maps.numel() / maps.shape[2])
    return centred, squares, (squares > TINY) & (squares > 1e-12 * taken_off)


def hidden_states(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], mask: Tensor | None = None
) -> Tensor:
    """TinyBERT's hidden states: `MSE(H_s W, H_t)`, a mean over the tokens that count and their width, summed over the
    layers.

    Jiao et al. 2020 (arXiv 1909.10351), eq. 9, the embedding as layer 0; W is the connector. Tokens [B, N, D] of one
    shape, and `mask` [B, N], 1 where a token counts; or maps [B, D, H, W] without a mask, where all do. Returns a
    scalar >= 0. Raises ValueError for other shapes, or where they do not come in pairs of one shape.
    """
    if mask is None:
        return _squares(student_features, teacher_features)
    loss = []
    for student, teacher in pairs(student_features, teacher_features):
        _require([student], 3, "tokens [B, N, D] where a mask says which of them count")
        loss.append(token_squares(student, teacher, counting(mask, student)))
    return torch.stack(loss).sum()


def attention_maps(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], mask: Tensor | None = None
) -> Tensor:
    """TinyBERT's attention: `1/h Σ_heads MSE(A_s, A_t)`, the mean over all elements, summed over the layers.

    Jiao et al. 2020 (arXiv 1909.10351), eq. 8. Attention matrices [B, heads, N, N] of as many heads; with `mask`
    [B, N], 1 where a token counts, the mean is over pairs of tokens that both do. Returns a scalar >= 0. Raises
    ValueError for other shapes, or where they do not come in pairs of one shape.
    """
    _require(student_features, 4, "attention matrices [B, heads, N, N]")
    if mask is None:
        return _squares(student_features, teacher_features)
    loss = [
        pair_squares(student, teacher, counting(mask, student, 2))
        for student, teacher in pairs(student_features, teacher_features)
    ]
    return torch.stack(loss).sum()


def attention_transfer(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Attention transfer: the mean of `(Q_s/‖Q_s‖ − Q_t/‖Q_t‖)²`, Q the vector of `Σ_c A_c²`, summed over the pairs.

    Zagoruyko & Komodakis 2017 (arXiv 1612.03928), eq. 2 with p = 2, as in the authors' code: the squared distance, a
    mean over the batch and the positions, which their weight of 1000 supposes. Maps [B, C, H, W]; the numbers of
    channels may differ. A map of zeros has no attention and passes no gradient on. Returns a scalar >= 0. Raises
    ValueError for other shapes, or sizes [H, W] that differ.
    """
    _require(student_features, 4, "maps [B, C, H, W]")
    loss = []
    for student, teacher in pairs(student_features, teacher_features, alike=False):
        if student.shape[2:] != teacher.shape[2:]:
            raise ValueError(f"sizes differ: student {tuple(student.shape[2:])}, teacher {tuple(teacher.shape[2:])}")
        ours, theirs = (unit(maps.pow(2).sum(1).flatten(1)) for maps in (student, teacher))
        loss.append(F.mse_loss(ours, theirs))
    return torch.stack(loss).sum()


def review_kd(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """ReviewKD's hierarchical context loss: MSE of the maps and of their averages over 4x4, 2x2 and 1x1 cells,
    weighted 1, 1/2, 1/4, 1/8, divided by the sum of the weights; summed over the pairs.

    Chen et al. 2021 (arXiv 2104.09044), section 3.3, with the weights of the authors' code; levels that are not
    coarser than the map are left out. The fusion of layers is the connector's. Maps [B, C, H, W] of one shape; returns
    a scalar >= 0. Raises ValueError for other shapes, or where they do not come in pairs of one shape.
    """
    _require(student_features, 4, "maps [B, C, H, W]")
    loss = []
    for student, teacher in pairs(student_features, teacher_features):
        levels, weights = [F.mse_loss(student, teacher)], [1.0]
        for cells in LEVELS:
            if cells < min(student.shape[2:]):
                ours, theirs = F.adaptive_avg_pool2d(student, cells), F.adaptive_avg_pool2d(teacher, cells)
                levels.append(F.mse_loss(ours, theirs))
                weights.append(weights[-1] / 2)
        total = torch.stack([weight * level for weight, level in zip(weights, levels, strict=True)]).sum()
        loss.append(total / sum(weights))
    return torch.stack(loss).sum()


def pooled(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Direction alignment: `½ ‖f_s/‖f_s‖ − f_t/‖f_t‖‖² = 1 − cos(f_s, f_t)`, mean over the batch, summed over pairs.

    Chen et al. 2022, "Improved Feature Distillation via Projector Ensemble" (arXiv 2210.15274). Pooled
    features [B, D] of one width; a feature of zeros has no direction and passes no gradient on. Returns a scalar in
    [0, 2] a pair. Raises ValueError for other shapes, or where they do not come in pairs of one shape.
    """
    _require(student_features, 2, "pooled features [B, D]")
    loss = [
        0.5 * (unit(student) - unit(teacher)).pow(2).sum(-1).mean()
        for student, teacher in pairs(student_features, teacher_features)
    ]
    return torch.stack(loss).sum()


def _squares(student: Sequence[Tensor], teacher: Sequence[Tensor]) -> Tensor:
    return torch.stack([F.mse_loss(ours, theirs) for ours, theirs in pairs(student, teacher)]).sum()


def _require(features: Sequence[Tensor], dimensions: int, expected: str) -> None:
    for feature in features:
        if feature.ndim != dimensions:
            raise ValueError(f"needs {expected}, found {tuple(feature.shape)}")
