"""Soft targets of which only the most likely were kept: over a whole vocabulary there is no room for all."""

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.losses.rows import MOST_VALUES, each_row, mean_of_rows

__all__ = ["top_k_kd", "top_k_of"]

LOWEST = -1e300
"""In place of log 0, in float64."""

ROUNDING = 0.02
"""How far from 1 probabilities may sum whose logarithms were rounded to half precision."""


def top_k_kd(student_logits: Tensor, teacher_top: Tensor, teacher_log_probabilities: Tensor) -> Tensor:
    """Soft targets on the k most likely tokens and one bucket of all others: `Σ_k p_t log(p_t / p_s) + r_t log(r_t /
    r_s)`, r the probability of the others together, a mean over the rows.

    It is `kd`, at temperature 1, of both sides with the others as one class, so never more than `kd`: what the teacher
    thinks of each of the others is not known, and nothing is taught of it. Spread evenly over them, as a small number
    of classes is (`teacher_answers.top_k`), their mass would teach nonsense about a vocabulary. At another temperature
    the others' mass is not known from this one. There is no such reverse KL: the student would move its mass to where
    the teacher's was not kept. Logits [n, V]; `teacher_top` int64 [n, k], k < V; `teacher_log_probabilities`
    [n, k + 1], theirs and that of the others together, which may be -inf; of rounded ones the sum is made 1. Returns a
    scalar >= 0, 0 without rows. Raises ValueError for other shapes, for a token that comes twice or is none of the
    vocabulary, and for probabilities that do not sum to 1.
    """
    _require_top_k(student_logits, teacher_top, teacher_log_probabilities)

    def of_rows(student: Tensor, top: Tensor, log_p: Tensor) -> Tensor:
        target = log_p.double().log_softmax(-1).clamp_min(LOWEST)
        log_q = torch.log_softmax(student.double(), dim=-1)
        others = log_q.scatter(-1, top, -torch.inf).logsumexp(-1, keepdim=True)
        kept = torch.cat([log_q.gather(-1, top), others], -1)
        return F.kl_div(kept, target, reduction="none", log_target=True).sum(-1)

    return mean_of_rows(each_row(of_rows, student_logits, teacher_top, teacher_log_probabilities), student_logits)


def _require_top_k(student: Tensor, top: Tensor, log_p: Tensor) -> None:
    rows, tokens = student.shape
    if top.dtype != torch.int64 or top.ndim != 2 or len(top) != rows or log_p.shape != (rows, top.shape[1] + 1):
        raise ValueError(
            f"shapes differ: logits {tuple(student.shape)} need teacher_top int64 [n, k] and teacher_log_probabilities "
            f"[n, k + 1], found {top.dtype} {tuple(top.shape)} and {tuple(log_p.shape)}"
        )
    if not 0 < top.shape[1] < tokens:
        raise ValueError(f"of {tokens} tokens 1 to {tokens - 1} can be kept, found {top.shape[1]}; of all, use kd")
    in_order = top.sort(-1).values
    if ((in_order[:, 1:] == in_order[:, :-1]).any() | (top < 0).any() | (top >= tokens).any()).item():
        raise ValueError(f"teacher_top has to name tokens of 0 to {tokens - 1}, each once a row")
    total = log_p.double().exp().sum(-1)
    if not ((total - 1).abs() <= ROUNDING).all().item():
        raise ValueError(
            "teacher_log_probabilities have to be logarithms whose probabilities sum to 1 in each row, those of the "
            f"other tokens included; found sums from {total.min().item():.4g} to {total.max().item():.4g}"
        )


def top_k_of(teacher_logits: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What `top_k_kd` takes of a teacher.

    Args:
        teacher_logits: [n, V].
        k: how many tokens are kept, fewer than V.

    Returns:
        The k most likely tokens, int64 [n, k]; the logarithms of their probabilities and, last, of all others together,
        float32 [n, k + 1].

    Raises:
        ValueError: for a k that is not from 1 to V - 1.
    """
    tokens = teacher_logits.shape[-1]
    if not 0 < k < tokens:
        raise ValueError(f"of {tokens} tokens 1 to {tokens - 1} can be kept, found {k}")
    rows, at_a_time = len(teacher_logits), max(1, MOST_VALUES // tokens)
    top = torch.empty(rows, k, dtype=torch.int64, device=teacher_logits.device)
    log_p = torch.empty(rows, k + 1, dtype=torch.float32, device=teacher_logits.device)
    with torch.no_grad():
        for start in range(0, rows, at_a_time):  # in place, for glibc's sake: see rows.py
            few = slice(start, start + at_a_time)
            of_few = torch.log_softmax(teacher_logits[few].double(), dim=-1)
            log_p[few, :k], top[few] = of_few.topk(k, dim=-1)
            log_p[few, k] = of_few.scatter(-1, top[few], -torch.inf).logsumexp(-1)
    return top, log_p
