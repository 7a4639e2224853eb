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
    from compressor.api import RunResult

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
    from compressor import api
    from compressor.terminal.console import progress_for

    done = api.teach(
        teacher=teacher, data=data, out=out, teacher_init=teacher_init, specialty=specialty, recipe=recipe,
        input_size=input_size, epochs=epochs, batch_size=batch_size, seed=seed, set=assignments, skip_bad=skip_bad,
        decode_cache=decode_cache, tracker=tracker, resume=resume, overwrite=overwrite, progress=progress_for(quiet),
    )  # fmt: skip
    _show_run(done, as_json)


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
    from compressor import api
    from compressor.terminal.console import progress_for

    asked: dict[str, Any] = {
        "teacher": teacher, "data": data, "out": out, "profile": profile, "student": student,
        "student_init": student_init, "qat": qat, "teacher_classes": teacher_classes, "unlabelled": unlabelled,
        "recipe": recipe, "input_size": input_size, "epochs": epochs, "batch_size": batch_size, "seed": seed,
        "set": assignments, "skip_bad": skip_bad, "teacher_cache": teacher_cache, "decode_cache": decode_cache,
        "tracker": tracker,
    }  # fmt: skip
    if precompute and (resume or overwrite or as_json):
        raise KdcError("--precompute makes no run: --resume, --overwrite and --json have no meaning with it")
    if precompute and assistant:
        raise KdcError("--precompute asks the teacher for the student, and with --assistant another one teaches it")
    if precompute:
        api.precompute(**asked, progress=progress_for(quiet))
        return
    done = api.distill(**asked, assistant=assistant, resume=resume, overwrite=overwrite, progress=progress_for(quiet))
    _show_run(done, as_json)


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
    from compressor import api
    from compressor.terminal.console import progress_for, show_json, show_line

    done = api.predict(
        teacher=teacher, data=data, out=out, top_k=top_k, labels_only=labels_only, teacher_classes=teacher_classes,
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
