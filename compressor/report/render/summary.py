"""Report -> what a terminal of 80 columns shows at the end of a command."""

import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from compressor.report.decision import Figure, OpenLine, conditions, figures, open_lines, samples
from compressor.report.gate import broken, holding
from compressor.report.next_step import next_step
from compressor.report.render.head import TITLES
from compressor.report.render.release import in_words, release_diff_of, shared_part
from compressor.schema.report import Report, Verdict
from compressor.terminal.printable import one_line

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

__all__ = ["summary"]

STYLES: dict[Verdict, str] = {
    "pass": "bold green",
    "fail": "bold red",
    "inconclusive": "bold yellow",
    "unmeasured": "bold yellow",
}
MOST_LINES = 6
LONGEST = 160
NAMED = 2
COMMAND_WIDTH = 64


def summary(report: Report, bundle: str, allow_unmeasured: bool = False) -> "Group":
    """Verdict, what ships, its figures beside budget and teacher, what fails or is open, and the next command; for
    rich. `bundle`: what the user called it."""
    from rich.console import Group
    from rich.padding import Padding

    rows: list[RenderableType] = [_verdict(report)]
    if figures(report):
        rows += [
            Padding(_figures(report), (1, 0, 0, 2)),
            Padding(_words(f"{samples(report)}.", "dim", most=240), (0, 0, 0, 2)),
        ]
    facts = _grid()
    for title, what in _facts(report, bundle, allow_unmeasured):
        facts.add_row(_words(title, "bold"), what)
    return Group(*rows, Padding(facts, (1, 0, 0, 2)))


def _words(value: object, style: str = "", most: int = LONGEST) -> "RenderableType":
    """Anything as text in which nothing acts, as long as it may be."""
    from rich.text import Text

    line = one_line(value)
    return Text(line if len(line) <= most else line[: most - 1] + "…", style=style, overflow="fold")


def _grid() -> "Table":
    from rich.table import Table

    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True)
    grid.add_column(ratio=1)
    return grid


def _verdict(report: Report) -> "RenderableType":
    from rich.text import Text

    said = "an artefact is at fault on" if broken(report.checks) else TITLES[report.verdict]
    line = Text(overflow="fold").append(report.verdict.upper(), style=STYLES[report.verdict])
    return line.append(f"  {said} {_words(report.profile, most=60)}")


def _figures(report: Report) -> "Table":
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("", "", "budget", "teacher"):
        shown.add_column(title, overflow="fold")
    for figure in figures(report):
        name = _words({"times as fast as the teacher": "times as fast"}.get(figure.name, figure.name))
        shown.add_row(name, _words(f"{figure.measured} {figure.unit}"), _limit(figure), _words(figure.teacher or "–"))
    return shown


def _limit(figure: Figure) -> "RenderableType":
    style = STYLES[figure.verdict] if figure.verdict is not None else ""
    said = "" if figure.verdict in (None, "pass") else f" {figure.verdict}"
    return _words(f"{figure.limit or '–'}{said}", style)


def _facts(report: Report, bundle: str, allow_unmeasured: bool) -> Iterator[tuple[str, "RenderableType"]]:
    chosen = f"{report.winner}, in {bundle}/best/" if report.winner else "nothing"
    yield "ships", _words(f"{chosen}: {report.why}", most=240)
    diff = release_diff_of(report)
    if part := shared_part(report):
        yield "compared", _words(part)
    for title, what in in_words(diff) if diff is not None else ():
        yield title.lower(), _words(what, "red" if title == "Worse" else "", most=240)
    for trouble, what in conditions(report):
        yield "note", _words(f"{trouble[0].lower()}{trouble[1:]}: {what}", "yellow")
    lines = open_lines(report)
    for line in lines[:MOST_LINES]:
        yield {"fail": "fails", "inconclusive": "open"}.get(line.verdict, line.verdict), _words(_line(line), most=240)
    if len(lines) > MOST_LINES:
        yield "", _words(f"{len(lines) - MOST_LINES} more such lines: see the report")
    if allow_unmeasured and any(check.verdict == "unmeasured" for check in report.checks):
        held = ", ".join(holding(report, allow_unmeasured)) or "no variant"
        yield "allowed", _words(f"unmeasured lines are not judged (--allow-unmeasured); held by: {held}")
    step = next_step(report, bundle)
    if step is not None and step.command:
        yield "next", _command(step.command)
    if step is not None:
        yield "" if step.command else "next", _words(step.why, "dim" if step.command else "")
    yield "report", _command(f"{bundle}/report.md")
    yield "", _command(f"kdc report {shlex.quote(bundle)} --format md")


def _line(line: OpenLine) -> str:
    names = ", ".join(line.variants[:NAMED]) + (
        f" and {len(line.variants) - NAMED} more" if len(line.variants) > NAMED else ""
    )
    names = f"{names} {', '.join(line.lines)}"
    if line.verdict == "fail":
        by = f" ({line.excess})" if line.excess else f": {line.reason}"
        return f"{names}: {line.value}, limit {line.limit}{by}"
    return f"{names}: {line.reason}"


def _command(command: str) -> "RenderableType":
    """What is to be typed: broken only before options, and so that it can still be pasted."""
    from rich.text import Text

    first, *options = one_line(command).split(" --")
    lines = [first]
    for option in options:
        if len(lines[-1]) + len(option) + 3 > COMMAND_WIDTH:
            lines[-1] += " \\"
            lines.append(f"  --{option}")
        else:
            lines[-1] += f" --{option}"
    return Text("\n".join(lines), style="cyan", overflow="fold")
