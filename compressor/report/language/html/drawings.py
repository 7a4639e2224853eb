"""What the text costs against speed, and sizes."""

from collections.abc import Iterator

from markupsafe import Markup

from compressor.report.html.figures import WIDTH, cross, grid, plane, size_bars
from compressor.report.html.svg import Scale, drawing, line, text
from compressor.schema.accuracy import BitsPerByte
from compressor.schema.language.report import LanguageReport, LanguageRow

__all__ = ["against_speed", "sizes"]

HEIGHT = 300.0


def against_speed(report: LanguageReport) -> Markup | None:
    """Bits a byte on test against tokens a second, a numbered point a variant, with both intervals; None where nothing
    has both. Dotted: the teacher and the student in torch, whose speed is not measured."""
    placed = [(row, row.tokens_per_s, row.test) for row in report.rows if row.tokens_per_s and row.test]
    if not placed:
        return None
    rates = [value for _, rate, _ in placed if rate for value in (rate.low, rate.high)]
    in_torch = [score for score in (report.teacher_test, report.student_torch) if score is not None]
    scores = [value for _, _, score in placed if score for value in _ends(score)]
    x, y = plane(rates, [*scores, *(score.bits_per_byte for score in in_torch)], HEIGHT)
    level = {"the teacher in torch": report.teacher_test, "the student in torch": report.student_torch}
    levels = [
        part
        for (name, score), left in zip(level.items(), (True, False), strict=True)
        if score is not None
        for part in _level(name, score.bits_per_byte, (x, y), left=left)
    ]
    marks = [
        cross(
            " ".join(filter(None, ("mark", _looks(row, report)))),
            report.rows.index(row) + 1,
            (x, (rate.low, rate.value, rate.high)),
            (y, _ends(score)),
        )
        for row, rate, score in placed
        if rate and score
    ]
    parts = [*grid(x, y, "tokens of an answer a second", "bits a byte, test"), *levels, *marks]
    title = "Bits a byte on test against tokens a second of every variant, with 95 % intervals"
    return drawing(WIDTH, HEIGHT, title, parts, "pareto")


def _level(name: str, value: float, scales: tuple[Scale, Scale], *, left: bool) -> Iterator[Markup]:
    """A line across, with its name at one end."""
    x, y = scales
    yield line(x.start, y.at(value), x.end, y.at(value), "whole")
    yield text(x.start + 2 if left else x.end - 2, y.at(value) - 4, name, "tick", "start" if left else "end")


def _ends(score: BitsPerByte) -> tuple[float, float, float]:
    value = score.bits_per_byte
    return value if score.low is None else score.low, value, value if score.high is None else score.high


def _looks(row: LanguageRow, report: LanguageReport) -> str:
    return "shipped" if row.name == report.winner else row.role


def sizes(report: LanguageReport) -> Markup:
    """A bar a variant."""
    return size_bars([(row.name, _looks(row, report), row.size_bytes, 0) for row in report.rows])
