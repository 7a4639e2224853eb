"""The part of report.md that a pull request shows unfolded: what fails or decides, in at most 25 lines."""

from collections.abc import Iterator

from compressor.report.decision import OpenLine, conditions, figures, open_lines, samples, shipped
from compressor.report.gate import broken, holding
from compressor.report.next_step import next_step
from compressor.report.render.markdown import code, table, text
from compressor.report.render.release import beside_baseline
from compressor.schema.report import Report, Verdict

__all__ = ["MOST_LINES", "TITLES", "head"]

MOST_LINES = 25
NAMED = 3

TITLES: dict[Verdict, str] = {
    "pass": "the budget holds on",
    "fail": "the budget does not hold on",
    "inconclusive": "the budget cannot be told yet on",
    "unmeasured": "the budget is not measured on",
}


def head(report: Report, allow_unmeasured: bool = False) -> list[str]:
    """Blocks of markdown, at most `MOST_LINES` lines with the empty ones between them."""
    blocks = [_title(report), "  \n".join(_decision(report, allow_unmeasured))]
    if shipped(report) is not None:
        blocks += [_figures(report), text(f"{samples(report)[0].upper()}{samples(report)[1:]}.")]
    step = next_step(report)
    last = [] if step is None else [f"**Next:** {step.in_markdown()}"]
    used = "\n\n".join([*blocks, "", *last]).count("\n") + 1
    return [*blocks, *_open_table(open_lines(report), MOST_LINES - used - 2), *last]


def _title(report: Report) -> str:
    said = "an artefact is at fault on" if broken(report.checks) else TITLES[report.verdict]
    where = f", measured on {code(report.measured_on.name)}" if report.measured_on is not None else ""
    return f"## kdc: {report.verdict.upper()} – {said} {code(report.profile)}{where}"


def _decision(report: Report, allow_unmeasured: bool) -> Iterator[str]:
    chosen = code(report.winner) if report.winner is not None else "none can be chosen"
    yield f"**To ship:** {chosen}: {text(report.why)}."
    for trouble, what in conditions(report):
        yield f"**{text(trouble)}:** {text(what)}."
    if said := beside_baseline(report):
        yield f"**Against the baseline:** {text(said)}."
    if allow_unmeasured and any(check.verdict == "unmeasured" for check in report.checks):
        held = _names(holding(report, allow_unmeasured)) or "no variant"
        judged = any(check.verdict != "unmeasured" for check in report.checks)
        yield "**Unmeasured lines were allowed** (`--allow-unmeasured`): they are not judged, and are no pass. " + (
            f"Every judged line is held by: {held}." if judged else "No line at all was judged."
        )


def _figures(report: Report) -> str:
    """The variant that ships beside its budget and the teacher."""
    rows = [
        [
            f"{figure.name} {figure.unit}".strip(),
            text(figure.measured),
            text(figure.limit or "–"),
            text(figure.teacher or "–"),
            _marked(figure.verdict) if figure.verdict is not None else "–",
        ]
        for figure in figures(report)
    ]
    return table(["", code(report.winner), "budget", "the teacher", "verdict"], rows, 4)


def _marked(verdict: Verdict) -> str:
    return verdict if verdict == "pass" else f"**{verdict}**"


def _open_table(lines: list[OpenLine], room: int) -> list[str]:
    """The lines that fail or are open, as many as `room` has lines for."""
    if not lines:
        return []
    if room < 1:  # not even for the head of a table
        first, more = lines[0], f"; {len(lines) - 1} more, below" if len(lines) > 1 else ""
        return [f"{_marked(first.verdict)}: {_names(first.variants)} {', '.join(first.lines)}{more}."]
    shown = lines if len(lines) <= room else lines[: max(0, room - 1)]
    rows = [
        [
            _names(line.variants),
            ", ".join(line.lines),
            text(line.limit or "–"),
            text(f"{line.value}: {line.excess}" if line.excess else line.value),
            _marked(line.verdict),
            text(line.reason),
        ]
        for line in shown
    ]
    if len(shown) < len(lines):
        rows.append([f"{len(lines) - len(shown)} more, below", *[""] * 5])
    return [table(["variant", "line", "limit", "measured", "verdict", "reason"], rows)]


def _names(names: tuple[str, ...]) -> str:
    more = [f"{len(names) - NAMED} more"] if len(names) > NAMED else []
    return ", ".join([*map(code, names[:NAMED]), *more])
