"""Runs engines of TensorRT on an NVIDIA GPU. Speaks the protocol of README.md on stdin and stdout.

A call is what an application waits for: the images go to the GPU, and the logits come back. The host's threads do
not matter to it.
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.build_trt import RUNTIMES, make_logger
    from targets.runner_common import Loaded, Runtime, mixed, serve
    from targets.runner_images import Floats
    from targets.runner_profile import WARM_CALLS, Node, Profile
    from targets.runner_requests import RequestError
    from targets.trt_cuda import Cuda, CudaError
else:
    sys.dont_write_bytecode = True  # __pycache__ in the bundle would hold this machine's paths
    from build_trt import RUNTIMES, make_logger
    from runner_common import Loaded, Runtime, mixed, serve
    from runner_images import Floats
    from runner_profile import WARM_CALLS, Node, Profile
    from runner_requests import RequestError
    from trt_cuda import Cuda, CudaError

import numpy as np

PRECISIONS = ("fp32", "fp16", "int8")
# Of an engine's layers, those that do the work; what TensorRT fuses with them goes by their name.
HEAVY = ("convolution", "correlation", "gemm", "matmul", "matrixmultiply")
IDLE = ("reformat", "noop", "shape", "constant", "shuffle")
SOURCE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
# Words in the description of a tensor -> its type, the first that is found: "bfloat16" holds "float" too.
TYPES = {
    "int8": "int8",
    "bf16": "bf16",
    "bfloat16": "bf16",
    "fp16": "fp16",
    "half": "fp16",
    "fp8": "fp8",
    "fp32": "fp32",
    "float": "fp32",
}


def precisions(trt: Any) -> list[str]:
    """None where there is no GPU: engines can be built on such a machine, but not run."""
    try:
        Cuda()
    except CudaError:
        return []
    return list(PRECISIONS)


class Lane:
    """A stream of calls: an execution context and a CUDA stream of its own, and memory for a batch and its logits."""

    def __init__(self, cuda: Cuda, engine: Any, logger: Any, names: tuple[str, str]) -> None:
        self._cuda, self._logger, self._source, self._result = cuda, logger, *names
        self.context = engine.create_execution_context()
        if self.context is None:
            raise RequestError("failed", f"TensorRT makes no execution context: {reason(logger)}")
        self._stream = cuda.stream()
        self._shape: tuple[int, ...] = ()

    def __call__(self, batch: Floats) -> Floats:
        """The logits; the next call overwrites them."""
        self._cuda.enter()  # it may be another thread's
        if batch.shape != self._shape:
            self._reserve(batch)
        self._cuda.upload(self._input, batch.ctypes.data, batch.nbytes, self._stream)
        if not self.context.execute_async_v3(self._stream):
            raise RequestError("failed", f"TensorRT does not run the engine: {reason(self._logger)}")
        self._cuda.download(self._logits.ctypes.data, self._output, self._logits.nbytes, self._stream)
        self._cuda.wait(self._stream)
        return self._logits

    def _reserve(self, batch: Floats) -> None:
        if not self.context.set_input_shape(self._source, batch.shape):
            raise RequestError("failed", f"the engine does not take {list(batch.shape)}: {reason(self._logger)}")
        self._logits: Floats = np.empty(tuple(self.context.get_tensor_shape(self._result)), np.float32)
        self._input, self._output = self._cuda.allocate(batch.nbytes), self._cuda.allocate(self._logits.nbytes)
        self.context.set_tensor_address(self._source, self._input)
        self.context.set_tensor_address(self._result, self._output)
        self._shape = batch.shape

    def bind(self, batch: Floats) -> Callable[[], object]:
        return partial(self, batch)


def load(trt: Any, path: str, threads: int, precision: str, streams: int) -> Loaded:
    """One engine, and a context a stream. TensorRT for RTX compiles for this GPU meanwhile."""
    if path.endswith(".onnx"):
        raise RequestError("failed", f"{path} is no engine: build one of it first, python3 build_trt.py {path} --out …")
    try:
        cuda = Cuda()
    except CudaError as error:
        raise RequestError("failed", str(error)) from error
    logger = make_logger(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(Path(path).read_bytes())
    if engine is None:
        raise RequestError("failed", f"TensorRT {trt.__version__} does not load {path}: {reason(logger)}")
    names = source, result = ends(trt, engine)
    lanes = [Lane(cuda, engine, logger, names) for _ in range(streams)]
    shapes = (shape(engine.get_tensor_shape(name)) for name in names)
    read = partial(executed, trt, engine, lanes[0].context)
    watched = partial(profile, trt, engine, partial(Lane, cuda, engine, logger, names))
    sizes = next(shapes), next(shapes)
    ways = [lane.bind for lane in lanes]
    return Loaded(lanes[0], ways, read, source, sizes[0], result, sizes[1], profile=watched)


def ends(trt: Any, engine: Any) -> tuple[str, str]:
    """The names of the one input and the one output; RequestError for other engines."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(inputs) != 1 or len(outputs) != 1:
        raise RequestError("failed", f"the engine has the inputs {inputs} and the outputs {outputs}, expected one each")
    for name in names:
        if engine.get_tensor_dtype(name) != trt.DataType.FLOAT:
            raise RequestError("failed", f"the engine's {name} is {engine.get_tensor_dtype(name)}, expected FLOAT")
    return inputs[0], outputs[0]


