"""Runs OpenVINO IR (or ONNX) with OpenVINO on the CPU. Speaks the protocol of README.md on stdin and stdout."""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Callable
from functools import cache, partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.runner_common import Loaded, Runtime, mixed, serve
    from targets.runner_images import Floats
    from targets.runner_profile import WARM_CALLS, Node, Profile
    from targets.runner_requests import RequestError
else:
    sys.dont_write_bytecode = True  # __pycache__ in the bundle would hold this machine's paths
    from runner_common import Loaded, Runtime, mixed, serve
    from runner_images import Floats
    from runner_profile import WARM_CALLS, Node, Profile
    from runner_requests import RequestError

# Asked for -> the hint. f16 is how weights are stored: a CPU widens them, and computes in f32. Without a hint OpenVINO
# takes bf16 wherever the CPU has it, and f16 on ARM, so that "f32" would not be f32. In an int8 model the hint is for
# the layers that are not quantized: in f32, so that the answers do not depend on what else the CPU has.
HINTS = {"f32": "f32", "f16": "f32", "bf16": "bf16", "int8": "f32"}
INPUTS = {"f32": "float32", "u8": "uint8", "i64": "int64"}
HEAVY = {"Convolution", "GroupConvolution", "Deconvolution", "FullyConnected", "MatMul", "Subgraph_MatMul"}
COPIES = 5  # of a model whose layers are timed
NAMES = {"f32": "f32", "f16": "f16", "bf16": "bf16", "f64": "f64", "i8": "int8", "u8": "int8"}


@cache
def core(ov: Any) -> Any:
    """The only one of this process. Each brings a stack of its own for signals and puts back the one before it; of
    several that end in another order, what is put back is gone, and the next signal ends the process (2026.4)."""
    return ov.Core()


def precisions(ov: Any) -> list[str]:
    """What really runs here. f32 and f16 always do; bf16 where the plugin lists it; int8 where a quantized convolution
    comes out as an int8 kernel, since a plugin that lists INT8 may still compute it in float."""
    able = "BF16" in core(ov).get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    int8 = executed(core(ov).compile_model(quantized_convolution(ov), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}))
    return ["f32", "f16", *(["bf16"] if able else []), *(["int8"] if int8 == "int8" else [])]


def quantized_convolution(ov: Any) -> Any:
    """A 1×1 convolution of 16 channels, its input fake-quantized to 256 levels, its weights int8 with one scale."""
    import numpy as np  # not at the top: runner_common comes first, which can answer without it

    ops = importlib.import_module("openvino.opset13")
    image = ops.parameter([1, 16, 4, 4], np.float32)
    low, high, scale = (ops.constant(np.float32(value)) for value in (0, 1, 0.1))
    levels = ops.fake_quantize(image, low, high, low, high, levels=256)
    weights = ops.convert(ops.constant(np.ones((16, 16, 1, 1), np.int8)), np.float32)
    result = ops.convolution(levels, ops.multiply(weights, scale), [1, 1], [0, 0], [0, 0], [1, 1])
    return ov.Model([result], [image])


def load(ov: Any, path: str, threads: int, precision: str, streams: int) -> Loaded:
    """One model, and a request a stream. Its threads sleep between calls, so there is no spinning to be stopped."""
    chosen = {
        "PERFORMANCE_HINT": "LATENCY" if streams == 1 else "THROUGHPUT",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads * streams,
        "INFERENCE_PRECISION_HINT": HINTS[precision],
    }
    compiled = core(ov).compile_model(path, "CPU", chosen)
    source, result = compiled.input(0), compiled.output(0)
    ports = [(port.get_any_name(), shape(port), port.element_type.get_type_name()) for port in compiled.inputs]
    for _, _, kind in ports:
        if kind not in INPUTS:
            raise RequestError("failed", f"the model's input is {kind}, expected one of: {', '.join(INPUTS)}")
    order = [name for name, _, _ in ports]

    requests = [compiled.create_infer_request() for _ in range(streams)]
    bound: list[Any] = []

    def call(batch: Any) -> Floats:
        """The array is handed over once, and what stands in it is read at every call, as a C++ program does it: with
        an input a call, Python's part of it costs up to a sixth of a third of a millisecond."""
        if not bound or bound[0] is not batch:
            hand_over(ov, requests[0], order, batch)
            bound[:] = [batch]
        requests[0].start_async()
        requests[0].wait()
        logits: Floats = requests[0].get_output_tensor(0).data
        return logits

    ways = [partial(stream, ov, request, order) for request in requests]
    names = source.get_any_name(), result.get_any_name()
    shapes = names[0], shape(source), names[1], shape(result)
    several = [(name, sizes, INPUTS[kind]) for name, sizes, kind in ports] if len(ports) > 1 else []
    watched = partial(profile, ov, path, chosen, order)
    return Loaded(call, ways, partial(executed, compiled), *shapes, INPUTS[ports[0][2]], several, watched)


