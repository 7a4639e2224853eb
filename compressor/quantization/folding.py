"""BatchNorm folded into the convolution before it: what every runtime does before it quantizes, and so what a student
must look like that is trained for that.

Jacob et al. 2018, arXiv 1712.05877, equation 14: w' = w γ / √(σ² + ε), and b' = (b − μ) γ / √(σ² + ε) + β.
"""

import copy
from collections import Counter
from collections.abc import Sequence

import torch
from timm.layers import BatchNormAct2d, Conv2dSame
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.quantization.tracing import trace

__all__ = ["fold_batchnorm", "unfolded"]

CONVOLUTIONS = (nn.Conv2d.forward, Conv2dSame.forward)
"""Convolutions that take their weight as it is; others (weight standardization) compute it anew in each call."""


def fold_batchnorm(network: nn.Module, example: Sequence[Tensor]) -> nn.Module:
    """A copy of `network` that computes the same in evaluation mode, with every BatchNorm2d folded that directly takes
    what a convolution answers, if nothing else takes that. What timm's BatchNormAct2d does besides (activation, drop)
    stays in its place. `example`: any input [B, 3, height, width]; only its shape matters.
    """
    folded = copy.deepcopy(network)
    for convolution, norm in _pairs(folded, example):
        layer, norm_layer = folded.get_submodule(convolution), folded.get_submodule(norm)
        assert isinstance(layer, nn.Conv2d)
        assert isinstance(norm_layer, nn.BatchNorm2d)
        _fold(layer, norm_layer)
        folded.set_submodule(norm, _rest(norm_layer))
    return folded


def unfolded(network: nn.Module) -> tuple[str, ...]:
    """The paths of the BatchNorms that `network` still has."""
    return tuple(path for path, module in network.named_modules() if isinstance(module, _BatchNorm))


def _pairs(network: nn.Module, example: Sequence[Tensor]) -> list[tuple[str, str]]:
    """(convolution, BatchNorm) by path, for those that can be folded."""
    flow = trace(network, example, (nn.Conv2d, nn.BatchNorm2d))
    calls = Counter(step.layer for step in flow.steps)
    maker = {value: step for step in flow.steps for value in step.outputs}
    pairs = []
    for step in flow.steps:
        before = maker.get(step.inputs[0]) if step.layer else None
        if before is None or not before.layer or calls[step.layer] > 1 or calls[before.layer] > 1:
            continue
        layer, norm = network.get_submodule(before.layer), network.get_submodule(step.layer)
        if type(norm) not in (nn.BatchNorm2d, BatchNormAct2d) or norm.running_mean is None:
            continue
        if type(layer).forward in CONVOLUTIONS and len(flow.users(step.inputs[0])) == 1:
            pairs.append((before.layer, step.layer))
    return pairs


def _fold(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with torch.no_grad():
        factor = (norm.running_var.double() + norm.eps).rsqrt()
        if norm.weight is not None:
            factor = factor * norm.weight.double()
        bias = -norm.running_mean.double() if layer.bias is None else layer.bias.double() - norm.running_mean.double()
        bias = bias * factor
        if norm.bias is not None:
            bias = bias + norm.bias.double()
        weight = layer.weight.double() * factor[:, None, None, None]
        layer.weight.copy_(weight)
        layer.bias = nn.Parameter(bias.to(layer.weight.dtype))


def _rest(norm: nn.BatchNorm2d) -> nn.Module:
    """What the module does besides normalizing."""
    if not isinstance(norm, BatchNormAct2d):
        return nn.Identity()
    parts = [part for part in (norm.drop, norm.act) if not isinstance(part, nn.Identity)]
    return parts[0] if len(parts) == 1 else nn.Sequential(*parts) if parts else nn.Identity()