def shape(dims: Any) -> list[int | str | None]:
    return [None if size < 0 else int(size) for size in dims]


def reason(logger: Any) -> str:
    """The first error that TensorRT told: those that follow come of it."""
    return str(next(iter(logger.said("ERROR", "INTERNAL_ERROR")), "it gives no reason"))


def executed(trt: Any, engine: Any, context: Any) -> str:
    """The precision of the convolutions and matrix products, as TensorRT's inspector tells it of the built engine."""
    inspector = engine.create_engine_inspector()
    inspector.execution_context = context
    return of_layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def of_layers(text: str) -> str:
    """What the inspector's JSON says of the layers: `{"Layers": [{"LayerType", "Inputs": [{"Format/Datatype"}]}]}`
    (docs.nvidia.com/deeplearning/tensorrt, "Engine Inspector"). Layers that are texts only have no types."""
    layers = [layer for layer in json.loads(text).get("Layers", []) if isinstance(layer, dict)]
    heavy = [layer for layer in layers if any(word in kind(layer) for word in HEAVY)]
    active = [layer for layer in layers if not any(word in kind(layer) for word in IDLE)]
    return mixed(of_layer(layer) for layer in heavy or active)


def kind(layer: dict[str, Any]) -> str:
    return f"{layer.get('LayerType', '')} {layer.get('ParameterType', '')}".lower()


def of_layer(layer: dict[str, Any]) -> str:
    """The type of the layer's data, its first input; "tf32" where its kernel rounds the factors."""
    data = (layer.get("Inputs") or [{}])[0]
    described = str(data.get("Format/Datatype") or data.get("DataType") or "").lower()
    name = next((name for word, name in TYPES.items() if word in described), "unknown")
    return "tf32" if name == "fp32" and "tf32" in str(layer.get("TacticName", "")).lower() else name


def profile(trt: Any, engine: Any, new_lane: Callable[[], Any], batch: Callable[[int], Any], calls: int) -> Profile:
    """How long each layer takes, by an IProfiler like trtexec's, in an execution context of its own: while it is
    there, TensorRT waits for each layer (docs.nvidia.com/deeplearning/tensorrt, "Performance Best Practices")."""
    lane, clock = new_lane(), clock_of(trt)
    inspector = engine.create_engine_inspector()
    inspector.execution_context = lane.context
    layers = named_layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))
    lane.context.profiler = clock
    told = Profile("TensorRT, IProfiler", WARM_CALLS)
    for call in range(WARM_CALLS + calls):
        images = batch(call)
        clock.times.clear()
        began = time.perf_counter_ns()
        lane(images)
        told.calls_ms.append((time.perf_counter_ns() - began) / 1e6)
        for name, ms in clock.times:
            node = told.nodes.get(name) or told.nodes.setdefault(name, node_of(name, layers.get(name, {})))
            node.took(1000 * ms, call)
    return told


def clock_of(trt: Any) -> Any:
    """An IProfiler that keeps what it is told, in `times`."""

    class Clock(trt.IProfiler):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.times: list[tuple[str, float]] = []

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.times.append((layer_name, ms))

    return Clock()


def named_layers(text: str) -> dict[str, dict[str, Any]]:
    layers = [layer for layer in json.loads(text).get("Layers", []) if isinstance(layer, dict)]
    return {str(layer.get("Name")): layer for layer in layers}


def node_of(name: str, layer: dict[str, Any]) -> Node:
    """`layer`: what the inspector says of it; its metadata names the ONNX nodes that it was made of."""
    sources = SOURCE.findall(str(layer.get("Metadata", "")))
    precision = of_layer(layer) if layer else None
    op, kernel = str(layer.get("LayerType", "")), str(layer.get("TacticName", ""))
    return Node(name, op, kernel, None if precision == "unknown" else precision, sources)


def run(name: str) -> None:
    """Serve the runtime that build_trt.py calls `name`."""
    module, install = RUNTIMES[name]
    serve(Runtime(module, install, PRECISIONS, precisions, load))


if __name__ == "__main__":
    run("tensorrt")
