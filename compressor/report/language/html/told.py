"""What was not measured, and why; and where it all comes from."""

from collections.abc import Iterator

from compressor.report.html.provenance import aa_fact, machine_facts, made_from, trained
from compressor.report.html.text import shown
from compressor.report.html.unmeasured import few, unmeasured_lines
from compressor.report.language.read import LanguageResults
from compressor.schema.language.report import LanguageReport

__all__ = ["not_measured", "provenance"]


def not_measured(report: LanguageReport, results: LanguageResults) -> Iterator[tuple[str, str]]:
    """What was not, and why: figures and lines, those of several variants in one."""
    yield from unmeasured_lines(report)
    if report.not_judged:
        lines = shown(", ".join(report.not_judged), 300)
        yield lines, "these lines of the budget are not for language models"
    if report.teacher_test is None:
        yield "retention", "there is no teacher that could be run at the export"
    if report.session is None:
        yield "speed, memory, the text's costs in the runtime", "the bundle holds no measurement"
        return
    for row in report.rows:
        if row.error is not None:
            yield f"everything of {shown(row.name)}", shown(row.error, 300)
    if report.session.aa is None:
        yield "how far two runs of the same artefact differ (A/A)", "the session had no second copy of the reference"
    untold = [row.name for row in report.rows if row.measured and row.tokens_per_s is None]
    if untold:
        yield f"tokens/s of {few(untold)}", "too few answers"
    single = [row.name for row in report.rows if row.test is not None and row.test.low is None]
    if single:
        yield f"intervals on text of {few(single)}", "there is one test document"
    yield "energy, throughput of several streams", "kdc does not measure them of language models"
    yield "the teacher's speed and size", "it runs in torch alone, at the export"
    if results.bundle.student.gain is None:
        yield "what distillation gained over labels alone", "no control was trained"


def provenance(report: LanguageReport, results: LanguageResults) -> Iterator[tuple[str, str]]:
    """Where everything comes from, a line a fact."""
    bundle, student = results.bundle, results.bundle.student
    yield "student", f"{shown(report.student)}, start: {shown(report.student_init)}; {shown(report.kept, 200)}"
    yield "parameters", f"{report.parameters:,}"
    yield from made_from(report, student, bundle.teacher)
    score = report.student_torch
    yield "tested on", f"{score.n:,} documents of test, in blocks of {report.max_length} tokens"
    seeds = f"training {student.recipe.seed}"
    seeds += f", order of measuring {results.measurement.seed}" if results.measurement is not None else ""
    yield "seeds", seeds
    yield from trained(student)
    for variant in bundle.variants:
        yield "made", f"{shown(variant.name, 60)}: {shown(variant.made, 400)}"
    yield from _session(report)
    for note in (*report.data_notes, *report.notes):
        yield "note", shown(note, 600)
    yield "made by", f"kdc {shown(report.kdc)}, from the raw samples in the bundle"


def _session(report: LanguageReport) -> Iterator[tuple[str, str]]:
    session = report.session
    if session is None:
        yield "measured", "nothing was measured"
        return
    yield from machine_facts(report, session)
    prompts = f"{session.prompts} prompts of {session.prompt_tokens} tokens, of the validation split"
    yield (
        "session",
        f"{session.rounds} rounds, in each one answer of every variant to the same prompt, in random order; {prompts}; "
        f"{session.new_tokens} tokens each, greedily",
    )
    yield from aa_fact(session)
    for disturbance in session.disturbed:
        yield "disturbed", shown(disturbance, 400)
