"""Report -> what a terminal of 80 columns shows at the end of a command."""

import re
import shlex
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.report.decision import Figure, OpenLine, conditions, figures, open_lines, samples
from compressor.report.devices import OnDevice, devices_of
from compressor.report.gate import broken, holding
from compressor.report.next_step import next_step
from compressor.report.render.devices import decides, next_of, said_of_all
from compressor.report.render.explained import explained_line
from compressor.report.render.head import TITLES
from compressor.report.render.release import beside_baseline, in_words, release_diff_of, shared_part
from compressor.report.render.text import NOT_MEASURED, estimate
from compressor.schema.devices import Devices
from compressor.schema.report import Report, Verdict
from compressor.terminal.printable import one_line, printable

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table

__all__ = ["devices_summary", "summary"]

STYLES: dict[Verdict, str] = {
    "pass": "bold green",
    "fail": "bold red",
    "inconclusive": "bold yellow",
    "unmeasured": "bold yellow",
}
MOST_LINES = 6
LONGEST = 160
WIDEST = 20
"""Signs of a device's name."""
NAMED = 2
COMMAND_WIDTH = 62
ARGUMENT = re.compile(r"""(?:'[^']*'|"[^"]*"|[^\s'"])+""")
"""Of a command, as it is typed: with its quotes."""


def summary(report: Report, bundle: str, allow_unmeasured: bool = False, baseline: Path | None = None) -> "Group":
    """Verdict, what ships, its figures beside budget and teacher, what fails or is open, and the next command; for
    rich. `bundle`: what the user called it; `baseline`: likewise, where the bundle's own files do not hold the
    comparison."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    rows: list[RenderableType] = [_verdict(report)]
    if figures(report):
        rows += [
            Padding(_figures(report), (1, 0, 0, 2)),
            Padding(_words(f"{samples(report)}.", "dim", most=240), (0, 0, 0, 2)),
        ]
    facts = [*_facts(report, bundle, allow_unmeasured), *_where(bundle, baseline)]
    width = max(len(title) for title, _ in facts)
    return Group(*rows, Text(""), *(_fact(title, what, width) for title, what in facts))


def _words(value: object, style: str = "", most: int = LONGEST) -> "RenderableType":
    """Anything as text in which nothing acts, as long as it may be."""
    from rich.text import Text

    line = one_line(value)
    return Text(line if len(line) <= most else line[: most - 1] + "…", style=style, overflow="fold")


def _fact(title: str, what: "RenderableType | list[str]", width: int) -> "RenderableType":
    """A title of `width` and what it says. Lines that are to be typed stand beside it as they are, however long: one
    that is folded in a table cannot be pasted."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    if isinstance(what, list):
        typed = Text(no_wrap=True, overflow="ignore")
        for number, line in enumerate(what):
            typed.append(f"  {'' if number else title:{width}}  ", style="bold").append(line, style="cyan")
            typed.append("\n" if number < len(what) - 1 else "")
        return typed
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, min_width=width)
    grid.add_column(ratio=1)
    grid.add_row(_words(title, "bold"), what)
    return Padding(grid, (0, 0, 0, 2))


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


def _facts(report: Report, bundle: str, allow_unmeasured: bool) -> Iterator[tuple[str, "RenderableType | list[str]"]]:
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
    if said := explained_line(report):
        yield "layers", _words(said, most=240)
    if allow_unmeasured and any(check.verdict == "unmeasured" for check in report.checks):
        held = ", ".join(holding(report, allow_unmeasured)) or "no variant"
        yield "allowed", _words(f"unmeasured lines are not judged (--allow-unmeasured); held by: {held}")
    step = next_step(report, bundle)
    if step is not None and step.command:
        yield "next", _command(step.command)
    if step is not None:
        yield "" if step.command else "next", _words(step.why, "dim" if step.command else "")


def _where(bundle: str, baseline: Path | None) -> Iterator[tuple[str, list[str]]]:
    """Where all of it is."""
    again = f"kdc report {shlex.quote(bundle)} --format md"
    if baseline is not None:
        yield "report", _command(f"{again} --baseline {shlex.quote(str(baseline))}")
        return
    yield "report", _command(shlex.quote(f"{bundle}/report.md"))
    yield "", _command(again)


