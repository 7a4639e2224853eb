"""An ONNX graph and its Q/DQ twin, layer by layer.

onnxruntime.quantization.qdq_loss_debug does the like, but keeps every activation of every sample, and matches tensors
by the endings of their names; here the graph says what is rounded, and nothing is kept.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import onnx

from compressor.errors import KdcError, first_line
from compressor.export.base import Compared, TwinLayer, Twins
from compressor.export.onnx.qdq_plan import CLIPS, GraphIndex
from compressor.export.onnx.session import Floats, open_session
from compressor.tasks.base import Arrays

__all__ = ["INPUT", "onnx_twins"]

INPUT = "Input"
"""What a model's input is called, as a layer's type."""
CARRY = (
    "Cast", "Concat", "Constant", "Expand", "Flatten", "Gather", "Identity", "Pad", "Reshape", "Shape", "Slice",
    "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip
"""Ops that compute nothing: what they pass on was compared where it was made."""
Pair = tuple[str, str]
"""What a layer gives: the tensor in float, and the one in low precision."""


def onnx_twins(float_file: Path, model_file: Path) -> Twins:
    """`model_file`: Q/DQ ONNX made of `float_file`, whose tensors keep their names. Raises KdcError where a graph
    cannot be read."""
    model, rounded = _with_shapes(float_file), onnx.load(model_file)
    pairs = _pairs(model.graph, rounded.graph)
    index = GraphIndex(model.graph)
    layer_of = {tensor: name for name, (_, tensors) in pairs.items() for tensor in tensors}
    layers = tuple(
        TwinLayer(name, INPUT if node is None else node.op_type, _reads(node, index, layer_of))
        for name, (node, _) in pairs.items()
    )

    def compared(names: Sequence[str]) -> Compared:
        wanted = {name: pairs[name][1] for name in names}
        in_float = open_session(model, list(dict.fromkeys(pair[0] for pair in wanted.values())))
        in_int8 = open_session(rounded, list(dict.fromkeys(pair[1] for pair in wanted.values())))

        def run(batch: Arrays) -> Iterator[tuple[str, Floats, Floats]]:
            expected, given = in_float.run(batch), in_int8.run(batch)
            for name, (before, after) in wanted.items():
                yield name, expected[before], given[after]

        return run

    return Twins(layers, compared)


def _with_shapes(path: Path) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(onnx.load(path))
    except onnx.shape_inference.InferenceError as error:
        raise KdcError(f"the shapes in {path.name} cannot be told: {first_line(error)}") from None


def _pairs(graph: onnx.GraphProto, rounded: onnx.GraphProto) -> dict[str, tuple[onnx.NodeProto | None, Pair]]:
    """Layer -> its node, None for an input, and its pair of tensors; of what both graphs have."""
    index, made = GraphIndex(graph), GraphIndex(rounded)
    behind = _behind_rounding(made)
    floats = {value.name for value in (*graph.input, *graph.value_info, *graph.output) if _is_float(value)}
    pairs: dict[str, tuple[onnx.NodeProto | None, Pair]] = {
        name: (None, (name, behind.get(name, name))) for name in sorted(index.inputs & made.inputs & floats)
    }
    for node in index.nodes:
        output = node.output[0] if node.output else ""
        twin, layer = made.producer.get(output), node
        if node.op_type in CLIPS and output in behind and twin is not None and twin.op_type not in CLIPS:
            layer = index.producer.get(node.input[0], node)  # the rounding cuts what the activation cut, which is gone
        if layer.op_type in CARRY or output not in floats or twin is None or twin.op_type != layer.op_type:
            continue
        name = layer.name if layer.name and layer.name not in pairs else output
        pairs[name] = (layer, (output, behind.get(output, output)))
    return pairs


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT)


def _behind_rounding(index: GraphIndex) -> dict[str, str]:
    """Tensor -> what is read in its place, where a QuantizeLinear rounds it."""
    behind: dict[str, str] = {}
    for node in index.nodes:
        source = index.producer.get(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if source is not None and source.op_type == "QuantizeLinear":
            behind.setdefault(source.input[0], node.output[0])
    return behind


def _reads(node: onnx.NodeProto | None, index: GraphIndex, layer_of: Mapping[str, str]) -> tuple[str, ...]:
    """The compared layers that `node` reads, through what only carries or is not compared."""
    before: list[str] = []
    seen: set[str] = set()
    waiting = [] if node is None else list(node.input)
    while waiting:
        tensor = waiting.pop(0)
        if tensor in seen:
            continue
        seen.add(tensor)
        if tensor in layer_of:
            before.append(layer_of[tensor])
        elif tensor in index.producer:
            waiting += index.producer[tensor].input
    return tuple(dict.fromkeys(before))
