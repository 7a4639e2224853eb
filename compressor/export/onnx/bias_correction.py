"""Empirical bias correction: rounding shifts the mean of a layer's results, and the layer's bias can take that back.

Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction" (arXiv:1906.04721), section
4.2 and appendix D, the empirical variant: E[rounded] - E[float] of each output channel before its activation, over
training images, is subtracted from the bias. Layer after layer in the order of the graph, each one measured behind
those that were corrected before it, since what comes in there has moved already.
"""

from collections.abc import Callable, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from compressor.export.onnx.qdq_plan import Layer
from compressor.export.onnx.session import open_session
from compressor.progress import Progress
from compressor.tasks.base import Arrays

__all__ = ["channel_means", "correct_biases"]


def correct_biases(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    quantized: Callable[[onnx.ModelProto], onnx.ModelProto],
    inputs: Sequence[Arrays],
    progress: Progress,
) -> onnx.ModelProto:
    """A copy of the fp32 `model` with the biases of `layers` corrected, to be quantized in its place.

    `quantized`: how that is done, with biases in float. `inputs`: batches of training images.
    """
    made = _with_biases(model, layers)
    wanted = channel_means(made, layers, inputs)
    rounded = quantized(made)
    for layer in progress.track(layers, len(layers), "bias correction"):
        means = channel_means(_up_to(rounded, layer.name), [layer], inputs)
        shift = means[layer.name] - wanted[layer.name]
        for graph in (made.graph, rounded.graph):
            _subtract(graph, layer.name, shift)
    return made


def channel_means(
    model: onnx.ModelProto, layers: Sequence[Layer], inputs: Sequence[Arrays]
) -> dict[str, NDArray[np.float64]]:
    """Name of a layer -> the mean of what it gives in each channel, [channels], over all batches and positions."""
    # By name: where the Relu behind a layer was absorbed, what the layer gives has the Relu's name.
    outputs = {node.name: node.output[0] for node in model.graph.node}
    session = open_session(model, [outputs[layer.name] for layer in layers])
    sums: dict[str, NDArray[np.float64]] = {}
    for batch in inputs:
        for layer, value in zip(layers, session.run(batch).values(), strict=True):
            channel = 1 if layer.op == "Conv" else value.ndim - 1
            over = tuple(number for number in range(value.ndim) if number != channel)
            sums[layer.name] = sums.get(layer.name, 0.0) + value.mean(axis=over, dtype=np.float64)
    return {name: total / len(inputs) for name, total in sums.items()}


def _with_biases(model: onnx.ModelProto, layers: Sequence[Layer]) -> onnx.ModelProto:
    """A copy in which each convolution and Gemm of `layers` has a bias of its own."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes = {node.name: node for node in made.graph.node}
    values = {tensor.name: tensor for tensor in made.graph.initializer}
    for layer in layers:
        if layer.op == "MatMul":
            continue  # its bias is an Add behind it, which other nodes may share
        channels = values[layer.weight].dims[layer.axis]
        before = numpy_helper.to_array(values[layer.bias]) if layer.bias else np.zeros(channels, np.float32)
        name = f"{layer.name}_own_bias"
        made.graph.initializer.append(numpy_helper.from_array(np.broadcast_to(before, (channels,)).copy(), name))
        node = nodes[layer.name]
        del node.input[2:]
        node.input.append(name)
    read = {name for node in made.graph.node for name in node.input}
    kept = [tensor for tensor in made.graph.initializer if tensor.name in read]
    del made.graph.initializer[:]
    made.graph.initializer.extend(kept)
    return made


def _subtract(graph: onnx.GraphProto, layer: str, shift: NDArray[np.float64]) -> None:
    for tensor in graph.initializer:
        if tensor.name == f"{layer}_own_bias":
            corrected = numpy_helper.to_array(tensor).astype(np.float64) - shift
            tensor.CopyFrom(numpy_helper.from_array(corrected.astype(np.float32), tensor.name))


def _up_to(model: onnx.ModelProto, layer: str) -> onnx.ModelProto:
    """The part of a model that makes what the node `layer` gives, its only output."""
    producer = {name: node.name for node in model.graph.node for name in node.output}
    by_name = {node.name: node for node in model.graph.node}
    output = by_name[layer].output[0]
    needed, waiting = set(), [output]
    while waiting:
        name = producer.get(waiting.pop())
        if name is not None and name not in needed:
            needed.add(name)
            waiting += by_name[name].input
    part = onnx.ModelProto()
    part.CopyFrom(model)
    del part.graph.node[:], part.graph.initializer[:], part.graph.output[:]
    part.graph.node.extend(node for node in model.graph.node if node.name in needed)
    read = {name for node in part.graph.node for name in node.input}
    part.graph.initializer.extend(tensor for tensor in model.graph.initializer if tensor.name in read)
    part.graph.output.append(onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None))
    return part
