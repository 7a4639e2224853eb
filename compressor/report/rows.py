"""The figures of one variant, recomputed from raw samples and logits. Intervals are 95 % ones."""

from collections.abc import Callable
from statistics import median

from compressor.report.answers import answers_of, parity_of
from compressor.report.checks.interference import rounds_text
from compressor.report.latency import LatencyFigure, figure_at, ran, wall_blocks
from compressor.report.read import Results
from compressor.schema.bundle import Variant
from compressor.schema.measurement import Contestant, Start
from compressor.schema.measurement import Throughput as Mode
from compressor.schema.report import Estimate, Row, Spread, Throughput

__all__ = ["SHOWN_CONFIDENCE", "row_for"]

SHOWN_CONFIDENCE = 0.95


def row_for(variant: Variant, results: Results) -> Row:
    """One row of the report. Figures that need what was not measured, or more of it, are null."""
    contestant = results.contestants.get(variant.name)
    measured = contestant if contestant is not None and ran(results, variant.name) else None
    blocks = wall_blocks(results, variant.name)
    return Row(
        name=variant.name,
        role=variant.role,
        architecture=_architecture(variant, results),
        runtime=variant.runtime,
        precision=variant.precision,
        executed_precision=measured.executed_precision if measured else None,
        runtime_version=contestant.runtime_version if contestant else None,
        threads=contestant.threads if contestant else None,
        measured=measured is not None,
        error=contestant.error if contestant else None,
        parameters=variant.parameters,
        macs=variant.macs,
        size_bytes=variant.size_bytes,
        weight_bytes=variant.weight_bytes,
        compressed_bytes=variant.compressed_bytes,
        calls=sum(len(times) for times in blocks.values()),
        p50_ms=_latency("p50_ms", variant, results),
        p90_ms=_latency("p90_ms", variant, results),
        cpu_p50_ms=_latency("cpu_p50_ms", variant, results),
        p50_ratio=_latency("p50_ratio", variant, results),
        slowdown=_latency("slowdown", variant, results),
        fp32_ratio=_latency("fp32_ratio", variant, results),
        start_ms=_starts(measured, lambda start: start.start_ms),
        load_ms=_starts(measured, lambda start: start.load_ms),
        first_ms=_starts(measured, lambda start: start.first_ms),
        idle_rss_mb=measured.idle_rss_mb if measured else None,
        peak_rss_mb=measured.peak_rss_mb if measured else None,
        throughput=_throughput(measured, results),
        **answers_of(results, variant.name),
        **parity_of(results, variant.name),
        score=variant.score,
        rungs=variant.rungs,
    )


def _architecture(variant: Variant, results: Results) -> str:
    bundle = results.bundle
    sources = {"teacher": bundle.teacher, "baseline": bundle.baseline}
    source = sources.get(variant.role, bundle.student)
    assert source is not None  # read_results refuses the variants of whom the bundle says nothing
    return source.architecture


def _latency(figure: LatencyFigure, variant: Variant, results: Results) -> Estimate | None:
    interval = figure_at(figure, results, variant.name, SHOWN_CONFIDENCE)
    if interval is None:
        return None
    of = _blocks_text(results, variant.name)
    if figure in ("p50_ratio", "slowdown", "fp32_ratio") and results.measurement is not None:
        of = rounds_text(results.measurement)
    return Estimate(value=interval.value, low=interval.low, high=interval.high, n=interval.n, of=of)


def _blocks_text(results: Results, name: str) -> str:
    lengths = sorted({len(times) for times in wall_blocks(results, name).values()})
    return f"blocks of {'–'.join(str(length) for length in dict.fromkeys([*lengths[:1], *lengths[-1:]]))} calls"


def _starts(contestant: Contestant | None, time: Callable[[Start], float]) -> Spread | None:
    return _spread([time(start) for start in contestant.starts]) if contestant else None


def _spread(values: list[float]) -> Spread | None:
    if not values:
        return None
    return Spread(median=median(values), lowest=min(values), highest=max(values), n=len(values))


def _throughput(contestant: Contestant | None, results: Results) -> Throughput | None:
    """The measured mode with the highest median of images a second."""
    if contestant is None or results.measurement is None:
        return None
    batch = results.measurement.batch
    modes = [throughput for mode in contestant.throughput if (throughput := _mode(mode, batch)) is not None]
    return max(modes, key=lambda throughput: throughput.images_per_s.median, default=None)


def _mode(mode: Mode, batch: int) -> Throughput | None:
    images = _spread([window.calls * batch / window.seconds for window in mode.windows])
    if images is None:
        return None
    counted = [window for window in mode.windows if window.tokens is not None]
    tokens = _spread([window.calls * (window.tokens or 0) / window.seconds for window in counted])
    told = [(window.joules, window.calls * batch) for window in mode.windows if window.calls]
    joules = _spread([energy / count for energy, count in told if energy is not None])
    return Throughput(
        images_per_s=images, tokens_per_s=tokens, streams=mode.streams, threads=mode.threads, joules_per_image=joules
    )
