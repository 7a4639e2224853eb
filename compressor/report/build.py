"""Bundle -> Report: every figure recomputed from what lies in the bundle, nothing taken on trust from an old report."""

from collections.abc import Iterator
from pathlib import Path

from compressor import __version__
from compressor.report.answers import table_row
from compressor.report.checks.artefact import parity_verdict
from compressor.report.checks.conditions import Grounds, grounds_of
from compressor.report.checks.interference import rounds_text
from compressor.report.choice import choose
from compressor.report.diff import release_diff
from compressor.report.explained import explained
from compressor.report.gain import gained
from compressor.report.gate import base_checks, checks_for, verdict_of
from compressor.report.latency import teacher_of
from compressor.report.lengths import lengths_of
from compressor.report.preprocessing import real_time_of
from compressor.report.read import Results, read_results
from compressor.report.rows import row_for
from compressor.schema.measurement import Measurement
from compressor.schema.profile import CLASS_LINES
from compressor.schema.report import Check, Estimate, Report, Row, Session
from compressor.stats import MIN_BLOCKS, percentile_needs, smallest_detectable
from compressor.tasks.table import shipping_of

__all__ = ["build_report", "report_of"]


def build_report(bundle_dir: Path, device: str = "") -> Report:
    """The report on a bundle, or on what was measured on one of several devices, by its folder in the bundle; where
    there is no measurement, figures are null and verdicts unmeasured.

    Raises KdcError naming the file for anything missing, damaged or contradictory. Compares no hashes: see `verify`.
    """
    return report_of(read_results(bundle_dir, device))


def report_of(results: Results, chosen: tuple[str | None, str] | None = None) -> Report:
    """The report on what was read. `chosen`: which variant ships, and why, where that is settled already."""
    bundle, measurement, taught = results.bundle, results.measurement, results.bundle.teacher
    rows = tuple(row_for(variant, results) for variant in bundle.variants)
    grounds = grounds_of(results)
    teacher_row = _teacher_row(rows, results)
    judged = [line for row in rows if row.role == "student" for line in checks_for(row, results, grounds, teacher_row)]
    checks = (*judged, *base_checks(rows, teacher_row, grounds))
    winner, why = chosen or choose(rows, checks, elsewhere=bool(grounds.differences))
    verdict, holds = verdict_of(checks, tuple(row.name for row in rows if row.role == "student"), winner)
    return Report(
        kdc=__version__,
        profile=bundle.profile.name,
        measured_on=results.device,
        device=bundle.profile.device.cpu.value,
        verdict=verdict,
        holds=holds,
        winner=winner,
        why=why,
        rows=rows,
        checks=checks,
        session=_session(measurement, grounds) if measurement else None,
        matches=measurement is not None and not grounds.differences,
        differences=grounds.differences,
        test_split=bundle.eval.split,
        test_n=bundle.eval.n,
        class_names=bundle.student.class_names,
        data=bundle.student.data.source,
        data_notes=bundle.student.data.notes,
        student=bundle.student.architecture,
        student_init=bundle.student.init,
        kept=f"epoch {bundle.student.kept_epoch}: {bundle.student.kept_rule}",
        teacher=taught.source if taught else "none",
        teacher_licence=taught.licence if taught else "none",
        ancestors=bundle.student.ancestors,
        teacher_table=table_row(results),
        sample=shipping_of(bundle.student.task).sample,
        lengths=lengths_of(results, rows),
        real_time=real_time_of(results, rows),
        gain=gained(bundle.student.gain),
        race=bundle.student.race,
        losses=bundle.student.losses,
        release=release_diff(results, rows, grounds),
        explained=explained(results, rows),
        notes=(*bundle.notes, *_notes(results, rows, teacher_row, grounds, checks)),
    )


def _teacher_row(rows: tuple[Row, ...], results: Results) -> Row | None:
    teacher = teacher_of(results)
    return next((row for row in rows if teacher is not None and row.name == teacher.name), None)


def _session(measurement: Measurement, grounds: Grounds) -> Session:
    aa, of = grounds.aa, rounds_text(measurement)
    return Session(
        started=measurement.started,
        finished=measurement.finished,
        device=measurement.device,
        connections=measurement.connections,
        lost=measurement.lost,
        batch=measurement.batch,
        rounds=len(measurement.rounds),
        looks=measurement.looks,
        confidence=grounds.confidence,
        block_length=measurement.block_length,
        block_dropped=measurement.block_dropped,
        distinct_inputs=measurement.distinct_inputs,
        aa=Estimate(value=aa.value, low=aa.low, high=aa.high, n=aa.n, of=of) if aa is not None else None,
        smallest_effect=smallest_detectable(aa) if aa is not None else None,
        disturbed=grounds.disturbed,
        with_throughput=measurement.with_throughput,
        machine=measurement.machine_before,
    )


