"""Does kdc measure what others measure? Its p50 beside a bare onnxruntime loop and OpenVINO's benchmark_app.

    python benchmarks/agreement.py BUNDLE [--repeats 5] [--seconds 5]

On a quiet machine. Every repeat runs all ways in turn, each in fresh processes, with the bundle's threads: kdc's
bench.py with blocks of 8 calls (as always) and of 64, a loop of `session.run` on one input, and `benchmark_app -api
sync`. Prints the median over the repeats, lowest and highest, and the ratio to kdc's blocks of 8: what is left is the
block effect.
"""

import argparse
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np

ORT, OV = "onnxruntime-fp32", "openvino-f32"
MEDIAN = re.compile(r"Median:\s+([\d.]+) (ms|us)")


def bare_loop(model: Path, threads: int, seconds: float) -> float:
    """The median milliseconds of `session.run`, in this process."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
    source = session.get_inputs()[0]
    image = np.random.default_rng(0).normal(size=source.shape).astype(np.float32)
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        begin = time.perf_counter()
        session.run(None, {source.name: image})
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times[len(times) // 10 :])


def with_kdc(bundle: Path, length: int, seconds: float) -> dict[str, float]:
    """variant -> the median of all its timed calls."""
    command = [sys.executable, str(bundle / "runners" / "bench.py"), str(bundle), "--no-predict", "--no-throughput"]
    command += ["--variant", ORT, OV, "--block-length", str(length), "--rounds", "1000", "--seconds", str(seconds)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    measured = json.loads((bundle / "measurements" / "measurement.json").read_text())
    times: dict[str, list[float]] = defaultdict(list)
    for block in measured["blocks"]:
        if block["variant"] in (ORT, OV):  # and not the second copy of the reference
            times[block["variant"]] += block["wall_ms"]
    return {name: statistics.median(found) for name, found in times.items()}


def with_benchmark_app(model: Path, threads: int, seconds: float, precision: str = "f32") -> float:
    """The median milliseconds that OpenVINO's own tool tells."""
    command = [str(Path(sys.executable).parent / "benchmark_app"), "-m", str(model), "-api", "sync", "-hint", "none"]
    command += ["-nstreams", "1", "-nthreads", str(threads), "-infer_precision", precision, "-t", str(round(seconds))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = MEDIAN.search(done.stdout)
    if not found:
        sys.exit(f"benchmark_app said no median:\n{done.stdout[-800:]}{done.stderr[-800:]}")
    return float(found[1]) / (1000 if found[2] == "us" else 1)


def one_repeat(bundle: Path, ir: str, threads: int, seconds: float) -> dict[tuple[str, str], float]:
    """(runtime, way of measuring) -> milliseconds."""
    found = {}
    for length in (8, 64):
        for name, value in with_kdc(bundle, length, 2 * seconds).items():
            found[name, f"kdc, blocks of {length}"] = value
    child = [sys.executable, __file__, str(bundle), "--child", str(threads), "--seconds", str(seconds)]
    done = subprocess.run(child, capture_output=True, text=True, check=True)
    found[ORT, "bare loop"] = float(done.stdout)

    found[OV, "benchmark_app -api sync"] = with_benchmark_app(bundle / ir, threads, seconds)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--child", type=int, metavar="THREADS", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(bare_loop(given.bundle / "model.onnx", given.child, given.seconds))
        return
    manifest = json.loads((given.bundle / "bundle.json").read_text())
    models = {variant["name"]: variant["model"] for variant in manifest["variants"]}
    if not {ORT, OV} <= set(models):
        sys.exit(f"{given.bundle} needs the variants {ORT} and {OV}; it has {', '.join(models)}")
    threads = manifest["profile"]["threads"]
    found: dict[tuple[str, str], list[float]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(shutil.copytree(given.bundle, Path(folder) / "bundle"))  # measuring writes into it
        for _ in range(given.repeats):
            for key, value in one_repeat(copy, models[OV], threads, given.seconds).items():
                found[key].append(value)
    print(f"{threads} threads, batch {manifest['profile']['batch']}, median [lowest-highest] ms of {given.repeats}")
    for (runtime, way), values in sorted(found.items()):
        ratio = statistics.median(values) / statistics.median(found[runtime, "kdc, blocks of 8"])
        spread = f"{statistics.median(values):.3f} [{min(values):.3f}-{max(values):.3f}]"
        print(f"{runtime:18} {way:26} {spread:24} {ratio:.3f} of kdc's")


if __name__ == "__main__":
    main()
