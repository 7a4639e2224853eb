"""Which layers quantization hurts, and what they gain by it: measured, one layer at a time.

A layer's cost: how much closer the logits come to the fp32 ones when that layer alone stays in float, in mean
KL(fp32 || int8) over training images. Its gain: how many microseconds longer the model takes then, by onnxruntime's
profiler on this machine. On another device the gains differ; the accuracy does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx

from compressor.export.onnx.qdq_plan import Layer
from compressor.export.onnx.session import Floats, node_times, open_session
from compressor.progress import Progress
from compressor.stats.softmax import log_softmax
from compressor.tasks.base import Arrays

__all__ = ["Sensitivity", "divergence", "growing_sets", "in_order", "measure_layers"]

T = TypeVar("T")

RUNS = 15
"""Inferences of which the profiler's median is taken."""


@dataclass(frozen=True)
class Sensitivity:
    """What leaving one layer in float changes. `regained`: KL of the logits, in nats; `slower_us`: microseconds."""

    layer: Layer
    regained: float
    slower_us: float


def measure_layers(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    quantized: Callable[[frozenset[str]], onnx.ModelProto],
    inputs: Sequence[Arrays],
    progress: Progress,
) -> tuple[Sensitivity, ...]:
    """One row a layer, in the order of `layers`. `quantized`: names of the layers left in float -> the Q/DQ model."""
    wanted = _logits(model, inputs)
    all_int8 = quantized(frozenset())
    lost, took = divergence(wanted, _logits(all_int8, inputs)), _duration(all_int8, inputs)
    sensitivities = []
    for layer in progress.track(layers, len(layers), "sensitivity of layers"):
        mixed = quantized(frozenset({layer.name}))
        regained = lost - divergence(wanted, _logits(mixed, inputs))
        sensitivities.append(Sensitivity(layer, regained, _duration(mixed, inputs) - took))
    return tuple(sensitivities)


def in_order(measured: Sequence[Sensitivity]) -> tuple[Layer, ...]:
    """The layers worth leaving in float, the best first: accuracy regained per microsecond lost. None counts as cheaper
    than the median of those that cost time, or noise in the times would decide. Those that give nothing back are left
    out."""
    costs = [sensitivity.slower_us for sensitivity in measured if sensitivity.slower_us > 0]
    least = float(np.median(costs)) if costs else 1.0
    worth = [sensitivity for sensitivity in measured if sensitivity.regained > 0]
    worth.sort(key=lambda sensitivity: sensitivity.regained / max(sensitivity.slower_us, least), reverse=True)
    return tuple(sensitivity.layer for sensitivity in worth)


def growing_sets(layers: Sequence[T]) -> list[tuple[T, ...]]:
    """The first 1, 2, 4, 8, … of `layers`, at most half of them: beyond that it is no int8 model any more."""
    sizes, size = [], 1
    while size <= max(1, len(layers) // 2):
        sizes.append(size)
        size *= 2
    return [tuple(layers[:size]) for size in sizes if layers]


def divergence(wanted: Floats, actual: Floats) -> float:
    """Mean KL(softmax(wanted) || softmax(found)) in nats; logits [n, classes]."""
    p, q = log_softmax(wanted), log_softmax(actual)
    return float((np.exp(p) * (p - q)).sum(axis=1).mean())


def _logits(model: onnx.ModelProto, inputs: Sequence[Arrays]) -> Floats:
    name = model.graph.output[0].name
    session = open_session(model, [name])
    return np.concatenate([session.run(batch)[name] for batch in inputs])


def _duration(model: onnx.ModelProto, inputs: Sequence[Arrays]) -> float:
    """Microseconds of one inference: the sum of its nodes' medians, which other programs' bursts do not move."""
    runs = [inputs[number % len(inputs)] for number in range(RUNS)]
    return sum(node_times(model, runs).values())
