"""Losses between networks whose tokens are not the same ones, on groups of tokens that make up the same text.

A group is the tokens of the student and those of the teacher between two points of a text at which both end a token.
What a side says of it is, by the chain rule, what its last token is drawn from, times the probabilities of the tokens
before it: the "bayesian" merging of trl's GOLD.

Both losses take, besides logits [n, V_s] and [m, V_t] in the order of the text: `labels` int64 [n] and `teacher_labels`
int64 [m], the token that follows each row; `student_groups` int64 [n] and `teacher_groups` int64 [m], the number of the
group that this token is in, negative where it is in none (what only one side has, as a token for the end).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.losses.rows import MOST_VALUES, each_row, mean_of_rows

__all__ = ["aligned_kd", "groups_of", "uld"]

LOWEST = -1e300
"""In place of log 0, in float64."""

SURE = -1e-15
"""The logarithm of the highest probability that still leaves something for all else, in float64."""


def uld(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    student_groups: Tensor,
    teacher_groups: Tensor,
    teacher_labels: Tensor,
) -> Tensor:
    """Universal logit distillation: `Σ_i |p_t(i) − p_s(i)|`, p(i) the i-th largest probability, 0 beyond a vocabulary,
    a mean over the groups.

    Boizard et al. 2024 (arXiv 2402.12030), eq. 5, the optimal transport where moving from any token to any other costs
    the same; the authors weigh it 1.5 beside the cross-entropy, which alone says which token is meant. They compare
    tokens of the same number, whatever text those are; here it is groups. Groups as above; the teacher's logits may be
    -inf, and it is held constant. Returns a scalar from 0 to 2, 0 without groups. Raises ValueError for other shapes,
    and where one side has a group that the other lacks.
    """
    ours = _side(student_logits, labels, student_groups, "student")
    theirs = _side(teacher_logits.detach(), teacher_labels, teacher_groups, "teacher")
    _require_same_groups(ours, theirs)
    student = student_logits[ours.last]
    above, constant = _compared(student.detach(), ours.log_before.detach(), teacher_logits.detach(), theirs)

    def of_rows(student: Tensor, log_before: Tensor, above: Tensor, constant: Tensor) -> Tensor:
        return (above * _merged(student, log_before)).sum(-1) - constant

    return mean_of_rows(each_row(of_rows, student, ours.log_before, above, constant), student_logits)


def aligned_kd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    student_groups: Tensor,
    teacher_groups: Tensor,
    teacher_labels: Tensor,
    teacher_token_of: Tensor,
) -> Tensor:
    """Soft targets between two vocabularies, a mean over the groups.

    Of a group of one token on either side: `m KL(p_t ‖ p_s)` among the tokens that both have, m the probability that
    the teacher gives all of them; as many as both have, it is `kd` at temperature 1. Whether it is one of these is not
    compared: the text of a token that only one side has is begun with others by the other side, and is no other text.
    Of a longer group: `KL(P_t ‖ P_s)` of its whole text against anything else, P the product over its tokens: behind
    different beginnings the last tokens do not mean the same, whatever they are. trl's GOLD compares them there as well
    (and neither part of it is normalised).

    Groups as above. `teacher_token_of` int64 [V_s]: the teacher's token of the same bytes, -1 where there is none. The
    teacher's logits may be -inf, and it is held constant. Returns a scalar >= 0, 0 without groups. Raises ValueError
    for other shapes, where one side has a group that the other lacks, and without a common token.
    """
    ours = _side(student_logits, labels, student_groups, "student")
    theirs = _side(teacher_logits.detach(), teacher_labels, teacher_groups, "teacher")
    _require_same_groups(ours, theirs)
    common = _common(teacher_token_of, student_logits.shape[-1], teacher_logits.shape[-1])

    def of_rows(student: Tensor, before: Tensor, token: Tensor, alone: Tensor, numbers: Tensor) -> Tensor:
        log_s = torch.log_softmax(student.double(), dim=-1)
        log_t = torch.log_softmax(teacher_logits.detach()[theirs.last[numbers]].double(), dim=-1)
        text_s = before + log_s.gather(-1, token[:, None])[:, 0]
        text_t = theirs.log_before[numbers] + log_t.gather(-1, theirs.token[numbers, None])[:, 0]
        return torch.where(alone, _among(log_s[:, common[0]], log_t[:, common[1]]), _of_text(text_s, text_t))

    numbers = torch.arange(len(ours.last), device=student_logits.device)
    values = each_row(
        of_rows, student_logits[ours.last], ours.log_before, ours.token, ours.alone & theirs.alone, numbers
    )
    return mean_of_rows(values, student_logits)


def groups_of(groups: Tensor) -> Tensor:
    """How many groups there are, float64 []: what these losses are a mean over. `groups`: int64 [n]."""
    return torch.tensor(float(len(torch.unique(groups[groups >= 0]))), dtype=torch.float64, device=groups.device)


@dataclass(frozen=True)
class _Side:
    """Of each group, in the order of their `numbers` [g]: the row of its last token, that token, the logarithm of the
    probability of those before it (float64), and whether there are none."""

    numbers: Tensor
    last: Tensor
    token: Tensor
    log_before: Tensor
    alone: Tensor


def _side(logits: Tensor, tokens: Tensor, groups: Tensor, name: str) -> _Side:
    if logits.ndim != 2 or groups.shape != logits.shape[:1]:
        raise ValueError(f"shapes differ: {name} logits {tuple(logits.shape)}, groups {tuple(groups.shape)}")
    if tokens.dtype != torch.int64 or groups.dtype != torch.int64 or tokens.shape != groups.shape:
        raise ValueError(
            f"needs labels int64 [n] and groups int64 [n] of the {name}, found {tokens.dtype} {tuple(tokens.shape)} "
            f"and {groups.dtype} {tuple(groups.shape)}"
        )
    rows = (groups >= 0).nonzero()[:, 0]
    numbers, which = torch.unique(groups[rows], return_inverse=True)
    last = rows.new_zeros(len(numbers)).scatter_reduce(0, which, rows, "amax")
    earlier = rows != last[which]

    def of_rows(few: Tensor, token: Tensor) -> Tensor:
        return torch.log_softmax(few.double(), dim=-1).gather(-1, token[:, None])[:, 0]

    log_before = torch.zeros(len(numbers), dtype=torch.float64, device=logits.device)
    if earlier.any():
        before = rows[earlier]
        log_before = log_before.index_add(0, which[earlier], each_row(of_rows, logits[before], tokens[before]))
    alone = which.new_zeros(len(numbers)).index_add(0, which, torch.ones_like(which)) == 1
    return _Side(numbers, last, tokens[last], log_before, alone)


def _require_same_groups(ours: _Side, theirs: _Side) -> None:
    if not torch.equal(ours.numbers, theirs.numbers):
        raise ValueError(
            f"student and teacher have {len(ours.numbers)} and {len(theirs.numbers)} groups of tokens, and not the "
            "same ones"
        )


def _merged(logits: Tensor, log_before: Tensor) -> Tensor:
    """What a side says of groups, [g, V]: it sums to the probability of the tokens before the last one."""
    return torch.softmax(logits.double(), dim=-1) * log_before.exp()[:, None]


@torch.no_grad()
def _compared(student: Tensor, log_before: Tensor, teacher: Tensor, theirs: _Side) -> tuple[Tensor, Tensor]:
    """Sorting, once, and not again by backward. Which of the student's probabilities are above those that they are
    compared with: 1, 0 or -1, int8 [g, V_s]; and the sum of the latter with these signs, float64 [g]."""
    widest = max(student.shape[-1], teacher.shape[-1])
    at_a_time = max(1, MOST_VALUES // widest)
    above, constant = student.new_empty(student.shape, dtype=torch.int8), torch.empty_like(log_before)
    for start in range(0, len(student), at_a_time):
        few = slice(start, start + at_a_time)
        p, order = _merged(student[few], log_before[few]).sort(-1, descending=True)
        q = _merged(teacher[theirs.last[few]], theirs.log_before[few]).sort(-1, descending=True).values
        p, q = (F.pad(side, (0, widest - side.shape[-1])) for side in (p, q))
        signs = (p - q).sign()
        above[few] = torch.empty_like(above[few]).scatter(-1, order, signs[:, : order.shape[-1]].to(torch.int8))
        constant[few] = (signs * q).sum(-1)
    return above, constant


def _common(teacher_token_of: Tensor, student: int, teacher: int) -> tuple[Tensor, Tensor]:
    """The tokens that both have, of the student and of the teacher, in the same order."""
    known = teacher_token_of.dtype == torch.int64 and teacher_token_of.shape == (student,)
    if not known or (teacher_token_of >= teacher).any():
        raise ValueError(
            f"needs teacher_token_of int64 [{student}], each below {teacher}, found {teacher_token_of.dtype} "
            f"{tuple(teacher_token_of.shape)}"
        )
    ours = (teacher_token_of >= 0).nonzero()[:, 0]
    theirs = teacher_token_of[ours]
    if not len(ours) or len(torch.unique(theirs)) != len(theirs):
        raise ValueError("teacher_token_of has to name a token of the teacher at least, and none of them twice")
    return ours, theirs


def _among(log_s: Tensor, log_t: Tensor) -> Tensor:
    """`m KL(p_t / m ‖ p_s / Σ p_s)` of each row, m the sum of p_t."""
    log_m = log_t.logsumexp(-1).clamp_min(LOWEST)
    target = (log_t - log_m[:, None]).clamp_min(LOWEST)  # 0 log 0 = 0
    return log_m.exp() * F.kl_div(log_s.log_softmax(-1), target, reduction="none", log_target=True).sum(-1)


def _of_text(log_s: Tensor, log_t: Tensor) -> Tensor:
    """`KL(P_t ‖ P_s)` of a text against anything else, of each row."""
    sides = [torch.stack([log_p, _log_of_others(log_p)], -1) for log_p in (log_s, log_t)]
    return F.kl_div(sides[0], sides[1].clamp_min(LOWEST), reduction="none", log_target=True).sum(-1)


def _log_of_others(log_p: Tensor) -> Tensor:
    """log(1 − p), without a difference of two numbers near 1."""
    log_p = log_p.clamp_max(SURE)
    near_1 = log_p > -0.5
    # The branch that is not taken gets a number that harms neither it nor its gradient.
    return torch.where(
        near_1,
        torch.log(-torch.expm1(torch.where(near_1, log_p, -1.0))),
        torch.log1p(-torch.exp(torch.where(near_1, -1.0, log_p))),
    )
