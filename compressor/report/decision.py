"""What of a report fails or decides, for those who read only that: a pull request, a terminal."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from compressor.report.gate import broken
from compressor.report.render.text import estimate, megabytes, number
from compressor.schema.report import Check, Estimate, Report, Row, Verdict

__all__ = [
    "Figure",
    "OpenLine",
    "a_call",
    "conditions",
    "excess",
    "figures",
    "open_lines",
    "samples",
    "seconds_read",
    "shipped",
    "teacher_of",
]

LONGEST_CPU = 60


@dataclass(frozen=True)
class Figure:
    """A figure of the variant that ships, with its unit, beside its limit and the teacher's; empty where there is none.
    `verdict`: of the line that holds it to the limit."""

    name: str
    unit: str
    measured: str
    limit: str
    teacher: str
    verdict: Verdict | None


@dataclass(frozen=True)
class OpenLine:
    """A line that is no pass, and the variants of which it is the same; or `lines` that were all not measured for the
    same reason, and then `limit` is empty. `excess`: by how much it fails, if it can be said."""

    variants: tuple[str, ...]
    lines: tuple[str, ...]
    limit: str
    value: str
    verdict: Verdict
    reason: str
    excess: str


def shipped(report: Report) -> Row | None:
    """The row of the variant to ship, where one was chosen."""
    return next((row for row in report.rows if row.name == report.winner), None)


def teacher_of(report: Report) -> Row | None:
    """The row of the teacher that was measured."""
    return next((row for row in report.rows if row.role == "teacher" and row.measured), None)


def figures(report: Report) -> list[Figure]:
    """Latency, size, accuracy and retention of the variant that ships; none where nothing was chosen."""
    row = shipped(report)
    if row is None:
        return []
    checks = {check.line: check for check in report.checks if check.variant == row.name}
    teacher, table = teacher_of(report), report.teacher_table
    accuracy = teacher.accuracy if teacher is not None else table.accuracy if table is not None else None
    p50, p90 = (None, None) if teacher is None else (teacher.p50_ms, teacher.p90_ms)
    rows = [
        ("p50", "ms", "p50_ms", estimate(row.p50_ms), _beside(p50)),
        ("p90", "ms", "p90_ms", estimate(row.p90_ms), _beside(p90)),
        ("times as fast as the teacher", "", "min_speedup", estimate(row.p50_ratio), "1"),
        ("size", "MB", "size_mb", _mb(row), _mb(teacher) if teacher is not None else ""),
        ("accuracy", "%", "min_accuracy", estimate(row.accuracy, percent=True), _beside(accuracy, percent=True)),
        ("retention", "%", "min_retention", estimate(row.retention, percent=True), "100" if accuracy else ""),
    ]
    wanted = {"p90_ms": row.p90_ms if "p90_ms" in checks else None, "min_speedup": row.p50_ratio}
    return [
        Figure(name, unit, measured, _limit(checks.get(line), unit), beside, _verdict(checks.get(line)))
        for name, unit, line, measured, beside in rows
        if line in checks or wanted.get(line, row) is not None
    ]


def _mb(row: Row) -> str:
    return number(megabytes(row.size_bytes))


def _beside(figure: Estimate | None, percent: bool = False) -> str:
    return "" if figure is None else estimate(figure, percent=percent)


def _limit(check: Check | None, unit: str) -> str:
    """Without its unit, which stands beside the figure's name."""
    return "" if check is None else " ".join(check.limit.split()[:2]) if unit else check.limit.partition(" times")[0]


def _verdict(check: Check | None) -> Verdict | None:
    return None if check is None else check.verdict


def samples(report: Report) -> str:
    """What the figures of the variant that ships rest on."""
    row = shipped(report)
    if row is None:
        return ""
    sizes = {"p50": row.p50_ms, "times as fast": row.p50_ratio, "accuracy": row.accuracy}
    said = "; ".join(f"{name}: n = {figure.n} {figure.of}" for name, figure in sizes.items() if figure is not None)
    if report.session is None:
        return f"95 % intervals; {said}" if said else "nothing was measured"
    cpu = report.session.machine.cpu
    cpu = cpu if len(cpu) <= LONGEST_CPU else f"{cpu[: LONGEST_CPU - 1]}…"
    over = "" if report.session.device == "local" else f" over {report.session.device}"
    return f"95 % intervals; {said}; on {cpu}{over}, {a_call(report, row)}"


