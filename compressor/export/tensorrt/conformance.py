"""Whether an ONNX graph becomes a TensorRT engine that computes what the graph says.

Two looks. The graph's own: what TensorRT's parser reads as something else without a word, or with a warning that nobody
sees. And TensorRT for RTX's: its parser and its builder run on machines without a GPU and are those of TensorRT, so
that a node that no engine can hold is found here and not on the board.

Rules: docs.nvidia.com/deeplearning/tensorrt, "Working with Quantized Types" (INT8 only, symmetric); what the parser
does with graphs that break them was tried with TensorRT for RTX 1.7.
"""

import json
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from compressor.assets import asset_dir
from compressor.errors import EXIT_MISSING, KdcError, first_line, os_error
from compressor.export.onnx.qdq_plan import GraphIndex
from compressor.processes.child_environment import child_environment
from compressor.runtimes import RUNTIMES

__all__ = ["Violation", "build", "check_conformance", "check_graph", "violations"]

SCRIPT = "build_trt.py"
LIMIT_S = 1800.0
ELSE = "choose another student, or another runtime with --target"

CHECK_SM = 86
"""What the second look builds for. Orin's GPU, SM 87, is Ampere too, and TensorRT for RTX does not know it."""

NUMBERS = {
    TensorProto.FLOAT,
    TensorProto.FLOAT16,
    TensorProto.INT8,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.BOOL,
}
"""Types of constants that TensorRT holds as they are. It narrows double to float with a warning."""

INPUTS = {TensorProto.FLOAT, TensorProto.UINT8}
"""Types of a graph's input: a normalized batch, or images."""


@dataclass(frozen=True)
class Violation:
    """`node`: its name, "" for the whole graph; `op`: its type; `rule`: what is wrong with it, as a sentence."""

    node: str
    op: str
    rule: str

    def __str__(self) -> str:
        return f"node {self.node} ({self.op}): {self.rule}" if self.node else self.rule


def check_conformance(onnx_file: Path, opset: int) -> None:
    """Raise KdcError, with the node's name, where TensorRT cannot run the graph as it is. `opset`: the highest one that
    the device's TensorRT is known to read. Exit 4 without tensorrt_rtx: nothing is shipped unchecked."""
    check_graph(onnx_file, opset)
    build(onnx_file, None, (CHECK_SM,))


def check_graph(onnx_file: Path, opset: int) -> None:
    """The first of the two looks alone, where an engine is built anyway, which is the second."""
    problems = violations(onnx_file, opset)
    if problems:
        suffix = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise KdcError(f"{onnx_file.name} is not fit for TensorRT: {problems[0]}{suffix}", ELSE)


