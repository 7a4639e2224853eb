"""TensorRT: for a Jetson an ONNX graph that its own TensorRT builds an engine of, for RTX cards the engine itself.

Networks are strongly typed, so precision lies in the graph: fp16 tensors, or QuantizeLinear and DequantizeLinear by
TensorRT's rules (docs.nvidia.com/deeplearning/tensorrt, "Working with Quantized Types"): symmetric int8, pairs at the
inputs of weighted layers and not at their outputs, biases in float. An Add of a residual then reads the pair that its
shortcut's layer reads, and its other input in float, which is how TensorRT fuses it into the convolution.

No engine can run on a machine without its GPU. What is judged there is the graph, in onnxruntime, as a stand-in.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import onnx

from compressor.errors import KdcError
from compressor.export.base import Artefact, Builder, Candidate, Judge, QatModel, Quantizer, Source, Twins
from compressor.export.onnx.fp16 import to_fp16
from compressor.export.onnx.graph import onnx_constants
from compressor.export.onnx.int8 import qdq_candidates, qdq_skeleton
from compressor.export.onnx.qdq import quantize, write_model
from compressor.export.onnx.qdq_plan import heavy_layers
from compressor.export.onnx.qdq_strip import strip
from compressor.export.onnx.twins import onnx_twins
from compressor.export.tensorrt.conformance import build, check_conformance, check_graph
from compressor.progress import Progress
from compressor.schema.profile import Profile
from compressor.schema.quantization import Scheme

__all__ = ["TENSORRT", "TENSORRT_RTX"]

SCHEME = Scheme(activations="int8")
STAND_IN = "onnxruntime"
ENGINE = "model.engine"

Finish = Callable[[Source, Path, Path], Path]
"""(source, a graph, the folder for what is made of it) -> what ships: the engine, or what the board builds it of."""


def _checked(source: Source, graph: Path, folder: Path) -> Path:
    check_conformance(graph, source.profile.opset)
    return graph


def _engine(source: Source, graph: Path, folder: Path) -> Path:
    """Beside the graph, so that it can be built again: an engine belongs to one version of TensorRT for RTX."""
    sm = source.profile.device.sm
    if sm is None:
        raise KdcError(
            f"profile {source.profile.name} asks for engines, and does not say of which GPU",
            "add device.sm to it: the compute capability × 10 (developer.nvidia.com/cuda-gpus), with a source",
        )
    check_graph(graph, source.profile.opset)
    folder.mkdir(parents=True, exist_ok=True)
    engine = folder / ENGINE
    build(graph, engine, (sm.value,))
    return engine


def _float(finish: Finish) -> Callable[[Source, str, Path], Artefact]:
    def convert(source: Source, precision: str, folder: Path) -> Artefact:
        """Raises KdcError where the graph is not fit for TensorRT; exit 4 without tensorrt_rtx."""
        if precision == "fp32":
            graph, made = source.onnx_file, "torch.onnx.export(dynamo=True)"
        else:
            half = to_fp16(source, folder)
            graph, made = half.model, half.made
        model = finish(source, graph, folder)
        return Artefact(model, made if model == graph else f"{made}, build_trt.py")

    return convert


def _candidates(finish: Finish) -> Callable[[Source, Path, Judge, Progress], Iterator[Candidate | None]]:
    def candidates(source: Source, folder: Path, judge: Judge, progress: Progress) -> Iterator[Candidate | None]:
        made = qdq_candidates(
            source, folder, judge, progress, scheme=SCHEME, bias_int32=False, runtime=STAND_IN, precision="int8"
        )
        for candidate in made:
            yield None if candidate is None else _finished(source, candidate, finish)

    return candidates


def _from_qat(finish: Finish) -> Callable[[Source, QatModel, Path], Candidate]:
    def from_qat(source: Source, qat: QatModel, folder: Path) -> Candidate:
        graph = folder / "model.onnx"
        write_model(_placed(onnx.load(str(qat.onnx_file))), graph)
        return _finished(source, Candidate("qat", "trained ranges and weights", graph), finish)

    return from_qat


def _skeleton(finish: Finish) -> Callable[[Source, Path], Path]:
    def skeleton(source: Source, folder: Path) -> Path:
        return finish(source, qdq_skeleton(source, folder, SCHEME, bias_int32=False), folder)

    return skeleton


def _placed(rounded: onnx.ModelProto) -> onnx.ModelProto:
    """Training also rounds what convolutions write. Here only what layers read stays rounded, in the trained ranges, so
    that TensorRT can fuse what follows a convolution into it."""
    trained = strip(rounded)
    if not trained.weight_scales:
        raise KdcError("the retrained student's ONNX holds no int8 weights, so it is not int8")
    in_float = [layer.name for layer in heavy_layers(trained.model.graph) if layer.weight not in trained.weight_scales]
    return quantize(
        trained.model,
        trained.ranges,
        SCHEME,
        float_nodes=in_float,
        bias_int32=False,
        weight_scales=trained.weight_scales,
    )


def _finished(source: Source, made: Candidate, finish: Finish) -> Candidate:
    model = finish(source, made.model, made.model.parent)
    return Candidate(made.rung, made.description, model, stand_in=made.model)


def _scheme(profile: Profile) -> Scheme:
    return SCHEME


def _engine_bytes(engine: Path) -> list[tuple[str, int]]:
    """The whole file: weights and code in one, in a form that NVIDIA does not publish."""
    return [("engine", engine.stat().st_size)]


def _builder(finish: Finish, constants: Callable[[Path], Iterable[tuple[str, int]]]) -> Builder:
    quantizer = Quantizer(_scheme, _candidates(finish), _from_qat(finish), _skeleton(finish))
    return Builder(_float(finish), constants, quantizer, twins=_twins)


def _twins(float_file: Path, model: Path) -> Twins:
    """Of the graph: what lies beside an engine, or is shipped itself, as onnxruntime computes it."""
    return onnx_twins(float_file, model.with_name("model.onnx"))


TENSORRT = _builder(_checked, onnx_constants)
"""Ships ONNX at the profile's opset; targets/build_trt.py builds the engine on the board."""

TENSORRT_RTX = _builder(_engine, _engine_bytes)
"""Ships an engine for the profile's compute capability, and the graph that it was made of."""