def _notes(
    results: Results, rows: tuple[Row, ...], teacher: Row | None, grounds: Grounds, checks: tuple[Check, ...]
) -> Iterator[str]:
    """What a reader must know to weigh the figures."""
    budget = results.bundle.profile.budget
    if not any(value is not None for value in budget.model_dump().values()):
        answered = teacher_of(results) is not None or results.table is not None
        defaults = ", and on its defaults for classes" if budget.class_lines(against_teacher=answered) else ""
        yield f"The profile sets no budget: the verdict rests on kdc's own lines{defaults}."
    if not any(row.role == "student" for row in rows):
        yield "The bundle has no student variant, so there is nothing to judge."
    if results.measurement is None and results.device is not None:
        yield f"Nothing was measured on {results.device.name}: {results.device.error or 'its session is missing'}"
    elif results.measurement is None:
        yield "Nothing was measured: the bundle holds no measurements/measurement.json."
    elif results.measurement.waited_s:
        yield f"It waited {results.measurement.waited_s:.0f} s for another measurement on this machine to end."
    if results.measurement is not None and results.measurement.idle_watts is not None:
        yield f"Power before the first model was loaded: {results.measurement.idle_watts:.2f} W (over 1 s)."
    yield from _default_notes(results, checks)
    for row in rows:
        if row.measured and row.p90_ms is None:
            needs = f"p90 needs {percentile_needs(0.9)} timed calls in at least {MIN_BLOCKS} blocks"
            yield f"{row.name}: {needs}, found {row.calls} calls."
        if row.not_finite:
            yield f"{row.name}: {row.not_finite} of {len(results.labels)} samples have logits that are not finite."
    names = results.bundle.student.class_names
    if missing := sorted(set(range(len(names))) - set(results.labels.tolist())):
        named = ", ".join(names[index] for index in missing[:5]) + (", …" if len(missing) > 5 else "")
        lacking = f"{len(missing)} of {len(names)} classes have no test sample ({named})"
        yield f"{lacking}: balanced accuracy leaves them out."
    if results.measurement is not None and grounds.no_aa:
        yield f"Ratios of latencies are not judged. {grounds.no_aa[0].upper()}{grounds.no_aa[1:]}."
    yield from _comparison_notes(results, rows, teacher)


def _default_notes(results: Results, checks: tuple[Check, ...]) -> Iterator[str]:
    """Lines that the profile does not name, where one of them keeps a variant from passing."""
    given = results.bundle.profile.budget.model_fields_set
    open_lines = {check.line for check in checks if check.verdict in ("fail", "inconclusive")}
    defaults = (*CLASS_LINES, "max_accuracy_loss")
    if lines := [line for line in defaults if line in open_lines and line not in given]:
        yield (
            f"{' and '.join(lines)}: not in the profile, so kdc's own default was judged; for another limit "
            f"(null switches it off): kdc export … --set budget.{lines[0]}=…"
        )


def _comparison_notes(results: Results, rows: tuple[Row, ...], teacher: Row | None) -> Iterator[str]:
    """What keeps the student from being compared with the teacher, the baseline, or itself."""
    table = results.bundle.teacher_table
    if results.table is not None and table is not None:
        yield (
            f"The teacher is a table ({table.kind}) that answers all {len(results.labels)} test samples: retention and "
            "agreement come from it. It has no latency, size or memory to measure, so the speed-up cannot be told."
        )
        if not (results.table.top1 == results.labels).any():
            yield "The teacher is right on no test sample, so retention cannot be told."
    elif table is not None:
        yield f"The teacher is a table of answers, so the speed-up cannot be told, nor retention: {table.missing}."
    elif results.measurement is not None and teacher is None:
        yield "The bundle has no teacher to measure, so speed-up and retention cannot be told."
    elif teacher is not None and teacher.error is not None:
        yield f"The teacher did not run, so speed-up and retention cannot be told: {teacher.error}"
    elif teacher is not None and teacher.measured:
        judged, reason = parity_verdict(teacher)
        if judged == "fail":
            yield f"The teacher's own parity fails, so retention is not judged: {reason}."
        if teacher.accuracy is not None and teacher.accuracy.value == 0:
            yield "The teacher is right on no test sample, so retention cannot be told."
    for row in rows:
        if row.role in ("reference", "baseline") and row.error is not None:
            yield f"{row.name} did not run, so nothing is compared with it: {row.error}"
        if row.role in ("reference", "baseline") and row.not_finite == 0 and parity_verdict(row)[0] == "fail":
            yield f"{row.name} fails its own parity: {parity_verdict(row)[1]}."
