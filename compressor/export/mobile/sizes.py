"""The constants of phones' model files, read as their own schemas describe them."""

import importlib
import json
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from compressor.errors import needs
from compressor.export.quiet import quiet
from compressor.runtimes import RUNTIMES

__all__ = ["pte_constants", "tflite_constants"]

# XNNPACK's types of values (executorch/backends/xnnpack/serialization/schema.fbs) -> numpy's names for what is stored.
XNN_TYPES = {
    "fp32": "float32", "fp16": "float16", "bf16": "bfloat16", "int32": "int32", "qint8": "int8", "quint8": "uint8",
    "qcint8": "int8", "qint32": "int32", "qcint32": "int32", "qcint4": "int4", "qbint4": "int4",
}  # fmt: skip
# ExecuTorch's types of tensors (executorch/exir/_serialize/scalar_type.fbs), likewise.
SCALAR_TYPES = {
    "BYTE": "uint8", "CHAR": "int8", "SHORT": "int16", "INT": "int32", "LONG": "int64", "HALF": "float16",
    "FLOAT": "float32", "DOUBLE": "float64", "BOOL": "bool", "BFLOAT16": "bfloat16",
}  # fmt: skip
READING = "reading the sizes of weights"


def tflite_constants(model: Path) -> Iterator[tuple[str, int]]:
    """(type, bytes) of each buffer that tensors of the .tflite have. Buffers that tensors share count once."""
    schema = needs("ai_edge_litert.schema_py_generated", RUNTIMES["litert"].install, READING)
    graph = schema.ModelT.InitFromPackedBuf(model.read_bytes(), 0)
    names = {number: name.lower() for name, number in vars(schema.TensorType).items() if isinstance(number, int)}
    kinds = {tensor.buffer: names[tensor.type] for subgraph in graph.subgraphs for tensor in subgraph.tensors}
    for number, kind in sorted(kinds.items()):
        buffer = graph.buffers[number]
        # Large buffers lie behind the flatbuffer, at an offset that is more than 1 (schema.fbs, "Buffer").
        size = buffer.size if buffer.offset > 1 else 0 if buffer.data is None else len(buffer.data)
        if size:
            yield kind, int(size)


def pte_constants(model: Path) -> Iterator[tuple[str, int]]:
    """(type, bytes) of each constant of the .pte: those of XNNPACK's parts, with the scales of their channels, and
    those of the operators that XNNPACK did not take."""
    needs("executorch.exir", RUNTIMES["executorch"].install, READING)
    with quiet(f"cannot read {model.name}"):
        serialize = importlib.import_module("executorch.exir._serialize._program")
        program = serialize.deserialize_pte_binary(model.read_bytes()).program
        parts = [
            bytes(program.backend_delegate_data[delegate.processed.index].data)
            for plan in program.execution_plan
            for delegate in plan.delegates
        ]
        graphs = [_xnn_graph(part) for part in parts]
    for graph in graphs:
        yield from _xnn_constants(graph)
    values = [value.val for plan in program.execution_plan for value in plan.values]
    tensors = [value for value in values if type(value).__name__ == "Tensor" and value.data_buffer_idx > 0]
    for number, kind in sorted({tensor.data_buffer_idx: tensor.scalar_type.name for tensor in tensors}.items()):
        yield SCALAR_TYPES.get(kind, kind.lower()), len(program.constant_buffer[number].storage)


def _xnn_constants(graph: Any) -> Iterator[tuple[str, int]]:
    kinds: dict[int, str] = {}
    for value in graph["xvalues"]:
        tensor = value["xvalue_union"]
        scales = tensor.get("quant_params", {}).get("scale_buffer_idx", 0)
        tensor = tensor.get("tensor_value", tensor)
        kind = tensor["datatype"].removeprefix("xnn_datatype_")
        kinds[scales] = "float32"
        kinds[tensor["constant_buffer_idx"]] = XNN_TYPES.get(kind, kind)
    for number, kind in sorted(kinds.items()):
        if number:  # 0 stands for none
            yield kind, graph["constant_data"][number]["size"]


def _xnn_graph(part: bytes) -> Any:
    """The graph in a part that XNNPACK runs, as its own schema has it. Raises ValueError for another backend's."""
    serialization = importlib.import_module("executorch.backends.xnnpack.serialization")
    header_type = importlib.import_module("executorch.backends.xnnpack.serialization.xnnpack_graph_serialize").XNNHeader
    header = header_type.from_bytes(part[: header_type.EXPECTED_LENGTH])
    flatbuffer = importlib.import_module("executorch.exir._serialize._flatbuffer")
    with tempfile.TemporaryDirectory() as folder:
        schema, data = Path(folder) / "schema.fbs", Path(folder) / "graph.bin"
        schema.write_bytes((Path(serialization.__path__[0]) / "schema.fbs").read_bytes())
        data.write_bytes(part[header.flatbuffer_offset : header.flatbuffer_offset + header.flatbuffer_size])
        flatbuffer._flatc_decompile(folder, str(schema), str(data), ["--raw-binary"])
        text = data.with_suffix(".json").read_text(encoding="utf-8")
    return json.loads(re.sub(r"(:\s*-?)inf\b", r"\1Infinity", text))  # flatc's spelling is not Python's
