"""Runs .tflite models with LiteRT (XNNPACK on the CPU). Speaks the protocol of README.md on stdin and stdout."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from functools import partial
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

INSTALL = "pip install ai-edge-litert"
HEAVY = {"CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "FULLY_CONNECTED", "BATCH_MATMUL"}
NAMES = {"float32": "fp32", "float16": "fp16", "int8": "int8", "uint8": "int8", "int16": "int16"}


def version(litert: Any) -> str:
    return str(importlib.import_module("ai_edge_litert").__version__)


def load(litert: Any, path: str, threads: int, precision: str, streams: int) -> Loaded:
    """An interpreter a stream. Each has a pool of threads of its own, which sleep between calls."""
    ways = [Interpreter(litert, path, threads) for _ in range(streams)]
    first = ways[0]
    if first.input["dtype"].__name__ != "float32":
        raise RequestError("failed", f"the model's input is {first.input['dtype'].__name__}, expected float32")

    def call(batch: Batch) -> Floats:
        first.fill(batch)
        return first.run()

    names = str(first.input["name"]), str(first.output["name"])
    shapes = shape(first.input), shape(first.output)
    return Loaded(
        call, [way.bind for way in ways], partial(executed, first.runtime), names[0], shapes[0], names[1], shapes[1]
    )


class Interpreter:
    """One interpreter with the input and the output of its model."""

    def __init__(self, litert: Any, path: str, threads: int) -> None:
        self.runtime = litert.Interpreter(model_path=path, num_threads=threads)
        self.runtime.allocate_tensors()
        self.input, self.output = self.runtime.get_input_details()[0], self.runtime.get_output_details()[0]

    def fill(self, batch: Batch) -> None:
        self.runtime.set_tensor(self.input["index"], batch)

    def run(self) -> Floats:
        self.runtime.invoke()
        logits: Floats = self.runtime.get_tensor(self.output["index"])
        return logits

    def bind(self, batch: Batch) -> Callable[[], object]:
        self.fill(batch)
        return self.run


def shape(details: Any) -> list[int | str | None]:
    return [int(size) if size >= 0 else None for size in details["shape_signature"]]


def executed(runtime: Any) -> str:
    """The precision of the convolutions and matrix products, from the operators of the graph that the interpreter holds
    and the types of their operands: there is no kernel for int8 operands but in integers, and none of XNNPACK's for
    float ones in fewer bits unless a delegate is told so, which this runner does not. LiteRT's Python does not name the
    kernels. Float data with int8 weights is rounded anew in each call, "dynamic int8"."""
    precisions = []
    for node in runtime._get_ops_details():  # the only way to the operators from Python
        if node["op_name"] in HEAVY:
            data, weight = (NAMES.get(kind.__name__, kind.__name__) for kind in node["operand_types"][:2])
            precisions.append(data if data == weight else f"dynamic {weight}")
    return mixed(precisions)


if __name__ == "__main__":
    # The module that holds the runtime's library: so it is no part of what a model takes to load, in time and memory.
    MODULE = "ai_edge_litert.interpreter"
    PRECISIONS = ("fp32", "int8")
    serve(Runtime("litert", INSTALL, PRECISIONS, lambda litert: list(PRECISIONS), load, module=MODULE, version=version))
