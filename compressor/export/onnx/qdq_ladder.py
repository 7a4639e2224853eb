"""The rungs to an int8 Q/DQ graph, for the runtimes that read one: onnxruntime and TensorRT."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx

from compressor.errors import KdcError
from compressor.export.base import Candidate, Judge, Source
from compressor.export.calibration import METHODS, activation_ranges, batches
from compressor.export.onnx.bias_correction import correct_biases
from compressor.export.onnx.qdq import Ranges, insert_pairs, plan_for, quantize, write_model
from compressor.export.onnx.qdq_plan import Layer, Plan
from compressor.export.sensitivity import growing_sets, in_order, measure_layers
from compressor.progress import Progress
from compressor.schema.quantization import RungName, Scheme
from compressor.tasks.base import Arrays

__all__ = ["qdq_candidates"]

BIAS_IMAGES = 128
"""Means over all positions settle with few images; NNCF takes 60."""
SENSITIVITY_IMAGES = 256


def qdq_candidates(
    source: Source,
    folder: Path,
    judge: Judge,
    progress: Progress,
    *,
    scheme: Scheme,
    bias_int32: bool = True,
    runtime: str = "onnxruntime",
    precision: str = "int8",
) -> Iterator[Candidate | None]:
    """Everything in 8 bits, squeeze-excite and swish too; then these in float; then, from the best ranges, biases
    corrected; then, on top of that where it helped, the layers that hurt most left in float. None after each rung, and
    after each set of layers.

    `bias_int32` False: TensorRT's rules (see qdq.quantize), where squeeze-excite and swish are in float from the start.
    `runtime`, `precision`: what the judge runs the Q/DQ graphs with to find the best ranges. Each candidate is
    FOLDER/NAME/model.onnx. Raises KdcError for too few images, and for a network without layers to quantize.
    """
    steps = _Steps(source, folder, scheme, bias_int32, progress)
    model = onnx.load(source.onnx_file)
    if not steps.layers(model):
        raise KdcError("the network has no convolution or linear layer with constant weights, so nothing to quantize")
    ranges, gating = steps.ranges(model), steps.has_gating(model)
    for method in METHODS if gating else ():
        quantized = steps.quantized(model, ranges[method], gating=True)
        yield steps.write("ptq", f"{method} ranges, squeeze-excite and swish too", quantized, f"ptq-{method}-gating")
    if gating:
        yield None

    tried: dict[str, Path] = {}
    for method in METHODS:
        candidate = steps.write("ptq", f"{method} ranges", steps.quantized(model, ranges[method]), f"ptq-{method}")
        tried[method] = candidate.model
        yield candidate
    yield None

    ranks = {method: judge.rank(judge(path, runtime, precision)) for method, path in tried.items()}
    best = max(METHODS, key=lambda method: ranks[method])  # the first of equals
    corrected = steps.corrected(model, ranges[best])
    quantized = steps.quantized(corrected, ranges[best])
    candidate = steps.write("bias-correction", f"{best} ranges, means corrected", quantized, f"bias-correction-{best}")
    yield candidate
    yield None

    helped = judge.rank(judge(candidate.model, runtime, precision)) >= ranks[best]
    for candidate in steps.fallbacks(model, corrected if helped else model, best, ranges[best]):
        yield candidate
        yield None  # a rung of its own: the fewest layers that do are enough


@dataclass(frozen=True)
class _Steps:
    """What all rungs share."""

    source: Source
    folder: Path
    scheme: Scheme
    bias_int32: bool
    progress: Progress

    def ranges(self, model: onnx.ModelProto) -> dict[str, Ranges]:
        """Method -> the ranges of all tensors that are rounded on any rung."""
        tensors = self.plan(model, gating=self.bias_int32).activations
        number = len(self.source.calibration) // self.source.profile.batch

        def inputs() -> Iterable[Arrays]:
            return self.progress.track(batches(self.source), number, "calibration")

        return {**activation_ranges(model, tensors, inputs)}

    def plan(self, model: onnx.ModelProto, *, gating: bool = False) -> Plan:
        return plan_for(model, self.scheme, bias_int32=self.bias_int32, gating=gating)

    def layers(self, model: onnx.ModelProto) -> tuple[Layer, ...]:
        return self.plan(model).layers

    def has_gating(self, model: onnx.ModelProto) -> bool:
        """Whether there is squeeze-excite or swish that may be rounded."""
        return self.bias_int32 and self.plan(model, gating=True).nodes != self.plan(model).nodes

    def quantized(
        self, model: onnx.ModelProto, ranges: Ranges, float_nodes: Collection[str] = (), *, gating: bool = False
    ) -> onnx.ModelProto:
        return quantize(model, ranges, self.scheme, float_nodes=float_nodes, bias_int32=self.bias_int32, gating=gating)

    def samples(self, most: int) -> Sequence[Arrays]:
        return list(batches(self.source, max(most, self.source.profile.batch)))

    def corrected(self, model: onnx.ModelProto, ranges: Ranges) -> onnx.ModelProto:
        """The fp32 model with other biases."""

        def rounded(changed: onnx.ModelProto) -> onnx.ModelProto:
            # Biases in float, so that they can be changed one by one; all else as the runtime will have it.
            chosen = self.plan(changed)
            return insert_pairs(changed, chosen, ranges, self.scheme, bias_int32=False, weight_scales={})

        return correct_biases(model, self.layers(model), rounded, self.samples(BIAS_IMAGES), self.progress)

    def fallbacks(
        self, fp32: onnx.ModelProto, model: onnx.ModelProto, method: str, ranges: Ranges
    ) -> Iterator[Candidate]:
        """Growing sets of layers in float. `fp32`: what the logits should be; `model`: what is quantized."""

        def mixed(float_nodes: Collection[str]) -> onnx.ModelProto:
            return self.quantized(model, ranges, float_nodes)

        images = self.samples(SENSITIVITY_IMAGES)
        measured = measure_layers(fp32, self.layers(model), mixed, images, self.progress)
        means = "" if model is fp32 else ", means corrected"
        for layers in growing_sets(in_order(measured)):
            worst = ", ".join(layer.weight.removesuffix(".weight") for layer in layers[:3])
            dots = ", …" if len(layers) > 3 else ""
            line = f"{method} ranges{means}, {len(layers)} of {len(measured)} layers in float ({worst}{dots})"
            names = [layer.name for layer in layers]
            yield self.write("fallback", line, mixed(names), f"fallback-{len(layers)}")

    def write(self, rung: RungName, line: str, quantized: onnx.ModelProto, name: str) -> Candidate:
        path = self.folder / name / "model.onnx"
        write_model(quantized, path)
        return Candidate(rung, line, path)
