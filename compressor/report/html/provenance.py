"""Where everything comes from: teacher, licence, data, seeds, versions, machine, executed precision."""

from collections.abc import Iterator, Mapping
from typing import Any

from compressor.report.html.text import shown
from compressor.report.read import Results
from compressor.report.render.text import confidence_percent, number, relative
from compressor.schema.language.report import LanguageReport, LanguageSession
from compressor.schema.provenance import NOBODYS
from compressor.schema.report import Report, Session
from compressor.schema.student import Student, Weights

__all__ = ["aa_fact", "machine_facts", "made_from", "provenance", "trained"]

AnyReport = Report | LanguageReport
Fact = tuple[str, str]


def provenance(report: Report, results: Results) -> Iterator[Fact]:
    """Where everything comes from, a line a fact."""
    student, bundle = results.bundle.student, results.bundle
    yield "student", f"{shown(report.student)}, start: {shown(report.student_init)}; {shown(report.kept, 200)}"
    yield from made_from(report, student, bundle.teacher)
    counts = ", ".join(f"{shown(split, 40)} {count:,}" for split, count in student.data.counts.items())
    yield "samples", f"{counts or 'not told'}; tested on {report.test_n:,} of {shown(report.test_split)}"
    seeds = f"training {student.recipe.seed}"
    seeds += f", order of measuring {results.measurement.seed}" if results.measurement is not None else ""
    yield "seeds", seeds
    yield from trained(student)
    yield from _machine(report)
    for note in (*report.data_notes, *report.notes):
        yield "note", shown(note, 600)
    yield "made by", f"kdc {shown(report.kdc)}, from the raw samples in the bundle"


def made_from(report: AnyReport, student: Student, teacher: Weights | None) -> Iterator[Fact]:
    """Whose work the student is, with every licence, and what it was taught on."""
    yield "teacher", shown(report.teacher)
    yield "teacher's licence", shown(report.teacher_licence)
    for ancestor in report.ancestors:
        if not ancestor.licence.startswith(NOBODYS):
            yield (
                "made from",
                f"{shown(ancestor.named)}; licence: {shown(ancestor.licence)}; terms: {shown(ancestor.terms)}",
            )
    if teacher is not None:
        yield "teacher's weights", f"sha256 {shown(teacher.sha256)}"
    yield "student's weights", f"sha256 {shown(student.weights.sha256)}"
    yield "data", f"{shown(report.data)}, fingerprint {shown(student.data.fingerprint)}"


def trained(student: Student) -> Iterator[Fact]:
    """By which recipe, with what, and on which machine."""
    terms = ((term.name, term.weight_at(0.0), term.weight_at(1.0)) for term in student.recipe.losses)
    losses = ", ".join(f"{shown(name, 60)} {_weight(first, last)}" for name, first, last in terms)
    yield "recipe", f"{student.recipe.epochs} epochs, batch {student.recipe.batch_size}; losses: {losses}"
    versions = ", ".join(
        f"{shown(name, 40)} {shown(value, 40)}" for name, value in student.environment.packages.items()
    )
    yield (
        "trained with",
        f"kdc {shown(student.environment.kdc)}, Python {shown(student.environment.python)}, {versions}",
    )
    yield "trained on", f"{shown(student.environment.cpu)}, {shown(student.environment.device)}"


def _weight(first: float, last: float) -> str:
    return f"{first:g}" if first == last else f"{first:g} to {last:g}"


def _machine(report: Report) -> Iterator[Fact]:
    session = report.session
    if session is None:
        yield "measured", "nothing was measured"
        return
    yield from machine_facts(report, session)
    blocks = (
        f"{session.rounds} rounds, blocks of {session.block_length} calls, the first {session.block_dropped} dropped"
    )
    percent, looks = confidence_percent(session.confidence), f"{session.looks} look{'s' if session.looks > 1 else ''}"
    conditions = f"batch {session.batch}, {session.distinct_inputs} distinct inputs, {looks}"
    verdicts = f"verdicts on latency from {percent} % intervals"
    yield "session", f"{blocks}; {conditions}; {verdicts}"
    yield from aa_fact(session)
    for disturbance in session.disturbed:
        yield "disturbed", shown(disturbance, 400)
    if session.lost is not None:
        yield "broke off", shown(session.lost, 400)


def machine_facts(report: AnyReport, session: Session | LanguageSession) -> Iterator[Fact]:
    """On what it was measured, and in which precision everything ran."""
    machine = session.machine
    yield "measured", f"{shown(session.started)} over {session.device}, kdc's profile {shown(report.profile)}"
    yield "machine", f"{shown(machine.cpu)}, {shown(machine.arch)}, {machine.cores} cores, {shown(machine.system)}"
    if report.differences:
        yield "not the profile's device", "; ".join(shown(difference) for difference in report.differences)
    executed: Mapping[str, Any] = {row.name: row.executed_precision for row in report.rows if row.measured}
    listed = "; ".join(f"{shown(name, 60)}: {shown(value or 'not told', 30)}" for name, value in executed.items())
    yield "executed precision", listed or "nothing ran"


def aa_fact(session: Session | LanguageSession) -> Iterator[Fact]:
    """How far the same artefact twice differs, where it ran twice."""
    if session.aa is not None and session.smallest_effect is not None:
        aa, least = session.aa, number(100 * session.smallest_effect, 2)
        differs = f"{relative(aa.value)} % [{relative(aa.low)} to {relative(aa.high)}]"
        told = f"({confidence_percent(session.confidence)} % interval, n = {aa.n} rounds)"
        yield (
            "A/A",
            f"the same artefact twice differs by {differs} {told}; effects below {least} % cannot be told from noise",
        )
