"""A language model's report for a terminal of 80 columns."""

import textwrap
from collections.abc import Iterator

from compressor.report.gate import broken, holding
from compressor.report.language.next_step import next_step
from compressor.report.language.render import DEFINED, Figure, counted, figures, troubles
from compressor.report.render.head import TITLES
from compressor.schema.language.report import LanguageReport
from compressor.terminal.printable import one_line

__all__ = ["to_text"]

WIDTH = 80
TITLE = 14
MOST_LINES = 6


def to_text(report: LanguageReport, bundle: str, allow_unmeasured: bool = False) -> str:
    """Verdict, what ships, its figures, what fails or is open. `bundle`: what the user called it."""
    said = "an artefact is at fault on" if broken(report.checks) else TITLES[report.verdict]
    lines = [f"{report.verdict.upper()}  {said} {report.profile}"]
    if rows := figures(report):
        lines += ["", *_figures(rows), "", *_wrapped("", f"{counted(report)}. {DEFINED}.")]
    facts = _facts(report, bundle, allow_unmeasured)
    return "\n".join([*lines, "", *(line for title, what in facts for line in _wrapped(title, what))]) + "\n"


def _figures(rows: list[Figure]) -> Iterator[str]:
    header = ("", "measured", "budget", "verdict")
    cells = [header, *((row[0], row[1], row[2], row[5]) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(4)]
    for line in cells:
        yield "  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
    beside = next(row for row in rows if row[0].startswith("bits"))
    yield f"  {'student in torch, fp32'.ljust(widths[0])}  {beside[3]} bits a byte"
    if beside[4]:
        yield f"  {'the teacher'.ljust(widths[0])}  {beside[4]} bits a byte"


def _facts(report: LanguageReport, bundle: str, allow_unmeasured: bool) -> Iterator[tuple[str, str]]:
    yield "To ship", f"{report.winner or 'none can be chosen'}: {report.why}"
    missed = [check for check in report.checks if check.verdict != "pass"]
    for check in missed[:MOST_LINES]:
        yield check.verdict.capitalize(), f"{check.variant} {check.line} {check.limit}: {check.value}: {check.reason}"
    if len(missed) > MOST_LINES:
        yield "", f"and {len(missed) - MOST_LINES} more"
    for trouble in troubles(report):
        yield "Note", trouble
    if report.not_judged:
        yield "Note", f"not for language models, and not judged: {', '.join(report.not_judged)}"
    if allow_unmeasured and any(check.verdict == "unmeasured" for check in missed):
        held = ", ".join(holding(report, allow_unmeasured)) or "no variant"
        yield "Note", f"unmeasured lines are allowed and not judged; every judged line is held by: {held}"
    if (step := next_step(report, bundle)) is not None:
        yield "Next", f"{step.command}: {step.why}" if step.command else step.why
    yield "Report", f"{bundle}/report.html"
    if report.winner is not None:
        yield "Ships", f"{bundle}/best"


def _wrapped(title: str, what: str) -> list[str]:
    lines = textwrap.wrap(one_line(what), WIDTH - TITLE - 2, break_on_hyphens=False) or [""]
    return [f"  {(title if number == 0 else '').ljust(TITLE)}{line}" for number, line in enumerate(lines)]
