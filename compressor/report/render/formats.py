"""Report -> JSON, GitHub markdown that fits a pull request, and JUnit XML. Strings in, strings out."""

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Iterator

from compressor.report.gate import broken, holding
from compressor.report.render.markdown import code, text
from compressor.report.render.release import release_section
from compressor.report.render.tables import check_table, details, rows_table
from compressor.report.render.text import confidence_percent, estimate, number, relative
from compressor.schema.report import Gained, Report, Session
from compressor.stats import Interval, gain_line
from compressor.terminal.printable import printable

__all__ = ["to_json", "to_junit", "to_markdown", "verdict_line"]


def to_json(report: Report) -> str:
    """The report as it lies in report.json."""
    return report.model_dump_json(indent=2) + "\n"


def verdict_line(report: Report, allow_unmeasured: bool = False) -> str:
    """The verdict in one line: who holds, or which lines each variant does not pass."""
    head = f"{report.verdict.upper()} on profile {report.profile}: "
    if faults := broken(report.checks):
        return head + "; ".join(f"{check.variant} fails {check.line} ({check.reason})" for check in faults)
    if report.verdict == "pass":
        all_lines = f"{', '.join(report.holds)} hold{'s' if len(report.holds) == 1 else ''} every line"
        return head + (f"ship {report.winner}; {all_lines}" if report.winner is not None else all_lines)
    if allow_unmeasured and (held := holding(report, allow_unmeasured)):
        return head + f"unmeasured lines are allowed and not judged; {', '.join(held)}: nothing else is missing"
    parts = []
    for name in [row.name for row in report.rows if row.role == "student"]:
        open_lines = [(check.verdict, check.line) for check in report.checks if check.variant == name]
        said = [
            f"{verdict} {', '.join(line for outcome, line in open_lines if outcome == verdict)}"
            for verdict in ("fail", "inconclusive", "unmeasured")
            if any(outcome == verdict for outcome, _ in open_lines)
        ]
        parts.append(f"{name} ({'; '.join(said)})")
    return head + ("; ".join(parts) or "the bundle has no student variant")


def to_markdown(report: Report, allow_unmeasured: bool = False) -> str:
    """The report as GitHub markdown. `allow_unmeasured`: say that unmeasured lines were let through."""
    parts = [
        *_head(report, allow_unmeasured),
        "### What it costs and keeps",
        *rows_table(report),
        "### The budget, line by line",
        check_table(report),
        *release_section(report),
        *details(report),
        "### Facts",
        "\n".join(f"- {fact}" for fact in _facts(report)),
    ]
    return "\n\n".join(parts) + "\n"


def _head(report: Report, allow_unmeasured: bool) -> list[str]:
    titles = {
        "pass": f"holds on {code(report.profile)}",
        "fail": f"does not hold on {code(report.profile)}",
        "inconclusive": f"cannot be told yet on {code(report.profile)}",
        "unmeasured": f"is not measured on {code(report.profile)}",
    }
    faults = broken(report.checks)
    title = f"an artefact for {code(report.profile)} is at fault" if faults else f"the budget {titles[report.verdict]}"
    parts = [f"## kdc: {report.verdict.upper()} – {title}"]
    parts += [f"**At fault:** {code(check.variant)}, {check.line}: {text(check.reason)}" for check in faults]
    chosen = code(report.winner) if report.winner is not None else "none can be chosen"
    parts.append(f"**To ship:** {chosen}: {text(report.why)}.")
    if report.holds:
        parts.append(f"**Holds every line:** {', '.join(map(code, report.holds))}")
    if allow_unmeasured and any(check.verdict == "unmeasured" for check in report.checks):
        held = ", ".join(map(code, holding(report, allow_unmeasured))) or "no variant"
        judged = any(check.verdict != "unmeasured" for check in report.checks)
        parts.append(
            "**Unmeasured lines were allowed** (`--allow-unmeasured`): they are not judged, and are no pass. "
            + (f"Every judged line is held by: {held}." if judged else "No line at all was judged.")
        )
    start = text(report.student_init)
    student = f"Student {code(report.student)} (start: {start}), teacher {code(report.teacher)}"
    gained = () if report.gain is None else (_gain(report.gain),)
    return [*parts, "  \n".join((f"{student}.", *gained, _how_measured(report)))]


def _gain(gain: Gained) -> str:
    """What distillation gained, on test first; the control is no variant, and has no row."""
    test, validation = (
        gain_line(Interval(figure.value, figure.low, figure.high, figure.n), split)
        for figure, split in ((gain.test, "test"), (gain.validation, "validation"))
    )
    accuracy = f"{estimate(gain.control_accuracy, percent=True)} % of the test samples right"
    return (
        f"**Gain:** {test}; {validation} (95 %, paired by sample; in torch, before export). The control, the same "
        f"student on the labels of {gain.samples:,} samples alone for as many steps ({gain.steps:,}), has {accuracy}."
    )


