"""`kdc teach`, `specialists`, `distill`, `distill --precompute` and `predict` as functions."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.api.call import Listener, StrPath, api_call, listener
from compressor.api.results import PredictionsResult, RunResult, SpecialistsResult
from compressor.api.values import Assignments, assignments, path_of, profile_of, recipe_of, several
from compressor.errors import KdcError
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.distill import Resources
    from compressor.schema.profile import Profile
    from compressor.schema.recipe import Recipe
    from compressor.schema.student import Request

__all__ = ["distill", "precompute", "predict", "specialists", "teach"]


@api_call
def teach(
    *,
    teacher: str,
    data: str,
    out: StrPath,
    teacher_init: str = "pretrained",
    specialty: str | Sequence[str] | None = None,
    recipe: "StrPath | Mapping[str, Any] | Recipe | None" = None,
    input_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    set: Assignments | None = None,
    skip_bad: bool = False,
    decode_cache: str | int | None = None,
    tracker: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | Progress = False,
) -> RunResult:
    """Fine-tune a model on your classes, so that it can teach: first the new classifier, then everything.

    Args:
        teacher: the model to fine-tune, e.g. "timm:resnet50", "hf:REPO_OR_PATH" or "run:DIR".
        data: what to train on, e.g. "folder:PATH", "idx:PATH", "parquet:PATH", "csv:PATH" or "digits".
        out: folder for the run; the result's `reference` names it as a teacher.
        teacher_init: "pretrained", its own weights, or "random".
        specialty: "CLASS,CLASS", some of them: only these are told apart; all others become one.
        recipe: a recipe's file, its keys and values, or a Recipe, instead of the default one.
        input_size: height and width of the inputs, in pixels.
        epochs: passes over the training data.
        batch_size: images a training step.
        seed: of everything that is drawn.
        set: values of the recipe, `{"optimizer.lr": 0.01}` or `["optimizer.lr=0.01"]`.
        skip_bad: leave out images that cannot be read; `student.data.skipped` lists them.
        decode_cache: disk for decoded images, "20GB", a number of bytes, or "off"; None: half of what is free.
        tracker: also log epochs to "tensorboard", "wandb" or "mlflow".
        resume: go on with an interrupted run in `out`.
        overwrite: replace what kdc made earlier in `out`.
        progress: see `compressor.api`.

    Raises:
        KdcError: for what the caller can mend; nothing that existed is lost.
    """
    from compressor.distill import Resources
    from compressor.distill import teach as run
    from compressor.schema.base import parse
    from compressor.schema.student import Request

    heard, place = listener(progress), path_of(out, "--out")
    if teacher_init not in ("pretrained", "random"):
        raise KdcError(f"--teacher-init {teacher_init!r} is neither pretrained nor random")
    values = {
        "command": "teach",
        "teacher": teacher,
        "student": None,
        "init": teacher_init,
        "data": data,
        "skip_bad": skip_bad,
        "input_size": input_size,
        "recipe": _teaching_recipe(recipe, _given(epochs, batch_size, seed), assignments(set), heard),
        "specialty": several(specialty, "--specialty") or None,
    }
    resources = Resources.of(decode_cache, None, tracker)
    request = parse(Request, values, "teach")
    done = run(request, place, resume=resume, overwrite=overwrite, progress=heard, resources=resources)
    return RunResult(place, done, heard.warnings)


@api_call
def specialists(
    *,
    teacher: str,
    data: str,
    count: int,
    out: StrPath,
    jobs: int = 1,
    recipe: "StrPath | Mapping[str, Any] | Recipe | None" = None,
    input_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    set: Assignments | None = None,
    skip_bad: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | Progress = False,
) -> SpecialistsResult:
    """Train a specialist for each group of classes that a generalist confuses; together they are one teacher.

    Args:
        teacher: the generalist, which knows all classes.
        count: how many specialists.
        jobs: train so many at a time, each in its process.
        data, out, recipe, input_size, epochs, batch_size, seed, set, skip_bad, resume, overwrite, progress: see
            `teach`.

    Raises:
        KdcError: see `teach`.
    """
    from compressor.distill import specialists as run
    from compressor.schema.base import parse
    from compressor.schema.specialists import SpecialistsRequest

    heard, place = listener(progress), path_of(out, "--out")
    values = {
        "teacher": teacher,
        "data": data,
        "skip_bad": skip_bad,
        "input_size": input_size,
        "count": count,
        "recipe": _teaching_recipe(recipe, _given(epochs, batch_size, seed), assignments(set), heard),
    }
    request = parse(SpecialistsRequest, values, "specialists")
    done = run(request, place, jobs=jobs, resume=resume, overwrite=overwrite, progress=heard)
    return SpecialistsResult(place, done, heard.warnings)


@api_call
def distill(
    *,
    teacher: str | Sequence[str],
    data: str,
    out: StrPath,
    profile: "StrPath | Profile | None" = None,
    student: str | None = None,
    student_init: str = "pretrained",
    assistant: str | Sequence[str] | None = None,
    qat: bool = False,
    teacher_classes: StrPath | None = None,
    unlabelled: str | None = None,
    recipe: "StrPath | Mapping[str, Any] | Recipe | None" = None,
    input_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    set: Assignments | None = None,
    skip_bad: bool = False,
    teacher_cache: StrPath | None = None,
    decode_cache: str | int | None = None,
    tracker: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool | Progress = False,
) -> RunResult:
    """Train a small student to answer as the teacher does.

    Args:
        teacher: e.g. "run:DIR", "timm:NAME", "outputs:FILE", "self"; several: an ensemble.
        out: folder for the run, which `export` takes.
        profile: name, path or Profile: train at its input size.
        student: a timm model, "timm:NAME" or "timm:local-dir:PATH"; None: the default one.
        student_init: "pretrained", "random", or the path of a checkpoint.
        assistant: models between teacher and student, that learn first.
        qat: then train on under the fake quantization of the profile's int8 kernels.
        teacher_classes: a file with the names of the teacher's outputs, one a line, where its weights have none.
        unlabelled: more images to learn from, without labels.
        teacher_cache: folder for the teacher's answers, or "off"; None: the user's cache folder.
        data, recipe, input_size, epochs, batch_size, seed, set, skip_bad, decode_cache, tracker, resume, overwrite,
            progress: see `teach`.

    Raises:
        KdcError: see `teach`.
    """
    from compressor import pipeline

    heard, place = listener(progress), path_of(out, "--out")
    request = _distillation(
        several(teacher, "--teacher"), data, student, student_init, profile, qat, heard,
        recipe=recipe, input_size=input_size, flags=_given(epochs, batch_size, seed), sets=assignments(set),
        teacher_classes=teacher_classes, unlabelled=unlabelled, skip_bad=skip_bad, assistant=assistant,
    )  # fmt: skip
    resources = _resources(decode_cache, teacher_cache, tracker)
    done = pipeline.distill(request, place, resume=resume, overwrite=overwrite, resources=resources, progress=heard)
    return RunResult(place, done, heard.warnings)


@api_call
def precompute(
    *,
    teacher: str | Sequence[str],
    data: str,
    out: StrPath,
    profile: "StrPath | Profile | None" = None,
    student: str | None = None,
    student_init: str = "pretrained",
    qat: bool = False,
    teacher_classes: StrPath | None = None,
    unlabelled: str | None = None,
    recipe: "StrPath | Mapping[str, Any] | Recipe | None" = None,
    input_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    seed: int | None = None,
    set: Assignments | None = None,
    skip_bad: bool = False,
    teacher_cache: StrPath | None = None,
    decode_cache: str | int | None = None,
    tracker: str | None = None,
    progress: bool | Progress = False,
) -> None:
    """Compute and keep the teacher's answers to all that `distill` with the same keywords would ask; trains nothing.

    Args:
        out: the folder that `distill` will be given; nothing stays in it.
        teacher, data, …: see `distill`. The recipe must let views come again: `set={"views.distinct": 10}`.

    Raises:
        KdcError: see `teach`, and where nothing may be kept.
    """
    from compressor.distill import precompute as run

    heard, place = listener(progress), path_of(out, "--out")
    request = _distillation(
        several(teacher, "--teacher"), data, student, student_init, profile, qat, heard,
        recipe=recipe, input_size=input_size, flags=_given(epochs, batch_size, seed), sets=assignments(set),
        teacher_classes=teacher_classes, unlabelled=unlabelled, skip_bad=skip_bad, assistant=None,
    )  # fmt: skip
    run(request, place, progress=heard, resources=_resources(decode_cache, teacher_cache, tracker))


@api_call
def predict(
    *,
    teacher: str,
    data: str,
    out: StrPath,
    top_k: int | None = None,
    labels_only: bool = False,
    teacher_classes: StrPath | None = None,
    unlabelled: str | None = None,
    pixel_range: tuple[float, float] | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    progress: bool | Progress = False,
) -> PredictionsResult:
    """Write a teacher's answers to all samples into a table: log-probabilities of all classes, by sample id.

    Args:
        teacher: the model that answers, e.g. "timm:NAME", "run:DIR" or "specialists:DIR".
        data: see `teach`.
        out: the table, .csv or .parquet; the result's `reference` names it as a teacher.
        top_k: only so many of the most probable classes of each sample, and the rest's mass.
        labels_only: only the most probable class of each sample.
        teacher_classes, unlabelled: see `distill`.
        pixel_range: black and white of deep images, as `pixel_range` in a recipe; runs know their own.
        skip_bad: leave out images that cannot be read.
        overwrite: replace the file.
        progress: see `compressor.api`.

    Raises:
        KdcError: see `teach`.
    """
    from compressor.distill import predict as run

    heard, place = listener(progress), path_of(out, "--out")
    done = run(
        teacher, data, place, top_k=top_k, labels_only=labels_only, teacher_classes=_optional(teacher_classes),
        unlabelled=unlabelled, pixel_range=pixel_range, skip_bad=skip_bad, overwrite=overwrite, progress=heard,
    )  # fmt: skip
    return PredictionsResult(place, done, heard.warnings)


def _given(epochs: int | None, batch_size: int | None, seed: int | None) -> dict[str, int | None]:
    return {"epochs": epochs, "batch_size": batch_size, "seed": seed}


def _optional(teacher_classes: StrPath | None) -> Path | None:
    return None if teacher_classes is None else path_of(teacher_classes, "--teacher-classes")


def _resources(decode_cache: str | int | None, teacher_cache: StrPath | None, tracker: str | None) -> "Resources":
    from compressor.distill import Resources

    kept = None if teacher_cache is None else str(path_of(teacher_cache, "--teacher-cache"))
    return Resources.of(decode_cache, kept, tracker)


def _teaching_recipe(
    recipe: "StrPath | Mapping[str, Any] | Recipe | None",
    flags: dict[str, int | None],
    sets: list[str],
    heard: Listener,
) -> "Recipe":
    from compressor.distill.recipes import TEACH, recipe_from

    given = recipe_of(recipe)
    if flags["epochs"] == 1 and given is None and not any(text.startswith("head_epochs") for text in sets):
        heard.note("one epoch: it trains everything at once (head_epochs=0)")
        flags = {**flags, "head_epochs": 0}
    return recipe_from(TEACH, given, flags, sets)


def _distillation(
    teachers: list[str], data: str, student: str | None, student_init: str, profile: "StrPath | Profile | None",
    qat: bool, heard: Listener, *, recipe: "StrPath | Mapping[str, Any] | Recipe | None", input_size: int | None,
    flags: dict[str, int | None], sets: list[str], teacher_classes: StrPath | None, unlabelled: str | None,
    skip_bad: bool, assistant: str | Sequence[str] | None,
) -> "Request":  # fmt: skip
    """What is asked for, wholly resolved."""
    from compressor import pipeline
    from compressor.distill.recipes import DEFAULT_STUDENT, distillation_recipe
    from compressor.schema.base import parse
    from compressor.schema.student import Request

    _refuse_teachers(teachers)
    if student is None:
        student = DEFAULT_STUDENT
        heard.note(f"student {student} (the default; choose another with --student)")
    device = profile_of(profile) if profile is not None else None
    if device is not None:
        said = "of" if input_size in (None, device.input_size) else f"given; {device.input_size} is that of"
        input_size = input_size or device.input_size
        named = profile if isinstance(profile, str | os.PathLike) else device.name
        heard.note(f"input size {input_size} ({said} profile {named})")
    classes = _optional(teacher_classes)
    values = {
        "command": "distill",
        "teacher": teachers[0],
        "other_teachers": teachers[1:],
        "teacher_classes": str(classes) if classes else None,
        "student": student,
        "init": student_init,
        "data": data,
        "unlabelled": unlabelled,
        "skip_bad": skip_bad,
        "input_size": input_size,
        "recipe": distillation_recipe(teachers, student, student_init, recipe_of(recipe), flags, sets, heard),
        "qat": pipeline.scheme_for(device, heard) if qat else None,
        "assistants": several(assistant, "--assistant"),
    }
    return parse(Request, values, "distill")


def _refuse_teachers(teachers: list[str]) -> None:
    if not teachers:
        raise KdcError("--teacher names none")
    for alone in ("self", "peers"):
        if alone in teachers and len(teachers) > 1:
            raise KdcError(f"--teacher {alone} stands alone: it cannot be part of an ensemble", "give --teacher once")
    if len({*teachers}) < len(teachers):
        raise KdcError("the same --teacher is given twice", "ensemble.weights in the recipe weighs them")
