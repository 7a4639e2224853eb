"""kdc teach, specialists, distill and predict: a signature, help and one call a command."""

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor.cli.options import (
    HUBS,
    MODELS,
    TEACHERS,
    AsJson,
    BatchSize,
    Data,
    DecodeCache,
    Epochs,
    InputSize,
    Overwrite,
    OverwriteFile,
    Quiet,
    Recipe,
    Resume,
    Seed,
    Set,
    SkipBad,
    Tracker,
)
from compressor.errors import KdcError

if TYPE_CHECKING:
    from compressor.progress import Progress
    from compressor.schema import recipe as recipe_noun
    from compressor.schema.student import Student

__all__ = ["distill", "predict", "specialists", "teach"]


def teach(
    teacher: Annotated[str, typer.Option(help=f"The model to fine-tune: {MODELS}.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the run; use it as --teacher run:DIR.")],
    teacher_init: Annotated[
        str, typer.Option(help="Start from its own weights (pretrained), or at random.")
    ] = "pretrained",
    specialty: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS,CLASS", help="Only tell these classes apart; all others become one. Repeatable."),
    ] = None,
    recipe: Recipe = None,
    input_size: InputSize = None,
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
    from compressor.distill import Resources
    from compressor.distill import teach as run
    from compressor.schema.student import Request
    from compressor.tasks.table import name_for_data
    from compressor.terminal.console import progress_for

    if teacher_init not in ("pretrained", "random"):
        raise KdcError(f"--teacher-init {teacher_init!r} is neither pretrained nor random")
    flags, progress = {"epochs": epochs, "batch_size": batch_size, "seed": seed}, progress_for(quiet)
    request = Request(
        task=name_for_data(data),
        command="teach",
        teacher=teacher,
        student=None,
        init=teacher_init,
        data=data,
        skip_bad=skip_bad,
        input_size=input_size,
        recipe=_teaching(recipe, flags, assignments or [], progress),
        specialty=tuple(specialty) if specialty else None,
    )
    resources = Resources.of(decode_cache, None, tracker)
    done = run(request, out, resume=resume, overwrite=overwrite, progress=progress, resources=resources)
    _show_student(done, out, as_json)


def _teaching(
    file: Path | None, flags: dict[str, int | None], sets: list[str], progress: "Progress"
) -> "recipe_noun.Recipe":
    from compressor.distill.recipes import TEACH, recipe_from

    if flags["epochs"] == 1 and file is None and not any(text.startswith("head_epochs") for text in sets):
        progress.note("one epoch: it trains everything at once (head_epochs=0)")
        flags = {**flags, "head_epochs": 0}
    return recipe_from(TEACH, file, flags, sets)


