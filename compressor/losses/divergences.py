"""Divergences of student and teacher other than `kd`'s, which is the forward one, KL(teacher ‖ student).

In float64, as all losses on logits; a few rows at a time (`rows.py`), since vocabularies are wide.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.losses.numbers import require_same_shape
from compressor.losses.rows import each_row, mean_of_rows

__all__ = ["jsd", "reverse_kl"]

LOWEST = -1e300
"""In place of log 0, in float64."""


def reverse_kl(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Reverse KL: `T² · KL(softmax(z_s / T) ‖ softmax(z_t / T))`, summed over classes, a mean over the rows.

    The student is kept from what its teacher finds unlikely, where `kd` has it cover all that the teacher finds likely:
    Gu et al. 2024 (MiniLLM, arXiv 2306.08543), section 2.1; on given tokens, as here, Agarwal et al. 2024 (GKD, arXiv
    2306.13649), section 3. The factor T² as in kd. Logits [n, C]; a teacher that rules a class out (-inf) makes it
    infinite, so it learns from no table of the most likely classes alone. Returns a scalar >= 0, 0 without rows. Raises
    ValueError where the shapes differ.
    """
    return jsd(student_logits, teacher_logits, beta=1.0, temperature=temperature)


def jsd(student_logits: Tensor, teacher_logits: Tensor, *, beta: float = 0.5, temperature: float = 1.0) -> Tensor:
    """Generalized Jensen-Shannon divergence: `T² (β KL(p_t ‖ m) + (1 − β) KL(p_s ‖ m))`, `m = β p_t + (1 − β) p_s`,
    summed over classes, a mean over the rows.

    Agarwal et al. 2024 (GKD, arXiv 2306.13649), eq. 1. At the ends, where that formula is 0, it stands for what it
    tends to once divided by β or 1 − β: β = 0 is KL(p_t ‖ p_s), `kd`; β = 1 is KL(p_s ‖ p_t), `reverse_kl`. So near an
    end it is small, and at it not. Logits [n, C]; the teacher's may be -inf, a probability of 0, but for β = 1. Returns
    a scalar >= 0, 0 without rows. Raises ValueError where the shapes differ.
    """
    require_same_shape(student_logits, teacher_logits)

    def of_rows(student: Tensor, teacher: Tensor) -> Tensor:
        log_s = torch.log_softmax(student.double() / temperature, dim=-1)
        log_t = torch.log_softmax(teacher.double() / temperature, dim=-1)
        if beta == 1:
            return _kl(log_s, log_t)
        log_t = log_t.clamp_min(LOWEST)  # 0 log 0 = 0, where -inf would give nan
        if beta == 0:
            return _kl(log_t, log_s)
        log_m = torch.logaddexp(log_t + math.log(beta), log_s + math.log1p(-beta))
        return beta * _kl(log_t, log_m) + (1 - beta) * _kl(log_s, log_m)

    return mean_of_rows(temperature**2 * each_row(of_rows, student_logits, teacher_logits), student_logits)


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p ‖ q) of each row."""
    return F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
