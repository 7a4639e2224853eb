"""kdc's own int8 beside onnxruntime's: whose ranges, and whose Q/DQ pairs, lose less?

    python -m benchmarks.calibrators RUN… --profile x86-avx2 [--rounds 40]

Run from where the runs were distilled. The same students, calibration images and scheme in five ways:

    kdc, kdc          kdc's pairs, with the ranges of kdc's histogram
    kdc, ort          kdc's pairs, with the ranges of onnxruntime's calibrators
    ort, plan         onnxruntime's QDQQuantizer around the nodes that kdc's plan chooses
    ort, excluded     quantize_static, without the nodes that kdc leaves in float
    ort, all          quantize_static as its documentation has it

All are scored by the runner on validation. Latency is CPU time in this process on one thread, blocks of ten calls in
turn, as a ratio to fp32 in the same round: the median of the rounds. Prints a row each.
"""

import argparse
import contextlib
import logging
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    create_calibrator,
    quantize_static,
)
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.qat import Trial, trial
from compressor.export import calibration
from compressor.export.calibration import activation_ranges, batches
from compressor.export.onnx.qdq import Ranges, insert_pairs, plan_for, write_model
from compressor.export.onnx.qdq_plan import CARRIERS, Plan
from compressor.export.schemes import onnxruntime_scheme
from compressor.profiles import load_profile
from compressor.schema.quantization import Score
from compressor.tasks.base import Arrays

METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}
SETTINGS: dict[str, tuple[str, dict[str, Any]]] = {
    "minmax": ("minmax", {}),
    "percentile 99.999": ("percentile", {}),
    "percentile 99.999, each end": ("percentile", {"symmetric": False}),
}
"""Name -> onnxruntime's calibrator and its options; {} are those that quantize_static gives it."""
TIMED = {"kdc, ort", "ort, plan", "ort, excluded", "ort, all"}
ABSORBED = ("Relu", "Clip")


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches of the calibration images, one after the other."""

    def __init__(self, rows: Iterator[Arrays]) -> None:
        self._rows = rows

    def get_next(self) -> Arrays | None:
        return next(self._rows, None)


def calibrated(student: Trial, graph: Path, method: str, options: dict[str, Any], folder: Path) -> Any:
    """What onnxruntime's calibrator sees, fed a batch at a time."""
    augmented = str(folder / "augmented.onnx")
    ops = ["Conv", "Gemm", "MatMul", *CARRIERS, *ABSORBED]
    calibrator = create_calibrator(graph, ops, augmented, METHODS[method], extra_options=options)
    for batch in batches(student.source):
        calibrator.collect_data(Reader(iter([batch])))
    return calibrator.compute_data()


def kdc_pairs(student: Trial, model: onnx.ModelProto, plan: Plan, ranges: Ranges, path: Path) -> Path:
    scheme = onnxruntime_scheme(student.source.profile)
    write_model(insert_pairs(model, plan, ranges, scheme, bias_int32=True, weight_scales={}), path)
    return path


def absorbed(model: onnx.ModelProto, plan: Plan) -> list[str]:
    """The nodes that kdc's plan rounds: layers, carriers, and the Relu or Clip between a node and its rounding."""
    layers, rounded = {layer.name for layer in plan.layers}, set(plan.activations)
    constants = {tensor.name for tensor in model.graph.initializer}
    carriers = {
        node.name
        for node in model.graph.node
        if node.op_type in CARRIERS and rounded.issuperset(set(node.input) - constants)
    }
    outputs = {node.output[0] for node in model.graph.node if node.name in layers | carriers}
    clips = {
        node.name
        for node in model.graph.node
        if node.op_type in ABSORBED and node.input[0] in outputs and node.output[0] in rounded
    }
    return sorted(layers | carriers | clips)


