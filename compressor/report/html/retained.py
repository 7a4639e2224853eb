"""What the shipped variant keeps of every class: the lowest first, with their intervals drawn."""

from dataclasses import dataclass
from typing import Any

from compressor.report.answers import counts_of
from compressor.report.html.svg import Scale, circle, drawing, line
from compressor.report.html.tables import figure
from compressor.report.html.text import shown
from compressor.report.read import Results
from compressor.report.render.text import share
from compressor.schema.report import Report, Row
from compressor.stats import Interval, retained, wilson_interval

__all__ = ["ClassRows", "classes_of"]

MOST = 40


@dataclass(frozen=True)
class ClassRows:
    """The lowest classes of `known` ones; `more`: how many are left out, none of which is lower than `from_`.
    `alone`: recalls, since there is no teacher to hold them against."""

    subject: str
    rows: tuple[dict[str, Any], ...]
    known: int
    more: int
    from_: str
    alone: bool


def classes_of(report: Report, results: Results, subject: Row | None) -> ClassRows | None:
    """None where the variant left no answers."""
    if subject is None or (recalled := counts_of(results, subject.name, alone=True)) is None:
        return None
    against = counts_of(results, subject.name)
    counts = recalled if against is None else against
    alone = against is None
    kept: list[tuple[int, Interval]] = []
    for number in range(len(report.class_names)):
        n, right, base, both = (int(part[number]) for part in (counts.n, counts.right, counts.base, counts.both))
        if n and alone:
            kept.append((number, wilson_interval(right, n)))
        elif n and base:
            kept.append((number, retained(right, base, both, n)))
    kept.sort(key=lambda item: (item[1].value, item[0]))
    most = max((interval.high for _, interval in kept[:MOST]), default=1.0)
    scale = Scale(0.0, max(1.0, most), 0.0, 200.0)
    index = report.rows.index(subject)
    rows = tuple(_row(number, interval, scale, (report, index, counts)) for number, interval in kept[:MOST])
    after = share(kept[MOST][1].value) if len(kept) > MOST else ""
    return ClassRows(shown(subject.name), rows, len(kept), max(0, len(kept) - MOST), after, alone)


def _row(number: int, interval: Interval, scale: Scale, of: tuple[Report, int, Any]) -> dict[str, Any]:
    report, index, counts = of
    text = f"{share(interval.value)} [{share(interval.low)}–{share(interval.high)}]"
    right, base = int(counts.right[number]), int(counts.base[number])
    counted = f"{right} of {interval.n}" + ("" if counts.alone else f", the teacher {base}")
    name = shown(report.class_names[number], 80)
    bar = drawing(
        200,
        14,
        f"{name}: {text} %",
        [
            line(scale.at(1.0), 0, scale.at(1.0), 14, "whole"),
            line(scale.at(interval.low), 7, scale.at(interval.high), 7, "reach"),
            circle(scale.at(interval.value), 7, 4, "dot"),
        ],
        "interval",
    )
    return {
        "name": name,
        "bar": bar,
        "text": figure(f"class/{index}/{number}", text),
        "counted": figure(f"counted/{index}/{number}", counted),
    }
