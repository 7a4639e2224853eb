"""A language model's bundle -> its report: every figure recomputed from what lies there."""

from collections.abc import Iterator

from compressor import __version__
from compressor.report.gate import verdict_of
from compressor.report.language.checks import checks_for, choose, precision_line
from compressor.report.language.figures import (
    SpeedGrounds,
    estimate_of,
    of_documents,
    row_for,
    speed_grounds,
    torch_costs,
)
from compressor.report.language.read import LanguageResults
from compressor.schema.language.report import LanguageReport, LanguageRow, LanguageSession
from compressor.schema.report import Check
from compressor.stats import smallest_detectable
from compressor.stats.language import bits_difference, bits_per_byte

__all__ = ["report_of"]


def report_of(results: LanguageResults) -> LanguageReport:
    """The report on what was read; where there is no measurement, figures are null and verdicts unmeasured."""
    bundle, student, taught = results.bundle, results.bundle.student, results.bundle.teacher
    rows = tuple(row_for(variant, results) for variant in bundle.variants)
    grounds = speed_grounds(results)
    students = tuple(row for row in rows if row.role == "student")
    judged = [check for row in students for check in checks_for(row, results, grounds)]
    checks: tuple[Check, ...] = (
        *judged, *(precision_line(row) for row in rows if row.role == "reference" and row.measured)
    )  # fmt: skip
    winner, why = choose(rows, checks, grounds)
    verdict, holds = verdict_of(checks, tuple(row.name for row in students), winner)
    torch, teacher = torch_costs(results, "test"), results.teacher
    return LanguageReport(
        kdc=__version__,
        profile=bundle.profile.name,
        device=bundle.profile.device.cpu.value,
        verdict=verdict,
        holds=holds,
        winner=winner,
        why=why,
        rows=rows,
        checks=checks,
        not_judged=bundle.profile.budget.of_classifiers,
        session=_session(results, grounds),
        matches=results.measurement is not None and not grounds.differences,
        differences=grounds.differences,
        student_validation=bits_per_byte(torch_costs(results, "validation"), "validation"),
        student_torch=bits_per_byte(torch, "test"),
        teacher_test=None if teacher is None else bits_per_byte(teacher, "test"),
        teacher_difference=None if teacher is None else of_documents(bits_difference(torch, teacher)),
        max_length=bundle.preprocess.max_length,
        parameters=student.weights.parameters,
        data=student.data.source,
        data_notes=student.data.notes,
        student=student.architecture,
        student_init=student.init,
        kept=f"epoch {student.kept_epoch}: {student.kept_rule}",
        teacher=taught.source if taught else "none",
        teacher_licence=taught.licence if taught else "none",
        ancestors=student.ancestors,
        notes=(*bundle.notes, *_notes(results, rows)),
    )


def _session(results: LanguageResults, grounds: SpeedGrounds) -> LanguageSession | None:
    measurement = results.measurement
    if measurement is None:
        return None
    return LanguageSession(
        started=measurement.started,
        finished=measurement.finished,
        device=measurement.device,
        rounds=len(measurement.rounds),
        prompts=measurement.prompts,
        prompt_tokens=measurement.prompt_tokens,
        new_tokens=measurement.new_tokens,
        confidence=grounds.confidence,
        aa=estimate_of(grounds.aa, "rounds"),
        smallest_effect=None if grounds.aa is None or grounds.aa.low <= 0 else smallest_detectable(grounds.aa),
        disturbed=grounds.disturbed,
        waited_s=measurement.waited_s,
        machine=measurement.machine_before,
    )


def _notes(results: LanguageResults, rows: tuple[LanguageRow, ...]) -> Iterator[str]:
    """What a reader must know to weigh the figures."""
    budget = results.bundle.profile.budget
    if budget.of_classifiers:
        yield f"Not judged, since these lines are not for language models: {', '.join(budget.of_classifiers)}."
    if results.measurement is None:
        yield "Nothing was measured: the bundle holds no measurements/measurement.json."
    elif results.measurement.waited_s:
        yield f"It waited {results.measurement.waited_s:.0f} s for another measurement on this machine to end."
    if results.teacher is None:
        yield "The teacher could not be run at the export, so that retention cannot be told."
    if (n := len(results.corpora["test"].bytes)) < 30:
        yield f"The test split has {n} documents: intervals over so few are too narrow."
    for row in rows:
        if row.role == "reference" and row.error is not None:
            yield f"{row.name} did not run, so nothing is compared with it: {row.error}"
