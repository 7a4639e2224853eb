"""Preprocessing as part of the model: pixels in, uint8 [batch, height, width, 3]. Resizing stays outside."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from compressor.errors import KdcError, os_error
from compressor.schema.preprocess import ImagePreprocess

__all__ = ["BAKED_INPUT", "bake_preprocessing"]

BAKED_INPUT = "image"
"""The name of the new input."""

PREFIX = "kdc_preprocess_"


def bake_preprocessing(onnx_file: Path, preprocess: ImagePreprocess, out: Path) -> None:
    """Write the model in `onnx_file` with `(x / 255 - mean) / std` and the transposition before it.

    Input: "image", uint8 [batch, height, width, 3], resized and cropped as `preprocess` says; the same logits, to the
    last bit, since the graph divides and subtracts in float32 in the order of `compressor.data.normalise`. Metadata
    and opset are kept. Raises KdcError where the model does not have one input, float32 [batch, 3, height, width].
    """
    try:
        model = onnx.load(onnx_file)
    except OSError as error:
        raise os_error(error, f"reading {onnx_file}") from error
    except Exception:  # protobuf's own error for bytes that it cannot read
        raise KdcError(f"{onnx_file} is damaged: it is no ONNX model") from None
    graph = model.graph
    source = _only_input(graph, onnx_file, preprocess)
    batch = source.type.tensor_type.shape.dim[0]
    constants: dict[str, NDArray[np.float32]] = {
        f"{PREFIX}255": np.array(255, np.float32),
        f"{PREFIX}mean": np.asarray(preprocess.mean, np.float32).reshape(3, 1, 1),
        f"{PREFIX}std": np.asarray(preprocess.std, np.float32).reshape(3, 1, 1),
    }
    by_255, mean, std = constants
    places = [BAKED_INPUT, *(f"{PREFIX}{index}" for index in range(4)), source.name]
    nodes = [
        helper.make_node("Cast", [places[0]], [places[1]], f"{PREFIX}Cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", [places[1]], [places[2]], f"{PREFIX}Transpose", perm=(0, 3, 1, 2)),
        helper.make_node("Div", [places[2], by_255], [places[3]], f"{PREFIX}Scale"),
        helper.make_node("Sub", [places[3], mean], [places[4]], f"{PREFIX}Mean"),
        helper.make_node("Div", [places[4], std], [places[5]], f"{PREFIX}Std"),
    ]
    size = batch.dim_param if batch.HasField("dim_param") else batch.dim_value
    image = helper.make_tensor_value_info(BAKED_INPUT, TensorProto.UINT8, [size, *preprocess.input_size, 3])
    kept = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *kept])
    graph.input.append(image)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    onnx.checker.check_model(model, full_check=True)
    try:
        out.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise os_error(error, f"writing {out}") from error


def _only_input(graph: onnx.GraphProto, onnx_file: Path, preprocess: ImagePreprocess) -> onnx.ValueInfoProto:
    constants = {value.name for value in graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [value for value in graph.input if value.name not in constants]
    kind = inputs[0].type.tensor_type if len(inputs) == 1 else None
    sizes = [dim.dim_value for dim in kind.shape.dim] if kind is not None else []
    if kind is None or kind.elem_type != TensorProto.FLOAT or sizes[1:] != [3, *preprocess.input_size]:
        given = ", ".join(f"{value.name} {_described(value)}" for value in inputs) or "none"
        expected = f"float32 [batch, 3, {preprocess.input_size[0]}, {preprocess.input_size[1]}]"
        raise KdcError(f"{onnx_file}: the preprocessing goes before one input, {expected}; it has: {given}")
    return inputs[0]


def _described(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type
    sizes = [dim.dim_param or str(dim.dim_value) for dim in kind.shape.dim]
    return f"{TensorProto.DataType.Name(kind.elem_type).lower()} [{', '.join(sizes)}]"
