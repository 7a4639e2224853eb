"""What goes by the length of samples, for the page: tables, and a drawing of latency over length."""

from markupsafe import Markup

from compressor.report.html.svg import Scale, circle, drawing, group, line, path, text, wide
from compressor.report.html.tables import Table, figure
from compressor.report.html.text import shown
from compressor.report.render.lengths import as_long, smaller, three_rows, tokenized
from compressor.report.render.text import NOT_MEASURED, estimate, spread
from compressor.schema.report import LengthLatency, Lengths, Report, Row

__all__ = ["length_tables", "lengths_drawn", "tokens_told"]

WIDTH, HEIGHT, LEFT, RIGHT = 420.0, 300.0, 44.0, 30.0
INTERVALS = "[low–high] are 95 % intervals"


def length_tables(report: Report) -> dict[str, Table | None]:
    """By name, None where there is nothing to say in it; empty where samples are all as large."""
    lengths = report.lengths
    if lengths is None:
        return {}
    return {
        "three": _three(report, lengths) if three_rows(report) else None,
        "latency": _latency(report, lengths) if lengths.latency else None,
        "accuracy": _accuracy(report, lengths) if lengths.accuracy else None,
    }


def tokens_told(report: Report) -> str:
    return shown(" ".join(tokenized(report.lengths)), 800) if report.lengths is not None else ""


def _named(report: Report, row: Row) -> str:
    return f"{report.rows.index(row) + 1}. {shown(row.name)}"


def _three(report: Report, lengths: Lengths) -> Table:
    rows = []
    for row in three_rows(report):
        at = f"row/{report.rows.index(row)}"
        cells = (
            figure(f"{at}/fewer", smaller(report, row, lambda row: row.parameters)),
            figure(f"{at}/smaller", smaller(report, row, lambda row: row.size_bytes)),
            figure(f"{at}/p50_ratio", estimate(row.p50_ratio)),
            figure(f"{at}/retention", estimate(row.retention, percent=True)),
        )
        rows.append((_named(report, row), "ships" if row.name == report.winner else "", cells))
    timed = f" at {lengths.timed} tokens" if lengths.timed else ""
    head = ("smaller: parameters, times", "smaller: files, times", f"faster, times{timed}", "kept, %")
    note = f"beside the teacher; sizes are counted, {INTERVALS}"
    return Table("Smaller, faster, kept", note, head, tuple(rows))


def _latency(report: Report, lengths: Lengths) -> Table:
    stated = list(dict.fromkeys(row.length for row in lengths.latency))
    told = {(row.variant, row.length): row for row in lengths.latency}
    rows = []
    for index, row in enumerate(report.rows):
        cells = [
            figure(f"length/{index}/{length}", _cell(told.get((row.name, length)))) for length in stated
        ]  # fmt: skip
        tokens = row.throughput.tokens_per_s if row.throughput is not None else None
        cells.append(figure(f"row/{index}/tokens_per_s", spread(tokens)))
        rows.append((_named(report, row), "ships" if row.name == report.winner else "", tuple(cells)))
    head = (*map(as_long, stated), "tokens/s at full tilt")
    note = f"ms a call: p50; p90; times as fast as the teacher; {INTERVALS}"
    return Table("Latency by length", note, head, tuple(rows))


def _cell(row: LengthLatency | None) -> str:
    if row is None:
        return NOT_MEASURED
    ratio = f"; ×{estimate(row.p50_ratio)}" if row.p50_ratio is not None else ""
    return f"{estimate(row.p50_ms)}; {estimate(row.p90_ms)}{ratio}"


def _accuracy(report: Report, lengths: Lengths) -> Table:
    parts = list(dict.fromkeys((row.low, row.high, row.accuracy.n) for row in lengths.accuracy))
    told = {(row.variant, row.low): row for row in lengths.accuracy}
    rows = []
    for index, row in enumerate(report.rows):
        cells = []
        for low, _, _ in parts:
            part = told.get((row.name, low))
            value = NOT_MEASURED if part is None else estimate(part.accuracy, percent=True)
            kept = "" if part is None or part.retention is None else f"; {estimate(part.retention, percent=True)}"
            cells.append(figure(f"part/{index}/{low}", f"{value}{kept}"))
        rows.append((_named(report, row), "ships" if row.name == report.winner else "", tuple(cells)))
    head = tuple(f"{low}–{high} tokens, n = {n}" for low, high, n in parts)
    return Table("Accuracy by length", f"in %; behind it, in % of the teacher's; {INTERVALS}", head, tuple(rows))


def lengths_drawn(report: Report) -> Markup | None:
    """The p50 of every variant over length, with intervals, which may leave the drawing; None where fewer than two
    lengths were measured."""
    listed = [row for row in report.lengths.latency if row.length and row.p50_ms] if report.lengths else []
    if len({row.length for row in listed}) < 2:
        return None
    times = [value for row in listed if row.p50_ms for value in (row.p50_ms.value / 1.5, row.p50_ms.value * 1.5)]
    x = wide([float(row.length) for row in listed], LEFT, WIDTH - RIGHT, log=True)
    y = wide(times, HEIGHT - 40, 26, log=True)
    parts = []
    for length in sorted({row.length for row in listed}):
        parts.append(line(x.at(length), y.start, x.at(length), y.end, "grid"))
        parts.append(text(x.at(length), y.start + 15, str(length), "tick", "middle"))
    for tick in y.ticks:
        parts.append(line(x.start, y.at(tick), x.end, y.at(tick), "grid"))
        parts.append(text(x.start - 6, y.at(tick) + 4, f"{tick:g}", "tick", "end"))
    for index, row in enumerate(report.rows):
        points = [(x.at(told.length), told) for told in listed if told.variant == row.name]
        if points:
            parts.append(_line(points, row, report, index, y))
    parts += [text((x.start + x.end) / 2, y.start + 32, "tokens", "label", "middle"), text(4, 14, "p50, ms", "label")]
    return drawing(WIDTH, HEIGHT, "The p50 of every variant over the length of a sample", parts, "lengths")


def _line(points: list[tuple[float, LengthLatency]], row: Row, report: Report, index: int, y: Scale) -> Markup:
    timed = [(at, told.p50_ms) for at, told in points if told.p50_ms is not None]
    spots = [(at, y.at(p50.value)) for at, p50 in timed]
    ends = [(at, max(p50.low, y.low), min(p50.high, y.high)) for at, p50 in timed]
    reach = [line(at, y.at(low), at, y.at(high), "reach") for at, low, high in ends]
    dots = [circle(*spot, 3, "dot") for spot in spots]
    name = " ".join(filter(None, ("mark", row.role, "shipped" if row.name == report.winner else "")))
    last = text(spots[-1][0] + 8, spots[-1][1] + 4, str(index + 1), "tick")
    return group(name, [path(spots, "curve"), *reach, *dots, last])
