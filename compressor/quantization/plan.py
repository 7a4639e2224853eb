"""Where a student is quantized: read from the flow of its values, as int8 kernels need it.

Inputs and weights of convolutions and linear layers are quantized, depthwise ones too. Two rules beside:

- The gates of squeeze-excite run in float (`squeeze_excite` says why, and which layers these are).
- An int8 convolution answers int8. Where its answer goes into quantized layers only, at most through a clipping
  activation (ReLU, ReLU6), their input ranges serve for that. Elsewhere (hard-swish, a sum, a pool) its output has a
  range of its own, or the runtime would compute the convolution in float.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from math import inf

from torch import Tensor, nn

from compressor.quantization.fake_quant import FAKE_QUANT
from compressor.quantization.squeeze_excite import Operation, gates
from compressor.quantization.tracing import INPUT, Step, Trace, trace

__all__ = ["QuantPlan", "quant_plan"]

POOLS = {"mean", "amax", "_adaptive_avg_pool2d", "adaptive_avg_pool2d", "adaptive_max_pool2d"}
"""Those that torch's exporter writes as one of export/qdq_plan's POOLS, where they pool to one value a channel."""


@dataclass(frozen=True)
class QuantPlan:
    """`inputs`: paths of the layers whose input and weight are quantized. `outputs`: those of them whose output is as
    well -> the bounds (low, high) to which whatever takes it clips it anyway."""

    inputs: tuple[str, ...]
    outputs: dict[str, tuple[float, float]]


def quant_plan(network: nn.Module, example: Sequence[Tensor]) -> QuantPlan:
    """The plan for `network`, whose BatchNorms are folded. `example`: any input [B, 3, height, width]."""
    flow = trace(network, example, (nn.Conv2d, nn.Linear))
    in_float = gates(map(partial(_operation, flow), flow.steps), [INPUT])
    layers = {step.layer: step for step in flow.steps if step.layer}
    inputs = tuple(path for path in layers if path not in in_float and type(network.get_submodule(path)) in FAKE_QUANT)
    outputs = {}
    for path in inputs:
        value = layers[path].outputs[0]
        if isinstance(network.get_submodule(path), nn.Conv2d) and not _reaches_only(flow, value, set(inputs)):
            outputs[path] = _clipped_to(flow.users(value))
    return QuantPlan(inputs, outputs)


def _reaches_only(flow: Trace, value: int, quantized: set[str]) -> bool:
    """Whether only quantized layers take the value, directly or clipped. The network's answer is taken by none."""
    return all(
        step.layer in quantized or (step.clip is not None and _reaches_only(flow, step.outputs[0], quantized))
        for step in flow.users(value)
    )


def _clipped_to(users: Iterable[Step]) -> tuple[float, float]:
    clips = [step.clip or (-inf, inf) for step in users]
    return min(low for low, _ in clips), max(high for _, high in clips)


def _operation(flow: Trace, step: Step) -> Operation:
    if step.op in POOLS and all(_is_pooled(flow.shapes[value]) for value in step.outputs):
        return Operation(step.layer, "pool", step.inputs, step.outputs)
    return Operation(step.layer, "product" if step.op == "mul" else "other", step.inputs, step.outputs)


def _is_pooled(shape: tuple[int, ...]) -> bool:
    """[B, C] or [B, C, 1, 1]."""
    return len(shape) == 2 or (len(shape) == 4 and shape[2:] == (1, 1))