def _line(line: OpenLine) -> str:
    names = ", ".join(line.variants[:NAMED]) + (
        f" and {len(line.variants) - NAMED} more" if len(line.variants) > NAMED else ""
    )
    names = f"{names} {', '.join(line.lines)}"
    if line.verdict == "fail":
        by = f" ({line.excess})" if line.excess else f": {line.reason}"
        return f"{names}: {line.value}, limit {line.limit}{by}"
    return f"{names}: {line.reason}"


def _command(command: str) -> list[str]:
    """The lines of what is to be typed: broken only between arguments, and so that it can still be pasted."""
    from rich.cells import cell_len

    lines: list[str] = []
    arguments = [printable(argument) for argument in ARGUMENT.findall(command)]
    for argument, following in zip_longest(arguments, arguments[1:], fillvalue="--"):
        paired = argument.startswith("--") and not following.startswith("--")
        together = f"{argument} {following}" if paired else argument
        if lines and cell_len(lines[-1]) + cell_len(together) + 3 <= COMMAND_WIDTH:
            lines[-1] += f" {argument}"
        elif lines:
            lines[-1] += " \\"
            lines.append(f"  {argument}")
        else:
            lines.append(argument)
    return lines


def devices_summary(measured: Sequence[OnDevice], bundle: str, baseline: Path | None = None) -> "Group":
    """The verdict on each of several devices and over all, what ships on each, why, and the next command; for rich.
    `bundle`, `baseline`: see `summary`."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    devices = devices_of(measured)
    line = Text(overflow="fold").append(devices.verdict.upper(), style=STYLES[devices.verdict])
    facts: list[tuple[str, RenderableType | list[str]]] = [
        (device.name[:WIDEST], _words(decides(device), most=240))
        for device in devices.devices
        if device.verdict != "pass"
    ]
    folders = [device.report.removesuffix("report.json") for device in devices.devices if device.winner is not None]
    facts += [("" if number else "ships", _words(f"{bundle}/{folder}best/")) for number, folder in enumerate(folders)]
    facts += _compared(measured)
    step = next_of(measured, bundle)
    if step is not None and step.command:
        facts.append(("next", _command(step.command)))
    if step is not None:
        facts.append(("" if step.command else "next", _words(step.why, "dim" if step.command else "")))
    typed = f"kdc report {shlex.quote(bundle)} --format md --baseline {shlex.quote(str(baseline))}"
    facts.append(("report", _command(shlex.quote(f"{bundle}/devices.md") if baseline is None else typed)))
    width = min(max(len(title) for title, _ in facts), WIDEST)
    return Group(
        line.append(f"  {said_of_all(devices)}"),
        Padding(_devices(devices), (1, 0, 1, 2)),
        *(_fact(title, what, width) for title, what in facts),
    )


def _compared(measured: Sequence[OnDevice]) -> Iterator[tuple[str, "RenderableType"]]:
    """What changed on each against the baseline."""
    told = [(each.name, said) for each in measured if (said := beside_baseline(each.report))]
    for number, (name, said) in enumerate(told[:MOST_LINES]):
        yield "" if number else "compared", _words(f"{name}: {said}", most=240)
    if len(told) > MOST_LINES:
        yield "", _words(f"{len(told) - MOST_LINES} more devices: see the report")


def _devices(devices: Devices) -> "Table":
    from rich.table import Table
    from rich.text import Text

    shown = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for title in ("device", "verdict", "ships", "p50 ms"):
        shown.add_column(title, overflow="fold", max_width=WIDEST if title == "device" else None)
    for device in devices.devices:
        cell = next((cell for cell in device.cells if cell.ships), None)
        p50 = NOT_MEASURED if device.error is not None else "–" if cell is None else estimate(cell.p50_ms)
        verdict = Text(device.verdict, style=STYLES[device.verdict])
        shown.add_row(_words(device.name), verdict, _words(device.winner or "–", most=60), _words(p50))
    return shown
