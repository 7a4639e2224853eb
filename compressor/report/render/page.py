"""Report -> GitHub markdown for a pull request: what fails or decides, then everything else, folded."""

from collections.abc import Iterable, Iterator

from compressor.report.render.explained import explained_section
from compressor.report.render.head import head
from compressor.report.render.lengths import lengths_section
from compressor.report.render.markdown import code, fold, text
from compressor.report.render.provenance import provenance
from compressor.report.render.real_time import real_time_section
from compressor.report.render.release import release_section
from compressor.report.render.tables import check_table, details, rows_table
from compressor.report.render.text import confidence_percent, estimate, number, relative
from compressor.schema.report import Check, Gained, Report, Session
from compressor.stats import Interval, gain_line

__all__ = ["LONGEST", "to_markdown"]

LONGEST = 65_000
"""Signs. A comment on GitHub holds 65,536."""


def to_markdown(report: Report, allow_unmeasured: bool = False) -> str:
    """The report as GitHub markdown. `allow_unmeasured`: say that unmeasured lines were let through. Of what would not
    fit into a comment, the lines that pass are left out first, then the details; each time that is said."""
    top = head(report, allow_unmeasured)
    shorter: list[tuple[bool, bool]] = [(True, True), (False, True), (False, False)]
    for passes, with_details in shorter:
        said = "\n\n".join([*top, *_folds(report, passes, with_details)]) + "\n"
        if len(said) <= LONGEST:
            break
    return said


def _folds(report: Report, passes: bool, with_details: bool) -> Iterator[str]:
    yield fold("Every variant: what it costs and keeps", rows_table(report))
    yield from lengths_section(report) if with_details else ()
    yield from real_time_section(report) if with_details else ()
    yield fold(f"The budget, line by line: {_counted(report.checks)}", _lines(report, passes))
    yield from release_section(report)
    yield from explained_section(report) if with_details else ()
    yield details(report) if with_details else "The details would not fit into a comment: report.json has them."
    made = (_made(report), *(f"- {fact}" for fact in _facts(report)))
    yield fold("How it was made and measured", (made[0], "\n".join(made[1:])))


def _counted(checks: tuple[Check, ...]) -> str:
    verdicts = [check.verdict for check in checks]
    counts = {verdict: verdicts.count(verdict) for verdict in ("fail", "inconclusive", "unmeasured", "pass")}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "none"


def _lines(report: Report, passes: bool) -> Iterator[str]:
    if passes:
        yield check_table(report.checks)
        return
    kept = tuple(check for check in report.checks if check.verdict != "pass")
    left = len(report.checks) - len(kept)
    yield f"Those that pass, {left}, would not fit into a comment: report.json and junit.xml have them."
    if kept:
        yield check_table(kept)


def _made(report: Report) -> str:
    start = text(report.student_init)
    student = f"Student {code(report.student)} (start: {start}), teacher {code(report.teacher)}"
    gained = () if report.gain is None else (_gain(report.gain),)
    holds = (f"Holds every line: {', '.join(map(code, report.holds))}.",) if report.holds else ()
    return "  \n".join((f"{student}.", *holds, *gained, _how_measured(report)))


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
        percent, least = confidence_percent(session.confidence), number(100 * session.smallest_effect, 2)
        yield (
            f"A/A: the same artefact twice differs by {relative(session.aa.value)} % [{low} to {high}] "
            f"({percent} % interval, n = {session.aa.n} rounds); effects below {least} % cannot be told from "
            "noise here."
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
    yield from provenance(report)
    for architecture in dict.fromkeys(row.architecture for row in report.rows if row.role == "baseline"):
        yield f"Baseline: {code(architecture)}, measured alongside and not judged"
    yield f"Student weights kept: {text(report.kept)}"
    yield from map(text, report.notes)
    yield f"Made by kdc {text(report.kdc)} from the raw samples in the bundle."
