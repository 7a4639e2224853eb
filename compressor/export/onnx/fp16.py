"""fp32 ONNX -> fp16 ONNX, strongly typed: every float tensor inside is float16, input and output stay float32.

For ARM with half-precision arithmetic (fphp, asimdhp), where onnxruntime has fp16 kernels, and for TensorRT, which
takes precision from the graph alone. On x86 onnxruntime puts casts around the layers and computes them in fp32; its
runner reports that. Written out because onnxruntime.transformers.float16 leaves the nodes in no topological order,
which the ONNX checker refuses, and clips weights without a word.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from compressor.errors import KdcError
from compressor.export.base import Artefact, Source
from compressor.export.onnx.qdq import write_model

__all__ = ["half", "to_fp16"]

LARGEST = float(np.finfo(np.float16).max)
NOTHING_LARGER = float(np.finfo(np.float32).max)
"""Stands for infinity: transformers mask with its negative."""


def to_fp16(source: Source, folder: Path) -> Artefact:
    """Write FOLDER/model.onnx. Raises KdcError where a weight is larger than float16 can be, or the graph has a node
    that knows no float16."""
    write_model(half(onnx.load(source.onnx_file)), folder / "model.onnx")
    return Artefact(folder / "model.onnx", "weights and tensors cast to float16, input and output float32")


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of `model` in float16, with a Cast behind its float32 inputs and before its float32 outputs."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    del graph.value_info[:]
    for tensor in graph.initializer:
        _narrow(tensor)
    constants = {tensor.name for tensor in graph.initializer}
    inputs = [value for value in graph.input if _is_float(value) and value.name not in constants]
    outputs = [value for value in graph.output if _is_float(value)]
    renamed = {value.name: f"{value.name}_fp16" for value in (*inputs, *outputs)}
    nodes = [_cast(value.name, renamed[value.name], TensorProto.FLOAT16) for value in inputs]
    for node in graph.node:
        for names in (node.input, node.output):
            for slot, name in enumerate(names):
                names[slot] = renamed.get(name, name)
        for attribute in node.attribute:
            _narrow_attribute(node, attribute)
        nodes.append(onnx.NodeProto.FromString(node.SerializeToString()))
    nodes += [_cast(renamed[value.name], value.name, TensorProto.FLOAT) for value in outputs]
    del graph.node[:]
    graph.node.extend(nodes)
    return made


def _cast(source: str, result: str, to: int) -> onnx.NodeProto:
    return helper.make_node("Cast", [source], [result], f"{source}_Cast", to=to)


def _is_float(value: onnx.ValueInfoProto) -> bool:
    return value.type.tensor_type.elem_type == TensorProto.FLOAT


def _narrow_attribute(node: onnx.NodeProto, attribute: AttributeProto) -> None:
    if attribute.type == AttributeProto.TENSOR:
        _narrow(attribute.t)
    elif node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
        attribute.i = TensorProto.FLOAT16


def _narrow(tensor: TensorProto) -> None:
    if tensor.data_type != TensorProto.FLOAT:
        return
    value = numpy_helper.to_array(tensor)
    largest = float(np.abs(value).max(initial=0.0))
    if largest == NOTHING_LARGER:
        value = value.clip(-LARGEST, LARGEST)
    elif np.isfinite(largest) and largest > LARGEST:
        raise KdcError(
            f"weight {tensor.name or '(unnamed)'} reaches {largest:g}, and fp16 ends at {LARGEST:g}",
            "leave fp16 out, with --target and --precision",
        )
    tensor.CopyFrom(numpy_helper.from_array(value.astype(np.float16), tensor.name))
