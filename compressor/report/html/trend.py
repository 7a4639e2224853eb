"""The history of what ships on one profile, drawn: a point a bundle, the oldest first."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup

from compressor.report.history import NONE, SHOWN, Trend, trend_note
from compressor.report.html.svg import Scale, circle, drawing, group, line, text, wide
from compressor.report.html.tables import Table, figure
from compressor.report.html.text import shown
from compressor.report.render.text import NOT_MEASURED, estimate, megabytes, number
from compressor.schema.history import HistoryEntry, HistoryVariant
from compressor.schema.report import Estimate

__all__ = ["History", "history_drawn"]

WIDTH, HEIGHT, LEFT, RIGHT = 420.0, 200.0, 52.0, 12.0
MOST = 200
"""Bundles that are drawn, at most: the last ones."""

Point = tuple[float, float, float]
"""A figure and the ends of its interval."""


@dataclass(frozen=True)
class History:
    """`drawings`: of each figure that is known, with its title; `table`: of the last entries."""

    title: str
    note: str
    drawings: tuple[tuple[str, Markup], ...]
    table: Table


def history_drawn(trend: Trend) -> History:
    """The trend as drawings and a table. Names and days come from a file, and are shown as text."""
    numbered = list(enumerate(trend.entries, 1))
    some = f" Drawn are the last {MOST}." if len(numbered) > MOST else ""
    count = f"{len(numbered)} bundle{'s' if len(numbered) != 1 else ''}"
    drawings = []
    for name, point_of, of_test in FIGURES:
        points = [
            (number_of, entry, point)
            for number_of, entry in numbered[-MOST:]
            if entry.shipped is not None and (point := point_of(entry.shipped)) is not None
        ]
        if points:
            drawings.append((f"{name}, of what ships", _drawn(name, points, of_test)))
    return History(
        f"History on {shown(trend.entries[-1].profile, 80)}: {count}",
        trend_note(trend).replace("`", "") + some,
        tuple(drawings),
        _table(numbered[-SHOWN:]),
    )


def _drawn(name: str, points: Sequence[tuple[int, HistoryEntry, Point]], of_test: bool) -> Markup:
    first, last = points[0], points[-1]
    x = Scale(first[0] - 0.5, last[0] + 0.5, LEFT, WIDTH - RIGHT)
    y = wide((end for _, _, point in points for end in point), HEIGHT - 40, 24)
    lines = [
        line(x.at(a), y.at(p[0]), x.at(b), y.at(q[0]), "curve")
        for (a, before, p), (b, now, q) in pairwise(points)
        if not of_test or before.test == now.test  # figures on other samples are no trend
    ]
    marks = [
        group(
            f"mark {entry.verdict}",
            [
                line(x.at(at), y.at(low), x.at(at), y.at(high), "reach"),
                circle(x.at(at), y.at(value), 3.5, "dot"),
            ],
        )
        for at, entry, (value, low, high) in points
    ]
    said = f"{name} of what ships, from {number(first[2][0])} to {number(last[2][0])} over {len(points)} bundles"
    return drawing(WIDTH, HEIGHT, said, [*_grid(x, y, first, last), *lines, *marks], "trend")


def _grid(
    x: Scale, y: Scale, first: tuple[int, HistoryEntry, Point], last: tuple[int, HistoryEntry, Point]
) -> Iterator[Markup]:
    for tick in y.ticks:
        yield line(x.start, y.at(tick), x.end, y.at(tick), "grid")
        yield text(x.start - 6, y.at(tick) + 4, f"{tick:g}", "tick", "end")
    for tick in sorted({int(tick) for tick in x.ticks if first[0] <= tick <= last[0]} | {first[0]}):
        yield text(x.at(tick), y.start + 15, f"{tick}", "tick", "middle")
    yield text(x.start, y.start + 32, shown((first[1].measured or "")[:10]), "label")
    if len({first[0], last[0]}) > 1:
        yield text(x.end, y.start + 32, shown((last[1].measured or "")[:10]), "label", "end")


def _table(numbered: Sequence[tuple[int, HistoryEntry]]) -> Table:
    head = ("kdc", "student", "ships", "size, MB", "p50, ms", "accuracy, %", "balanced, %", "test", "verdict")
    rows = []
    for at, entry in numbered:
        names = (shown(entry.kdc, 40), shown(entry.student, 60), shown(entry.winner or "none", 60))
        figures = (figure(f"history/{at}/{name}", told) for name, told in _told(entry.shipped).items())
        test = f"n = {entry.test_n}" + (f", {entry.test[:8]}" if entry.test is not None else "")
        verdict = " ".join((entry.verdict, *((", ".join(entry.failed),) if entry.failed else ())))
        cells = (*names, *figures, figure(f"history/{at}/test", shown(test, 40)), shown(verdict, 300))
        rows.append((f"{at}. {shown(entry.measured or NOT_MEASURED, 40)}", "", cells))
    return Table("The history", "the last entries, the newest below", head, tuple(rows), "measured")


def _told(variant: HistoryVariant | None) -> dict[str, str]:
    if variant is None:
        return dict.fromkeys(("size", "p50", "accuracy", "balanced"), NONE)
    return {
        "size": number(megabytes(variant.size_bytes)),
        "p50": estimate(variant.p50_ms),
        "accuracy": estimate(variant.accuracy, percent=True),
        "balanced": estimate(variant.balanced_accuracy, percent=True),
    }


def _size(variant: HistoryVariant) -> Point:
    size = megabytes(variant.size_bytes)
    return size, size, size


def _point(measured: Estimate | None, scale: float = 1.0) -> Point | None:
    if measured is None:
        return None
    point = scale * measured.value, scale * measured.low, scale * measured.high
    return point if all(map(math.isfinite, point)) else None


FIGURES: tuple[tuple[str, Callable[[HistoryVariant], Point | None], bool], ...] = (
    ("size, MB", _size, False),
    ("p50, ms", lambda variant: _point(variant.p50_ms), False),
    ("accuracy, %", lambda variant: _point(variant.accuracy, 100), True),
    ("balanced accuracy, %", lambda variant: _point(variant.balanced_accuracy, 100), True),
)
"""What is drawn, and whether two of them compare only on the same test."""
