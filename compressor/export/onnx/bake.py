"""A normalization, or a front end, as part of the model, which then takes what comes before it."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, compose, helper, numpy_helper

from compressor.errors import KdcError, os_error
from compressor.schema.tensors import Normalization

__all__ = ["bake_normalization", "prepend_front_end"]

PREFIX = "kdc_preprocess_"


def bake_normalization(onnx_file: Path, normalization: Normalization, out: Path) -> None:
    """Write the model in `onnx_file` with the normalization and the transposition before it.

    Its input is `normalization.raw`; its logits are the same to the last bit, since the graph divides and subtracts in
    float32 in the order in which the task does. Metadata and opset are kept. Raises KdcError where the model does not
    have one input of float32 [batch, channels, …].
    """
    model = _loaded(onnx_file)
    graph = model.graph
    source = _only_input(graph, onnx_file, normalization)
    raw = normalization.raw
    nodes, constants = _steps(normalization, source.name)
    batch = source.type.tensor_type.shape.dim[0]
    size = batch.dim_param if batch.HasField("dim_param") else batch.dim_value
    sample = helper.make_tensor_value_info(raw.name, TensorProto.UINT8, [size, *raw.sizes(1)[1:]])
    kept = list(graph.node)
    del graph.node[:], graph.input[:]
    graph.node.extend([*nodes, *kept])
    graph.input.append(sample)
    graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    _write(model, out)


def prepend_front_end(onnx_file: Path, front_end: bytes, out: Path) -> None:
    """Write the model in `onnx_file` with the ONNX model `front_end` before it, whose output becomes its input.

    The input keeps the front end's name; metadata and opset of the model are kept. Raises KdcError where they do not
    fit.
    """
    model, before = _loaded(onnx_file), onnx.load_from_string(front_end)
    before.ir_version = model.ir_version
    before = compose.add_prefix(before, PREFIX, rename_inputs=False)
    del before.opset_import[:]
    before.opset_import.extend(model.opset_import)
    source, made = model.graph.input[0], before.graph.output[0]
    sizes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]] for value in (source, made)]
    if len(model.graph.input) != 1 or sizes[0] != sizes[1]:
        raise KdcError(f"{onnx_file}: what goes before it makes {_described(made)}; it takes {_described(source)}")
    batch = source.type.tensor_type.shape.dim[0]
    before.graph.input[0].type.tensor_type.shape.dim[0].CopyFrom(batch)
    made.type.tensor_type.shape.dim[0].CopyFrom(batch)
    merged = compose.merge_models(before, model, io_map=[(made.name, source.name)])
    del merged.metadata_props[:]
    merged.metadata_props.extend(model.metadata_props)
    _write(merged, out)


def _loaded(onnx_file: Path) -> onnx.ModelProto:
    try:
        return onnx.load(onnx_file)
    except OSError as error:
        raise os_error(error, f"reading {onnx_file}") from error
    except Exception:  # protobuf's own error for bytes that it cannot read
        raise KdcError(f"{onnx_file} is damaged: it is no ONNX model") from None


def _write(model: onnx.ModelProto, out: Path) -> None:
    onnx.checker.check_model(model, full_check=True)
    try:
        out.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise os_error(error, f"writing {out}") from error


def _steps(normalization: Normalization, last: str) -> tuple[list[onnx.NodeProto], dict[str, NDArray[np.float32]]]:
    """The nodes from the raw input to the tensor `last`, and their constants."""
    dimensions = len(normalization.raw.shape)
    by_channel = (-1, *[1] * (dimensions - 2))
    constants: dict[str, NDArray[np.float32]] = {
        f"{PREFIX}{normalization.divisor:g}": np.array(normalization.divisor, np.float32),
        f"{PREFIX}mean": np.asarray(normalization.mean, np.float32).reshape(by_channel),
        f"{PREFIX}std": np.asarray(normalization.std, np.float32).reshape(by_channel),
    }
    divisor, mean, std = constants
    order = (0, dimensions - 1, *range(1, dimensions - 1))
    between = [normalization.raw.name, *(f"{PREFIX}{index}" for index in range(4)), last]
    nodes = [
        helper.make_node("Cast", [between[0]], [between[1]], f"{PREFIX}Cast", to=TensorProto.FLOAT),
        helper.make_node("Transpose", [between[1]], [between[2]], f"{PREFIX}Transpose", perm=order),
        helper.make_node("Div", [between[2], divisor], [between[3]], f"{PREFIX}Scale"),
        helper.make_node("Sub", [between[3], mean], [between[4]], f"{PREFIX}Mean"),
        helper.make_node("Div", [between[4], std], [between[5]], f"{PREFIX}Std"),
    ]
    return nodes, constants


def _only_input(graph: onnx.GraphProto, onnx_file: Path, normalization: Normalization) -> onnx.ValueInfoProto:
    constants = {tensor.name for tensor in graph.initializer}
    inputs: list[onnx.ValueInfoProto] = [value for value in graph.input if value.name not in constants]
    tensor_type = inputs[0].type.tensor_type if len(inputs) == 1 else None
    sizes = [dim.dim_value for dim in tensor_type.shape.dim] if tensor_type is not None else []
    expected = list(normalization.network_sizes)
    if tensor_type is None or tensor_type.elem_type != TensorProto.FLOAT or sizes[1:] != expected:
        given = ", ".join(f"{value.name} {_described(value)}" for value in inputs) or "none"
        wanted = f"float32 [batch, {', '.join(map(str, expected))}]"
        raise KdcError(f"{onnx_file}: the preprocessing goes before one input, {wanted}; it has: {given}")
    return inputs[0]


def _described(value: onnx.ValueInfoProto) -> str:
    tensor_type = value.type.tensor_type
    sizes = [dim.dim_param or str(dim.dim_value) for dim in tensor_type.shape.dim]
    return f"{TensorProto.DataType.Name(tensor_type.elem_type).lower()} [{', '.join(sizes)}]"
