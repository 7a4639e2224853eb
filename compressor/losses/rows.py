"""Losses that give each row a value of its own, over vocabularies: a few rows at a time.

The logits of 8 texts of 256 tokens over a vocabulary of 49,152 are 0.4 GB in float32, and written out plainly a loss
makes several copies of them. What a row is worth depends on no other row, so a few go forward, and backward, at a time.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from compressor.losses.numbers import full

__all__ = ["each_row", "mean_of_rows"]

MOST_VALUES = 2**20
"""Logits of one side that are worked on at a time: 8 MB in float64."""


def each_row(function: Callable[..., Tensor], *tensors: Tensor) -> Tensor:
    """What `function` gives, which takes the tensors [n, …] and gives each row a value, [n]; where they are large, made
    of a few rows at a time. Backward makes these values again, so that between the two nothing is kept but the tensors
    themselves. Its gradient has the tensors' precision, rounded once."""
    rows, values = len(tensors[0]), max(tensor.numel() for tensor in tensors)
    if values <= MOST_VALUES or rows < 2:
        return function(*tensors)
    at_a_time = max(1, MOST_VALUES * rows // values)
    result: Tensor = _FewAtATime.apply(function, at_a_time, *tensors)
    return result


class _FewAtATime(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], at_a_time: int, *tensors: Tensor) -> Tensor:
        ctx.function, ctx.at_a_time = function, at_a_time
        ctx.save_for_backward(*tensors)
        rows = len(tensors[0])
        values = torch.empty(rows, dtype=torch.float64, device=tensors[0].device)
        for start in range(0, rows, at_a_time):
            # No small block stays behind among the large ones, or glibc could not use their memory again.
            values[start : start + at_a_time] = function(*(t[start : start + at_a_time] for t in tensors))
        return values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        gradients = [torch.empty_like(t) if want else None for t, want in zip(tensors, wanted, strict=True)]
        for start in range(0, len(gradient), ctx.at_a_time):
            few = slice(start, start + ctx.at_a_time)
            _backward(
                ctx.function, [t[few] for t in tensors], gradient[few], [g if g is None else g[few] for g in gradients]
            )
        return (None, None, *gradients)


def _backward(
    function: Callable[..., Tensor], tensors: list[Tensor], gradient: Tensor, gradients: list[Tensor | None]
) -> None:
    """Fill `gradients` of those tensors that have some; nothing that was made for it outlives it."""
    leaves = [t.detach().requires_grad_(g is not None) for t, g in zip(tensors, gradients, strict=True)]
    with torch.enable_grad():
        values = function(*leaves)
    learned = [leaf for leaf in leaves if leaf.requires_grad]
    filled = [g for g in gradients if g is not None]
    for to_fill, of_few in zip(filled, torch.autograd.grad(values, learned, gradient.to(values.dtype)), strict=True):
        to_fill.copy_(of_few)


def mean_of_rows(values: Tensor, student: Tensor) -> Tensor:
    """The mean of [n], in the precision of the loss of such logits; of no rows 0. Where both sides agree, rounding may
    have left a divergence at -1e-16."""
    return (values.sum() / max(1, len(values))).clamp_min(0).to(full(student))
