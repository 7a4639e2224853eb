"""Is the variant that kdc chose really the fastest? The same artefacts, timed with the runtimes' own tools.

    python -m benchmarks.by_hand BUNDLE [BUNDLE …] [--repeats 3] [--seconds 4]

On a quiet machine. OpenVINO's artefacts by `benchmark_app -api sync`, onnxruntime's by a bare loop of `session.run`
(its Python package brings no tool of its own), each in a fresh process, in turn, with the bundle's threads.
For every bundle: the median over the repeats of each student variant that may be shipped, and how much slower the
chosen one is than the fastest of them by hand. Exit code 1 where that is more than 5 %.
"""

import argparse
import statistics
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

from benchmarks.agreement import with_benchmark_app
from compressor.report import build_report
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle, Variant
from compressor.schema.report import Report

TOLERANCE = 0.05
HINTS = {"f32": "f32", "f16": "f32", "bf16": "bf16", "int8": "f32"}
LOOP = "from benchmarks.agreement import bare_loop; from pathlib import Path; import sys; "
LOOP += "print(bare_loop(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))"


def by_hand(bundle: Path, variant: Variant, threads: int, seconds: float) -> float:
    """The median milliseconds of a call, by the runtime's own tool."""
    model = bundle / variant.model
    if variant.runtime == "openvino":
        return with_benchmark_app(model, threads, seconds, HINTS[variant.precision])
    command = [sys.executable, "-c", LOOP, str(model), str(threads), str(seconds)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def shippable(report: Report, manifest: Bundle) -> list[Variant]:
    """The student variants that fail no line, of the runtimes that have a tool here."""
    failed = {check.variant for check in report.checks if check.verdict == "fail"}
    students = [one for one in manifest.variants if one.role == "student" and one.name not in failed]
    return [one for one in students if one.runtime in ("onnxruntime", "openvino")]


def compare(bundle: Path, repeats: int, seconds: float) -> float:
    """Prints the table of one bundle; returns by which share the chosen variant is slower than the fastest by hand."""
    report, manifest = build_report(bundle), read_json(bundle / "bundle.json", Bundle)
    kdc = {row.name: row.p50_ms.value for row in report.rows if row.p50_ms is not None}
    times: dict[str, list[float]] = defaultdict(list)
    variants = shippable(report, manifest)
    for _ in range(repeats):
        for variant in variants:
            times[variant.name].append(by_hand(bundle, variant, manifest.profile.threads, seconds))
    if report.winner not in times:
        sys.exit(f"{bundle}: {report.winner} is the choice, and no tool here times it")
    medians = {name: statistics.median(values) for name, values in times.items()}
    fastest = min(medians, key=lambda name: medians[name])
    slower = medians[report.winner] / medians[fastest] - 1
    print(
        f"\n{bundle.name}: {manifest.student.architecture}, {manifest.profile.threads} threads, n = {repeats} repeats"
    )
    for name, values in sorted(times.items(), key=lambda item: medians[item[0]]):
        chosen = "  <- kdc's choice" if name == report.winner else ""
        spread = f"{medians[name]:.3f} [{min(values):.3f}-{max(values):.3f}]"
        print(f"  {name:20} by hand {spread:22} ms   kdc {kdc.get(name, float('nan')):.3f} ms{chosen}")
    print(f"  the choice is {100 * slower:.1f} % slower than the fastest by hand")
    return slower


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("bundles", type=Path, nargs="+")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    given = parser.parse_args()
    slower = [compare(bundle, given.repeats, given.seconds) for bundle in given.bundles]
    sys.exit(1 if max(slower) > TOLERANCE else 0)


if __name__ == "__main__":
    main()
