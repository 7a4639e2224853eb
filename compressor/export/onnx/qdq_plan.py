"""What of an fp32 ONNX graph is quantized: which layers, and which tensors between them. Decides, changes nothing."""

from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx
from onnx import numpy_helper

from compressor.quantization.squeeze_excite import Operation, gates
from compressor.schema.quantization import Scheme

__all__ = ["GraphIndex", "Layer", "Plan", "heavy_layers", "plan", "squeeze_excite"]

POOLS = ("ReduceMean", "ReduceMax", "GlobalAveragePool", "GlobalMaxPool")
CLIPS = ("Relu", "Clip")
CARRIERS = ("Add", "MaxPool")
"""Ops without weights that follow what they read into 8 bits."""
GATING = ("Mul", "Sigmoid")
"""Those of squeeze-excite and swish. In 8 bits they make a network smaller and mostly faster, and their ranges may lose
accuracy: the first rung of the ladder rounds them too, the others leave them in float."""


@dataclass(frozen=True)
class Layer:
    """A Conv, Gemm or MatMul that can be quantized. `data`, `weight`, `bias`, `output`: names of tensors; `bias` is
    None where there is none. `axis` of the weight: its output channels."""

    name: str
    op: str
    data: str
    weight: str
    bias: str | None
    output: str
    axis: int


@dataclass(frozen=True)
class Plan:
    """`layers`: those to be quantized. `activations`: the tensors that get a Q/DQ pair, in the order of the graph.
    `nodes`: what is computed in 8 bits, by name: the layers, and where `results` are rounded too, what carries them.
    `absorbed`: the result of a layer or Add -> that of the Relu or Clip behind it, which is rounded in its place."""

    layers: tuple[Layer, ...]
    activations: tuple[str, ...]
    nodes: tuple[str, ...]
    absorbed: dict[str, str]
    results: bool


class GraphIndex:
    """Who makes and who uses each tensor of a graph."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.nodes = list(graph.node)
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.inputs = {value.name for value in graph.input} - set(self.constants)
        self.outputs = {value.name for value in graph.output}
        self.producer = {name: node for node in self.nodes for name in node.output}
        self.consumers: dict[str, list[onnx.NodeProto]] = defaultdict(list)
        for node in self.nodes:
            for name in node.input:
                self.consumers[name].append(node)

    def sole_consumer(self, tensor: str) -> onnx.NodeProto | None:
        consumers = self.consumers[tensor]
        return consumers[0] if len(consumers) == 1 and tensor not in self.outputs else None

    def variable(self, node: onnx.NodeProto) -> list[str]:
        """The inputs of a node that are no constants."""
        return [name for name in node.input if name and name not in self.constants]


def heavy_layers(graph: onnx.GraphProto, *, gating: bool = False) -> tuple[Layer, ...]:
    """All layers with constant float weights and variable data, in the order of the graph; squeeze-excite's only with
    `gating`."""
    index = GraphIndex(graph)
    apart = set() if gating else squeeze_excite(index)
    layers = (_layer(node, index) for node in index.nodes if node.name not in apart)
    return tuple(layer for layer in layers if layer is not None)


def plan(
    graph: onnx.GraphProto, scheme: Scheme, float_nodes: Collection[str], *, results: bool, gating: bool = False
) -> Plan:
    """Choose what to quantize. `float_nodes`: names of layers that stay in float. `gating`: squeeze-excite and swish as
    well.

    With `results` (onnxruntime), a convolution's or MatMul's result is rounded too, and then an Add's and a MaxPool's
    of rounded tensors: only with a Q behind it does the runtime fuse a node into its 8-bit kernel. A Relu or Clip
    between the two is absorbed into the rounding where the activations have a zero point. Without (TensorRT), only what
    a layer reads.
    The network's own results are never rounded: a convolution or MatMul that gives one stays in float.
    """
    index = GraphIndex(graph)
    absorb = results and scheme.activations == "uint8"
    behind = {node.output[0]: _absorbed(node.output[0], index, absorb) for node in index.nodes if node.output}
    ends = {name for name, last in behind.items() if last in index.outputs}
    layers = tuple(
        layer
        for layer in heavy_layers(graph, gating=gating)
        if layer.name not in float_nodes and not (results and layer.op != "Gemm" and layer.output in ends)
    )
    # A Gemm's kernel can write float: its result is rounded only where a layer reads it. So could a MatMul's, but first
    # onnxruntime would fuse it with the Add of its bias into a Gemm with a bias in float, and compute that in float.
    rounded = [layer.output for layer in layers if results and layer.op != "Gemm"]
    marked = {layer.data for layer in layers} | {behind[name] for name in rounded}
    names = {layer.name for layer in layers}
    carriers = (*CARRIERS, *GATING) if gating else CARRIERS
    for node in index.nodes if results else ():
        inputs, result = index.variable(node), node.output[0]
        no_constants = len(inputs) == len(list(filter(None, node.input)))
        if node.op_type in carriers and no_constants and marked.issuperset(inputs) and result not in ends:
            names.add(node.name)
            marked.add(result if node.op_type == "MaxPool" else behind[result])
            rounded += [result] if node.op_type != "MaxPool" else []
    absorbed = {name: behind[name] for name in rounded if behind[name] != name}
    names |= {index.producer[name].name for name in absorbed.values()}
    order = [*sorted(index.inputs), *(name for node in index.nodes for name in node.output)]
    activations = tuple(name for name in order if name in marked)
    return Plan(layers, activations, tuple(node.name for node in index.nodes if node.name in names), absorbed, results)


def squeeze_excite(index: GraphIndex) -> set[str]:
    """Names of the nodes that compute squeeze-excite's gates, by the same rule as for training in torch."""
    return gates((_operation(node, index) for node in index.nodes), index.inputs)


