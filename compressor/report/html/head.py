"""The first screen: latency, size and retention beside the budget and the teacher, and what fails."""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from markupsafe import Markup

from compressor.report.decision import a_call
from compressor.report.gate import broken
from compressor.report.html.tables import figure
from compressor.report.html.text import shown
from compressor.report.latency import teacher_of
from compressor.report.read import Results
from compressor.report.render.text import NOT_MEASURED, estimate, megabytes, number
from compressor.schema.language.report import LanguageReport, LanguageRow
from compressor.schema.report import Check, Report, Row

__all__ = ["Card", "against", "cards", "failures", "subject_of"]

Card = dict[str, Any]
MOST_FAILURES = 6


def cards(report: Report, results: Results, subject: Row | None) -> list[Card]:
    """Of the variant `subject`, a card each: what it is, the budget's line, and beside the teacher."""
    if subject is None:
        return []
    variant = teacher_of(results)
    teacher = next((row for row in report.rows if variant is not None and row.name == variant.name), None)
    index = report.rows.index(subject)
    verdicts = {check.line: check for check in report.checks if check.variant == subject.name}
    latency = _figure(index, "p50_ms", estimate(subject.p50_ms))
    size = _figure(index, "size", number(megabytes(subject.size_bytes)))
    kept = _figure(index, "retention", estimate(subject.retention, percent=True))
    listed = [
        _card("latency, p50", latency, "ms", _latency(report, teacher, index)),
        _card("size", size, "MB", _size(report, teacher, index)),
        _card("retention", kept, "%", _retention(report, teacher, index)),
    ]
    held = (("p50_ms", "p90_ms"), ("size_mb",), ("min_retention", "min_accuracy"))
    for card, lines in zip(listed, held, strict=True):
        card["lines"] = against(lines, verdicts)
    return listed


def _card(title: str, value: Markup, unit: str, beside: list[Markup]) -> Card:
    return {"title": title, "value": value, "unit": unit, "beside": beside}


def _figure(index: int, name: str, text: str) -> Markup:
    return figure(f"row/{index}/{name}", text)


def against(lines: Iterable[str], verdicts: Mapping[str, Check]) -> list[dict[str, str]]:
    """Of these lines those that are judged, as a card shows them."""
    return [
        {"line": line, "limit": shown(check.limit), "verdict": check.verdict, "reason": shown(check.reason, 300)}
        for line in lines
        if (check := verdicts.get(line)) is not None
    ]


def _latency(report: Report, teacher: Row | None, index: int) -> list[Markup]:
    row = report.rows[index]
    told = [Markup("p90 {} ms").format(_figure(index, "p90_ms", estimate(row.p90_ms)))] if row.p90_ms else []
    if row.p50_ms is not None:
        told.append(Markup("n = {} {}").format(row.p50_ms.n, row.p50_ms.of))
        told.append(Markup("{}").format(shown(a_call(report, row))))
    if teacher is not None and teacher.p50_ms is not None:
        theirs = _figure(report.rows.index(teacher), "p50_ms", estimate(teacher.p50_ms))
        told.append(Markup("teacher: {} ms").format(theirs))
    if row.p50_ratio is not None:
        times = _figure(index, "p50_ratio", estimate(row.p50_ratio))
        told.append(Markup("{} times as fast as the teacher").format(times))
    return told or [Markup("{}").format(NOT_MEASURED)]


def _size(report: Report, teacher: Row | None, index: int) -> list[Markup]:
    row = report.rows[index]
    told = [Markup("compressed {} MB").format(_figure(index, "compressed", number(megabytes(row.compressed_bytes))))]
    if teacher is not None and teacher.size_bytes:
        size = _figure(report.rows.index(teacher), "size", number(megabytes(teacher.size_bytes)))
        small, large = sorted((row.size_bytes, teacher.size_bytes))
        times = figure(f"smaller/{index}", number(large / max(1, small)))
        word = "smaller" if row.size_bytes <= teacher.size_bytes else "larger"
        told += [Markup("teacher: {} MB").format(size), Markup("{} times {}").format(times, word)]
    return told


def _retention(report: Report, teacher: Row | None, index: int) -> list[Markup]:
    row, told = report.rows[index], []
    if row.accuracy is not None:
        accuracy = _figure(index, "accuracy", estimate(row.accuracy, percent=True))
        told += [Markup("accuracy {} %").format(accuracy), Markup("n = {} {}").format(row.accuracy.n, row.accuracy.of)]
    if teacher is not None and teacher.accuracy is not None:
        theirs = _figure(report.rows.index(teacher), "accuracy", estimate(teacher.accuracy, percent=True))
        told.append(Markup("teacher: {} %").format(theirs))
    elif report.teacher_table is not None:
        accuracy = figure("table/accuracy", estimate(report.teacher_table.accuracy, percent=True))
        told.append(Markup("teacher: {} %").format(accuracy))
    if report.gain is not None:
        gain = report.gain.test
        points = f"{100 * gain.value:+.1f} [{100 * gain.low:+.1f} to {100 * gain.high:+.1f}]".replace("-", "−")
        told.append(Markup("gain over labels alone: {} points").format(figure("gain", points)))
    return told or [Markup("{}").format(NOT_MEASURED)]


def subject_of(report: Report) -> Row | None:
    """The variant that the page is about: the one that ships, else the student that fails the fewest lines, of these
    the fastest; None where there is no student."""
    students = [row for row in report.rows if row.role == "student"]
    failed = Counter(check.variant for check in report.checks if check.verdict == "fail")

    def far(row: Row) -> tuple[bool, int, float]:
        return row.name != report.winner, failed[row.name], row.p50_ms.value if row.p50_ms else math.inf

    return min(students, key=far, default=None)


def failures(report: Report | LanguageReport, subject: Row | LanguageRow | None) -> list[dict[str, str]]:
    """The lines that decide against the budget or leave it open: of the variant that the page is about, and the lines
    that no other variant makes up for."""
    if report.verdict == "pass":
        return []
    order = {"fail": 0, "inconclusive": 1, "unmeasured": 2}
    mine = [check for check in report.checks if subject is not None and check.variant == subject.name]
    others = [check for check in broken(report.checks) if check not in mine]
    listed = sorted((check for check in mine if check.verdict in order), key=lambda check: order[check.verdict])
    return list(_listed([*others, *listed]))[:MOST_FAILURES]


def _listed(checks: list[Check]) -> Iterator[dict[str, str]]:
    """A row a line; those that are open for the same reason in one."""
    grouped: dict[tuple[str, str, str], list[Check]] = {}
    for check in checks:
        grouped.setdefault((check.variant, check.verdict, check.reason), []).append(check)
    for (variant, verdict, reason), lines in grouped.items():
        figures = "" if len(lines) > 1 else f"{shown(lines[0].value)}, limit: {shown(lines[0].limit)}; "
        yield {
            "variant": shown(variant),
            "verdict": verdict,
            "lines": ", ".join(check.line for check in lines),
            "reason": figures + shown(reason, 300),
        }
