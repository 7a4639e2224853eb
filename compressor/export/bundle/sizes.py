"""How large an artefact is: the bytes of its weights by type, and what it costs to ship.

Bytes on disk alone mislead: OpenVINO halves weights to f16 by default and widens them again in memory, and a file of
fake-quantized weights is as large as before.
"""

import xml.etree.ElementTree as ET
import zlib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from onnx.helper import tensor_dtype_to_np_dtype

from compressor.export.mobile.sizes import pte_constants, tflite_constants

__all__ = ["compressed_bytes", "weight_bytes"]

# OpenVINO's names of element types -> the names that ONNX (and numpy) have for them.
IR_TYPES = {
    "f32": "float32", "f16": "float16", "bf16": "bfloat16", "f64": "float64", "boolean": "bool",
    "i64": "int64", "i32": "int32", "i16": "int16", "i8": "int8", "i4": "int4",
    "u64": "uint64", "u32": "uint32", "u16": "uint16", "u8": "uint8", "u4": "uint4", "u1": "uint1",
}  # fmt: skip
CHUNK = 1 << 20


def weight_bytes(model: Path) -> dict[str, int]:
    """The stored bytes of all constants of a model (.onnx, .xml of an OpenVINO IR, .pte, .tflite) by their type, the
    largest first; of a TensorRT engine, which cannot be read, the whole file as {"engine": bytes}.

    Raises ValueError for a file of another kind, KdcError (exit 4) without the runtime that can read it.
    """
    if model.suffix == ".onnx":
        found = _onnx_constants(onnx.load(model).graph)
    elif model.suffix == ".xml":
        found = _ir_constants(model)
    elif model.suffix == ".pte":
        found = pte_constants(model)
    elif model.suffix == ".tflite":
        found = tflite_constants(model)
    elif model.suffix == ".engine":
        found = [("engine", model.stat().st_size)]  # weights and code in one, in a form that NVIDIA does not publish
    else:
        raise ValueError(f"{model.name} is neither ONNX nor OpenVINO IR, nor a .pte or .tflite file")
    total: Counter[str] = Counter()
    for kind, size in found:
        total[kind] += size
    return dict(total.most_common())


def compressed_bytes(files: Iterable[Path]) -> int:
    """The bytes of the files, one after the other, in one deflate stream at level 6: gzip's and zip's default."""
    deflate, size = zlib.compressobj(6), 0
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                size += len(deflate.compress(chunk))
    return size + len(deflate.flush())


def _onnx_constants(graph: onnx.GraphProto) -> Iterable[tuple[str, int]]:
    attributes = [one for node in graph.node if node.op_type == "Constant" for one in node.attribute]
    constants = [one.t for one in attributes if one.HasField("t")]  # some hold a plain number or a list of them
    for tensor in [*graph.initializer, *constants]:
        kind = tensor_dtype_to_np_dtype(tensor.data_type)
        count = int(np.prod(tensor.dims, dtype=np.int64))
        # Types below a byte are packed, two (or more) to a byte.
        bits = {"int4": 4, "uint4": 4}.get(kind.name, 8 * kind.itemsize)
        yield kind.name, (count * bits + 7) // 8


def _ir_constants(model: Path) -> Iterable[tuple[str, int]]:
    for layer in ET.parse(model).getroot().iter("layer"):
        data = layer.find("data")
        if layer.get("type") == "Const" and data is not None:
            kind = data.get("element_type", "unknown")
            yield IR_TYPES.get(kind, kind), int(data.get("size", "0"))
