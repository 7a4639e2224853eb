"""Losses on sequences of tokens. What only fills a sequence up to the longest of its batch
never reaches a value or a gradient, whatever it holds (-inf and what is not a number included).

`mask` [B, N] says which tokens count, as integers or booleans; None: all of them. A mean is one over what counts in the
whole batch, so a token weighs the same in a short text as in a long one. A batch in which nothing counts has a loss
of 0, and a gradient of 0.
"""

import math
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.losses.numbers import counting, full, inner_products, only, pair_squares, pairs, unit

__all__ = [
    "MeanOver",
    "attention_scores",
    "common_heads",
    "count_of",
    "masked_lm",
    "relations",
    "token_cosine",
    "token_kd",
]

MeanOver = Literal["samples", "tokens", "pairs", "chosen", "groups"]
"""What a loss is a mean over: samples, or their rows where they have several; tokens that count; pairs of them, of one
sample; tokens that were hidden; groups of tokens of the same text."""

MOST_HEADS = 12
"""As many as a base encoder has attention heads."""

LOWEST = -1e30
"""In place of log 0, in float32: where a probability is 0, `0 * (LOWEST - LOWEST)` is 0, and with -inf not a number."""


def masked_lm(student_token_logits: Tensor, token_labels: Tensor, mask: Tensor | None = None) -> Tensor:
    """Masked language modelling: the cross-entropy of the tokens that were hidden, a mean over them.

    Devlin et al. 2019 (arXiv 1810.04805), section 3.1; one of the three losses of Sanh et al. 2019 (DistilBERT,
    arXiv 1910.01108). `student_token_logits` [B, N, V]; `token_labels` int64 [B, N]: the token where one was hidden,
    negative (as -100) elsewhere. A label where nothing counts is left out. Returns a scalar >= 0. Raises ValueError for
    other shapes or labels.
    """
    shape = student_token_logits.shape
    if student_token_logits.ndim != 3 or token_labels.shape != shape[:2] or token_labels.dtype != torch.int64:
        raise ValueError(
            f"needs token_labels int64 [B, N] of logits [B, N, V], found {token_labels.dtype} "
            f"{tuple(token_labels.shape)} and logits {tuple(shape)}"
        )
    chosen = counting(mask, student_token_logits) & (token_labels >= 0)
    rows = student_token_logits[chosen].to(full(student_token_logits))
    return F.cross_entropy(rows, token_labels[chosen], reduction="sum") / max(1, len(rows))


def token_kd(
    student_token_logits: Tensor, teacher_token_logits: Tensor, mask: Tensor | None = None, *, temperature: float = 2.0
) -> Tensor:
    """Soft targets over the vocabulary: `T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))` of each token, summed over the
    vocabulary, a mean over the tokens that count.

    Sanh et al. 2019 (DistilBERT, arXiv 1910.01108), section 2, whose code selects the rows that count first; with
    `mask` the hidden tokens it is their `restrict_ce_to_mask`. In float32, unlike `kd`: a vocabulary is wide. Logits
    [B, N, V]; the teacher's may be -inf, a probability of 0. Returns a scalar >= 0. Raises ValueError where the shapes
    differ.
    """
    ((student, teacher),) = pairs([student_token_logits], [teacher_token_logits])
    counts = counting(mask, student)
    log_student = torch.log_softmax(student[counts] / temperature, dim=-1)
    log_teacher = torch.log_softmax(teacher[counts] / temperature, dim=-1).clamp_min(LOWEST)
    total = F.kl_div(log_student, log_teacher, reduction="sum", log_target=True)
    return (total * temperature**2 / max(1, len(log_student))).clamp_min(0)


def token_cosine(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], mask: Tensor | None = None
) -> Tensor:
    """Alignment of hidden states: `1 − cos(h_s, h_t)`, a mean over the tokens that count, summed over the pairs.

    Sanh et al. 2019 (DistilBERT, arXiv 1910.01108), section 2: of the last hidden states alone. A state of zeros has no
    direction and passes no gradient on. Tokens [B, N, D] of one width; returns a scalar in [0, 2] a pair. Raises
    ValueError for other shapes, or where they do not come in pairs of one shape.
    """
    loss = []
    for student, teacher in pairs(student_features, teacher_features):
        if student.ndim != 3:
            raise ValueError(f"needs tokens [B, N, D], found {tuple(student.shape)}")
        counts = counting(mask, student)
        apart = 0.5 * (unit(only(student, counts)) - unit(only(teacher, counts))).pow(2).sum(-1)
        loss.append(apart.sum() / counts.sum().clamp_min(1))
    return torch.stack(loss).sum()


