"""Losses on logits: response-based knowledge, and the labels themselves."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["cross_entropy", "kd"]


def kd(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Soft targets: `T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))`, summed over classes, mean over the batch.

    Hinton, Vinyals & Dean 2015 (arXiv 1503.02531), section 2. The factor T² keeps the size of the gradient comparable
    when T changes. Logits [B, C]; returns a scalar >= 0. Computed in float64, which costs nothing beside a network: at
    a high T all terms but the last digits cancel, and float32 would leave noise, even below 0.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(f"shapes differ: student {tuple(student_logits.shape)}, teacher {tuple(teacher_logits.shape)}")
    log_student = torch.log_softmax(student_logits.double() / temperature, dim=-1)
    log_teacher = torch.log_softmax(teacher_logits.double() / temperature, dim=-1)
    # "batchmean": PyTorch's "mean" would divide by the number of classes too.
    loss = F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2
    return loss.to(_full(student_logits))


def cross_entropy(student_logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with the labels, mean over the batch; logits [B, C]; returns a scalar.

    `labels`: int64 [B], or floating-point probabilities [B, C], which mixed pictures have. Raises ValueError for
    others. `label_smoothing` (Szegedy et al. 2016, arXiv 1512.00567, sec. 7) mixes in that share of the uniform
    distribution.
    """
    probabilities = labels.is_floating_point()
    expected = student_logits.shape if probabilities else student_logits.shape[:1]
    if student_logits.ndim != 2 or labels.shape != expected or not (probabilities or labels.dtype == torch.int64):
        raise ValueError(
            f"labels must be int64 [B] or probabilities [B, C] of logits [B, C], found {labels.dtype} "
            f"{tuple(labels.shape)} and logits {tuple(student_logits.shape)}"
        )
    full = _full(student_logits)
    target = labels.to(full) if probabilities else labels
    return F.cross_entropy(student_logits.to(full), target, label_smoothing=label_smoothing)


def _full(logits: Tensor) -> torch.dtype:
    """float32, or float64 where the logits are: half precision is for networks, not for losses."""
    return torch.promote_types(logits.dtype, torch.float32)
