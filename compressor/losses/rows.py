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
    result: Tensor = _FewAtATime.apply(function, at_a_time, *tensors)  # type: ignore[no-untyped-call]
    return result


class _FewAtATime(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, function: Callable[..., Tensor], at_a_time: int, *tensors: Tensor) -> Tensor:
        ctx.function, ctx.at_a_time = function, at_a_time
        ctx.save_for_backward(*tensors)
        return torch.cat([function(*few) for few in zip(*(tensor.split(at_a_time) for tensor in tensors), strict=True)])

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        tensors, wanted = ctx.saved_tensors, ctx.needs_input_grad[2:]
        gradients = [torch.empty_like(t) if want else None for t, want in zip(tensors, wanted, strict=True)]
        for start in range(0, len(gradient), ctx.at_a_time):
            few = slice(start, start + ctx.at_a_time)
            leaves = [t[few].detach().requires_grad_(want) for t, want in zip(tensors, wanted, strict=True)]
            with torch.enable_grad():
                values = ctx.function(*leaves)
            learned = [leaf for leaf, want in zip(leaves, wanted, strict=True) if want]
            of_few = iter(torch.autograd.grad(values, learned, gradient[few]))
            for whole in gradients:
                if whole is not None:
                    whole[few] = next(of_few)
        return (None, None, *gradients)


def mean_of_rows(values: Tensor, student: Tensor) -> Tensor:
    """The mean of [n], in the precision of the loss of such logits; of no rows 0. Where both sides agree, rounding may
    have left a divergence at -1e-16."""
    return (values.sum() / max(1, len(values))).clamp_min(0).to(full(student))