def attention_scores(
    student_features: Sequence[Tensor], teacher_features: Sequence[Tensor], mask: Tensor | None = None
) -> Tensor:
    """TinyBERT's attention, before the softmax: `1/h Σ_heads MSE(S_s, S_t)`, `S = Q Kᵀ / √d`, a mean over the pairs of
    tokens that both count, summed over the layers.

    Jiao et al. 2020 (arXiv 1909.10351), eq. 8, which says unnormalized. The authors' code takes the mean over all
    pairs, so that filling dilutes it, and has every score below -100 count as 0, a filled one or not. Here rows and
    columns are left out, and no value is: scores [B, heads, N, N] may have a mask (-inf, -10000) added or not. Returns
    a scalar >= 0. Raises ValueError for other shapes, other numbers of heads, or where they do not come in pairs.
    """
    loss = []
    for student, teacher in pairs(student_features, teacher_features, alike=False):
        require_same_heads(tuple(student.shape[1:]), tuple(teacher.shape[1:]))
        loss.append(pair_squares(student, teacher, counting(mask, student, 2)))
    return torch.stack(loss).sum()


def require_same_heads(student: tuple[int, ...], teacher: tuple[int, ...]) -> None:
    """Raises ValueError for scores (heads, N, N) that cannot be compared head by head."""
    if len(student) != 3 or len(teacher) != 3 or student[1] != student[2] or student[1:] != teacher[1:]:
        raise ValueError(f"needs attention scores [B, heads, N, N] of as many tokens, found {student} and {teacher}")
    if student[0] != teacher[0]:
        raise ValueError(
            f"attention scores of {student[0]} and {teacher[0]} heads cannot be compared head by head: use relations"
        )


def relations(
    student_features: Sequence[Tensor],
    teacher_features: Sequence[Tensor],
    mask: Tensor | None = None,
    *,
    relation_heads: int = 0,
) -> Tensor:
    """MiniLMv2's relations of queries with queries, keys with keys, and values with values: `KL(R_t ‖ R_s)`,
    `R = softmax(A Aᵀ / √d)`, A split anew into `relation_heads` of width d. A mean over these heads and the tokens that
    count, as queries; over the keys that count; summed over the three and over the pairs of layers.

    Wang et al. 2021 (MiniLMv2, arXiv 2012.15828), section 3, all three with weight 1; the values' are those
    of MiniLM (Wang et al. 2020, arXiv 2002.10957), section 3.2. Neither width nor number of attention heads need be the
    same. `relation_heads` 0: as many as divide both widths, 12 at most. Features [B, 3, N, D], queries, keys and values
    (or fewer of them); returns a scalar >= 0. Raises ValueError where `relation_heads` does not divide a width, for
    other shapes, or where they do not come in pairs.
    """
    loss = []
    for student, teacher in pairs(student_features, teacher_features, alike=False):
        if student.ndim != 4 or student.shape[:3] != teacher.shape[:3]:
            raise ValueError(
                f"needs queries, keys and values [B, 3, N, D] of as many tokens, found {tuple(student.shape)} and "
                f"{tuple(teacher.shape)}"
            )
        counts = counting(mask, student, 2)
        heads = relation_heads or common_heads(student.shape[-1], teacher.shape[-1])
        for ours, theirs in zip(student.unbind(1), teacher.unbind(1), strict=True):
            log_student, log_teacher = (_log_relations(one_side, counts, heads) for one_side in (ours, theirs))
            apart = (log_teacher.exp() * (log_teacher - log_student)).sum(-1)
            loss.append(torch.where(counts[:, None], apart, 0.0).sum() / (heads * counts.sum().clamp_min(1)))
    return torch.stack(loss).sum().clamp_min(0)


def common_heads(student: int, teacher: int) -> int:
    """The most relation heads, up to 12, that divide both widths."""
    return next(heads for heads in range(MOST_HEADS, 0, -1) if student % heads == 0 and teacher % heads == 0)


def _log_relations(vectors: Tensor, counts: Tensor, heads: int) -> Tensor:
    """log softmax of the scaled inner products of [B, N, D], [B, heads, N, N]; LOWEST where a key does not count."""
    width = vectors.shape[-1]
    if width % heads:
        raise ValueError(f"relation_heads={heads} does not divide a width of {width}")
    split = only(vectors, counts).reshape(*vectors.shape[:-1], heads, width // heads).transpose(1, 2)
    scores = inner_products(split, split) / math.sqrt(width // heads)
    return scores.masked_fill(~counts[:, None, None], LOWEST).log_softmax(-1)


def count_of(mean_over: MeanOver, mask: Tensor, token_labels: Tensor | None = None) -> Tensor:
    """How many of a batch a loss is a mean over, float64 []: a mean over two batches weighs each by its own.

    `mask` [B, N]; `token_labels` int64 [B, N] of what is `chosen`. Raises ValueError for a mask of another kind, and
    for `chosen` without labels.
    """
    counts = counting(mask, mask)
    if mean_over == "samples":
        return torch.tensor(float(len(mask)), dtype=torch.float64, device=mask.device)
    if mean_over == "chosen":
        if token_labels is None:
            raise ValueError("no token_labels say which tokens are chosen")
        counts = counts & (token_labels >= 0)
    lengths = counts.sum(1).double()
    return lengths.pow(2).sum() if mean_over == "pairs" else lengths.sum()
