"""Why slow, why lost: shares of time and losses of layers, recomputed from the raw samples in the bundle."""

from collections.abc import Iterable, Sequence
from statistics import median

import numpy as np

from compressor.report.read import Results
from compressor.schema.explain import (
    Explained,
    Explanation,
    LayerTimes,
    LostLayer,
    LostVariant,
    NodeTimes,
    Quartiles,
    TimedLayer,
    TimedVariant,
)
from compressor.schema.report import Row
from compressor.stats import lost_db, sqnr_db

__all__ = ["MOST_LAYERS", "explained"]

MOST_LAYERS = 30
"""Of a variant, in the report: the slowest, and those that lose most. The raw samples have all."""
IN_FLOAT = ("fp32", "fp16", "bf16", "f32", "f16")


def explained(results: Results, rows: Sequence[Row]) -> Explained | None:
    """None where the bundle was not made or measured with --explain."""
    timed = []
    for row in rows:
        contestant = results.contestants.get(row.name)
        if row.name in results.layer_times:
            timed.append(_timed(row, results.layer_times[row.name], results.explanations.get(row.name)))
        elif contestant is not None and contestant.no_layers is not None:
            timed.append(TimedVariant(variant=row.name, p50_ms=row.p50_ms, missing=contestant.no_layers))
    told = [results.explanations[row.name] for row in rows if row.name in results.explanations]
    lost = [_lost(explanation) for explanation in told if explanation.errors or explanation.missing]
    return Explained(timed=tuple(timed), lost=tuple(lost)) if timed or lost else None


def _quartiles(values: Iterable[float]) -> Quartiles:
    listed = list(values)
    lower, middle, upper = np.quantile(listed, [0.25, 0.5, 0.75])
    return Quartiles(lower=float(lower), median=float(middle), upper=float(upper), n=len(listed))


def _timed(row: Row, times: LayerTimes, explanation: Explanation | None) -> TimedVariant:
    whole = sum(median(node.us) for node in times.nodes) or 1.0
    among = _among_int8(times.nodes)
    layers = [
        TimedLayer(
            name=node.name,
            op=node.op,
            kernel=node.kernel,
            precision=node.precision,
            modules=_modules(node, explanation),
            fused=node.layers if len(node.layers) > 1 else (),
            among_int8=inside,
            share=median(node.us) / whole,
            us=_quartiles(node.us),
        )
        for node, inside in zip(times.nodes, among, strict=True)
    ]
    layers.sort(key=lambda layer: -layer.share)
    return TimedVariant(
        variant=row.name,
        profiler=times.profiler,
        of=len(layers),
        nodes_ms=_quartiles(sum(node.us[call] for node in times.nodes) / 1000 for call in range(len(times.calls_ms))),
        calls_ms=_quartiles(times.calls_ms),
        p50_ms=row.p50_ms,
        layers=tuple(layers[:MOST_LAYERS]),
    )


def _among_int8(nodes: Sequence[NodeTimes]) -> list[bool]:
    """Which nodes compute in float after some that compute in int8, and before others; in the order in which they
    ran."""
    int8 = [number for number, node in enumerate(nodes) if node.precision == "int8"]
    if not int8:
        return [False] * len(nodes)
    return [int8[0] < number < int8[-1] and node.precision in IN_FLOAT for number, node in enumerate(nodes)]


def _modules(node: NodeTimes, explanation: Explanation | None) -> tuple[str, ...]:
    if explanation is None:
        return ()
    traced = [explanation.traced(name) for name in node.layers or (node.name,)]
    return tuple(dict.fromkeys(layer.module for layer in traced if layer is not None and layer.module is not None))


def _lost(explanation: Explanation) -> LostVariant:
    if explanation.missing is not None:
        return LostVariant(variant=explanation.variant, missing=explanation.missing)
    heard = [error for error in explanation.errors if sum(error.signal) > 0]
    sqnr = {error.name: sqnr_db(sum(error.signal), sum(error.noise)) for error in heard}
    layers = []
    for error in heard:
        before, lost = lost_db(sqnr, error.name, error.reads)
        traced = explanation.traced(error.name)
        layers.append(
            LostLayer(
                name=error.name,
                op=error.op,
                module=traced.module if traced is not None else None,
                sqnr_db=sqnr[error.name],
                before_db=before,
                lost_db=lost,
                calls_db=_calls_db(error.signal, error.noise),
            )
        )
    noisy = [layer for layer in layers if layer.sqnr_db is not None]
    noisy.sort(key=lambda layer: layer.sqnr_db or 0.0)
    return LostVariant(
        variant=explanation.variant,
        against=explanation.against,
        split=explanation.split,
        n=explanation.n,
        of=len(layers),
        silent=len(explanation.errors) - len(layers),
        most=max(noisy, key=lambda layer: layer.lost_db, default=None),
        layers=tuple(noisy[:MOST_LAYERS]),
    )


def _calls_db(signal: Sequence[float], noise: Sequence[float]) -> Quartiles | None:
    """Of the calls that have both."""
    ratios = [sqnr_db(x, error) for x, error in zip(signal, noise, strict=True) if x > 0]
    known = [ratio for ratio in ratios if ratio is not None]
    return _quartiles(known) if known else None
