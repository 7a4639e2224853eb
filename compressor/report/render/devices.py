"""Several devices -> GitHub markdown for a pull request, and one line: the verdict on each, and what ships there."""

import html
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from compressor.report.devices import OnDevice, devices_of
from compressor.report.gate import broken
from compressor.report.next_step import Step, device_to_type, next_step
from compressor.report.render.head import MOST_LINES
from compressor.report.render.markdown import code, fold, table, text
from compressor.report.render.page import LONGEST
from compressor.report.render.release import beside_baseline, release_section
from compressor.report.render.tables import check_table
from compressor.report.render.text import NOT_MEASURED, estimate
from compressor.schema.devices import Cell, Devices, OfDevice
from compressor.schema.report import Report, Verdict
from compressor.terminal.printable import one_line

__all__ = ["decides", "devices_line", "next_of", "said_of_all", "to_matrix"]

SHOWN = 14
"""Devices before the fold, at most."""
NAMED = 4


def to_matrix(measured: Sequence[OnDevice], allow_unmeasured: bool = False) -> str:
    """The devices as GitHub markdown: at most `MOST_LINES` lines before the fold. What would not fit into a comment is
    left out, and that is said."""
    devices = devices_of(measured)
    top, below = _head(devices, measured, allow_unmeasured), ["\n".join(_facts(devices))]
    for section in (release_section, _compared):
        whole = "\n\n".join([*top, *_folds(devices, measured, section), *below]) + "\n"
        if len(whole) <= LONGEST:
            return whole
    left = "Their lines would not fit into a comment: the report of each device has them."
    return "\n\n".join([*top, left, *below])[:LONGEST] + "\n"


def _head(devices: Devices, measured: Sequence[OnDevice], allow_unmeasured: bool) -> list[str]:
    blocks = [f"## kdc: {devices.verdict.upper()} – {said_of_all(devices)}", _overview(devices)]
    if allow_unmeasured:
        blocks.append(
            "**Unmeasured lines were allowed** (`--allow-unmeasured`): they are not judged, and are no pass. A device "
            "on which nothing was measured stays open."
        )
    step = next_of(measured)
    last = [] if step is None else [f"**Next:** {step.in_markdown()}"]
    matrix = _matrix(devices)
    fits = "\n\n".join([*blocks, matrix, *last]).count("\n") + 1 <= MOST_LINES
    return [*blocks, *([matrix] if fits else []), *last, *([] if fits else [fold("Every variant on each", [matrix])])]


def said_of_all(devices: Devices) -> str:
    """What the verdict over all means, in words."""
    count = len(devices.devices)
    same = [device for device in devices.devices if device.verdict == devices.verdict]
    some = f"on {len(same)} of {count} devices" if len(same) < count else f"on all {count} devices"
    return {
        "pass": f"the budget holds {some}",
        "fail": f"the budget does not hold {some}",
        "inconclusive": f"the budget cannot be told yet {some}",
        "unmeasured": f"the budget is not measured {some}",
    }[devices.verdict]


def _overview(devices: Devices) -> str:
    """A line a device, those that do not pass first."""
    order = sorted(devices.devices, key=lambda device: device.verdict == "pass")
    shown = order if len(order) <= SHOWN else order[: SHOWN - 1]
    rows = [
        [
            code(device.name),
            _marked(device.verdict),
            code(device.winner) if device.winner is not None else "–",
            _p50(device),
            text(decides(device)),
        ]
        for device in shown
    ]
    if len(shown) < len(order):
        rows.append([f"{len(order) - len(shown)} more, below", *[""] * 4])
    return table(["device", "verdict", "ships", "p50 ms", ""], rows)


def _marked(verdict: Verdict) -> str:
    return verdict if verdict == "pass" else f"**{verdict}**"


def _p50(device: OfDevice) -> str:
    shipped = next((cell for cell in device.cells if cell.ships), None)
    return NOT_MEASURED if device.error is not None else "–" if shipped is None else text(estimate(shipped.p50_ms))


