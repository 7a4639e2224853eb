"""Losses on relations: how the samples of a batch, or the layers of a network, lie to each other.

Student and teacher may have features of different widths, since only relations are compared. Summed over the pairs.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.losses.numbers import inner_products, pairs, unit

__all__ = ["correlation_congruence", "fsp", "rkd_angle", "rkd_distance", "similarity_preserving"]

# Squared distances below this share of the squared sizes count as 0: two samples at one place.
COINCIDENT = 1e-12


def rkd_distance(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Distance-wise RKD: Huber loss of the pairwise distances `‖f_i − f_j‖ / μ`, μ the batch's mean distance.

    Park et al. 2019 (arXiv 1904.05068), eqs. 6-8; as in the authors' code a mean over all B² pairs, and μ over those
    that are apart. Features [B, …], flattened; returns a scalar >= 0. The scale of either side's features does not
    matter. Raises ValueError where the features do not come in pairs of one batch size.
    """
    loss = []
    for student, teacher in pairs(student_features, teacher_features, alike=False):
        ours, theirs = (_scaled(_distances(features)) for features in (student, teacher))
        loss.append(F.smooth_l1_loss(ours, theirs).to(student.dtype))
    return torch.stack(loss).sum()


def rkd_angle(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Angle-wise RKD: Huber loss of the cosines of the angles at f_j of the triangles (f_i, f_j, f_k).

    Park et al. 2019 (arXiv 1904.05068), eqs. 9-11; as in the authors' code a mean over all B³ triples, where an angle
    at coincident samples counts as cosine 0. Features [B, …], flattened; takes B³ numbers of memory, whatever the
    width. Returns a scalar >= 0. Raises ValueError where the features do not come in pairs of one batch size.
    """
    loss = []
    for student, teacher in pairs(student_features, teacher_features, alike=False):
        loss.append(F.smooth_l1_loss(_cosines(student), _cosines(teacher)).to(student.dtype))
    return torch.stack(loss).sum()


def _gram(features: Tensor) -> Tensor:
    """Inner products [B, B] of the centred features, in float64: distances are differences of them."""
    flat = features.flatten(1).double()
    flat = flat - flat.mean(0, keepdim=True)
    return inner_products(flat, flat)


def _distances(features: Tensor) -> Tensor:
    """Euclidean distances [B, B]; 0, with no gradient, between coincident samples, where a root has none."""
    return _lengths(_gram(features))


def _lengths(gram: Tensor) -> Tensor:
    sizes = gram.diagonal()[:, None] + gram.diagonal()[None, :]
    square = sizes - 2 * gram
    apart = square > COINCIDENT * sizes.detach()
    return torch.where(apart, torch.where(apart, square, 1.0).sqrt(), 0.0)


def _scaled(distances: Tensor) -> Tensor:
    apart = (distances > 0).sum().clamp_min(1)
    mean = distances.sum() / apart
    return distances / torch.where(mean > 0, mean, 1.0)


def _cosines(features: Tensor) -> Tensor:
    """cos of the angle i-j-k, [B (j), B (i), B (k)], from inner products: no [B, B, width] is ever made."""
    gram = _gram(features)
    lengths = _lengths(gram)
    inverse = torch.where(lengths > 0, 1 / torch.where(lengths > 0, lengths, 1.0), 0.0)
    # (f_i − f_j)·(f_k − f_j) = G_ik − G_ij − G_kj + G_jj
    products = gram[None] - gram[:, :, None] - gram[:, None, :] + gram.diagonal()[:, None, None]
    return products * inverse[:, :, None] * inverse[:, None, :]


def similarity_preserving(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Similarity-preserving KD: `‖G_t − G_s‖_F² / B²`, G the inner products of the samples, each row of length 1.

    Tung & Mori 2019 (arXiv 1907.09682), eqs. 1-4. Features [B, …], flattened; returns a scalar >= 0. Raises ValueError
    where the features do not come in pairs of one batch size.
    """
    loss = []
    for student, teacher in pairs(student_features, teacher_features, alike=False):
        ours, theirs = (unit(inner_products(flat, flat)) for flat in (student.flatten(1), teacher.flatten(1)))
        loss.append(F.mse_loss(ours, theirs))
    return torch.stack(loss).sum()


def correlation_congruence(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], *, gamma: float = 0.4
) -> Tensor:
    """Correlation congruence: `‖K_s − K_t‖_F² / B²` with the Gaussian kernel `K_ij = exp(−gamma ‖u_i − u_j‖²)` of the
    features divided by their lengths, u.

    Peng et al. 2019 (arXiv 1904.01802), section 3.3; the paper cuts the kernel's Taylor series after P terms, here it
    is whole. Features [B, …], flattened; returns a scalar in [0, 1] a pair. Raises ValueError where the features do not
    come in pairs of one batch size.
    """
    loss = []
    for student, teacher in pairs(student_features, teacher_features, alike=False):
        kernels = []
        for features in (student, teacher):
            units = unit(features.flatten(1))
            # For vectors of length 1, ‖u_i − u_j‖² = 2 − 2 u_i·u_j.
            kernels.append(torch.exp(-2 * gamma * (1 - inner_products(units, units))))
        loss.append(F.mse_loss(kernels[0], kernels[1]))
    return torch.stack(loss).sum()


def fsp(student_features: Sequence[Tensor], teacher_features: Sequence[Tensor]) -> Tensor:
    """Flow of the solution procedure: the mean of `(G_s − G_t)²`, `G = F_1 F_2ᵀ / (h w)` [C_1, C_2] the channels' inner
    products between two layers, over all elements; summed over the pairs of consecutive layers.

    Yim et al. 2017 (CVPR, "A Gift from Knowledge Distillation"), eqs. 1-2, with the mean of RepDistiller for their sum.
    Maps [B, C, H, W], shallow to deep, as many channels in the student as in the teacher; where two consecutive layers
    differ in size the larger is max-pooled to the smaller, as in the paper. Returns a scalar >= 0. Raises ValueError
    for fewer than 2 layers, other shapes, or where they do not come in pairs of one batch size.
    """
    layers = list(pairs(student_features, teacher_features, alike=False))
    if len(layers) < 2:
        raise ValueError("fsp compares the flow between layers: it needs 2 pairs of layers or more, found 1")
    for student, teacher in layers:
        if student.ndim != 4 or teacher.ndim != 4 or student.shape[1] != teacher.shape[1]:
            raise ValueError(
                f"fsp needs maps [B, C, H, W] of as many channels, found student {tuple(student.shape)}, "
                f"teacher {tuple(teacher.shape)}"
            )
    loss = []
    for (student, teacher), (next_student, next_teacher) in pairwise(layers):
        loss.append(F.mse_loss(_flow(student, next_student), _flow(teacher, next_teacher)))
    return torch.stack(loss).sum()


def _flow(first: Tensor, second: Tensor) -> Tensor:
    """FSP matrices [B, C_1, C_2] of two layers' maps."""
    height, width = (min(a, b) for a, b in zip(first.shape[2:], second.shape[2:], strict=True))
    first, second = (
        F.adaptive_max_pool2d(maps, (height, width)) if maps.shape[2:] != (height, width) else maps
        for maps in (first, second)
    )
    return inner_products(first.flatten(2), second.flatten(2)) / (height * width)
