"""kdc's own Q/DQ quantization beside onnxruntime's `quantize_static`, on the same student and calibration images:

    python -m benchmarks.calibrators RUN --profile x86-avx2 [--repeats 30]

Run from where the run was distilled. onnxruntime's own three calibrators quantize what they choose by default
(QDQQuantizer, a scale a channel; weights of 7 bits where the processor saturates), after the preparation that its
documentation asks for. kdc's are the candidates of its first rung. All are scored by the runner on validation; their
latency is measured in this process, on one thread, ten calls each in turn. Prints a row each.
"""

import argparse
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

METHODS = {
    "minmax": CalibrationMethod.MinMax,
    "percentile": CalibrationMethod.Percentile,
    "entropy": CalibrationMethod.Entropy,
}


class Reader(CalibrationDataReader):  # type: ignore[misc]
    """The calibration images, a batch at a time."""

    def __init__(self, rows: Iterator[Arrays]) -> None:
        self._rows = rows

    def get_next(self) -> Arrays | None:
        return next(self._rows, None)


def theirs(given: Trial, method: str, folder: Path) -> Path:
    """The student as quantize_static makes it."""
    scheme = onnxruntime_scheme(given.source.profile)
    prepared, made = folder / "prepared.onnx", folder / f"ort-{method}.onnx"
    if not prepared.exists():
        quant_pre_process(str(given.source.onnx_file), str(prepared), skip_symbolic_shape=True)
    quantize_static(
        str(prepared), str(made), Reader(batches(given.source)), quant_format=QuantFormat.QDQ, per_channel=True,
        reduce_range=scheme.weight_bits == 7, calibrate_method=METHODS[method], weight_type=QuantType.QInt8,
        activation_type=QuantType.QUInt8 if scheme.activations == "uint8" else QuantType.QInt8,
    )  # fmt: skip
    return made


def made_by_kdc(given: Trial, folder: Path) -> dict[str, tuple[Path, float]]:
    """The candidates of the first rung, and the seconds that each took; the first one's calibrate for all three."""
    found, begin = {}, time.perf_counter()
    for candidate in given.quantizer.candidates(given.source, folder, given.validation, progress_for(quiet=True)):
        if candidate is None:
            break
        found[f"kdc {candidate.description}"] = candidate.model, time.perf_counter() - begin
        begin = time.perf_counter()
    return found


def latencies(models: dict[str, Path], one: Arrays, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of single calls, in turn."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")
    options.log_severity_level = 3
    sessions: dict[str, Any] = {name: ort.InferenceSession(str(path), options) for name, path in models.items()}
    found: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(repeats + 3):
        for name, session in sessions.items():
            begin = time.perf_counter()
            for _ in range(10):
                session.run(None, one)
            found[name].append((time.perf_counter() - begin) * 100)
    return {name: times[3:] for name, times in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--profile", required=True)
    parser.add_argument("--repeats", type=int, default=30, help="Of ten calls each.")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        student = trial(given.run, load_profile(given.profile), "onnxruntime", folder)
        models = {"fp32": (student.source.onnx_file, 0.0)} | made_by_kdc(student, folder / "kdc")
        for method in METHODS:
            begin = time.perf_counter()
            models[f"onnxruntime {method}"] = theirs(student, method, folder), time.perf_counter() - begin
        one = next(iter(batches(student.source)))
        times = latencies({name: path for name, (path, _) in models.items()}, one, given.repeats)
        print("| made by | right on validation | SQNR dB | ms a call, one thread | made in s | MB |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        for name, (path, seconds) in models.items():
            precision = "fp32" if name == "fp32" else "int8"
            score: Score = student.validation(path, "onnxruntime", precision)
            spread = f"{statistics.median(times[name]):.3f} ({min(times[name]):.3f} to {max(times[name]):.3f})"
            noise = "–" if score.sqnr_db is None else f"{score.sqnr_db:.1f}"
            size = f"{path.stat().st_size / 1e6:.2f}"
            print(f"| {name} | {score.correct} of {score.n} | {noise} | {spread} | {seconds:.1f} | {size} |")


if __name__ == "__main__":
    main()
