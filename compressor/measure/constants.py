"""What this machine computes and moves at most: a few operators, timed in onnxruntime's runner. Takes seconds."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from compressor.errors import EXIT_MISSING, KdcError
from compressor.files.reading import json_value
from compressor.files.scratch import scratch
from compressor.measure.machine import run_script
from compressor.runtimes import RUNTIMES
from compressor.schema.measurement import Machine

__all__ = ["Constants", "crowded", "facts_of", "measure_constants"]

ROWS, DEPTH, COLUMNS = 512, 1024, 1024
"""A matrix product that needs few bytes for what it computes: 1.07 GFLOP."""
COPIED = 1 << 24
"""Values of 4 bytes that are read, and that are written: 67 MB each, more than caches hold."""
CHAIN = 200
"""Convolutions of 16 pixels and 16 channels, one after the other: what they take is overhead."""
ROUNDS, CALLS = 5, 10
"""Each is called so often in a row, and again after the others; the fastest call counts, since whatever else the
machine does can only slow it down."""
RUNTIME = RUNTIMES["onnxruntime"]


@dataclass(frozen=True)
class Constants:
    """`core_gflops`: by precision, of one core where `threads` compute. GB/s, µs."""

    threads: int
    core_gflops: Mapping[str, float]
    bandwidth_gbs: float
    layer_overhead_us: float


def measure_constants(threads: int) -> Constants:
    """Time a matrix product in fp32 and in int8, an addition that streams through memory, and a chain of tiny
    convolutions, on `threads` threads. Raises KdcError where the runner does not answer."""
    with scratch("constants", "kdc profiles new") as folder:
        for name in _MODELS:
            _write_model(folder, name)
        names = [name for _ in range(ROUNDS) for name in _MODELS]
        lines = [json.dumps(request) for name in names for request in _requests(folder, name, threads)]
        answers = run_script(RUNTIME.runner, [], "\n".join(lines) + "\n").splitlines()
    times = dict.fromkeys(_MODELS, float("inf"))
    for name, time in zip(names, _fastest(answers), strict=True):
        times[name] = min(times[name], time)
    product = 2 * ROWS * DEPTH * COLUMNS
    return Constants(
        threads=threads,
        core_gflops={name: product / times[name] / 1e6 / threads for name in ("fp32", "int8")},
        bandwidth_gbs=2 * 4 * COPIED / times["copy"] / 1e6,
        layer_overhead_us=times["chain"] / CHAIN * 1e3,
    )


def crowded(machine: Machine) -> str:
    """What to tell where others keep the machine busy, so that it seems slower than it is; "" where nobody does."""
    if machine.load_1m is None or machine.load_1m <= machine.usable_cores / 2:
        return ""
    return (
        f"the machine is busy (load {machine.load_1m:.1f} on {machine.usable_cores} cores), so that core_gflops, "
        "bandwidth_gbs and layer_overhead_us may say that it is slower than it is: measure again when it is quiet"
    )


def facts_of(constants: Constants, day: date) -> dict[str, Any]:
    """The constants as facts of a profile's device, each with how and when it was measured."""
    threads = f"{constants.threads} thread{'s' * (constants.threads > 1)}, the fastest of {ROUNDS * CALLS} calls, {day}"
    product = f"a product of {ROWS}x{DEPTH} and {DEPTH}x{COLUMNS} in onnxruntime"
    return {
        "core_gflops": {
            "value": {name: _short(value) for name, value in constants.core_gflops.items()},
            "source": f"measured: {product}, {threads}, / threads",
        },
        "bandwidth_gbs": {
            "value": _short(constants.bandwidth_gbs),
            "source": f"measured: {4 * COPIED / 1e6:.0f} MB read and as many written in onnxruntime, {threads}",
        },
        "layer_overhead_us": {
            "value": _short(constants.layer_overhead_us),
            "source": f"measured: {CHAIN} convolutions of 16 pixels and 16 channels in onnxruntime, {threads}",
        },
    }


def _short(value: float) -> float:
    return float(f"{value:.3g}")


def _requests(folder: Path, name: str, threads: int) -> Iterator[dict[str, Any]]:
    """What the runner is asked: to load the model, to open its inputs, and to time calls."""
    precision = "int8" if name == "int8" else "fp32"
    yield {"op": "load", "model": str(folder / f"{name}.onnx"), "precision": precision, "threads": threads}
    yield {"op": "inputs", "path": str(folder / f"{name}.npy"), "batch": 1, "distinct": 1}
    yield {"op": "block", "n": CALLS}


def _fastest(answers: list[str]) -> Iterator[float]:
    """The time of the fastest call of each block, ms."""
    for line in answers:
        answer = {}
        with suppress(KdcError):
            answer = json_value(line, RUNTIME.runner)
        if not isinstance(answer, dict) or answer.get("ok") is not True:
            reason = answer.get("message", line[:80]) if isinstance(answer, dict) else line[:80]
            raise KdcError(f"targets/{RUNTIME.runner} could not measure this machine: {reason}", "", EXIT_MISSING)
        if "wall_ms" in answer:
            yield float(min(answer["wall_ms"]))


def _write_model(folder: Path, name: str) -> None:
    """The ONNX model of that name, and an input for it."""
    import onnx

    nodes, weights, shape, kind = _MODELS[name]()
    source = onnx.TensorProto.UINT8 if kind == "u1" else onnx.TensorProto.FLOAT
    # All but the first value is thrown away after it was computed, so that nothing else takes time.
    ends = [
        onnx.helper.make_node("Flatten", ["y"], ["flat"]),
        onnx.helper.make_node("Slice", ["flat", "zero", "one", "axis"], ["first"]),
        onnx.helper.make_node("Cast", ["first"], ["logits"], to=onnx.TensorProto.FLOAT),
    ]
    weights |= {"zero": np.array([0]), "one": np.array([1]), "axis": np.array([1])}
    graph = onnx.helper.make_graph(
        [*nodes, *ends],
        name,
        [onnx.helper.make_tensor_value_info("x", source, (1, *shape))],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, (1, 1))],
        [onnx.numpy_helper.from_array(value, key) for key, value in weights.items()],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / f"{name}.onnx")
    np.save(folder / f"{name}.npy", np.ones(1, np.dtype([("x", kind, shape)])))


Parts = tuple[list[Any], dict[str, Any], tuple[int, ...], str]


def _product(operator: str, kind: str, weight: str) -> Parts:
    import onnx

    node = onnx.helper.make_node(operator, ["x", "w"], ["y"])
    return [node], {"w": np.ones((DEPTH, COLUMNS), weight)}, (ROWS, DEPTH), kind


def _copy() -> Parts:
    import onnx

    return [onnx.helper.make_node("Add", ["x", "w"], ["y"])], {"w": np.ones(1, np.float32)}, (COPIED,), "f4"


def _chain() -> Parts:
    import onnx

    ends = ["x", *(f"y{number}" for number in range(1, CHAIN)), "y"]
    nodes = [onnx.helper.make_node("Conv", [ends[i], "w"], [ends[i + 1]]) for i in range(CHAIN)]
    return nodes, {"w": np.eye(16, dtype=np.float32)[..., None, None]}, (16, 4, 4), "f4"


_MODELS = {
    "fp32": lambda: _product("MatMul", "f4", "f4"),
    "int8": lambda: _product("MatMulInteger", "u1", "i1"),
    "copy": _copy,
    "chain": _chain,
}
