"""Report -> Bencher Metric Format (bencher.dev/docs/reference/bencher-metric-format), for who plots history."""

import json
from collections.abc import Iterator

from compressor.report.render.junit import labels_of
from compressor.schema.report import Estimate, Report, Row, Spread
from compressor.terminal.printable import printable

__all__ = ["to_bencher"]

LONGEST_NAME = 1024
"""Of a benchmark, there."""

Metric = dict[str, float]


def to_bencher(*reports: Report) -> str:
    """A benchmark a variant that was exported, with its role where it is not judged, and of several devices or profiles
    with the name of each before it. Measures in the units that Bencher gives its own: latency in nanoseconds, file-size
    in bytes, throughput a second; accuracy, balanced accuracy and retention are shares, memory is in bytes. Bounds are
    those of the 95 % interval, of throughput the lowest and the highest window. What was not measured is left out."""
    benchmarks = {
        _name(row, labels_of(report, reports)): dict(_metrics(row)) for report in reports for row in report.rows
    }
    return json.dumps(benchmarks, indent=2) + "\n"


def _name(row: Row, labels: list[str]) -> str:
    role = "" if row.role == "student" else f" ({row.role})"
    return printable(": ".join([*labels, row.name]))[: LONGEST_NAME - len(role)] + role


def _metrics(row: Row) -> Iterator[tuple[str, Metric]]:
    yield "file-size", {"value": row.size_bytes}
    for name, figure, scale in (
        ("latency", row.p50_ms, 1e6),
        ("latency-p90", row.p90_ms, 1e6),
        ("accuracy", row.accuracy, 1.0),
        ("balanced-accuracy", row.balanced_accuracy, 1.0),
        ("retention", row.retention, 1.0),
        ("speedup", row.p50_ratio, 1.0),
    ):
        if figure is not None:
            yield name, _bounded(figure, scale)
    if row.throughput is not None:
        yield "throughput", _spread(row.throughput.images_per_s)
    if row.peak_rss_mb is not None:
        yield "peak-memory", {"value": round(row.peak_rss_mb * 1e6)}


def _bounded(figure: Estimate, scale: float) -> Metric:
    return {
        "value": figure.value * scale,
        "lower_value": figure.low * scale,
        "upper_value": figure.high * scale,
    }


def _spread(figure: Spread) -> Metric:
    return {"value": figure.median, "lower_value": figure.lowest, "upper_value": figure.highest}
