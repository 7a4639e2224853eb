"""Losses on logits: response-based knowledge, and the labels themselves.

Those that compare logits compute in float64, which costs nothing beside a network: at a high temperature all digits
but the last cancel, and float32 would leave noise. What they return is float32 (float64 for float64 logits).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.losses.numbers import full, require_same_shape
from compressor.losses.rows import each_row, mean_of_rows

__all__ = ["cross_entropy", "dist", "divergence", "dkd", "kd", "logit_mse", "lskd", "soft_bce", "soft_cross_entropy"]

# A row or column whose spread is below this share of its size counts as constant: it has no direction to compare.
CONSTANT = 1e-8
UNDERFLOW = 1e-200  # of a square, in float64
LOWEST = -1e300  # in place of log 0, in float64
NEVER_IGNORED = torch.iinfo(torch.int64).min  # PyTorch would leave out -100 in silence


def kd(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 4.0) -> Tensor:
    """Soft targets: `T² · KL(softmax(z_t / T) ‖ softmax(z_s / T))`, summed over classes, mean over the batch.

    Hinton, Vinyals & Dean 2015 (arXiv 1503.02531), section 2. The factor T² keeps the size of the gradient comparable
    when T changes. Logits [B, C]; the teacher's may be -inf, a probability of 0. Returns a scalar >= 0. Raises
    ValueError where the shapes differ.
    """
    require_same_shape(student_logits, teacher_logits)

    def of_rows(student: Tensor, teacher: Tensor) -> Tensor:
        return _divergences(student, torch.log_softmax(teacher.double() / temperature, dim=-1), temperature)

    return mean_of_rows(temperature**2 * each_row(of_rows, student_logits, teacher_logits), student_logits)


def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """TinyBERT's prediction layer: `T² · −Σ_c softmax(z_t / T)_c log softmax(z_s / T)_c`, a mean over the batch.

    Jiao et al. 2020 (arXiv 1909.10351), section 3.1. It is `kd` and T² times the entropy of the teacher, which is what
    is left where both agree; its gradient is that of kd. The authors' code divides by the classes too, and has no T².
    Logits [B, C]; the teacher's may be -inf, a probability of 0. Returns a scalar >= 0. Raises ValueError where the
    shapes differ.
    """
    require_same_shape(student_logits, teacher_logits)

    def of_rows(student: Tensor, teacher: Tensor) -> Tensor:
        target = torch.softmax(teacher.double() / temperature, dim=-1)
        return -(target * torch.log_softmax(student.double() / temperature, dim=-1)).sum(-1)

    return mean_of_rows(temperature**2 * each_row(of_rows, student_logits, teacher_logits), student_logits)


def divergence(student_logits: Tensor, log_teacher: Tensor, temperature: float) -> Tensor:
    """`T² · KL(p ‖ softmax(z_s / T))`, mean over the batch, where `log_teacher` [B, C] is log p, already at T."""
    return mean_of_rows(temperature**2 * _divergences(student_logits, log_teacher, temperature), student_logits)


def _divergences(student_logits: Tensor, log_teacher: Tensor, temperature: float) -> Tensor:
    """`KL(p ‖ softmax(z_s / T))` of each row, [B]."""
    log_student = torch.log_softmax(student_logits.double() / temperature, dim=-1)
    # A class of probability 0 adds 0 log 0 = 0, where -inf would give nan.
    target = log_teacher.double().clamp_min(LOWEST)
    return F.kl_div(log_student, target, reduction="none", log_target=True).sum(-1)


def _finished(loss: Tensor, student_logits: Tensor) -> Tensor:
    """In the student's precision. Where both agree, rounding may have left a divergence at -1e-16."""
    return loss.clamp_min(0).to(full(student_logits))