def decides(device: OfDevice) -> str:
    """Why the verdict on a device is what it is."""
    if device.error is not None:
        return f"not measured: {device.error}"
    if device.lost is not None:
        return f"the session broke off: {device.lost}"
    if device.verdict == "pass":
        return f"measured {device.measured} on {device.machine}"
    cells = [cell for cell in device.cells if cell.ships] or list(device.cells)
    lines = device.failed or tuple(dict.fromkeys(line for cell in cells for line in (*cell.failed, *cell.open)))
    more = f" and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
    return f"{'fails' if device.failed else 'open:'} {', '.join(lines[:NAMED])}{more}" if lines else device.why


def _matrix(devices: Devices) -> str:
    """A row a variant, a column a device: p50, whether it ships there, and what it fails."""
    names = dict.fromkeys(cell.variant for device in devices.devices for cell in device.cells)
    cells = [{cell.variant: cell for cell in device.cells} for device in devices.devices]
    rows = [[code(name), *(_cell(of.get(name)) for of in cells)] for name in names]
    return table(["p50 ms", *(code(device.name) for device in devices.devices)], rows)


def _cell(cell: Cell | None) -> str:
    if cell is None:
        return "–"
    if cell.missing is not None:
        return NOT_MEASURED
    said = [text(estimate(cell.p50_ms)), *(["**ships**"] if cell.ships else [])]
    if cell.failed:
        more = f" and {len(cell.failed) - NAMED} more" if len(cell.failed) > NAMED else ""
        said.append(f"fails {', '.join(cell.failed[:NAMED])}{more}")
    return ", ".join(said)


def _compared(report: Report) -> list[str]:
    """What changed against the baseline, where there is one, in a line."""
    said = beside_baseline(report)
    return [f"**Against the baseline:** {text(said)}."] if said else []


def _folds(devices: Devices, measured: Sequence[OnDevice], section: Callable[[Report], list[str]]) -> Iterator[str]:
    """What decides on each device, and in `section` what changed there against the baseline."""
    for device, each in zip(devices.devices, measured, strict=True):
        told = ("fail",) if each.error is not None else ("fail", "inconclusive", "unmeasured")
        kept = tuple(check for check in each.report.checks if check.verdict in told)
        blocks = [text(decides(device)), *([check_table(kept)] if kept else []), *section(each.report)]
        yield fold(f"{html.escape(one_line(device.name))}: {device.verdict}", blocks)


def _facts(devices: Devices) -> Iterator[str]:
    yield f"- Student {code(devices.student)}, teacher {code(devices.teacher)}, {devices.test_n} test samples"
    yield "- [low–high] are 95 % intervals. Each device was measured in a session of its own"
    for device in devices.devices:
        when = f"measured {text(device.measured)} on {text(device.machine)}" if device.measured else NOT_MEASURED
        what = ", ".join([*([code(device.url)] if device.url else []), f"profile {code(device.profile)}"])
        yield f"- {code(device.name)} ({what}): {when}; {code(device.report)}"


def next_of(measured: Sequence[OnDevice], bundle: str = "BUNDLE") -> Step | None:
    """The next step for the device that decides; None where all pass."""
    order = ("fail", "inconclusive", "unmeasured")
    still = [each for each in measured if each.report.verdict in order]
    first = min(still, key=lambda each: order.index(each.report.verdict), default=None)
    if first is None:
        return None
    step = next_step(first.report, f"{bundle}/{first.bundle}" if first.bundle else bundle)
    if step is None or not first.bundle or first.url in ("", "local") or "--device" in step.command:
        return step
    if step.command.startswith("kdc measure"):
        return replace(step, command=f"{step.command} --device {device_to_type(first.url)}")
    return step


def devices_line(measured: Sequence[OnDevice]) -> str:
    """The verdict in one line: of all, and of each."""
    devices = devices_of(measured)
    parts = [f"{each.name} {_short(device, each)}" for device, each in zip(devices.devices, measured, strict=True)]
    return f"{devices.verdict.upper()} on {len(measured)} devices: " + "; ".join(parts)


def _short(device: OfDevice, each: OnDevice) -> str:
    if device.verdict == "pass":
        return f"pass, ships {device.winner}" if device.winner is not None else "pass"
    faults = ", ".join(f"{check.variant} {check.line}" for check in broken(each.report.checks))
    said = one_line(f"fails {faults}" if faults else decides(device))
    return f"{device.verdict} ({said if len(said) <= 200 else said[:199] + '…'})"