def specialists(
    teacher: Annotated[str, typer.Option(help=f"The generalist, which knows all classes: {MODELS}.")],
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
    from compressor.distill import specialists as run
    from compressor.schema.specialists import SpecialistsRequest
    from compressor.terminal.console import progress_for, show_json, show_line

    flags, progress = {"epochs": epochs, "batch_size": batch_size, "seed": seed}, progress_for(quiet)
    request = SpecialistsRequest(
        teacher=teacher,
        data=data,
        skip_bad=skip_bad,
        input_size=input_size,
        count=count,
        recipe=_teaching(recipe, flags, assignments or [], progress),
    )
    done = run(request, out, jobs=jobs, resume=resume, overwrite=overwrite, progress=progress)
    if as_json:
        show_json(json.dumps({"out": str(out), **done.model_dump(mode="json")}, indent=2))
    else:
        before, after = done.generalist_validation, done.validation
        show_line(
            f"{out}: {len(done.specialists)} specialists, validation accuracy {after.accuracy:.2%} with them, "
            f"{before.accuracy:.2%} without (n={after.n}); use --teacher specialists:{out}"
        )


def distill(
    teacher: Annotated[list[str], typer.Option(help=f"The teacher: {TEACHERS}; several: an ensemble.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the run, which kdc export takes.")],
    profile: Annotated[str | None, typer.Option(help="Train at this profile's input size.")] = None,
    student: Annotated[str | None, typer.Option(help="Any timm model: timm:NAME or timm:local-dir:PATH.")] = None,
    student_init: Annotated[str, typer.Option(help="pretrained, random, or the PATH of a checkpoint.")] = "pretrained",
    assistant: Annotated[
        list[str] | None,
        typer.Option(metavar="timm:NAME", help="A model between teacher and student, that learns first; repeatable."),
    ] = None,
    qat: Annotated[
        bool, typer.Option("--qat", help="Then train on under the fake quantization of the profile's int8 kernels.")
    ] = False,
    teacher_classes: Annotated[
        Path | None, typer.Option(help="Names of the teacher's outputs, one a line, where its weights have none.")
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            metavar="REF", help="More images to learn from, without labels: any folder of them, or as --data."
        ),
    ] = None,
    recipe: Recipe = None,
    input_size: InputSize = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    assignments: Set = None,
    skip_bad: SkipBad = False,
    teacher_cache: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|off", help="Where the teacher's predictions are kept. Default: the user's cache folder."
        ),
    ] = None,
    precompute: Annotated[
        bool, typer.Option("--precompute", help="Only compute and keep the teacher's predictions; trains nothing.")
    ] = False,
    decode_cache: DecodeCache = None,
    tracker: Tracker = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a small student to predict as the teacher does."""
    from compressor import pipeline
    from compressor.distill import Resources
    from compressor.distill import precompute as answer_ahead
    from compressor.distill.recipes import DEFAULT_STUDENT, distillation_recipe
    from compressor.profiles import load_profile
    from compressor.schema.student import Request
    from compressor.tasks.table import name_for_data
    from compressor.terminal.console import progress_for

    if precompute and (resume or overwrite or as_json):
        raise KdcError("--precompute makes no run: --resume, --overwrite and --json have no meaning with it")
    if precompute and assistant:
        raise KdcError("--precompute asks the teacher for the student, and with --assistant another one teaches it")
    for alone in ("self", "peers"):
        if alone in teacher and len(teacher) > 1:
            raise KdcError(f"--teacher {alone} stands alone: it cannot be part of an ensemble", "give --teacher once")
    if len(set(teacher)) < len(teacher):
        raise KdcError("the same --teacher is given twice", "ensemble.weights in the recipe weighs them")
    progress = progress_for(quiet)
    if student is None:
        student = DEFAULT_STUDENT
        progress.note(f"student {student} (the default; choose another with --student)")
    device = load_profile(profile) if profile is not None else None
    if device is not None:
        of_profile = device.input_size
        said = "of" if input_size in (None, of_profile) else f"given; {of_profile} is that of"
        input_size = input_size or of_profile
        progress.note(f"input size {input_size} ({said} profile {profile})")
    flags = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    request = Request(
        task=name_for_data(data),
        command="distill",
        teacher=teacher[0],
        other_teachers=tuple(teacher[1:]),
        teacher_classes=str(teacher_classes) if teacher_classes else None,
        student=student,
        init=student_init,
        data=data,
        unlabelled=unlabelled,
        skip_bad=skip_bad,
        input_size=input_size,
        recipe=distillation_recipe(teacher, student, student_init, recipe, flags, assignments or [], progress),
        qat=pipeline.scheme_for(device, progress) if qat else None,
        assistants=tuple(assistant or ()),
    )
    resources = Resources.of(decode_cache, teacher_cache, tracker)
    if precompute:
        answer_ahead(request, out, progress=progress, resources=resources)
        return
    done = pipeline.distill(request, out, resume=resume, overwrite=overwrite, resources=resources, progress=progress)
    _show_student(done, out, as_json)


def predict(
    teacher: Annotated[str, typer.Option(help=f"The model that predicts: {HUBS}, run:DIR or specialists:DIR.")],
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The table, .csv or .parquet: --teacher outputs:FILE.")],
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, help="Only the K most probable classes of each sample, and the rest's mass."
        ),
    ] = None,
    labels_only: Annotated[
        bool, typer.Option("--labels-only", help="Only the most probable class of each sample.")
    ] = False,
    teacher_classes: Annotated[
        Path | None, typer.Option(help="Names of the teacher's outputs, one a line, where its weights have none.")
    ] = None,
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
    from compressor.distill import predict as run
    from compressor.terminal.console import progress_for, show_json, show_line

    done = run(
        teacher, data, out, top_k=top_k, labels_only=labels_only, teacher_classes=teacher_classes,
        unlabelled=unlabelled, pixel_range=pixel_range, skip_bad=skip_bad, overwrite=overwrite,
        progress=progress_for(quiet),
    )  # fmt: skip
    if as_json:
        show_json(done.model_dump_json(indent=2))
        return
    score = done.validation
    show_line(
        f"{out}: {sum(done.counts.values()):,} rows; validation accuracy {score.accuracy:.2%} "
        f"[{score.low:.2%}–{score.high:.2%}] (n={score.n}); teach with --teacher outputs:{out}"
    )


def _show_student(student: "Student", out: Path, as_json: bool) -> None:
    """By the first process of a run that has several."""
    from compressor.terminal.console import show_json, show_line

    if os.environ.get("RANK", "0") not in ("", "0"):
        return
    if as_json:
        values: dict[str, Any] = {"out": str(out), **student.model_dump(mode="json")}
        show_json(json.dumps(values, indent=2))
    else:
        test = student.test
        show_line(
            f"{out}: {student.architecture}, {student.weights.parameters:,} parameters, test accuracy "
            f"{test.accuracy:.2%} [{test.low:.2%}–{test.high:.2%}] (n={test.n}), kept epoch {student.kept_epoch}"
        )
