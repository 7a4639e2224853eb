"""kdc teach, specialists, distill and predict: a signature, help and one call a command."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor.cli.options import (
    AllowSurgery,
    AsJson,
    Assistant,
    BatchSize,
    ClipSeconds,
    Control,
    Data,
    DecodeCache,
    Device,
    DevicePython,
    Epochs,
    InputSize,
    LabelColumn,
    MaxLength,
    Overwrite,
    OverwriteFile,
    Plan,
    Precompute,
    Qat,
    Quiet,
    RaceLosses,
    RaceShare,
    Recipe,
    Resume,
    Seed,
    Set,
    SkipBad,
    Student,
    Students,
    Task,
    TeacherCache,
    TeacherClasses,
    Teachers,
    TextColumn,
    Tracker,
    Unlabelled,
)
from compressor.cli.plan import show_plan
from compressor.errors import KdcError
from compressor.references import MODELS, TRAINABLE

if TYPE_CHECKING:
    from compressor.api import RunResult

__all__ = ["distill", "predict", "specialists", "teach"]


def teach(
    teacher: Annotated[str, typer.Option(help=f"The model to fine-tune: {TRAINABLE}.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the run; use it as --teacher run:DIR.")],
    task: Task = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    teacher_init: Annotated[
        str, typer.Option(help="Start from its own weights (pretrained), or at random.")
    ] = "pretrained",
    specialty: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS,CLASS", help="Only tell these classes apart; all others become one. Repeatable."),
    ] = None,
    recipe: Recipe = None,
    input_size: InputSize = None,
    max_length: MaxLength = None,
    clip_seconds: ClipSeconds = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    assignments: Set = None,
    skip_bad: SkipBad = False,
    decode_cache: DecodeCache = None,
    tracker: Tracker = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model on your classes, so that it can teach: first the new classifier, then everything."""
    from compressor import api
    from compressor.terminal.console import progress_for

    done = api.teach(
        teacher=teacher, data=data, out=out, task=task, text_column=text_column, label_column=label_column,
        teacher_init=teacher_init, specialty=specialty, recipe=recipe,
        input_size=input_size, max_length=max_length, clip_seconds=clip_seconds,
        epochs=epochs, batch_size=batch_size, seed=seed,
        set=assignments, skip_bad=skip_bad,
        decode_cache=decode_cache, tracker=tracker, resume=resume, overwrite=overwrite, progress=progress_for(quiet),
    )  # fmt: skip
    _show_run(done, as_json)


