"""The drawings of the page: accuracy against latency, distributions of latency, and the course of a training."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from compressor.report.html.svg import Scale, circle, drawing, group, limit_line, line, path, rect, text, wide
from compressor.report.html.text import shown
from compressor.report.render.text import number
from compressor.schema.report import Report, Row

__all__ = [
    "WIDTH",
    "cross",
    "curves",
    "distributions",
    "front",
    "grid",
    "pareto",
    "plane",
    "size_bars",
    "sizes",
    "softening",
]

WIDTH, LEFT, RIGHT = 420.0, 44.0, 12.0
BINS = 48


def front(rows: Sequence[Row]) -> list[Row]:
    """The rows of which no other is both as fast and as accurate, the fastest first."""
    kept: list[Row] = []
    placed = [row for row in rows if row.p50_ms is not None and row.accuracy is not None]
    for row in sorted(placed, key=lambda row: (_p50(row), -_accuracy(row))):
        if not kept or _accuracy(row) > _accuracy(kept[-1]):
            kept.append(row)
    return kept


def _p50(row: Row) -> float:
    return row.p50_ms.value if row.p50_ms else 0.0


def _accuracy(row: Row) -> float:
    return row.accuracy.value if row.accuracy else 0.0


def pareto(report: Report) -> Markup | None:
    """Accuracy against latency with both intervals, a numbered point a variant; None where nothing has both."""
    placed = [row for row in report.rows if row.p50_ms is not None and row.accuracy is not None]
    if not placed:
        return None
    height = 300.0
    times = [value for row in placed if row.p50_ms for value in (row.p50_ms.low, row.p50_ms.high)]
    shares = [100 * value for row in placed if row.accuracy for value in (row.accuracy.low, row.accuracy.high)]
    x, y = plane(times, shares, height)
    students = [row for row in placed if row.role in ("student", "reference")]
    best = front(students)
    points = [(x.at(_p50(row)), y.at(100 * _accuracy(row))) for row in best]
    marks = [_mark(row, report, x, y) for row in placed]
    parts = [
        *grid(x, y, "p50, ms", "accuracy, %"),
        path(points, "front") if len(points) > 1 else Markup(""),
        *marks,
        limit_line(x, "p50_ms", (y.end, y.start), upright=True),
        limit_line(Scale(y.low / 100, y.high / 100, y.start, y.end), "min_accuracy", (x.start, x.end), upright=False),
    ]
    return drawing(WIDTH, height, "Accuracy against latency of every variant, with 95 % intervals", parts, "pareto")


def _mark(row: Row, report: Report, x: Scale, y: Scale) -> Markup:
    assert row.p50_ms is not None
    assert row.accuracy is not None
    times = (row.p50_ms.low, row.p50_ms.value, row.p50_ms.high)
    shares = (100 * row.accuracy.low, 100 * row.accuracy.value, 100 * row.accuracy.high)
    name = " ".join(filter(None, ("mark", row.role, "shipped" if row.name == report.winner else "")))
    return cross(name, report.rows.index(row) + 1, (x, times), (y, shares))


Across = tuple[Scale, tuple[float, float, float]]
"""Where along a scale something lies: from, at, and to."""


def cross(name: str, number_of: int, across: Across, up: Across) -> Markup:
    """A numbered point with both of its intervals."""
    (x, (left, at_x, right)), (y, (lowest, at_y, highest)) = across, up
    here = x.at(at_x), y.at(at_y)
    return group(
        name,
        [
            line(x.at(left), here[1], x.at(right), here[1], "reach"),
            line(here[0], y.at(lowest), here[0], y.at(highest), "reach"),
            circle(*here, 9, "dot"),
            text(here[0], here[1] + 4, str(number_of), "number", "middle"),
        ],
    )


def plane(across: Sequence[float], up: Sequence[float], height: float) -> tuple[Scale, Scale]:
    """The scales of a drawing that is `height` high, in which all of these values have room: the first by its
    logarithms, where they differ much."""
    x = wide(across, LEFT, WIDTH - RIGHT, log=True)
    return Scale(x.low, x.high, x.start, x.end, log=x.high / x.low > 4), wide(up, height - 40, 26)


def grid(x: Scale, y: Scale | None, x_label: str, y_label: str) -> Iterator[Markup]:
    """Lines at the ticks of both scales, and what the scales are of."""
    bottom, top = (y.start, y.end) if y else (0.0, 0.0)
    for tick in x.ticks:
        yield line(x.at(tick), bottom, x.at(tick), top, "grid")
        yield text(x.at(tick), bottom + 15, f"{tick:g}", "tick", "middle")
    yield text((x.start + x.end) / 2, bottom + 32, x_label, "label", "middle")
    for tick in y.ticks if y else []:
        yield line(x.start, y.at(tick) if y else 0, x.end, y.at(tick) if y else 0, "grid")
        yield text(x.start - 6, (y.at(tick) if y else 0) + 4, f"{tick:g}", "tick", "end")
    yield text(4, top - 12, y_label, "label")


def sizes(report: Report) -> Markup:
    """A bar a variant: its files, and within it what they are when compressed."""
    listed = [(row.name, _named(row, report), row.size_bytes, row.compressed_bytes) for row in report.rows]
    return size_bars(listed)


def _named(row: Row, report: Report) -> str:
    return "shipped" if row.name == report.winner else row.role


def size_bars(listed: Sequence[tuple[str, str, int, int]]) -> Markup:
    """A bar each: a name, how it looks, bytes, and those that are drawn within it, 0 for none."""
    most = max(max(outer, inner) for _, _, outer, inner in listed)
    x = Scale(0.0, most / 1e6 * 1.02, 4, WIDTH - 70)
    parts = []
    for index, (name, looks, outer, inner) in enumerate(listed):
        longest = max(outer, inner) / 1e6  # what was compressed already may grow
        top = 8 + 36.0 * index
        bars = [
            rect(x.start, top + 16, x.at(outer / 1e6) - x.start, 12, "bar"),
            *([rect(x.start, top + 20, x.at(inner / 1e6) - x.start, 4, "inner")] if inner else []),
            text(x.start, top + 12, shown(name, 48), "name"),
            text(x.at(longest) + 6, top + 26, f"{number(outer / 1e6)} MB", "tick"),
        ]
        parts.append(group(f"calls {looks}", bars))
    return drawing(WIDTH, 16 + 36.0 * len(listed), "The files of every variant in MB", parts, "sizes")


def distributions(report: Report, raw: dict[str, Any]) -> Markup | None:
    """A row a variant: how its timed calls are spread, with p50 and p90; None where nothing was timed. What lies beyond
    the slowest thousandth of all is drawn at the edge."""
    listed = [variant for variant in raw["variants"] if variant["blocks"]]
    if not listed:
        return None
    samples = [np.array([time for block in variant["blocks"] for time in block]) for variant in listed]
    everything = np.concatenate(samples)
    low, high = float(everything.min()), float(np.quantile(everything, 0.999))
    x = wide([low, high], LEFT, WIDTH - RIGHT, log=True)
    step, bottom = 40.0, 12 + 40.0 * len(listed)
    parts: list[Markup] = []
    for index, (variant, times) in enumerate(zip(listed, samples, strict=True)):
        row = report.rows[variant["row"]]
        parts.append(_distribution(row, np.clip(times, x.low, x.high), x, 12 + step * (index + 1)))
    lines = [line(x.at(tick), 12, x.at(tick), bottom, "grid") for tick in x.ticks]
    ticks = [text(x.at(tick), bottom + 15, f"{tick:g}", "tick", "middle") for tick in x.ticks]
    limits = [limit_line(x, name, (12, bottom), upright=True) for name in ("p50_ms", "p90_ms")]
    parts = [*lines, *parts, *ticks, text((x.start + x.end) / 2, bottom + 32, "ms a call", "label", "middle"), *limits]
    return drawing(WIDTH, bottom + 40, "How the timed calls of every variant are spread", parts, "spread")


def _distribution(row: Row, times: Any, x: Scale, base: float) -> Markup:
    edges = np.exp(np.linspace(np.log(x.low), np.log(x.high), BINS + 1))
    counts, _ = np.histogram(times, edges)
    tall = 22 / max(1, int(counts.max()))
    middles = np.sqrt(edges[:-1] * edges[1:])
    bars = [
        rect(x.at(float(edges[k])), base - tall * int(count), x.at(float(edges[k + 1])) - x.at(float(edges[k])) - 0.4,
             tall * int(count), "bar")
        for k, count in enumerate(counts) if count and k < len(middles)
    ]  # fmt: skip
    ticks = [
        line(x.at(figure.value), base - 24, x.at(figure.value), base, name)
        for figure, name in ((row.p50_ms, "p50"), (row.p90_ms, "p90"))
        if figure is not None
    ]
    name = text(x.start, base - 26, shown(row.name, 48), "name")
    return group(f"calls {row.role}", [*bars, line(x.start, base, x.end, base, "axis"), *ticks, name])


def curves(history: Sequence[dict[str, Any]], weights: dict[str, tuple[float, float]]) -> list[tuple[str, Markup]]:
    """A drawing a term of the loss, and one of accuracy on validation: what it is, over the epochs. `weights`: of the
    terms, at the first step and the last."""
    epochs = [row["epoch"] for row in history if "loss" in row]
    rows = [row for row in history if "loss" in row]
    if len(rows) < 2:
        return []
    drawn = []
    for term in rows[0]["loss"]:
        values = [row["loss"].get(term) for row in rows]
        first, last = weights.get(term, (1.0, 1.0))
        weight = f"{first:g}" if first == last else f"{first:g} to {last:g}"
        ends = next((value for value in reversed(values) if value is not None), 0.0)
        share = f"ends at {number(ends)} × {last:g} = {number(ends * last)}"
        drawn.append((f"{term}, weight {weight}: {share}", _curve(epochs, values, term)))
    scores = [100 * row["validation"]["accuracy"] for row in rows if "validation" in row]
    if len(scores) == len(epochs):
        n = rows[-1]["validation"]["n"]
        drawn.append((f"accuracy on validation, % (n = {n})", _curve(epochs, scores, "accuracy on validation, %")))
    return drawn


def _curve(epochs: Sequence[int], values: Sequence[float | None], title: str) -> Markup:
    points = [(epoch, value) for epoch, value in zip(epochs, values, strict=True) if value is not None]
    x = Scale(float(epochs[0]), float(epochs[-1]), LEFT, WIDTH - RIGHT)
    known = [value for _, value in points]
    log = min(known, default=0) > 0 and max(known) / min(known) > 20
    y = wide(known, 150, 12, log=log)
    places = [(x.at(epoch), y.at(value)) for epoch, value in points]
    last = f"{shown(title, 60)}: from {number(known[0])} to {number(known[-1])} over {len(epochs)} epochs"
    parts = [*grid(x, y, "epoch", ""), path(places, "curve"), circle(*places[-1], 3, "dot")]
    return drawing(WIDTH, 190, last, parts, "curve")


def softening(explored: dict[str, Any]) -> Markup | None:
    """What the teacher's answers hold of the other classes at every temperature, in the mean; None where nothing is
    known of them."""
    if explored["missing"]:
        return None
    heat = explored["temperatures"]
    dark = [1 - row["confidence"] for row in explored["mean"]]
    x, y = Scale(heat[0], heat[-1], LEFT, WIDTH - RIGHT), Scale(0.0, 1.0, 158, 28)
    parts = [
        *grid(x, y, "temperature", "share of the other classes"),
        path([(x.at(t), y.at(share)) for t, share in zip(heat, dark, strict=True)], "curve"),
        limit_line(x, "temperature", (y.end, y.start), upright=True),
    ]
    said = f"The share of all but the top class, in the mean over {explored['n']} samples, from T = 1 to T = 20"
    return drawing(WIDTH, 198, said, parts, "curve")
