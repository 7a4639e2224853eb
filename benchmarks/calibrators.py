"""kdc's int8 beside onnxruntime's `quantize_static`, on the same students and calibration images:

    python -m benchmarks.calibrators RUN… --profile x86-avx2 [--rounds 20]

Run from where the runs were distilled. kdc's are the candidates of its lowest rungs: onnxruntime's ranges and pairs
around the nodes of its own plan. onnxruntime's are quantize_static as its documentation has it, around everything that
has an 8-bit kernel. All are scored by the runner on validation. Latency is CPU time in this process on one thread,
blocks of ten calls in turn, as a ratio to fp32 in the same round: the median and the quartiles of the rounds.
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

import onnxruntime as ort
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.qat import Trial, trial
from compressor.export.calibration import batches
from compressor.export.schemes import onnxruntime_scheme
from compressor.profiles import load_profile
from compressor.schema.quantization import Score
from compressor.tasks.base import Arrays
from compressor.terminal.console import progress_for

METHODS = {"minmax": CalibrationMethod.MinMax, "percentile": CalibrationMethod.Percentile}


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """Batches of the calibration images, one after the other."""

    def __init__(self, rows: Iterator[Arrays]) -> None:
        self._rows = rows

    def get_next(self) -> Arrays | None:
        return next(self._rows, None)


def static(student: Trial, method: str, folder: Path) -> Path:
    """The student as quantize_static makes it, after the preparation that its documentation asks for."""
    scheme = onnxruntime_scheme(student.source.profile)
    prepared, made = folder / "prepared.onnx", folder / f"{method}.onnx"
    if not prepared.exists():
        quant_pre_process(str(student.source.onnx_file), str(prepared), skip_symbolic_shape=True)
    with contextlib.redirect_stdout(None):  # it prints what it does
        quantize_static(
            str(prepared), str(made), Reader(batches(student.source)), quant_format=QuantFormat.QDQ, per_channel=True,
            reduce_range=scheme.weight_bits == 7, calibrate_method=METHODS[method], weight_type=QuantType.QInt8,
            activation_type=QuantType.QUInt8,
        )  # fmt: skip
    return made


def variants(student: Trial, folder: Path) -> Iterator[tuple[str, Path]]:
    """(how it was made, model)."""
    quiet, made = progress_for(quiet=True), ""
    for candidate in student.quantizer.candidates(student.source, folder / "kdc", student.validation, quiet):
        if candidate is not None:
            made = candidate.description
            yield f"kdc, {made}", candidate.model
        elif not made.endswith("too"):  # squeeze-excite and swish were in float
            break
    for method in METHODS:
        yield f"quantize_static, {method}", static(student, method, folder)


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
        models = {"fp32": student.source.onnx_file, **dict(variants(student, folder))}
        times = cpu_times(models, next(iter(batches(student.source))), rounds)
        load = f"load {os.getloadavg()[0]:.1f}"
        print(f"\n{run.name}, {load}; fp32 {statistics.median(times['fp32']):.3f} ms of CPU\n")
        print("| made by | right | SQNR dB | points lost | MB | CPU time / fp32 |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |", flush=True)
        for name, path in models.items():
            score: Score = student.validation(path, "onnxruntime", "fp32" if name == "fp32" else "int8")
            shares = [taken / reference for taken, reference in zip(times[name], times["fp32"], strict=True)]
            ends = statistics.quantiles(shares, n=4)
            ratio = f"{statistics.median(shares):.2f} ({ends[0]:.2f} to {ends[2]:.2f})"
            noise = "" if score.sqnr_db is None else f"{score.sqnr_db:.1f}"
            numbers = f"{noise} | {100 * score.drop:.2f} | {path.stat().st_size / 1e6:.2f} | {ratio}"
            print(f"| {name} | {score.correct} of {score.n} | {numbers} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--profile", required=True)
    parser.add_argument("--rounds", type=int, default=20, help="Of ten calls each.")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    for run in given.runs:
        report(run, given.profile, given.rounds)


if __name__ == "__main__":
    main()
