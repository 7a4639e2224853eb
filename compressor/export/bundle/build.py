"""The bundle: every variant that the profile asks for, the teacher, and all that is needed to measure them anywhere."""

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from compressor import __version__
from compressor.assets import runner_scripts
from compressor.errors import KdcError, needs, os_error
from compressor.export.bundle.eval_set import eval_set
from compressor.export.bundle.history import write_history
from compressor.export.bundle.identity import without_paths
from compressor.export.bundle.items import LENGTHS, Retrain, Workspace, student_item, teacher_item
from compressor.export.bundle.teacher_predictions import matched_by_ids_alone, write_teacher_table
from compressor.export.bundle.variants import REFERENCE, Delivery, entry, variants_of
from compressor.export.judge import machine_isa
from compressor.export.quiet import quiet
from compressor.export.schemes import scored_by_others
from compressor.files.atomic import TEMPORARY
from compressor.files.bundle_change import deliver, new_folder
from compressor.models import LoadedModel, load_run
from compressor.models.lineage import data_of, teacher_of
from compressor.models.prediction_table import LoadedTable, find_table
from compressor.models.runs import read_student
from compressor.progress import Progress
from compressor.runtimes import RUNTIMES
from compressor.schema.base import read_json, write_json
from compressor.schema.bundle import Bundle, FileEntry, TeacherTable, Variant
from compressor.schema.preprocess import Preprocess
from compressor.schema.profile import Profile
from compressor.schema.student import Request, Student
from compressor.tasks.table import TASKS, require_able, require_runtimes, shipping_of, task_named

__all__ = ["Sources", "export_bundle", "require_exporters", "sources_of"]

WORK = f"{TEMPORARY}work"


def export_bundle(
    run: Path,
    profile: Profile,
    out: Path,
    *,
    teacher: str | None,
    retrain: Retrain | None,
    delivery: Delivery,
    progress: Progress,
) -> Path:
    """Export the run's student (and its teacher) for `profile` into the folder `out`, which is locked and settled.

    All of it is made under a temporary name in `out`, so that it is whole or not there. Where `out` holds a bundle
    already, that one stays, and the new one is put beside it until it is measured. Returns where it is.
    `teacher`: where the teacher lies now, if it was moved since the distillation. `retrain`: the top rung of the ladder
    to int8, where it may be climbed. Raises KdcError.
    """
    sources = sources_of(run, profile, teacher=teacher, retrain=retrain, delivery=delivery)
    if sources.teacher is None and sources.table is None:
        why = "is no network of its own: none is measured, so no retention, no speed-up"
        progress.warn(f"teacher {sources.request.teacher} {why}")
    temporary = None
    try:
        temporary = new_folder(out, "export")
        bundle = _fill(temporary, profile, sources, delivery, progress)
        write_json(temporary / "bundle.json", bundle)
        return deliver(temporary, out)
    except OSError as error:
        raise os_error(error, f"writing {out}") from error
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def sources_of(
    run: Path, profile: Profile, *, teacher: str | None, retrain: Retrain | None, delivery: Delivery
) -> "Sources":
    """What `export_bundle` builds from, but for the data. Raises KdcError for what cannot be built, and for what is not
    there any more."""
    told = read_student(run)
    task = told.task
    delivery.require_possible(profile, told.preprocess)
    require_able(task, "kdc export")
    require_runtimes(task, [target.runtime for target in profile.targets])
    if lines := profile.budget.of_generation:
        raise KdcError(
            f"profile {profile.name}: {', '.join(lines)}: of language models alone, and {run} is {task}",
            f"--set budget.{lines[0]}=null",
        )
    student, record = load_run(run)
    delivery.require_normalization(record.preprocess)
    if record.made_by != "distill":
        raise KdcError(
            f"{run} was made by kdc {record.made_by}: there is no teacher to hold it against",
            f"kdc distill --teacher run:{run} --data … --out run",
        )
    require_exporters(profile)
    request = read_json(run / "run.json", Request)
    teacher_model = teacher_of(request, record, teacher, "if it lies elsewhere now: kdc export … --teacher REFERENCE")
    return Sources(run, request, student, record, teacher_model, find_table(request, record, teacher), retrain)


def require_exporters(profile: Profile) -> None:
    """Import what builds for the profile's runtimes. Raises KdcError (exit 4) with the line that installs what is
    missing. Some of it logs as it is imported, of its own settings: that concerns nobody here."""
    for target in profile.targets:
        row = RUNTIMES[target.runtime]
        if row.needs_sm and profile.device.sm is None:
            raise KdcError(f"profile {profile.name} does not say for which GPU to build: device.sm is missing")
        for module in (*row.exports_with, *(row.quantizes_with if "int8" in target.precisions else ())):
            with quiet(f"profile {profile.name} needs {module}, which cannot be imported"):
                needs(module, row.export_install or row.install, f"profile {profile.name}")


@dataclass(frozen=True)
class Sources:
    """What a bundle is made of. `teacher`: None where it cannot be run; `table`: see `find_table`; `retrain`: see
    `export_bundle`."""

    run: Path
    request: Request
    student: LoadedModel
    record: Student
    teacher: LoadedModel | None
    table: LoadedTable | str | None
    retrain: Retrain | None


