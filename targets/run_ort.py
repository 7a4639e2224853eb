"""Runs ONNX models with onnxruntime on the CPU. Speaks the protocol of README.md on stdin and stdout."""

from __future__ import annotations

import base64
import bisect
import json
import sys
import tempfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
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

PROVIDERS = ["CPUExecutionProvider"]
INPUTS = {"tensor(float)": "float32", "tensor(uint8)": "uint8", "tensor(int64)": "int64"}
HEAVY = ("Conv", "Gemm", "MatMul")  # and what onnxruntime fuses out of them: FusedConv, QLinearConv, MatMulInteger, …
KNOWN = ("fp32", "fp16", "int8")
KERNEL = "_kernel_time"  # behind the name of a node, in the events of the profiler
NAMES = {"float": "fp32", "float16": "fp16", "bfloat16": "bf16", "double": "fp64", "int8": "int8", "uint8": "int8"}

# ONNX, opset 17: float input [1, 8, 3, 3] -> Cast to float16 -> Conv with 8 filters of 3x3 ones -> Cast to float.
HALF_CONV = """
eNrj4BBisJrMxSXOxVghxJioxOKcWFyixcnFVJIvwbWAkYmLn4sxkYuxXIgxCSiXn1cGUpkkxFiJopIRqFKIMV1rAicHCDBzMAtwOTGWezVwMtiM
wlE4CkfhwMAoaVDBJsYlwsEoJMDFxMEIxBxAzAzCSUDJSiySIJrRiYWLQUAQAGlQm6s=
"""


def options(ort: Any, threads: int) -> Any:
    """One call at a time on `threads` threads, which sleep as soon as it is over: while they spun on, the runner that
    has the next block would lose a core. x86 without VNNI saturates where it multiplies uint8 by int8; the last option
    makes it exact, by a slower kernel, where a model's weights are large enough for that (outside [-64, 64])."""
    chosen = ort.SessionOptions()
    chosen.intra_op_num_threads = threads
    chosen.inter_op_num_threads = 1
    chosen.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    chosen.add_session_config_entry("session.force_spinning_stop", "1")
    chosen.add_session_config_entry("session.x64quantprecision", "1")
    chosen.log_severity_level = 3
    return chosen


def precisions(ort: Any) -> list[str]:
    """Those that run as they are called. int8 kernels are in every build; for fp16 a convolution is tried, since
    onnxruntime widens it to fp32 without a word where the machine (x86) has no half-precision arithmetic."""
    try:
        half = executed(ort, zlib.decompress(base64.b64decode(HALF_CONV)), 1)
    except Exception:  # whatever stops it there, it cannot run fp16
        half = "none"
    return [name for name in KNOWN if name != "fp16" or half == "fp16"]


def load(ort: Any, path: str, threads: int, precision: str, streams: int) -> Loaded:
    """A session a stream: streams that share one would also share its threads."""
    sessions = [ort.InferenceSession(path, options(ort, threads), providers=PROVIDERS) for _ in range(streams)]
    sources, result = sessions[0].get_inputs(), sessions[0].get_outputs()[0]
    for source in sources:
        if source.type not in INPUTS:
            raise RequestError(
                "failed", f"the model's input {source.name} is {source.type}, expected one of: {', '.join(INPUTS)}"
            )
    source = sources[0]

    def feeds(batch: Any) -> dict[str, Any]:
        return batch if isinstance(batch, dict) else {source.name: batch}

    def call(batch: Any) -> Floats:
        logits: Floats = sessions[0].run([result.name], feeds(batch))[0]
        return logits

    def stream(session: Any) -> Callable[[Any], Callable[[], object]]:
        return lambda batch: partial(session.run, [result.name], feeds(batch))

    ways = [stream(session) for session in sessions]
    read = partial(executed, ort, path, threads)
    shapes = source.name, source.shape, result.name, result.shape
    several = [(port.name, port.shape, INPUTS[port.type]) for port in sources] if len(sources) > 1 else []
    watched = partial(profile, ort, path, threads, feeds)
    return Loaded(call, ways, read, *shapes, INPUTS[source.type], several, watched)


def executed(ort: Any, model: str | bytes, threads: int) -> str:
    """The precision of the convolutions and matrix products of a model (its path, or its bytes), as onnxruntime's
    profiler recorded it. The profiler sees the nodes that ran, after all graph optimization, with the type of each
    input; the model's file would only say what was asked for: a convolution between DequantizeLinear and
    QuantizeLinear that was not fused ran in fp32. It needs a session of its own, since it slows down the one that it
    watches."""
    import numpy as np  # not at the top: runner_common comes first, which can answer without it

    with tempfile.TemporaryDirectory() as folder:
        chosen = options(ort, threads)
        chosen.enable_profiling = True
        chosen.profile_file_prefix = str(Path(folder) / "types")
        session = ort.InferenceSession(model, chosen, providers=PROVIDERS)
        feeds = {}
        for source in session.get_inputs():
            shape = [size if isinstance(size, int) else 1 for size in source.shape]
            feeds[source.name] = np.zeros(shape, INPUTS[source.type])
        session.run(None, feeds)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    nodes = [event["args"] for event in events if event.get("cat") == "Node" and "op_name" in event.get("args", {})]
    heavy = [node for node in nodes if any(name in node["op_name"] for name in HEAVY)]
    # The first input is the data; the others are weights, which a kernel may widen, and biases.
    # DynamicQuantizeMatMul rounds its data itself, and computes in the type of its weights.
    types = [
        next(iter(node["input_type_shape"]["DynamicQuantize" in node["op_name"]]))
        for node in heavy or nodes
        if node.get("input_type_shape")
    ]
    return mixed(NAMES.get(name, name) for name in types)


def profile(
    ort: Any, path: str, threads: int, feeds: Callable[[Any], dict[str, Any]], batch: Callable[[int], Any], calls: int
) -> Profile:
    """How long each node takes, by onnxruntime's profiler, in a session of its own."""
    with tempfile.TemporaryDirectory() as folder:
        chosen = options(ort, threads)
        chosen.enable_profiling = True
        chosen.profile_file_prefix = str(Path(folder) / "layers")
        session = ort.InferenceSession(path, chosen, providers=PROVIDERS)
        for number in range(WARM_CALLS + calls):
            session.run(None, feeds(batch(number)))
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return of_events(events)


def of_events(events: list[dict[str, Any]]) -> Profile:
    """What the profiler's events say: "model_run" is a call, and the "…_kernel_time" within it are its nodes'."""
    runs = sorted((event["ts"], event["dur"]) for event in events if event.get("name") == "model_run")
    told = Profile("onnxruntime, SessionOptions.enable_profiling", WARM_CALLS)
    told.calls_ms = [dur / 1000 for _, dur in runs]
    starts = [ts for ts, _ in runs]
    kernels = [event for event in events if event.get("cat") == "Node" and event["name"].endswith(KERNEL)]
    for event in sorted(kernels, key=lambda event: event["ts"]):
        args, name = event["args"], event["name"][: -len(KERNEL)]
        types = args.get("input_type_shape") or [{}]
        read = next(iter(types[0]), None)
        precision = None if read is None else NAMES.get(read, read)
        key = (name, args.get("node_index"))
        call = bisect.bisect_right(starts, event["ts"]) - 1
        if call >= 0:
            told.nodes.setdefault(key, Node(name, args["op_name"], precision=precision)).took(event["dur"], call)
    return told


if __name__ == "__main__":
    serve(Runtime("onnxruntime", "pip install onnxruntime", KNOWN, precisions, load))
