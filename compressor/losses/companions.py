"""Losses without a teacher: of a network's own exits, and of peers that learn together."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from compressor.losses.logits import cross_entropy, divergence, kd
from compressor.losses.numbers import require_same_shape

__all__ = ["early_exits", "mutual", "peer_ensemble"]


def early_exits(
    exit_logits: Sequence[Tensor],
    student_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float = 3.0,
    alpha: float = 0.3,
) -> Tensor:
    """Be your own teacher: `(1 − alpha) CE(exit, labels) + alpha T² KL(last layer ‖ exit)`, summed over the exits.

    Zhang et al. 2019 (arXiv 1905.08094), eqs. 2-3 and 5; T² as in kd. The last layer is the target, and gets no
    gradient from it. Its own cross-entropy is another row of the recipe, and so is the paper's hint between features.
    `exit_logits`: logits [B, C] of each early exit; `labels` int64 [B] or probabilities [B, C]. Returns a scalar >= 0.
    Raises ValueError without exits, and for shapes that differ.
    """
    if not exit_logits:
        raise ValueError("early_exits needs the logits of one early exit or more, found none")
    target = student_logits.detach()
    loss = [
        (1 - alpha) * cross_entropy(logits, labels) + alpha * kd(logits, target, temperature=temperature)
        for logits in exit_logits
    ]
    return torch.stack(loss).sum()


def mutual(student_logits: Tensor, peer_logits: Sequence[Tensor], *, temperature: float = 1.0) -> Tensor:
    """Deep mutual learning: the mean over the peers of `T² KL(softmax(z_peer / T) ‖ softmax(z_s / T))`.

    Zhang et al. 2018 (arXiv 1706.00384), eqs. 5 and 7, which have T = 1. The peers are targets: they get no gradient.
    Logits [B, C] of the student and of each other peer; returns a scalar >= 0. Raises ValueError without peers, and
    for shapes that differ.
    """
    loss = [kd(student_logits, logits.detach(), temperature=temperature) for logits in _some(peer_logits)]
    return torch.stack(loss).mean()


def peer_ensemble(student_logits: Tensor, peer_logits: Sequence[Tensor], *, temperature: float = 1.0) -> Tensor:
    """The ensemble of the peers as teacher: `T² KL(mean_peers softmax(z_peer / T) ‖ softmax(z_s / T))`.

    Zhang et al. 2018 (arXiv 1706.00384), the variant DML_e. Probabilities are averaged, not logits. The peers get no
    gradient. Logits [B, C] of the student and of each other peer; returns a scalar >= 0. Raises ValueError without
    peers, and for shapes that differ.
    """
    log_p = []
    for logits in _some(peer_logits):
        require_same_shape(student_logits, logits)
        log_p.append(torch.log_softmax(logits.detach().double() / temperature, dim=-1))
    return divergence(student_logits, torch.stack(log_p).logsumexp(0) - math.log(len(log_p)), temperature)


def _some(peer_logits: Sequence[Tensor]) -> Sequence[Tensor]:
    if not peer_logits:
        raise ValueError("needs the logits of one peer or more, found none")
    return peer_logits