def specialists(
    teacher: Annotated[str, typer.Option(help=f"The generalist, which knows all classes: {TRAINABLE}.")],
    data: Data,
    count: Annotated[int, typer.Option(min=1, max=10_000, metavar="K", help="How many specialists.")],
    out: Annotated[Path, typer.Option(help="Folder for all of them; use it as --teacher specialists:DIR.")],
    jobs: Annotated[
        int, typer.Option(min=1, max=1_000, metavar="J", help="Train so many at a time, each in its process.")
    ] = 1,
    recipe: Recipe = None,
    input_size: InputSize = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    assignments: Set = None,
    skip_bad: SkipBad = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a specialist for each group of classes that a generalist confuses; together they are one teacher."""
    from compressor import api
    from compressor.terminal.console import progress_for, show_json, show_line

    done = api.specialists(
        teacher=teacher, data=data, count=count, out=out, jobs=jobs, recipe=recipe, input_size=input_size,
        epochs=epochs, batch_size=batch_size, seed=seed, set=assignments, skip_bad=skip_bad, resume=resume,
        overwrite=overwrite, progress=progress_for(quiet),
    )  # fmt: skip
    if as_json:
        show_json(json.dumps(done.to_dict(), indent=2))
    else:
        show_line(f"{done.summary}; use --teacher {done.reference}")


def distill(
    teacher: Teachers,
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the run, which kdc export takes.")],
    task: Task = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    profile: Annotated[str | None, typer.Option(help="Train at this profile's input size, and for its budget.")] = None,
    student: Student = None,
    students: Students = None,
    race_share: RaceShare = 0.5,
    race_losses: RaceLosses = True,
    allow_surgery: AllowSurgery = False,
    device: Device = "local",
    device_python: DevicePython = None,
    student_init: Annotated[
        str | None, typer.Option(help="pretrained (the default), random, or the PATH of a checkpoint.")
    ] = None,
    assistant: Assistant = None,
    qat: Qat = False,
    control: Control = False,
    teacher_classes: TeacherClasses = None,
    unlabelled: Unlabelled = None,
    recipe: Recipe = None,
    input_size: InputSize = None,
    max_length: MaxLength = None,
    clip_seconds: ClipSeconds = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    assignments: Set = None,
    skip_bad: SkipBad = False,
    teacher_cache: TeacherCache = None,
    precompute: Precompute = False,
    plan: Plan = False,
    decode_cache: DecodeCache = None,
    tracker: Tracker = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a small student to predict as the teacher does."""
    from compressor import api
    from compressor.terminal.console import progress_for

    if precompute:
        _refuse_with_precompute(
            makes_run=resume or overwrite or as_json or plan,
            assistant=bool(assistant),
            race=bool(students or allow_surgery or device != "local" or device_python) or race_share != 0.5,
            control=control,
        )
    asked: dict[str, Any] = {
        "teacher": teacher, "data": data, "out": out, "task": task, "text_column": text_column,
        "label_column": label_column, "profile": profile, "student": student,
        "student_init": student_init, "qat": qat, "teacher_classes": teacher_classes, "unlabelled": unlabelled,
        "recipe": recipe, "input_size": input_size, "max_length": max_length,
        "clip_seconds": clip_seconds, "epochs": epochs,
        "batch_size": batch_size, "seed": seed,
        "set": assignments, "skip_bad": skip_bad, "teacher_cache": teacher_cache, "decode_cache": decode_cache,
        "tracker": tracker, "progress": progress_for(quiet),
    }  # fmt: skip
    if precompute:
        api.precompute(**asked)
    else:
        asked |= {"assistant": assistant, "control": control, "resume": resume, "overwrite": overwrite}
        asked |= {"students": students, "race_share": race_share, "race_losses": race_losses}
        asked |= {"allow_surgery": allow_surgery, "device": device, "device_python": device_python}
        if plan:
            show_plan(api.plan_distill(**asked), as_json)
        _show_run(api.distill(**asked), as_json)


def _refuse_with_precompute(*, makes_run: bool, assistant: bool, race: bool, control: bool) -> None:
    if makes_run:
        raise KdcError("--precompute makes no run: --plan, --resume, --overwrite and --json have no meaning with it")
    if assistant:
        raise KdcError("--precompute asks the teacher for the student, and with --assistant another one teaches it")
    if race:
        raise KdcError(
            "--precompute asks the teacher for one student: none race, and none are measured", "--student timm:NAME"
        )
    if control:
        raise KdcError("--precompute trains nothing, so there is nothing to compare: --control has no meaning with it")


def predict(
    teacher: Annotated[str, typer.Option(help=f"The model that predicts: {MODELS}.")],
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The table, .csv or .parquet: --teacher outputs:FILE.")],
    task: Task = None,
    text_column: TextColumn = None,
    label_column: LabelColumn = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, help="Only the K most probable classes of each sample, and the rest's mass."
        ),
    ] = None,
    labels_only: Annotated[
        bool, typer.Option("--labels-only", help="Only the most probable class of each sample.")
    ] = False,
    teacher_classes: TeacherClasses = None,
    unlabelled: Annotated[
        str | None, typer.Option(metavar="REF", help="Also images without labels, as kdc distill takes them.")
    ] = None,
    pixel_range: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="BLACK WHITE", help="Of deep images, as pixel_range in a recipe; runs know their own."),
    ] = None,
    skip_bad: SkipBad = False,
    overwrite: OverwriteFile = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a teacher's predictions on all samples into a table: log-probabilities of all classes, by sample id."""
    from compressor import api
    from compressor.terminal.console import progress_for, show_json, show_line

    done = api.predict(
        teacher=teacher, data=data, out=out, task=task, text_column=text_column, label_column=label_column,
        top_k=top_k, labels_only=labels_only, teacher_classes=teacher_classes,
        unlabelled=unlabelled, pixel_range=pixel_range, skip_bad=skip_bad, overwrite=overwrite,
        progress=progress_for(quiet),
    )  # fmt: skip
    if as_json:
        show_json(json.dumps(done.to_dict(), indent=2))
    else:
        show_line(f"{done.summary}; teach with --teacher {done.reference}")


def _show_run(done: "RunResult", as_json: bool) -> None:
    """By the first process of a run that has several."""
    from compressor.terminal.console import show_json, show_line

    if os.environ.get("RANK", "0") not in ("", "0"):
        return
    if as_json:
        show_json(json.dumps(done.to_dict(), indent=2))
    else:
        show_line(done.summary)
