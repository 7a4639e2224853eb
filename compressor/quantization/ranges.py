"""Ranges of activations from a few batches: those that lose least by rounding and clipping (mean squared error).

The largest value alone is a poor range: one outlier makes all steps coarse. Choi et al. 2018 (arXiv 1805.06085) learn
where to clip; Nagel et al. 2021 (arXiv 2106.08295, section 3.1) search for the least squared error, as is done here.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compressor.modes import evaluating
from compressor.quantization.fake_quant import Rounding
from compressor.quantization.plan import QuantPlan
from compressor.schema.quantization import Quantization, Scheme

__all__ = ["best_range", "calibrate"]

Range = tuple[float, float]

SAMPLED = 1 << 13
"""Values of one activation in one batch that the error is computed on, spread over it."""

SHARES = [0.92**power for power in range(40)]
"""Candidates: the whole range, and down to a twenty-fifth of it."""


def calibrate(network: nn.Module, plan: QuantPlan, scheme: Scheme, batches: Iterable[Sequence[Tensor]]) -> Quantization:
    """The ranges of `plan`'s inputs and outputs on `batches` [B, 3, height, width] of training images."""
    samples: dict[tuple[str, str], list[Tensor]] = defaultdict(list)
    extremes: dict[tuple[str, str], list[Tensor]] = defaultdict(list)

    def note(side: tuple[str, str], bounds: Range, values: Tensor) -> None:
        flat = values.detach().float().clamp(*bounds).flatten()
        # An odd step: an even one would meet the same few columns of every map.
        samples[side].append(flat[:: len(flat) // SAMPLED | 1].cpu())
        extremes[side].append(torch.stack(flat.aminmax()).cpu())

    def before(module: nn.Module, args: tuple[Any, ...], side: tuple[str, str], bounds: Range) -> None:
        note(side, bounds, args[0])

    def after(module: nn.Module, args: Any, answer: Tensor, side: tuple[str, str], bounds: Range) -> None:
        note(side, bounds, answer)

    everything = (float("-inf"), float("inf"))
    handles = []
    for path in plan.inputs:
        hook = partial(before, side=("in", path), bounds=everything)
        handles.append(network.get_submodule(path).register_forward_pre_hook(hook))
    for path, bounds in plan.outputs.items():
        hook = partial(after, side=("out", path), bounds=bounds)
        handles.append(network.get_submodule(path).register_forward_hook(hook))
    try:
        with evaluating(network):
            for batch in batches:
                network(*batch)
    finally:
        for handle in handles:
            handle.remove()
    ranges = {side: best_range(torch.cat(samples[side]), torch.cat(extremes[side]), scheme) for side in samples}
    return Quantization(
        scheme=scheme,
        inputs={path: ranges["in", path] for path in plan.inputs},
        outputs={path: ranges["out", path] for path in plan.outputs},
    )


def best_range(samples: Tensor, extremes: Tensor, scheme: Scheme) -> Range:
    """The range to which rounding the `samples` [N] loses least (mean squared error), within that of the `extremes`."""
    low, high = min(0.0, float(extremes.min())), max(0.0, float(extremes.max()))
    if scheme.activations == "int8":
        most = max(-low, high)
        size = _least_loss(samples, [(-most * share, most * share) for share in SHARES], scheme)[1]
        return max(low, -size), min(high, size)
    # One end after the other: a long tail is mostly on one side.
    high = _least_loss(samples, [(low, high * share) for share in SHARES], scheme)[1] if high else high
    low = _least_loss(samples, [(low * share, high) for share in SHARES], scheme)[0] if low else low
    return low, high


def _least_loss(samples: Tensor, candidates: list[Range], scheme: Scheme) -> Range:
    losses = [
        float((Rounding(*bounds, scheme.activations)(samples) - samples).square().mean()) for bounds in candidates
    ]
    return candidates[losses.index(min(losses))]
