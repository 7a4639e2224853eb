"""torch -> ONNX in a tenth of the time, by tracing: for networks of drawn weights, of which nothing counts but how long
they take. What ships is always exported by `graph.to_onnx`.

Both exporters give onnxruntime and OpenVINO the same convolutions, and the same activations but for GELU: traced, it
comes out as one node, and exported as five, which runtimes fuse in some networks only. Networks with GELU are therefore
not traced, nor those whose inputs vary in more than their batch: what is traced holds for one size.
`tests/export/test_export_quick.py` holds the rest to it.
"""

import warnings
from pathlib import Path

import onnx
import torch
from torch import nn

from compressor.export.onnx.graph import to_onnx
from compressor.schema.preprocess import Preprocess
from compressor.tasks.base import example_inputs

__all__ = ["quick_onnx"]

HIGHEST_TRACED = 20
"""The highest opset that torch's tracing exporter writes."""


def quick_onnx(network: nn.Module, preprocess: Preprocess, batch: int, opset: int, path: Path) -> None:
    """Write `network` to `path`, with inputs and output named as `to_onnx` names them, for that batch alone. Raises
    KdcError where it cannot be exported."""
    varies = any(len(spec.varying) > 1 for spec in preprocess.inputs)
    if varies or any(isinstance(module, nn.GELU) or type(module).__name__ == "GELU" for module in network.modules()):
        to_onnx(network, preprocess.inputs, batch, opset, {}, path)
        return
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is old, and that shapes become constants: they are
        torch.onnx.export(
            network.eval(),
            example_inputs(preprocess.inputs, batch),
            path,
            dynamo=False,
            opset_version=min(opset, HIGHEST_TRACED),
            input_names=[spec.name for spec in preprocess.inputs],
            output_names=["logits"],
        )
    _name_constants(path)


def _name_constants(path: Path) -> None:
    """Make every constant an initializer of its own. The tracer writes some as nodes, and equal ones (biases of drawn
    weights are all 0) as Identity of the first: quantization would take neither for a bias, and leave the layer in
    float."""
    model = onnx.load(path)
    graph = model.graph
    constants = {tensor.name: tensor for tensor in graph.initializer}
    kept = []
    for node in graph.node:
        value = None
        if node.op_type == "Identity" and node.input[0] in constants:
            value = constants[node.input[0]]
        elif node.op_type == "Constant" and node.attribute[0].name == "value":
            value = node.attribute[0].t
        if value is None:
            kept.append(node)
            continue
        constants[node.output[0]] = onnx.TensorProto.FromString(value.SerializeToString())
        constants[node.output[0]].name = node.output[0]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    used = {name for node in nodes for name in node.input}
    del graph.node[:], graph.initializer[:]
    graph.node.extend(nodes)
    graph.initializer.extend(tensor for name, tensor in constants.items() if name in used)
    onnx.save(model, path)
