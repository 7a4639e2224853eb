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
from compressor.export.onnx.qdq_plan import Layer
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
    """Each calibration's ranges; then, from the best of them, biases corrected; then, on top of that where it helped,
    the layers that hurt most left in float. None after each rung, and after each set of layers.

    `bias_int32` False: TensorRT's rules (see qdq.quantize). `runtime`, `precision`: what the judge runs the Q/DQ graphs
    with to find that best one. Each candidate is FOLDER/NAME/model.onnx. Raises KdcError for too few images, and
    for a network without layers to quantize.
    """
    steps = _Steps(source, folder, scheme, bias_int32, progress)
    model = onnx.load(source.onnx_file)
    if not steps.layers(model):
        raise KdcError("the network has no convolution or linear layer with constant weights, so nothing to quantize")
    ranges = steps.ranges(model)
    tried: dict[str, Path] = {}
    for method in METHODS:
        candidate = steps.write("ptq", f"{method} ranges", model, ranges[method])
        tried[method] = candidate.model
        yield candidate
    yield None

    ranks = {method: judge.rank(judge(path, runtime, precision)) for method, path in tried.items()}
    best = max(METHODS, key=lambda method: ranks[method])  # the first of equals
    corrected = steps.corrected(model, ranges[best])
    candidate = steps.write("bias-correction", f"{best} ranges, means corrected", corrected, ranges[best])
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
        """Method -> the ranges of all tensors that are rounded."""
        tensors = plan_for(model, self.scheme, bias_int32=self.bias_int32).activations
        number = len(self.source.calibration) // self.source.profile.batch

        def inputs() -> Iterable[Arrays]:
            return self.progress.track(batches(self.source), number, "calibration")

        return {**activation_ranges(model, tensors, inputs)}

    def layers(self, model: onnx.ModelProto) -> tuple[Layer, ...]:
        return plan_for(model, self.scheme, bias_int32=self.bias_int32).layers

    def samples(self, most: int) -> Sequence[Arrays]:
        return list(batches(self.source, max(most, self.source.profile.batch)))

    def corrected(self, model: onnx.ModelProto, ranges: Ranges) -> onnx.ModelProto:
        """The fp32 model with other biases."""

        def rounded(changed: onnx.ModelProto) -> onnx.ModelProto:
            # Biases in float, so that they can be changed one by one; all else as the runtime will have it.
            chosen = plan_for(changed, self.scheme, bias_int32=self.bias_int32)
            return insert_pairs(changed, chosen, ranges, self.scheme, bias_int32=False, weight_scales={})

        return correct_biases(model, self.layers(model), rounded, self.samples(BIAS_IMAGES), self.progress)

    def fallbacks(
        self, fp32: onnx.ModelProto, model: onnx.ModelProto, method: str, ranges: Ranges
    ) -> Iterator[Candidate]:
        """Growing sets of layers in float. `fp32`: what the logits should be; `model`: what is quantized."""

        def mixed(float_nodes: Collection[str]) -> onnx.ModelProto:
            return quantize(model, ranges, self.scheme, float_nodes=float_nodes, bias_int32=self.bias_int32)

        images = self.samples(SENSITIVITY_IMAGES)
        measured = measure_layers(fp32, self.layers(model), mixed, images, self.progress)
        means = "" if model is fp32 else ", means corrected"
        for layers in growing_sets(in_order(measured)):
            worst = ", ".join(layer.weight.removesuffix(".weight") for layer in layers[:3])
            dots = ", …" if len(layers) > 3 else ""
            line = f"{method} ranges{means}, {len(layers)} of {len(measured)} layers in float ({worst}{dots})"
            names = [layer.name for layer in layers]
            yield self.write("fallback", line, model, ranges, names, f"fallback-{len(layers)}")

    def write(
        self,
        rung: RungName,
        line: str,
        model: onnx.ModelProto,
        ranges: Ranges,
        float_nodes: Collection[str] = (),
        name: str = "",
    ) -> Candidate:
        graph = quantize(model, ranges, self.scheme, float_nodes=float_nodes, bias_int32=self.bias_int32)
        path = self.folder / (name or f"{rung}-{line.split()[0]}") / "model.onnx"
        write_model(graph, path)
        return Candidate(rung, line, path)
