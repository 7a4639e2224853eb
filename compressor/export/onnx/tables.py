"""Embedding tables in int8: of a small encoder they are half of the weights or more.

A row is rounded with a scale of its own, by its largest value: 43 dB for MiniLM's words, where one scale for the table
gives 27. Rows are gathered as int8 and widened then, so that no call touches the rest of the table. A runtime would
widen the whole of a table behind a DequantizeLinear.
"""

from collections.abc import Collection

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compressor.export.onnx.qdq_plan import GraphIndex, Layer

__all__ = ["embedding_tables", "with_int8_tables"]

LEAST = 1 << 11
"""Values of a table below which nothing is saved."""
MOST = 127


def embedding_tables(graph: onnx.GraphProto) -> tuple[Layer, ...]:
    """Gathers of rows of a constant float table that nothing else reads, in the order of the graph."""
    index = GraphIndex(graph)
    tables = []
    for node in index.nodes:
        table = index.constants.get(node.input[0]) if node.op_type == "Gather" else None
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        if table is None or table.data_type != TensorProto.FLOAT or len(table.dims) != 2 or axis:
            continue
        rows = all(reader.op_type == "Gather" for reader in index.consumers[table.name])
        if rows and table.name not in index.outputs and np.prod(table.dims) >= LEAST:
            tables.append(Layer(node.name, "Gather", node.input[1], table.name, None, node.output[0], 0))
    return tuple(tables)


def with_int8_tables(model: onnx.ModelProto, float_nodes: Collection[str] = ()) -> onnx.ModelProto:
    """A copy of the fp32 `model` with its embedding tables in int8, but for those of `float_nodes`."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    tables = embedding_tables(graph)
    in_float = {table.weight for table in tables if table.name in float_nodes}
    changed = {table.name: table for table in tables if table.weight not in in_float}
    if not changed:
        return made
    values = {tensor.name: tensor for tensor in graph.initializer}
    constants = [tensor for name, tensor in values.items() if name not in {table.weight for table in changed.values()}]
    for weight in dict.fromkeys(table.weight for table in changed.values()):
        codes, scales = _rounded(numpy_helper.to_array(values[weight]))
        constants += [
            numpy_helper.from_array(codes, f"{weight}_int8"),
            numpy_helper.from_array(scales, f"{weight}_scale"),
        ]
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes += [node] if node.name not in changed else _gathered(node, changed[node.name])
    # Copies: what they are cleared out of would take the originals with it.
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    constants = [onnx.TensorProto.FromString(tensor.SerializeToString()) for tensor in constants]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(kept)
    graph.initializer.extend(constants)
    return made


def _gathered(node: onnx.NodeProto, table: Layer) -> list[onnx.NodeProto]:
    codes, scales, wide = (f"{table.output}_{part}" for part in ("codes", "scales", "wide"))
    return [
        helper.make_node("Gather", [f"{table.weight}_int8", table.data], [codes], f"{node.name}_codes"),
        helper.make_node("Gather", [f"{table.weight}_scale", table.data], [scales], f"{node.name}_scales"),
        helper.make_node("Cast", [codes], [wide], f"{node.name}_wide", to=TensorProto.FLOAT),
        helper.make_node("Mul", [wide, scales], [table.output], node.name),
    ]


def _rounded(table: NDArray[np.float32]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Codes [rows, width] and scales [rows, 1]."""
    largest = np.abs(table).max(axis=1, keepdims=True)
    scale = (np.where(largest > 0, largest, 1) / MOST).astype(np.float32)
    return np.rint(table / scale).clip(-MOST, MOST).astype(np.int8), scale
