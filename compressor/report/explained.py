"""Why slow, why lost: shares of time and losses of layers, recomputed from the raw samples in the bundle."""

from collections.abc import Iterable, Sequence
from statistics import median

import numpy as np

from compressor.report.read import Results
from compressor.schema.explain import (
    Explained,
    Explanation,
    GraphLayer,
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
HEAVY = ("Conv", "Gemm", "MatMul")
LONGEST_CHAIN = 4
"""Of layers that are fused into one behind a convolution."""
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
    layers = []
    for node, inside in zip(times.nodes, among, strict=True):
        made_of = _made_of(node, explanation)
        names = node.layers or tuple(layer.name for layer in made_of)
        layers.append(
            TimedLayer(
                name=node.name,
                op=node.op,
                kernel=node.kernel,
                precision=node.precision,
                modules=tuple(dict.fromkeys(layer.module for layer in made_of if layer.module is not None)),
                fused=names if len(names) > 1 else (),
                among_int8=inside,
                share=median(node.us) / whole,
                us=_quartiles(node.us),
            )
        )
    layers.sort(key=lambda layer: -layer.share)
    return TimedVariant(
        variant=row.name,
        profiler=times.profiler,
        each=times.each,
        of=len(layers),
        nodes_ms=_quartiles(sum(node.us[k] for node in times.nodes) / 1000 for k in range(len(times.calls_ms))),
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


def _made_of(node: NodeTimes, explanation: Explanation | None) -> list[GraphLayer]:
    """The exported graph's layers that a node leads back to. onnxruntime names a convolution by the last of what it has
    fused into it: those before it, down to the convolution, are found in the graph."""
    if explanation is None:
        return []
    traced = [layer for name in node.layers or (node.name,) if (layer := explanation.traced(name)) is not None]
    heavy = next((op for op in HEAVY if op in node.op), None)
    if node.layers or not traced or heavy is None:
        return traced
    makers = {layer.output: layer for layer in explanation.graph}
    chain = [traced[0]]
    while heavy not in chain[0].op and len(chain) < LONGEST_CHAIN:
        if len(chain[0].reads) != 1 or chain[0].reads[0] not in makers:
            return traced
        chain.insert(0, makers[chain[0].reads[0]])
    return chain if heavy in chain[0].op else traced


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