def a_call(report: Report, row: Row) -> str:
    """What a call of a measured variant is, without which its latency says nothing: "2 threads, batch 1", and how long
    its samples are where they are of any length: "24 tokens a text", "0.2 seconds a sound"."""
    threads = [f"{row.threads} thread{'' if row.threads == 1 else 's'}"] if row.threads is not None else []
    batch = [f"batch {report.session.batch}"] if report.session is not None else []
    tokens = report.lengths.timed if report.lengths is not None else None
    seconds = seconds_read(report, row)
    long = [f"{tokens} tokens"] if tokens else [f"{number(seconds)} seconds"] if seconds else []
    return ", ".join([*threads, *batch, *(f"{each} a {report.sample}" for each in long)])


def seconds_read(report: Report, row: Row) -> float | None:
    """Of a sample that lasts a time, how much of it the variant reads."""
    rows = report.real_time.rows if report.real_time is not None else ()
    return next((each.seconds for each in rows if each.variant == row.name), None)


def open_lines(report: Report) -> list[OpenLine]:
    """The lines that fail, those that no other variant makes up for first, then those of the variant to ship, then of
    whoever fails the fewest; and of the variant to ship, or of all where there is none, those that are open."""
    faults = broken(report.checks)
    failed = Counter(check.variant for check in report.checks if check.verdict == "fail")

    def decides(check: Check) -> bool:
        return check.verdict == "fail" or (check.verdict != "pass" and report.winner in (None, check.variant))

    def rank(check: Check) -> tuple[bool, int, bool, int]:
        order = ("fail", "inconclusive", "unmeasured").index(check.verdict)
        return check not in faults, order, check.variant != report.winner, failed[check.variant]

    groups: dict[tuple[str, ...], list[Check]] = {}
    for check in sorted(filter(decides, report.checks), key=rank):
        told = (check.value, check.reason, check.verdict)
        key = told if check.verdict == "unmeasured" else (*told, check.line, check.limit)
        groups.setdefault(key, []).append(check)
    return [_grouped(group) for group in groups.values()]


def _grouped(group: list[Check]) -> OpenLine:
    first, lines = group[0], tuple(dict.fromkeys(check.line for check in group))
    return OpenLine(
        variants=tuple(dict.fromkeys(check.variant for check in group)),
        lines=lines,
        limit=first.limit if len(lines) == 1 else "",
        value=first.value,
        verdict=first.verdict,
        reason=first.reason,
        excess=excess(first) if first.verdict == "fail" else "",
    )


def excess(check: Check) -> str:
    """By how much a measured value misses its limit: "35 % over", "3.2 points below"; empty where it is no number."""
    limit, value = re.match(r"([≤≥]) ([\d.e+-]+)( %| points?)?", check.limit), re.match(r"[+−-]?[\d.]+", check.value)
    if limit is None or value is None:
        return ""
    bound, measured = float(limit[2]), float(value[0].replace("−", "-"))
    side = "over" if limit[1] == "≤" else "below"
    if measured == bound or (measured > bound) != (side == "over"):
        return ""  # equal, as far as the digits that are shown can tell; or it fails for something else
    if limit[3]:
        return f"{number(abs(measured - bound), 2)} points {side}"
    if side == "over" and measured >= 2 * bound:
        return f"{number(measured / bound, 2)} times the limit"
    return f"{number(100 * abs(measured / bound - 1), 2)} % {side}"


def conditions(report: Report) -> Iterator[tuple[str, str]]:
    """What makes the session's figures count less: a word, and what it was."""
    session = report.session
    if session is None:
        return
    if not report.matches:
        yield f"Not the device of profile {report.profile}", "; ".join(report.differences)
    if session.disturbed:
        yield "Absolute figures disturbed", "; ".join(session.disturbed)
    if session.lost is not None:
        yield "The session broke off", f"{session.lost}. Its samples are kept, and decide nothing on latency"
