"""Arithmetic that the losses share: full precision, and quotients that stay defined where their divisor is 0."""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

__all__ = ["TINY", "full", "inner_products", "pairs", "require_same_shape", "unit"]

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