def logit_mse(student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
    """Logit matching: `½ ‖z_s − z_t‖² / C` of logits centred over the classes, mean over the batch.

    Bucilua, Caruana & Niculescu-Mizil 2006; the limit of `kd` as T grows (Hinton, Vinyals & Dean 2015, section 2.1).
    Logits [B, C]; returns a scalar >= 0. Raises ValueError where the shapes differ.
    """
    require_same_shape(student_logits, teacher_logits)
    difference = student_logits.double() - teacher_logits.double()
    difference = difference - difference.mean(dim=-1, keepdim=True)
    return (0.5 * difference.pow(2).mean()).to(full(student_logits))


def soft_bce(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Binary soft targets: `T² · Σ_c KL(σ(z_t / T) ‖ σ(z_s / T))`, every class for itself, mean over the batch.

    It is the binary cross-entropy with the teacher's sigmoids less their own entropy, as kd is the cross-entropy less
    the teacher's: the gradient is that of the cross-entropy, and 0 means agreement. Yang et al. 2023, "Multi-Label
    Knowledge Distillation" (arXiv 2308.06453); the factor T² as in kd. For classes that do not exclude each
    other. Logits [B, C]; returns a scalar >= 0. Raises ValueError where the shapes differ.
    """
    require_same_shape(student_logits, teacher_logits)
    student, teacher = student_logits.double() / temperature, teacher_logits.double() / temperature
    yes = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
    no = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
    return _finished(temperature**2 * (yes + no).sum(-1).mean(), student_logits)


def dkd(
    student_logits: Tensor,
    teacher_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float = 4.0,
    alpha: float = 1.0,
    beta: float = 8.0,
) -> Tensor:
    """Decoupled KD: `T² (alpha · TCKD + beta · NCKD)`, mean over the batch.

    TCKD is the KL between the probabilities (label, all others together); NCKD the KL over the other classes among
    themselves. kd is `TCKD + (1 − p_t) NCKD`, p_t the teacher's probability of the label. Zhao et al. 2022 (arXiv
    2203.08679), section 3. Logits [B, C], C >= 2; `labels` int64 [B] only: with mixed labels there is no target class.
    Returns a scalar >= 0. Raises ValueError for shapes that differ, and for other labels.
    """
    require_same_shape(student_logits, teacher_logits)
    if labels.dtype != torch.int64 or labels.shape != student_logits.shape[:1]:
        raise ValueError(f"dkd takes labels int64 [B], found {labels.dtype} {tuple(labels.shape)}")
    non_target_index = torch.arange(student_logits.shape[1] - 1, device=labels.device).expand(len(labels), -1)
    non_target_index = non_target_index + (non_target_index >= labels[:, None])  # the classes but the label
    binary, non_target = [], []
    for logits in (student_logits, teacher_logits):
        log_p = torch.log_softmax(logits.double() / temperature, dim=-1)
        # Never log(softmax): it underflows. The others are cut out, not masked by a large number.
        non_target_log_p = log_p.gather(1, non_target_index)
        binary.append(torch.stack([log_p.gather(1, labels[:, None])[:, 0], non_target_log_p.logsumexp(-1)], dim=-1))
        non_target.append(torch.log_softmax(non_target_log_p, dim=-1))
    target = F.kl_div(binary[0], binary[1], reduction="batchmean", log_target=True)
    among_others = F.kl_div(non_target[0], non_target[1], reduction="batchmean", log_target=True)
    return _finished(temperature**2 * (alpha * target + beta * among_others), student_logits)


def dist(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 1.0, beta: float = 1.0, gamma: float = 1.0
) -> Tensor:
    """DIST: `T² (beta · mean_rows(1 − ρ) + gamma · mean_columns(1 − ρ))`, ρ Pearson's correlation of probabilities.

    Rows: a sample's probabilities over the classes; columns: a class's over the batch. Huang et al. 2022 (arXiv
    2205.10536), section 3. T² is that of the authors' code; since ρ does not shrink as T grows, a higher T here means a
    larger weight too. Where a row or column is constant (a batch of one sample, a
    uniform prediction), ρ is undefined: it counts as 0 and passes no gradient on, so the loss then is not 0 for a pair
    that agrees. Logits [B, C]; returns a scalar in [0, 2 T² (beta + gamma)]. Raises ValueError where the shapes differ.
    """
    require_same_shape(student_logits, teacher_logits)
    student = torch.softmax(student_logits.double() / temperature, dim=-1)
    teacher = torch.softmax(teacher_logits.double() / temperature, dim=-1)
    between_classes = 1 - pearson(student, teacher).mean()
    within_classes = 1 - pearson(student.T, teacher.T).mean()
    return _finished(temperature**2 * (beta * between_classes + gamma * within_classes), student_logits)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's correlation of each row of two float64 [N, M] with the other's row: [N], 0 where one is constant."""
    (a, size_a, a_varies), (b, size_b, b_varies) = _centred(a), _centred(b)
    varies = a_varies & b_varies
    lengths = torch.where(varies, size_a, 1.0).sqrt() * torch.where(varies, size_b, 1.0).sqrt()
    return torch.where(varies, (a * b).sum(-1, keepdim=True), 0.0).div(lengths)[..., 0]


def _centred(rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rows less their mean, the sum of their squares, and whether they vary at all."""
    centred = rows - rows.mean(-1, keepdim=True)
    square = centred.pow(2).sum(-1, keepdim=True)
    floor = (CONSTANT**2 * rows.detach().pow(2).sum(-1, keepdim=True)).clamp_min(UNDERFLOW)
    return centred, square, square > floor


def lskd(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float = 2.0) -> Tensor:
    """kd of standardized logits, `(z − mean) / std` of each row: the student need not copy the teacher's scale.

    Sun et al. 2024 (arXiv 2403.01427), algorithms 1 and 2; std is that of the population, as there (the authors' code
    divides by C − 1). Its weight is not comparable with kd's: a gradient is divided by the row's std; the authors
    weight it 9 against 0.1 for the labels. A constant row has no scale: it counts as zeros and passes no gradient on.
    Logits [B, C]; returns a scalar >= 0. Raises ValueError where the shapes differ.
    """
    require_same_shape(student_logits, teacher_logits)
    loss = kd(_standardized(student_logits), _standardized(teacher_logits), temperature=temperature)
    return loss.to(full(student_logits))


def _standardized(logits: Tensor) -> Tensor:
    centred, square, varies = _centred(logits.double())
    variance = torch.where(varies, square / logits.shape[-1], 1.0)
    return torch.where(varies, centred, 0.0) / variance.sqrt()


def cross_entropy(student_logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy with the labels, mean over the batch; logits [B, C]; returns a scalar.

    `labels`: int64 [B], or floating-point probabilities [B, C], which mixed images have. Raises ValueError for
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
    dtype = full(student_logits)

    def of_rows(student: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(
            student.to(dtype), target.to(dtype) if probabilities else target, reduction="none",
            label_smoothing=label_smoothing, ignore_index=NEVER_IGNORED,
        )  # fmt: skip

    return mean_of_rows(each_row(of_rows, student_logits, labels), student_logits)