def _operation(node: onnx.NodeProto, index: GraphIndex) -> Operation:
    kind: Literal["pool", "product", "other"] = "product" if node.op_type == "Mul" else "other"
    if node.op_type in POOLS and (node.op_type.startswith("Global") or _is_spatial(node, index)):
        kind = "pool"
    # A shape is known before the network runs: a constant as far as the flow of values goes.
    inputs = () if node.op_type == "Shape" else node.input
    return Operation(node.name, kind, tuple(filter(None, inputs)), tuple(filter(None, node.output)))


def _is_spatial(node: onnx.NodeProto, index: GraphIndex) -> bool:
    """Whether a ReduceMean or ReduceMax goes over height and width. Its axes are an attribute up to opset 17."""
    axes = next((list(row.ints) for row in node.attribute if row.name == "axes"), [])
    if len(node.input) > 1 and node.input[1] in index.constants:
        axes = numpy_helper.to_array(index.constants[node.input[1]]).tolist()
    return sorted(np.mod(axes, 4)) == [2, 3]


def _layer(node: onnx.NodeProto, index: GraphIndex) -> Layer | None:
    weight = index.constants.get(node.input[1]) if len(node.input) > 1 else None
    if weight is None or weight.data_type != onnx.TensorProto.FLOAT or node.input[0] in index.constants:
        return None
    attributes = {row.name: onnx.helper.get_attribute_value(row) for row in node.attribute}
    if node.op_type == "Conv":
        axis = 0
    elif node.op_type == "Gemm" and not attributes.get("transA", 0) and attributes.get("alpha", 1.0) == 1.0:
        axis = 0 if attributes.get("transB", 0) else 1
    elif node.op_type == "MatMul" and len(weight.dims) == 2:
        axis = 1
    else:
        return None
    bias = node.input[2] if len(node.input) > 2 and node.input[2] else None
    if bias is not None and (bias not in index.constants or attributes.get("beta", 1.0) != 1.0):
        return None
    return Layer(node.name, node.op_type, node.input[0], node.input[1], bias, node.output[0], axis)


def _absorbed(tensor: str, index: GraphIndex, absorb: bool) -> str:
    """The tensor that is rounded for a kernel's result: behind its activation, where that is absorbed."""
    behind = index.sole_consumer(tensor)
    return str(behind.output[0]) if absorb and behind is not None and behind.op_type in CLIPS else tensor