def build(onnx_file: Path, engine: Path | None, sm: Sequence[int]) -> dict[str, Any]:
    """Build an engine of TensorRT for RTX for the compute capabilities `sm` (× 10), ahead of time; written to `engine`,
    or thrown away. Returns what targets/build_trt.py tells of it. Raises KdcError with the name of the node that it
    stumbled over; exit 4 without tensorrt_rtx."""
    row = RUNTIMES["tensorrt-rtx"]
    command = [sys.executable, str(asset_dir("targets") / SCRIPT), str(onnx_file), "--json", "--runtime", row.name]
    command += ["--sm", *map(str, sm), *(["--check"] if engine is None else ["--out", str(engine)])]
    try:
        done = subprocess.run(
            command,
            env=child_environment(),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise KdcError(f"{row.name} built no engine of {onnx_file.name} within {LIMIT_S:.0f} s") from None
    except OSError as error:
        raise os_error(error, f"starting targets/{SCRIPT}") from error
    return _answer(done, onnx_file)


def _answer(done: "subprocess.CompletedProcess[str]", onnx_file: Path) -> dict[str, Any]:
    try:
        told = json.loads(done.stdout)
    except ValueError:
        told = None
    if isinstance(told, dict) and told.get("ok") is True:
        return told
    said = str(told["message"]) if isinstance(told, dict) else _last_words(done)
    if done.returncode == EXIT_MISSING:  # "pip install … (cannot import …)": the hint has the install line already
        reason = said[said.find("(") + 1 :].removesuffix(")")
        install = RUNTIMES["tensorrt-rtx"].install
        raise KdcError(
            f"engines, and checks of models for TensorRT, need tensorrt_rtx: {reason}", install, EXIT_MISSING
        )
    raise KdcError(f"{onnx_file.name} is not fit for TensorRT: {said}", ELSE)


def _last_words(done: "subprocess.CompletedProcess[str]") -> str:
    lines = [" ".join(line.split()) for line in done.stderr.splitlines() if line.strip()]
    return f"{SCRIPT} ended with exit code {done.returncode}" + (f": {lines[-1]}" if lines else "")


def violations(onnx_file: Path, opset: int) -> tuple[Violation, ...]:
    """What the graph itself shows, in its order. Raises KdcError for a file that is no ONNX model."""
    try:
        model = onnx.load(str(onnx_file))
        onnx.checker.check_model(model)
    except OSError as error:
        raise os_error(error, f"reading {onnx_file}") from error
    except Exception as error:  # onnx and protobuf raise their own types, which change
        raise KdcError(f"{onnx_file} is no valid ONNX model: {first_line(error)}") from None
    return tuple(_violations(model, opset))


def _violations(model: onnx.ModelProto, opset: int) -> Iterator[Violation]:
    version = next((row.version for row in model.opset_import if row.domain in ("", "ai.onnx")), 0)
    if version > opset:
        yield Violation("", "", f"its opset is {version}, and the device reads {opset} and below")
    index = GraphIndex(model.graph)
    constants = _constants(model.graph)
    for value in model.graph.input:
        kind = value.type.tensor_type.elem_type
        if value.name not in constants and kind not in INPUTS:
            yield Violation("", "", f"its input {value.name} is {_type(kind)}; permitted: {_types(INPUTS)}")
    for node in model.graph.node:
        name = node.name or f"that makes {node.output[0]}"
        for rule in _rules(node, index, constants):
            yield Violation(name, node.op_type, rule)


def _rules(node: onnx.NodeProto, index: GraphIndex, constants: dict[str, TensorProto]) -> Iterator[str]:
    """What is wrong with one node."""
    if node.domain not in ("", "ai.onnx"):
        yield f"it is an operator of {node.domain}, which is no part of ONNX"
    elif node.op_type == "QuantizeLinear":
        yield from _pair(node, index)
        yield from _numbers(node, constants)
    elif node.op_type == "DequantizeLinear":
        yield from _numbers(node, constants)
    else:
        for name in node.input:
            if name in constants and constants[name].data_type not in NUMBERS:
                yield f"its constant {name} is {_type(constants[name].data_type)}; permitted: {_types(NUMBERS)}"


def _pair(node: onnx.NodeProto, index: GraphIndex) -> Iterator[str]:
    """TensorRT fuses pairs; integers that go anywhere else have no scale."""
    unfused = [consumer for consumer in index.consumers[node.output[0]] if consumer.op_type != "DequantizeLinear"]
    if unfused:
        yield f"its integers go to node {unfused[0].name} ({unfused[0].op_type}) and not to a DequantizeLinear"
    elif node.output[0] in index.outputs:
        yield "its integers leave the graph"


def _numbers(node: onnx.NodeProto, constants: dict[str, TensorProto]) -> Iterator[str]:
    """The scale and the zero point of a QuantizeLinear or DequantizeLinear."""
    scale = _value(node, 1, constants)
    if scale is None:
        yield "its scale is computed; TensorRT needs a constant"
    elif node.op_type == "QuantizeLinear" and node.input[0] not in constants and scale.size > 1:
        yield f"it rounds an activation with {scale.size} scales; TensorRT has INT8 kernels for one a tensor"
    stored = constants.get(node.input[0])
    if stored is not None and stored.data_type == TensorProto.INT32:
        yield "it dequantizes INT32, a quantized bias; TensorRT wants the bias in float"
    elif len(node.input) > 2 and node.input[2]:
        yield from _zero_point(_value(node, 2, constants))
    elif node.op_type == "QuantizeLinear" and not any(attribute.name == "output_dtype" for attribute in node.attribute):
        yield "it has no zero point, which means UINT8 in ONNX, and INT8 to TensorRT"


def _zero_point(zero: NDArray[Any] | None) -> Iterator[str]:
    if zero is None:
        yield "its zero point is computed; TensorRT needs a constant"
    elif zero.dtype != np.int8:
        yield f"its zero point is {str(zero.dtype).upper()}; TensorRT rounds to INT8, and would read it as that"
    elif zero.any():
        yield f"its zero point is {zero[zero != 0].flat[0]}; TensorRT rounds symmetrically, around 0"


def _value(node: onnx.NodeProto, slot: int, constants: dict[str, TensorProto]) -> NDArray[Any] | None:
    tensor = constants.get(node.input[slot]) if len(node.input) > slot else None
    return None if tensor is None else numpy_helper.to_array(tensor)


def _constants(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """The initializers, and what Constant nodes hold."""
    held = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for attribute in node.attribute if node.op_type == "Constant" else ():
            if attribute.name == "value":
                held[node.output[0]] = attribute.t
    return held


def _type(number: int) -> str:
    return str(TensorProto.DataType.Name(number))


def _types(numbers: Collection[int]) -> str:
    return ", ".join(sorted(map(_type, numbers)))