def ort_pairs(student: Trial, model: onnx.ModelProto, nodes: list[str], tensors_range: Any, path: Path) -> Path:
    scheme = onnxruntime_scheme(student.source.profile)
    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    quantizer = QDQQuantizer(
        copied, True, scheme.weight_bits == 7, QuantType.QInt8, QuantType.QUInt8, tensors_range, nodes, [],
        ["Conv", "Gemm", "MatMul", *CARRIERS, *ABSORBED],
        {"OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
    )  # fmt: skip
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    write_model(quantizer.model.model, path)
    return path


def static(student: Trial, method: str, graph: Path, made: Path, **options: Any) -> Path:
    scheme = onnxruntime_scheme(student.source.profile)
    quantize_static(
        str(graph), str(made), Reader(batches(student.source)), quant_format=QuantFormat.QDQ, per_channel=True,
        reduce_range=scheme.weight_bits == 7, calibrate_method=METHODS[method], weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8, **options,
    )  # fmt: skip
    return made


def variants(student: Trial, folder: Path) -> Iterator[tuple[str, str, Path]]:
    """(way, ranges, model)."""
    graph = student.source.onnx_file
    model, scheme = onnx.load(graph), onnxruntime_scheme(student.source.profile)
    plan = plan_for(model, scheme, bias_int32=True)
    for percentile in (99.99, 99.999):
        calibration.PERCENTILE = percentile
        seen = activation_ranges(model, plan.activations, batches(student.source), scheme)
        for method in seen if percentile == 99.99 else ("percentile",):
            name = f"percentile {percentile}" if method == "percentile" else method
            yield "kdc, kdc", name, kdc_pairs(student, model, plan, seen[method], folder / f"kk {name}" / "model.onnx")
    tables = {name: calibrated(student, graph, *setting, folder) for name, setting in SETTINGS.items()}
    for name, table in tables.items():
        ends = {tensor: [float(np.ravel(end)[0]) for end in table[tensor].range_value] for tensor in plan.activations}
        ranges = {tensor: (low, high) for tensor, (low, high) in ends.items()}
        yield "kdc, ort", name, kdc_pairs(student, model, plan, ranges, folder / f"ko {name}" / "model.onnx")
    nodes, name = absorbed(model, plan), "percentile 99.999"
    yield "ort, plan", name, ort_pairs(student, model, nodes, tables[name], folder / "op" / "model.onnx")
    excluded = sorted({node.name for node in model.graph.node} - set(nodes))
    ops = ["Conv", "Gemm", "MatMul", *CARRIERS, *ABSORBED]
    path = folder / "oe.onnx"
    static(student, "percentile", graph, path, nodes_to_exclude=excluded, op_types_to_quantize=ops)
    yield "ort, excluded", name, path
    prepared = folder / "prepared.onnx"
    quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
    yield "ort, all", name, static(student, "percentile", prepared, folder / "oa-percentile.onnx")
    yield "ort, all", "minmax", static(student, "minmax", prepared, folder / "oa-minmax.onnx")


def cpu_times(models: dict[str, Path], batch: Arrays, rounds: int) -> dict[str, list[float]]:
    """CPU milliseconds of single calls, a round each, in turn."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    sessions: dict[str, Any] = {name: ort.InferenceSession(str(path), options) for name, path in models.items()}
    times: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(rounds + 3):
        for name, session in sessions.items():
            session.run(None, batch)
            begin = time.process_time()
            for _ in range(10):
                session.run(None, batch)
            times[name].append((time.process_time() - begin) * 100)
    return {name: row[3:] for name, row in times.items()}


def report(run: Path, profile: str, rounds: int) -> None:
    with tempfile.TemporaryDirectory() as root:
        folder = Path(root)
        student = trial(run, load_profile(profile), "onnxruntime", folder)
        models, timed = {("fp32", ""): student.source.onnx_file}, {"fp32": student.source.onnx_file}
        with contextlib.redirect_stdout(None):
            for way, ranges, path in variants(student, folder):
                models[way, ranges] = path
                if way in TIMED:
                    timed.setdefault(way, path)
        batch = next(iter(batches(student.source)))
        times = cpu_times(timed, batch, rounds)
        print(f"\n{run.name}, load {os.getloadavg()[0]:.1f}; fp32 {statistics.median(times['fp32']):.3f} ms of CPU\n")
        print("| pairs, ranges | calibration | right | SQNR dB | points lost | MB | CPU time / fp32 |")
        print("| --- | --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
        told: set[str] = set()
        for (way, ranges), path in models.items():
            score: Score = student.validation(path, "onnxruntime", "fp32" if way == "fp32" else "int8")
            ratio = ""
            if way in times and way not in told:
                told.add(way)
                shares = [mine / theirs for mine, theirs in zip(times[way], times["fp32"], strict=True)]
                ends = statistics.quantiles(shares, n=4)
                ratio = f"{statistics.median(shares):.2f} ({ends[0]:.2f} to {ends[2]:.2f})"
            noise = "" if score.sqnr_db is None else f"{score.sqnr_db:.1f}"
            numbers = f"{noise} | {100 * score.drop:.2f} | {path.stat().st_size / 1e6:.2f} | {ratio}"
            print(f"| {way} | {ranges} | {score.correct} of {score.n} | {numbers} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--rounds", type=int, default=40, help="Of ten calls each.")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    for run in given.runs:
        report(run, given.profile, given.rounds)


if __name__ == "__main__":
    main()
