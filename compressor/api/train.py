"""`kdc teach`, `specialists` and `predict` as functions."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from compressor.api.call import Listener, StrPath, api_call, listener
from compressor.api.results import PredictionsResult, RunResult, SpecialistsResult
from compressor.api.task import task_asked
from compressor.api.values import Assignments, assignments, optional_path, path_of, recipe_of, several, text_of
from compressor.errors import KdcError
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.api.values import RecipeLike
    from compressor.schema.recipe import Recipe

__all__ = ["predict", "specialists", "teach"]


@api_call
def teach(
    *,
    teacher: str,
    data: str,
    out: StrPath,
    task: str | None = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    teacher_init: str = "pretrained",
    specialty: str | Sequence[str] | None = None,
    recipe: "RecipeLike | None" = None,
    input_size: int | None = None,
    max_length: int | None = None,
    clip_seconds: float | None = None,
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
        task: "image-classification", "text-classification" or "audio-classification"; None: as data and teacher tell.
        text_column: the column of a table that holds the texts, or the two of a pair; None: found by its name.
        label_column: the column that holds the labels; None: found by its name.
        teacher_init: "pretrained", its own weights, or "random".
        specialty: "CLASS,CLASS", some of them: only these are told apart; all others become one.
        recipe: a recipe's file, its keys and values, or a Recipe, instead of the default one.
        input_size: height and width of images, in pixels.
        max_length: the most tokens of a text; None: as many as 95 % of the training texts have, 128 at most.
        clip_seconds: how much of a sound is heard; None: what 95 % of the training sounds need, 10 s at most.
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
    from compressor.distill import Destination, Resources
    from compressor.distill import teach as run
    from compressor.schema.base import parse
    from compressor.schema.student import Request

    asked = task_asked(locals())
    heard, folder = listener(progress), path_of(out, "--out")
    teacher, data = text_of(teacher, "--teacher"), text_of(data, "--data")
    if teacher_init not in ("pretrained", "random"):
        raise KdcError(f"--teacher-init {teacher_init!r} is neither pretrained nor random")
    task, flags = asked.named(data, [teacher], [], heard), {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    values = {
        "task": task, "columns": asked.columns, "command": "teach", "teacher": teacher, "student": None,
        "init": teacher_init, "data": data, "skip_bad": skip_bad, "input_size": asked.size,
        "recipe": _teaching_recipe(recipe, flags, assignments(set), heard, task),
        "specialty": several(specialty, "--specialty") or None,
    }  # fmt: skip
    resources, request = Resources.of(decode_cache, None, tracker), parse(Request, values, "teach")
    done = run(request, Destination(folder, resume=resume, overwrite=overwrite), progress=heard, resources=resources)
    return RunResult(folder, done, heard.warnings)


@api_call
def specialists(
    *,
    teacher: str,
    data: str,
    count: int,
    out: StrPath,
    jobs: int = 1,
    recipe: "RecipeLike | None" = None,
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
    from compressor.distill import Destination
    from compressor.distill import specialists as run
    from compressor.schema.base import parse
    from compressor.schema.specialists import SpecialistsRequest
    from compressor.tasks.inference import inferred
    from compressor.tasks.table import require_able

    heard, folder = listener(progress), path_of(out, "--out")
    teacher, data = text_of(teacher, "--teacher"), text_of(data, "--data")
    task = inferred(data, [teacher], [], task=None, stated_columns=False).name
    require_able(task, "kdc specialists")
    flags = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    values = {
        "task": task,
        "teacher": teacher,
        "data": data,
        "skip_bad": skip_bad,
        "input_size": input_size,
        "count": count,
        "recipe": _teaching_recipe(recipe, flags, assignments(set), heard, task),
    }
    request = parse(SpecialistsRequest, values, "specialists")
    to = Destination(folder, resume=resume, overwrite=overwrite)
    done = run(request, to, jobs=jobs, progress=heard)
    return SpecialistsResult(folder, done, heard.warnings)


@api_call
def predict(
    *,
    teacher: str,
    data: str,
    out: StrPath,
    task: str | None = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
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
        task, text_column, label_column: see `teach`.
        teacher_classes, unlabelled: see `distill`.
        pixel_range: black and white of deep images, as `pixel_range` in a recipe; runs know their own.
        skip_bad: leave out images that cannot be read.
        overwrite: replace the file.
        progress: see `compressor.api`.

    Raises:
        KdcError: see `teach`.
    """
    from compressor.distill import predict as run

    asked = task_asked(locals())
    heard, table = listener(progress), path_of(out, "--out")
    teacher, data = text_of(teacher, "--teacher"), text_of(data, "--data")
    classes = optional_path(teacher_classes, "--teacher-classes")
    name = asked.named(data, [teacher], [], heard)
    done = run(
        teacher, data, table, top_k=top_k, labels_only=labels_only, teacher_classes=classes,
        unlabelled=unlabelled, pixel_range=pixel_range, skip_bad=skip_bad, overwrite=overwrite, task=name,
        columns=asked.columns, progress=heard,
    )  # fmt: skip
    return PredictionsResult(table, done, heard.warnings)


def _teaching_recipe(
    recipe: "RecipeLike | None",
    flags: dict[str, int | None],
    sets: list[str],
    heard: Listener,
    task: str,
) -> "Recipe":
    from compressor.distill.recipes import recipe_from
    from compressor.distill.regimes import built_in
    from compressor.tasks.table import TASKS

    given, default = recipe_of(recipe), built_in(TASKS[task].teaching)
    alone = default.get("head_epochs") and given is None
    if flags["epochs"] == 1 and alone and not any(text.startswith("head_epochs") for text in sets):
        heard.note("one epoch: it trains everything at once (head_epochs=0)")
        flags = {**flags, "head_epochs": 0}
    return recipe_from(default, given, flags, sets)
