"""The contrastive loss: a sample's two embeddings belong together, those of other samples do not."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.losses.numbers import full, inner_products, require_same_shape

__all__ = ["crd"]


def crd(
    student_embeddings: Tensor,
    teacher_embeddings: Tensor,
    student_memory: Tensor,
    teacher_memory: Tensor,
    negatives: Tensor,
    *,
    temperature: float = 0.07,
) -> Tensor:
    """Contrastive representation distillation, by noise-contrastive estimation (NCE).

    With `e(s, t) = exp(s·t / temperature)` and N negatives of a sample, `h(s, t) = e / (e + N Z)` is the probability
    that s and t come from one sample; the loss is `−log h(s, t) − Σ_negatives log(1 − h(s, m))`, a mean over the batch,
    with the student against the teacher's memory, plus the same with the teacher against the student's.

    Tian, Krishnan & Isola 2020 (arXiv 1910.10699), eqs. 9-10 and 18-19. Z, the mean of e over unrelated pairs, makes
    e / Z a ratio of densities; the authors' code estimates it from the first batch and keeps it, here it comes from
    each call's negatives, as a constant to the gradient.

    Embeddings [B, D] and memories [K, D], all of length 1; `negatives` bool [B, K]: which rows of the memories are
    negatives of which sample. A sample without negatives adds nothing. Returns a scalar >= 0. Raises ValueError for
    shapes that do not fit together, or a mask that is not bool.
    """
    require_same_shape(student_embeddings, teacher_embeddings)
    require_same_shape(student_memory, teacher_memory)
    if negatives.shape != (len(student_embeddings), len(student_memory)) or negatives.dtype != torch.bool:
        raise ValueError(
            f"negatives must be bool [{len(student_embeddings)}, {len(student_memory)}], one row a sample and one "
            f"column a row of the memory, found {negatives.dtype} {tuple(negatives.shape)}"
        )
    dtype = full(student_embeddings)
    student, teacher = student_embeddings.to(dtype), teacher_embeddings.to(dtype)
    positive = (student * teacher).sum(-1) / temperature
    sides = [(student, teacher_memory.to(dtype)), (teacher, student_memory.to(dtype))]
    loss = []
    for anchor, memory in sides:
        scores = inner_products(anchor, memory) / temperature
        loss.append(_nce(positive, scores, negatives, _log_noise(scores.detach(), negatives)))
    return torch.stack(loss).sum()


def _log_noise(scores: Tensor, negatives: Tensor) -> Tensor:
    """log(N Z) of each sample [B]: N its negatives, Z the mean of exp(score) over all negatives of the batch."""
    count = negatives.sum(-1).to(scores.dtype)
    log_z = scores.masked_fill(~negatives, -torch.inf).flatten().logsumexp(0) - count.sum().clamp_min(1).log()
    return torch.where(count > 0, count.clamp_min(1).log() + log_z, 0.0)


def _nce(positive: Tensor, scores: Tensor, negatives: Tensor, log_noise: Tensor) -> Tensor:
    """−log h − Σ log(1 − h), mean over the batch; scores of the positives [B], of the memory [B, K]."""
    data_term = torch.where(negatives.any(-1), F.logsigmoid(positive - log_noise), 0.0)
    noise_terms = torch.where(negatives, F.logsigmoid(log_noise[:, None] - scores), 0.0).sum(-1)
    return -(data_term + noise_terms).mean()
