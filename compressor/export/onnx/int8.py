"""onnxruntime's int8: Q/DQ graphs that it fuses into its integer kernels when it loads them."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from compressor.errors import KdcError
from compressor.export.base import Candidate, Judge, QatModel, Quantizer, Source
from compressor.export.calibration import activation_ranges, batches
from compressor.export.onnx.qdq import plan_for, quantize, write_model
from compressor.export.onnx.qdq_ladder import qdq_candidates
from compressor.export.onnx.qdq_plan import heavy_layers
from compressor.export.onnx.qdq_strip import strip
from compressor.export.onnx.token_int8 import token_candidates, token_skeleton
from compressor.export.schemes import onnxruntime_scheme
from compressor.progress import Progress
from compressor.schema.quantization import Scheme

__all__ = ["ORT", "from_qat", "qdq_candidates", "qdq_skeleton"]


def _candidates(source: Source, folder: Path, judge: Judge, progress: Progress) -> Iterator[Candidate | None]:
    scheme = onnxruntime_scheme(source.profile)
    if source.takes_tokens:
        return token_candidates(source, folder, judge, progress, scheme=scheme)
    return qdq_candidates(source, folder, judge, progress, scheme=scheme)


def from_qat(source: Source, qat: QatModel, folder: Path) -> Candidate:
    """The retrained student's Q/DQ graph as onnxruntime fuses it, FOLDER/model.onnx.

    Training rounds what layers read; onnxruntime also needs a Q behind each layer, and a bias in int32, or it computes
    the layer in float. Trained ranges and weights' scales are kept as they are; those that it asks for beside them come
    from the calibration images. Raises KdcError for a graph without Q/DQ.
    """
    rounded = onnx.load(qat.onnx_file)
    trained = strip(rounded)
    if not trained.weight_scales or not trained.ranges:
        raise KdcError("the retrained student's ONNX holds no QuantizeLinear with int8 weights, so it is not int8")
    scheme, model = qat.record.scheme, trained.model
    in_float = [layer.name for layer in heavy_layers(model.graph) if layer.weight not in trained.weight_scales]
    wanted = plan_for(model, scheme, in_float, bias_int32=True).activations
    missing = [name for name in wanted if name not in trained.ranges]
    seen = activation_ranges(rounded, missing, partial(batches, source))["minmax"]
    graph = quantize(
        model, {**seen, **trained.ranges}, scheme, float_nodes=in_float, weight_scales=trained.weight_scales
    )
    write_model(graph, folder / "model.onnx")
    line = f"trained ranges and weights; from calibration, {len(missing)} ranges between layers"
    return Candidate("qat", line, folder / "model.onnx")


def qdq_skeleton(source: Source, folder: Path, scheme: Scheme, *, bias_int32: bool = True) -> Path:
    """The first rung's graph with the ranges of one batch: their signs tell what a runtime may fuse. `bias_int32`: see
    `qdq_candidates`."""
    model, gating = onnx.load(source.onnx_file), bias_int32
    chosen = plan_for(model, scheme, bias_int32=bias_int32, gating=gating)
    if not chosen.layers:
        raise KdcError("the network has no convolution or linear layer with constant weights, so nothing to quantize")
    samples = [source.calibration.fed(np.arange(source.profile.batch))]
    ranges = activation_ranges(model, chosen.activations, lambda: samples)["minmax"]
    write_model(quantize(model, ranges, scheme, bias_int32=bias_int32, gating=gating), folder / "model.onnx")
    return folder / "model.onnx"


def _skeleton(source: Source, folder: Path) -> Path:
    scheme = onnxruntime_scheme(source.profile)
    return (token_skeleton if source.takes_tokens else qdq_skeleton)(source, folder, scheme)


ORT = Quantizer(onnxruntime_scheme, _candidates, from_qat, _skeleton)