def hand_over(ov: Any, request: Any, order: list[str], batch: Any) -> None:
    """Let `request` read its inputs, of these names, from `batch`: one array, or one a name."""
    arrays = [batch[name] for name in order] if isinstance(batch, dict) else [batch]
    for number, values in enumerate(arrays):
        request.set_input_tensor(number, ov.Tensor(values, shared_memory=True))


def stream(ov: Any, request: Any, order: list[str], batch: Any) -> Callable[[], object]:
    """Calls of `request` on `batch`, from a thread of its own. The input is handed over once, here: with an input a
    call, threads that call at the same time can wait for one another for ever, one for Python's lock and one for
    OpenVINO's."""
    hand_over(ov, request, order, batch)

    def call() -> None:
        request.start_async()
        request.wait()

    return call


def shape(port: Any) -> list[int | str | None]:
    return [size.get_length() if size.is_static else None for size in port.get_partial_shape()]


def executed(compiled: Any) -> str:
    """The precision of the convolutions and matrix products, read from the compiled graph: OpenVINO computes in f32
    without a word where the CPU cannot do the bf16 that was asked for, or where it found nothing quantized.

    From the kernel's name, "brgconv_avx2_f32" or "jit_avx2_1x1_I8", which ends in the precision of its data: i8 for
    int8, I8 for uint8. `runtimePrecision` only where the name does not tell: it says f16 for a kernel that computes in
    f32 with weights that are stored as f16.
    """
    layers = [layer for _, layer in layers_of(compiled)]
    heavy = [layer for layer in layers if layer.get("layerType") in HEAVY]
    active = [layer for layer in layers if layer.get("layerType") not in ("Const", "Input", "Output")]
    return mixed(precision_of(layer) or "unknown" for layer in heavy or active)


def layers_of(compiled: Any) -> list[tuple[str, dict[str, str]]]:
    """The names of the compiled graph's layers, and what it tells of each."""
    told = ("layerType", "primitiveType", "runtimePrecision", "originalLayersNames")
    nodes = [(node.get_friendly_name(), node.get_rt_info()) for node in compiled.get_runtime_model().get_ops()]
    return [(name, {key: info[key].astype(str) for key in told if key in info}) for name, info in nodes]


def precision_of(layer: dict[str, str]) -> str | None:
    name = layer.get("primitiveType", "").lower().rpartition("_")[2]
    return NAMES.get(name) or layer.get("runtimePrecision")


def profile(
    ov: Any, path: str, chosen: dict[str, Any], order: list[str], batch: Callable[[int], Any], calls: int
) -> Profile:
    """How long each layer takes, by OpenVINO's own counters, in copies of the model that have them switched on. A
    counter tells the mean of all its calls, in whole microseconds: so each sample is a copy's own, the mean of the
    calls after the first ones. What is fused goes by its layer's name; the compiled graph says what it was made of."""
    samples = min(COPIES, calls)
    told = Profile("OpenVINO, PERF_COUNT", each=calls // samples)
    for sample in range(samples):
        compiled = core(ov).compile_model(path, "CPU", {**chosen, "PERF_COUNT": True})
        request, layers = compiled.create_infer_request(), dict(layers_of(compiled))
        run(ov, request, order, batch, range(WARM_CALLS))
        before = counters(ov, request, WARM_CALLS)
        told.calls_ms.append(run(ov, request, order, batch, range(WARM_CALLS, WARM_CALLS + told.each)))
        for info, us in counters(ov, request, WARM_CALLS + told.each).values():
            key = (info.node_name, info.node_type, info.exec_type)
            spent = us - before[key][1] if key in before else us
            node = told.nodes.get(key) or told.nodes.setdefault(key, node_of(info, layers.get(info.node_name, {})))
            node.took(max(0.0, spent / told.each), sample)
    return told


def run(ov: Any, request: Any, order: list[str], batch: Callable[[int], Any], numbers: range) -> float:
    """Milliseconds a call, of one for each of the numbers."""
    took = 0
    for number in numbers:
        hand_over(ov, request, order, batch(number))
        began = time.perf_counter_ns()
        request.start_async()
        request.wait()
        took += time.perf_counter_ns() - began
    return took / 1e6 / len(numbers)


def counters(ov: Any, request: Any, calls: int) -> dict[tuple[str, str, str], tuple[Any, float]]:
    """Of each layer that ran, what is told of it, and its microseconds in all the calls so far. The mean that is told
    was rounded down; half a microsecond more is right in the mean."""
    infos = [info for info in request.get_profiling_info() if info.status == ov.ProfilingInfo.Status.EXECUTED]
    return {
        (info.node_name, info.node_type, info.exec_type): (info, calls * (info.real_time.total_seconds() * 1e6 + 0.5))
        for info in infos
    }


def node_of(info: Any, layer: dict[str, str]) -> Node:
    sources = [name for name in layer.get("originalLayersNames", "").split(",") if name]
    precision = precision_of({"primitiveType": info.exec_type, **layer})
    return Node(info.node_name, info.node_type, info.exec_type, precision, sources)


if __name__ == "__main__":
    serve(Runtime("openvino", "pip install openvino", tuple(HINTS), precisions, load))