def _fill(root: Path, profile: Profile, sources: Sources, delivery: Delivery, progress: Progress) -> Bundle:
    """Everything but bundle.json. Test images and a table's answers to them are written for whoever measures; no choice
    here sees them."""
    student, teacher, record = sources.student, sources.teacher, sources.record
    data = data_of(sources.request, record, progress)
    beside = {name: (sources.run / path).read_bytes() for name, path in shipping_of(record.task).beside.items()}
    trimmed = ""
    if delivery.trim:
        student, tokenizer, trimmed = task_named(record.task).trimmed(student, data, progress)
        beside = dict.fromkeys(beside, tokenizer.encode())
    length = _sequence_length(profile, *(model.preprocess for model in (student, teacher) if model is not None))
    workspace = Workspace(root, root / WORK, profile, without_paths(record), data, progress, length)
    (root / "eval").mkdir()
    workspace.work.mkdir()
    write_history(sources.run, root)
    tested_on = eval_set(data.test, root)
    differs = scored_by_others(profile, machine_isa()) if profile.asks_for("int8") else ""
    if differs:
        progress.warn(differs)
    if record.bias_correction and sources.retrain is not None:
        progress.note("int8 without quantization-aware training: it would undo the student's bias correction")
    teacher_table, by_ids = _teacher_table(workspace, sources.table)
    item = student_item(workspace, sources.run, student, record, _retrain(workspace, sources), delivery)
    variants = [*variants_of(item, profile, progress)]
    if teacher is not None:
        same = teacher.preprocess == student.preprocess
        item = teacher_item(workspace, teacher, item.images if same else "eval/teacher_inputs.npy", delivery)
        variants += variants_of(item, profile, progress)
    return Bundle(
        kdc=__version__,
        profile=profile,
        student=workspace.record,
        teacher=workspace.record.teacher,
        teacher_table=teacher_table,
        reference="-".join(REFERENCE),
        sequence_length=workspace.sequence_length,
        lengths=_lengths(student.preprocess, workspace.sequence_length, teacher.preprocess if teacher else None),
        eval=tested_on.model_copy(update={"lengths": LENGTHS}) if (root / LENGTHS).exists() else tested_on,
        variants=tuple(variants),
        support=_support(workspace, beside, variants),
        notes=tuple(filter(None, (differs, by_ids, trimmed))),
    )


def _sequence_length(profile: Profile, *preprocesses: Preprocess) -> int | None:
    """The tokens of a sample whose latency is measured: see `schema.bundle.Bundle`."""
    longest = [preprocess.most_tokens for preprocess in preprocesses if preprocess.most_tokens is not None]
    return min([*longest, profile.sequence_length or longest[0]]) if longest else None


def _lengths(student: Preprocess, timed: int | None, teacher: Preprocess | None) -> tuple[int, ...]:
    """Those of `schema.bundle.Bundle`: at most what both models read, and not the one that is timed anyway."""
    most = [model.most_tokens for model in (student, teacher) if model is not None and model.most_tokens is not None]
    stated = sorted({min(length, *most) for length in student.lengths} - {timed})
    return (0, *stated) if most else ()


def _teacher_table(workspace: Workspace, table: LoadedTable | str | None) -> tuple[TeacherTable | None, str]:
    """The answers of a teacher that is a table, and a note where they may be to other images."""
    teacher, data = workspace.record.teacher, workspace.data
    if table is None or teacher is None:
        return None, ""
    written = write_teacher_table(table, teacher.source, data, workspace.root, workspace.progress)
    return written, matched_by_ids_alone(table, teacher.source, data)


def _retrain(workspace: Workspace, sources: Sources) -> Retrain | None:
    """`sources.retrain`, but where the task has none, or the table that it would learn from is not there."""
    task = workspace.record.task
    if sources.retrain is not None and "--qat" in TASKS[task].lacks:
        if workspace.profile.asks_for("int8"):
            workspace.progress.note(f"int8 without quantization-aware training: there is none of {task} yet")
        return None
    if sources.retrain is None or workspace.record.teacher is None or not isinstance(sources.table, str):
        return sources.retrain
    workspace.progress.warn("int8 without quantization-aware training: the table that it would learn from is not there")
    return None


def _support(workspace: Workspace, beside: Mapping[str, bytes], variants: Sequence[Variant]) -> tuple[FileEntry, ...]:
    """Write the class names, what ships `beside` models and the runners, remove what does not ship, and list all files
    that are no variant's."""
    root = workspace.root
    (root / "labels.txt").write_text("".join(f"{name}\n" for name in workspace.record.class_names), encoding="utf-8")
    for name, content in beside.items():
        (root / name).write_bytes(content)
    (root / "runners").mkdir()
    for name, script in runner_scripts().items():
        shutil.copyfile(script, root / "runners" / name)
    shutil.rmtree(workspace.work)
    shipped = {file.path for variant in variants for file in variant.files}
    support = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    return tuple(entry(root, path) for path in support if path not in shipped)
