"""onnxruntime's int8 for networks that read tokens: what their layers read is rounded, and nothing else.

onnxruntime.quantization's static way rounds what a transformer adds, normalizes and softmaxes, too, and has lost 33 of
80 points of a MiniLM; matrix products alone lost 2. Here their results stay in float, which onnxruntime fuses into
MatMulIntegerToFloat: 34 dB of a two-layer MiniLM's logits where rounding the results left 23. Biases are added in float
behind a product, so that there is nothing to correct on a rung of its own.

    ptq        ranges from training texts, in three ways; and the ranges of each call (onnxruntime's quantize_dynamic)
    fallback   the matrix products and the tables that cost most, in float
"""

import tempfile
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from compressor.errors import KdcError
from compressor.export.base import Candidate, Judge, Source
from compressor.export.calibration import METHODS, activation_ranges, batches
from compressor.export.onnx.qdq import Ranges, described_as, insert_pairs, write_model
from compressor.export.onnx.qdq_plan import Layer, plan
from compressor.export.onnx.tables import embedding_tables, with_int8_tables
from compressor.export.quiet import quiet
from compressor.export.sensitivity import growing_sets, in_order, measure_layers
from compressor.progress import Progress
from compressor.schema.quantization import RungName, Scheme
from compressor.tasks.base import Arrays

__all__ = ["token_candidates", "token_skeleton"]

SENSITIVITY_SAMPLES = 128
NOTHING = "the network has no linear layer or embedding with constant weights, so nothing to quantize"


def token_candidates(
    source: Source, folder: Path, judge: Judge, progress: Progress, *, scheme: Scheme
) -> Iterator[Candidate | None]:
    """The rungs, None after each and after each set of layers. Each candidate is FOLDER/NAME/model.onnx. Raises
    KdcError for too few texts, and for a network without anything to quantize."""
    graph = _Graph(onnx.load(source.onnx_file), scheme)
    number = len(source.calibration) // source.profile.batch

    def inputs() -> Iterable[Arrays]:
        return progress.track(batches(source), number, "calibration")

    ranges = activation_ranges(graph.model, graph.activations(), inputs)
    tried: dict[str, Path] = {}
    for method in METHODS:
        made = graph.static(ranges[method])
        candidate = _written("ptq", f"{method} ranges, products and tables alone", made, folder / f"ptq-{method}")
        tried[method] = candidate.model
        yield candidate
    yield _written("ptq", "ranges of each call, products and tables alone", graph.dynamic(), folder / "ptq-dynamic")
    yield None

    ranks = {method: judge.rank(judge(path, "onnxruntime", "int8")) for method, path in tried.items()}
    best = max(METHODS, key=lambda method: ranks[method])  # the first of equals
    most = max(SENSITIVITY_SAMPLES, source.profile.batch)
    samples = list(batches(source, most))
    mixed = partial(graph.static, ranges[best])
    measured = measure_layers(graph.model, graph.parts, mixed, samples, progress)
    for layers in growing_sets(in_order(measured)):
        worst = ", ".join(layer.weight.removesuffix(".weight") for layer in layers[:3])
        dots = ", …" if len(layers) > 3 else ""
        line = f"{best} ranges, {len(layers)} of {len(measured)} layers in float ({worst}{dots})"
        made = mixed(frozenset(layer.name for layer in layers))
        yield _written("fallback", line, made, folder / f"fallback-{len(layers)}")
        yield None  # a rung of its own: the fewest layers that do are enough


def token_skeleton(source: Source, folder: Path, scheme: Scheme) -> Path:
    """The first rung's graph, with the ranges of one batch."""
    graph = _Graph(onnx.load(source.onnx_file), scheme)
    samples = [source.calibration.fed(np.arange(source.profile.batch))]
    ranges = activation_ranges(graph.model, graph.activations(), lambda: samples)["minmax"]
    write_model(graph.static(ranges), folder / "model.onnx")
    return folder / "model.onnx"


@dataclass(frozen=True)
class _Graph:
    """The network in float; `parts`: what can be in int8."""

    model: onnx.ModelProto
    scheme: Scheme

    @property
    def parts(self) -> tuple[Layer, ...]:
        parts = (*embedding_tables(self.model.graph), *plan(self.model.graph, self.scheme, (), results=False).layers)
        if not parts:
            raise KdcError(NOTHING)
        return parts

    def activations(self) -> tuple[str, ...]:
        return plan(self.model.graph, self.scheme, (), results=False).activations if self.parts else ()

    def static(self, ranges: Ranges, float_nodes: Collection[str] = ()) -> onnx.ModelProto:
        model = with_int8_tables(self.model, float_nodes)
        chosen = plan(model.graph, self.scheme, float_nodes, results=False)
        made = insert_pairs(model, chosen, ranges, self.scheme, bias_int32=True, weight_scales={})
        return _for_layers_alone(made, {layer.name for layer in chosen.layers})

    def dynamic(self) -> onnx.ModelProto:
        from onnxruntime.quantization import QuantType, quantize_dynamic

        with tempfile.TemporaryDirectory() as folder, quiet("onnxruntime cannot quantize the network"):
            path = Path(folder) / "model.onnx"
            quantize_dynamic(
                with_int8_tables(self.model),
                path,
                op_types_to_quantize=["MatMul"],  # a Gemm becomes one, with an Add behind it
                per_channel=self.scheme.per_channel,
                reduce_range=self.scheme.weight_bits == 7,
                weight_type=QuantType.QInt8,
            )
            return described_as(onnx.load(path), self.model)


def _for_layers_alone(model: onnx.ModelProto, layers: Collection[str]) -> onnx.ModelProto:
    """What a layer reads is rounded for it; all else that reads the same, a sum before all, gets it as it is."""
    rounded = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    widened = {
        node.output[0]: rounded.get(node.input[0]) for node in model.graph.node if node.op_type == "DequantizeLinear"
    }
    for node in model.graph.node:
        for slot, name in enumerate(node.input):
            if node.name not in layers and node.op_type != "DequantizeLinear":
                node.input[slot] = widened.get(name) or name
    return model


def _written(rung: RungName, line: str, model: onnx.ModelProto, folder: Path) -> Candidate:
    write_model(model, folder / "model.onnx")
    return Candidate(rung, line, folder / "model.onnx")
