"""Runs .pte programs with ExecuTorch (XNNPACK on the CPU). Speaks the protocol of README.md on stdin and stdout."""

from __future__ import annotations

import importlib
import re
import sys
import tempfile
import types
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.runner_common import Loaded, Runtime, mixed, serve
    from targets.runner_images import Batch, Floats
    from targets.runner_requests import RequestError
else:
    sys.dont_write_bytecode = True  # __pycache__ in the bundle would hold this machine's paths
    from runner_common import Loaded, Runtime, mixed, serve
    from runner_images import Batch, Floats
    from runner_requests import RequestError

INSTALL = "pip install executorch"
PRECISIONS = ("fp32", "int8")
METHOD = "forward"
# What XNNPACK calls its operators, e.g. "Fully Connected (NC, QS8, QC8W) GEMM" or "Convolution (NHWC, F32) DWConv"; and
# what ExecuTorch calls a convolution or matrix product that XNNPACK did not take.
KERNEL = re.compile(rb"(?:Convolution|Deconvolution|Fully Connected|Batch Matrix Multiply) \(([A-Z0-9, ]+)\)")
PORTABLE = re.compile(rb"native_call_(?:convolution|linear|addmm|mm|bmm)\b")
NAMES = {
    "F32": "fp32",
    "F16": "fp16",
    "BF16": "bf16",
    "QS8": "int8",
    "QU8": "int8",
    "QC8": "int8",
    "QD8": "dynamic int8",
}
UNTOLD = "kdc reads no per-layer times of ExecuTorch: its trace (ETDump) needs ExecuTorch's developer tools"
FLOAT32 = 6  # ScalarType::Float, executorch/runtime/core/portable_type/scalar_type.h


def library() -> Any:
    return importlib.import_module("executorch.extension.pybindings.portable_lib")


def tensors() -> Any:
    """The module whose tensors a program takes: executorch depends on it, and has imported it by now."""
    return sys.modules["torch"]


def version(runtime: Any) -> str:
    return str(importlib.import_module("executorch.version").__version__)


def precisions(runtime: Any) -> list[str]:
    able = runtime.Runtime.get().backend_registry.is_available("XnnpackBackend")
    return list(PRECISIONS) if able else []


def load(runtime: Any, path: str, threads: int, precision: str, streams: int) -> Loaded:
    """A program a stream. All of them share the one pool of threads that the process has, and Python's lock is held
    while a program runs: calls of several streams run one after the other, each on the threads of all streams."""
    library()._unsafe_reset_threadpool(threads * streams)
    programs = [runtime.Runtime.get().load_program(path) for _ in range(streams)]
    methods = [program.load_method(METHOD) for program in programs]
    source, result = methods[0].metadata.input_tensor_meta(0), methods[0].metadata.output_tensor_meta(0)
    if source.dtype() != FLOAT32:
        raise RequestError("failed", f"the program's input has ScalarType {source.dtype()}, expected {FLOAT32} (float)")

    def call(batch: Batch) -> Floats:
        logits: Floats = methods[0].execute([tensors().from_numpy(batch)])[0].numpy()
        return logits

    def stream(number: int, batch: Batch) -> Callable[[], object]:
        inputs = [tensors().from_numpy(batch)]
        return lambda: methods[number].execute(inputs)

    ways = [partial(stream, number) for number in range(streams)]
    read = partial(executed, runtime, path, list(source.sizes()))
    # A program has no names for its inputs and outputs.
    return Loaded(call, ways, read, "input", [*source.sizes()], "logits", [*result.sizes()], profile=UNTOLD)


def executed(runtime: Any, path: str, sizes: list[int]) -> str:
    """The precision of the convolutions and matrix products, as ExecuTorch's event tracer (ETDump) recorded one run:
    XNNPACK's operators carry the types that they compute in. A convolution or product that XNNPACK did not take runs in
    a portable kernel, whose type the trace does not tell. In a program of its own, since tracing takes time."""
    import numpy as np  # not at the top: runner_common comes first, which can answer without it

    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.etdp"
        program = runtime.Runtime.get().load_program(path, enable_etdump=True, debug_buffer_size=1 << 20)
        program.load_method(METHOD).execute([tensors().from_numpy(np.zeros(sizes, np.float32))])
        program.write_etdump_result_to_file(str(trace), str(Path(folder) / "trace.bin"))
        recorded = trace.read_bytes() if trace.exists() else b""
    precisions = [of_kernel(types.decode()) for types in KERNEL.findall(recorded)]
    return mixed([*precisions, *("unknown" for _ in PORTABLE.findall(recorded))])


def of_kernel(types: str) -> str:
    """ "NHWC, QS8, QC8W" -> "int8": the first type is the data's; the others are weights and results."""
    return next((NAMES[word] for word in types.split(", ") if word in NAMES), "unknown")


def leave_out_exporter() -> None:
    """executorch.runtime imports one class of warnings from executorch.exir, and so all of the exporter: seconds, and a
    third of its memory. An empty package in its place lets that one module be found alone."""
    try:
        package = importlib.import_module("executorch")
    except ImportError:
        return  # the first request that needs it is told so
    exporter = types.ModuleType("executorch.exir")
    exporter.__path__ = [str(Path(folder) / "exir") for folder in package.__path__]
    sys.modules["executorch.exir"] = exporter


if __name__ == "__main__":
    leave_out_exporter()
    serve(Runtime("executorch", INSTALL, PRECISIONS, precisions, load, module="executorch.runtime", version=version))
