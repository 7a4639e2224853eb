"""Arithmetic that the losses share: full precision, and quotients that stay defined where their divisor is 0."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = [
    "TINY",
    "counting",
    "full",
    "inner_products",
    "only",
    "pair_squares",
    "pairs",
    "require_same_shape",
    "token_squares",
    "unit",
]

TINY = 1e-30  # a squared length below this counts as 0


def full(tensor: Tensor) -> torch.dtype:
    """float32, or float64 where the tensor is: half precision is for networks, not for losses."""
    return torch.promote_types(tensor.dtype, torch.float32)


def require_same_shape(student: Tensor, teacher: Tensor) -> None:
    """Raises ValueError where the shapes differ: broadcasting would hide it."""
    if student.shape != teacher.shape:
        raise ValueError(f"shapes differ: student {tuple(student.shape)}, teacher {tuple(teacher.shape)}")


def pairs(student: Sequence[Tensor], teacher: Sequence[Tensor], *, alike: bool = True) -> Iterator[tuple[Tensor, ...]]:
    """The pairs of features, in full precision. `alike`: both of a pair have one shape; else the batch size alone.

    Raises ValueError where they do not, or where there are no pairs, or not as many students as teachers.
    """
    if not student or len(student) != len(teacher):
        raise ValueError(f"features come in pairs, found {len(student)} of the student, {len(teacher)} of the teacher")
    for ours, theirs in zip(student, teacher, strict=True):
        if alike or ours.shape[:1] != theirs.shape[:1]:
            require_same_shape(ours, theirs)
        dtype = full(ours)
        yield ours.to(dtype), theirs.to(dtype)


def unit(vectors: Tensor, dim: int = -1) -> Tensor:
    """The vectors along `dim`, each divided by its length. A vector of length 0 stays 0 and passes no gradient on,
    where division by a small constant would pass on an enormous one."""
    square = vectors.pow(2).sum(dim, keepdim=True)
    known = square > TINY
    return torch.where(known, vectors, 0.0) / torch.where(known, square, 1.0).sqrt()


def inner_products(a: Tensor, b: Tensor) -> Tensor:
    """`a bᵀ` of the last two dimensions, in the tensors' own precision: autocast would do it in half."""
    with torch.autocast(a.device.type, enabled=False):
        return a @ b.mT


def counting(mask: Tensor | None, features: Tensor, dim: int = 1) -> Tensor:
    """Which tokens of `features` count, bool [B, N]; N is its dimension `dim`. All of them without a `mask`.

    Raises ValueError for a mask of another shape, and for one of floating point: that may be an additive one, whose 0
    means the opposite.
    """
    batch, tokens = features.shape[0], features.shape[dim]
    if mask is None:
        return torch.ones(batch, tokens, dtype=torch.bool, device=features.device)
    if mask.is_floating_point():
        raise ValueError(f"a mask says with 1 or 0 (integers, booleans) which tokens count, found {mask.dtype}")
    if mask.shape != (batch, tokens):
        raise ValueError(f"a mask {tuple(mask.shape)} does not say which of {tokens} tokens of {batch} samples count")
    return mask.bool()


def only(tokens: Tensor, counts: Tensor) -> Tensor:
    """`tokens` [B, N, D] with 0 in place of those that do not count: what stands there reaches no gradient either."""
    return torch.where(counts[..., None], tokens, 0.0)


def token_squares(student: Tensor, teacher: Tensor, counts: Tensor) -> Tensor:
    """The mean of the squared differences of [B, N, D] over the tokens that count and their width."""
    total = (only(student, counts) - only(teacher, counts)).square().sum()
    return total / (counts.sum().clamp_min(1) * student.shape[-1])


def pair_squares(student: Tensor, teacher: Tensor, counts: Tensor) -> Tensor:
    """The mean of the squared differences of [B, heads, N, N] over heads and pairs of tokens that both count."""
    both = (counts[:, :, None] & counts[:, None, :])[:, None]
    total = (torch.where(both, student, 0.0) - torch.where(both, teacher, 0.0)).square().sum()
    return total / (both.sum().clamp_min(1) * student.shape[1])
