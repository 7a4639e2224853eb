"""Losses on logits: response-based knowledge, and the labels themselves."""

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["cross_entropy", "kd"]


def kd(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Soft targets: `T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))`, summed over classes, mean over the batch.

    Hinton, Vinyals & Dean 2015 (arXiv 1503.02531), section 2. The factor T² keeps the size of the gradient comparable
    when T changes. Logits [B, C]; computed in float32 whatever their type; returns a scalar >= 0.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(f"shapes differ: student {tuple(student_logits.shape)}, teacher {tuple(teacher_logits.shape)}")
    log_student = torch.log_softmax(student_logits.float() / temperature, dim=-1)
    log_teacher = torch.log_softmax(teacher_logits.float() / temperature, dim=-1)
    # "batchmean": PyTorch's "mean" would divide by the number of classes too.
    return F.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * temperature**2


def cross_entropy(student_logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with the labels, mean over the batch; logits [B, C], labels int64 [B]; returns a scalar.

    `label_smoothing` (Szegedy et al. 2016, arXiv 1512.00567, section 7) mixes in that share of the uniform distribution.
    """
    return F.cross_entropy(student_logits.float(), labels, label_smoothing=label_smoothing)
