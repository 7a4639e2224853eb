"""What goes by the length of samples: latency at stated lengths, accuracy of the shorter and the longer ones, and the
tokenizer tried on the device. Intervals are 95 % ones."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from statistics import median

import numpy as np

from compressor.report.checks.interference import block_share
from compressor.report.latency import ran, teacher_of, told
from compressor.report.read import Results
from compressor.schema.measurement import Measurement
from compressor.schema.report import Estimate, LengthAccuracy, LengthLatency, Lengths, Row, Spread
from compressor.stats import Interval, paired_ratio, percentile, retention, wilson_interval

__all__ = ["lengths_of"]

CONFIDENCE = 0.95
SAMPLES = "test samples"
Blocks = dict[int, tuple[float, ...]]


def lengths_of(results: Results, rows: Sequence[Row]) -> Lengths | None:
    """All of it; None where samples are all as large. `rows`: with the latencies at the length that is timed."""
    if results.lengths is None:
        return None
    tokens = results.lengths
    spread = Spread(
        median=float(np.median(tokens)), lowest=float(tokens.min()), highest=float(tokens.max()), n=len(tokens)
    )
    figures = Lengths(
        timed=results.bundle.sequence_length,
        test_tokens=spread,
        latency=tuple(sorted([*_latencies(results), *_timed(results, rows)], key=lambda row: row.length)),
        accuracy=tuple(_accuracies(results)),
    )
    tried = results.measurement.preprocessing if results.measurement is not None else ()
    if not tried or tried[0].error is not None:
        why = tried[0].error if tried else "nothing was tokenized where models were measured"
        return figures.model_copy(update={"untried": why})
    first = tried[0]
    times = first.wall_ms
    taken = Spread(median=median(times), lowest=min(times), highest=max(times), n=len(times)) if times else None
    update = {"tokenizer": first.version, "tokenized": first.n, "cut": first.cut, "differ": first.differ}
    return figures.model_copy(update={**update, "tokenize_ms": taken})


def _timed(results: Results, rows: Sequence[Row]) -> Iterator[LengthLatency]:
    length = results.bundle.sequence_length
    for row in rows:
        if row.p50_ms is not None and length is not None:
            figures = {"p50_ms": row.p50_ms, "p90_ms": row.p90_ms, "p50_ratio": row.p50_ratio}
            yield LengthLatency(variant=row.name, length=length, **figures)


def _latencies(results: Results) -> Iterator[LengthLatency]:
    measurement = results.measurement
    if measurement is None:
        return
    teacher = teacher_of(results)
    for variant in results.bundle.variants:
        if not ran(results, variant.name):
            continue
        for length in results.bundle.lengths:
            blocks = _blocks(measurement, variant.name, length)
            if not blocks:
                continue
            theirs = _blocks(measurement, teacher.name, length) if teacher and teacher.name != variant.name else {}
            yield LengthLatency(
                variant=variant.name,
                length=length,
                p50_ms=_percentile(blocks, 0.5),
                p90_ms=_percentile(blocks, 0.9),
                p50_ratio=_ratio(theirs, blocks, measurement) if theirs else None,
            )


def _blocks(measurement: Measurement, name: str, length: int) -> Blocks:
    rows = (block for block in measurement.by_length if (block.variant, block.length) == (name, length))
    return {block.round: block.wall_ms for block in rows}


def _percentile(blocks: Blocks, q: float) -> Estimate | None:
    calls = max(map(len, blocks.values()))
    return _estimate(lambda: percentile(list(blocks.values()), q, confidence=CONFIDENCE), f"blocks of {calls} calls")


def _ratio(theirs: Blocks, ours: Blocks, measurement: Measurement) -> Estimate | None:
    share = block_share(measurement)
    return _estimate(lambda: paired_ratio(theirs, ours, confidence=CONFIDENCE, share=share), "rounds by length")


def _estimate(figure: Callable[[], Interval], of: str) -> Estimate | None:
    interval = told(figure)
    if interval is None:
        return None
    return Estimate(value=interval.value, low=interval.low, high=interval.high, n=interval.n, of=of)


def _accuracies(results: Results) -> Iterator[LengthAccuracy]:
    """By lengths that end where latency is measured, too; where no test sample lies there is nothing to tell."""
    lengths = results.lengths
    assert lengths is not None
    longest = int(lengths.max())
    stated = (*results.bundle.lengths, results.bundle.sequence_length or 0)
    ends = [*sorted({end for end in stated if 0 < end < longest}), longest]
    teacher = teacher_of(results)
    theirs = results.answers.get(teacher.name) if teacher is not None else results.table
    for name, answers in results.answers.items():
        for low, high in zip([0, *ends[:-1]], ends, strict=True):
            rows = (lengths > low) & (lengths <= high)
            if not rows.any():
                continue
            right = (answers.top1 == results.labels)[rows]
            base = None if theirs is None or answers is theirs else (theirs.top1 == results.labels)[rows]
            yield LengthAccuracy(
                variant=name,
                low=low + 1,
                high=high,
                accuracy=_exact(wilson_interval(int(right.sum()), len(right))),
                retention=None if base is None else _estimate(partial(retention, right, base), SAMPLES),
            )


def _exact(interval: Interval) -> Estimate:
    return Estimate(value=interval.value, low=interval.low, high=interval.high, n=interval.n, of=SAMPLES)