def _how_measured(report: Report) -> str:
    if report.session is None:
        return f"Profile {code(report.profile)} ({text(report.device)}). Nothing was measured."
    session, machine = report.session, report.session.machine
    threads = sorted({row.threads for row in report.rows if row.measured and row.threads is not None})
    where = f"{text(machine.cpu)} ({text(machine.arch)}, {machine.cores} cores, {text(machine.system)})"
    if report.matches:
        clause = f"which is the device of profile {code(report.profile)}"
    else:
        why = "; ".join(map(text, report.differences))
        clause = f"**not the device of profile {code(report.profile)}** as it describes it ({why})"
    counted = " and ".join(map(str, threads)) or "unknown"
    over = "" if session.device == "local" else f" over {session.device}"
    again = f" ({session.connections} connections)" if session.connections > 1 else ""
    lines = [
        f"Measured {text(session.started)}{over}{again} on {where}, {clause}.",
        f"{counted} thread{'s' if threads != [1] else ''}, batch {session.batch}; {session.rounds} rounds, in each "
        f"one block a variant in random order; {session.block_length} calls a block, the first "
        f"{session.block_dropped} dropped; {session.distinct_inputs} distinct inputs.",
        *_trust(session),
        *(() if session.with_throughput else ("Throughput was not measured, on request (`--no-throughput`).",)),
    ]
    return "  \n".join(lines)


def _trust(session: Session) -> Iterator[str]:
    """How far the session's latencies carry: noise, looks, and what went wrong."""
    if session.aa is None or session.smallest_effect is None:
        yield "A/A: not measured, so ratios of latencies are not judged."
    else:
        low, high = relative(session.aa.low), relative(session.aa.high)
        yield (
            f"A/A: the same artefact twice differs by {relative(session.aa.value)} % [{low} to {high}] "
            f"(n = {session.aa.n} rounds); effects below {number(100 * session.smallest_effect, 2)} % cannot be told "
            "from noise here."
        )
    looks = f"{session.looks} look{'s' if session.looks > 1 else ''}"
    yield f"Verdicts on latency after {looks}, from {confidence_percent(session.confidence)} % intervals."
    if session.disturbed:
        yield f"**Absolute figures disturbed:** {'; '.join(map(text, session.disturbed))}."
    if session.lost is not None:
        yield f"**The session broke off:** {text(session.lost)}. Its samples are kept, and decide nothing on latency."


def _facts(report: Report) -> Iterable[str]:
    classes = len(report.class_names)
    yield f"Test: n = {report.test_n} samples of the {text(report.test_split)} split, {classes} classes."
    yield f"Data: {code(report.data)}"
    yield from map(text, report.data_notes)
    yield f"Teacher: {code(report.teacher)}, licence: {text(report.teacher_licence)}"
    for architecture in dict.fromkeys(row.architecture for row in report.rows if row.role == "baseline"):
        yield f"Baseline: {code(architecture)}, measured alongside and not judged"
    yield f"Student weights kept: {text(report.kept)}"
    yield from map(text, report.notes)
    yield f"Made by kdc {text(report.kdc)} from the raw samples in the bundle."


def to_junit(report: Report) -> str:
    """The checks as JUnit XML, a test case each: fail is a failure; inconclusive and unmeasured are skipped, so a CI
    that reads only this file must also look at the exit code."""
    failures = sum(check.verdict == "fail" for check in report.checks)
    skipped = sum(check.verdict in ("inconclusive", "unmeasured") for check in report.checks)
    counts = {"tests": str(len(report.checks)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}
    suites = ET.Element("testsuites", counts)
    suite = ET.SubElement(suites, "testsuite", {"name": printable(f"kdc {report.profile}: {report.verdict}"), **counts})
    for check in report.checks:
        case = ET.SubElement(suite, "testcase", {"classname": printable(check.variant), "name": printable(check.line)})
        said = printable(f"{check.verdict}: {check.value}, limit: {check.limit}. {check.reason}")
        if check.verdict == "fail":
            ET.SubElement(case, "failure", {"message": said, "type": "budget"}).text = said
        elif check.verdict != "pass":
            ET.SubElement(case, "skipped", {"message": said})
        else:
            ET.SubElement(case, "system-out").text = said
    ET.indent(suites)
    # References in place of signs beyond ASCII: the file is the same one on a stdout that has not got them.
    text = str(ET.tostring(suites, encoding="us-ascii"), "ascii")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'
