"""An OpenVINO model in float and its int8 twin, layer by layer: matched by their friendly names."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import needs
from compressor.export.base import Compared, TwinLayer, Twins
from compressor.export.onnx.twins import INPUT
from compressor.export.openvino.ir import converted, core, quietly
from compressor.runtimes import RUNTIMES
from compressor.tasks.base import Arrays

__all__ = ["openvino_twins"]

CARRY = (
    "Broadcast", "Concat", "Constant", "Convert", "Gather", "Pad", "Reshape", "Result", "ShapeOf", "Slice", "Split",
    "Squeeze", "StridedSlice", "Transpose", "Unsqueeze", "VariadicSplit",
)  # fmt: skip
"""Types of operations that compute nothing."""


def openvino_twins(float_file: Path, model_file: Path) -> Twins:
    """`model_file`: an IR made of the ONNX `float_file`. Its operations keep their names, but for those that OpenVINO
    named by a counter, which are left out."""
    ov = needs("openvino", RUNTIMES["openvino"].install, "an OpenVINO export")
    model = converted(float_file)
    with quietly("OpenVINO cannot read the int8 model"):
        rounded = core().read_model(model_file)
    made = {operation.get_friendly_name(): operation for operation in rounded.get_ordered_ops()}
    operations = {name: operation for name, operation in _layers(model) if _is_like(operation, made.get(name))}
    layers = tuple(
        TwinLayer(name, _type(operation), _reads(operation, operations)) for name, operation in operations.items()
    )

    def compared(names: Sequence[str]) -> Compared:
        in_float = _tapped(ov, model, list(names))
        in_int8 = _tapped(ov, rounded, [_behind_rounding(made[name]) for name in names])

        def run(batch: Arrays) -> Iterator[tuple[str, Any, Any]]:
            yield from zip(names, in_float(batch), in_int8(batch), strict=True)

        return run

    return Twins(layers, compared)


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """The inputs first."""
    operations = [operation for operation in model.get_ordered_ops() if operation.get_type_name() not in CARRY]
    for operation in sorted(operations, key=lambda operation: operation.get_type_name() != "Parameter"):
        if operation.get_output_size() == 1 and operation.get_output_element_type(0).get_type_name() == "f32":
            yield operation.get_friendly_name(), operation


def _is_like(operation: Any, twin: Any) -> bool:
    return twin is not None and twin.get_type_name() == operation.get_type_name()


def _type(operation: Any) -> str:
    name = str(operation.get_type_name())
    return INPUT if name == "Parameter" else name


def _reads(operation: Any, operations: dict[str, Any]) -> tuple[str, ...]:
    """The compared layers that it reads, through what only carries."""
    before: list[str] = []
    seen: set[str] = set()
    waiting = [operation]
    while waiting:
        for port in waiting.pop(0).inputs():
            source = port.get_source_output().get_node()
            name = source.get_friendly_name()
            if name in seen:
                continue
            seen.add(name)
            if name in operations:
                before.append(name)
            else:
                waiting.append(source)
    return tuple(before)


def _behind_rounding(operation: Any) -> str:
    """The FakeQuantize that the next layers read, or the operation itself."""
    readers = [port.get_node() for port in operation.output(0).get_target_inputs()]
    rounding = sorted(node.get_friendly_name() for node in readers if node.get_type_name() == "FakeQuantize")
    return str(rounding[0] if rounding else operation.get_friendly_name())


def _tapped(ov: Any, model: Any, names: list[str]) -> Any:
    """Runs a copy of `model`: a batch -> what the operations `names` give."""
    copy = model.clone()
    by_name = {operation.get_friendly_name(): operation for operation in copy.get_ordered_ops()}
    copy.add_results([ov.opset13.result(by_name[name].output(0)) for name in names])
    with quietly("OpenVINO cannot run the model"):
        compiled = core().compile_model(copy, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})

    def run(batch: Arrays) -> list[Any]:
        results = compiled(batch)
        return [np.array(results[number]) for number in range(len(results) - len(names), len(results))]

    return run
