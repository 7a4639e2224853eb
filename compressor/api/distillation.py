"""`kdc distill` and `kdc distill --precompute` as functions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.api.asked import Asked, race_of, refuse_without_choice
from compressor.api.call import Listener, StrPath, api_call, called_like, listener
from compressor.api.results import RunResult
from compressor.api.results_before import PlanResult
from compressor.api.task import task_asked
from compressor.api.values import (
    Assignments,
    assignments,
    optional_path,
    path_of,
    profile_of,
    recipe_of,
    several,
    text_of,
)
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.api.values import ProfileLike, RecipeLike
    from compressor.choice import Choosing
    from compressor.distill import Destination, Resources
    from compressor.schema.student import Request

__all__ = ["distill", "plan_distill", "precompute"]


@api_call
def distill(
    *,
    teacher: str | Sequence[str],
    data: str,
    out: StrPath,
    task: str | None = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    profile: "ProfileLike | None" = None,
    student: str | None = None,
    students: str | Sequence[str] | None = None,
    race_share: float = 0.5,
    race_losses: bool = True,
    allow_surgery: bool = False,
    device: str = "local",
    device_python: str | None = None,
    student_init: str | None = None,
    assistant: str | Sequence[str] | None = None,
    qat: bool = False,
    control: bool = False,
    teacher_classes: StrPath | None = None,
    unlabelled: str | None = None,
    recipe: "RecipeLike | None" = None,
    input_size: int | None = None,
    max_length: int | None = None,
    clip_seconds: float | None = None,
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
        profile: name, path or Profile: train at its input size, and for its budget.
        student: a timm model, "timm:NAME" or "timm:local-dir:PATH", changed where the name says so, as
            "timm:NAME+width0.5"; None: those that the budget admits race. On texts "layers:N", "layers:0,2,5",
            "layers:N,width:W", "static:D" or "hf:REPO_OR_PATH"; None: half of the teacher's layers.
        students: who races instead, as `student`.
        race_share: how long all trials of a race may take together, in trainings.
        race_losses: try other weights of a default recipe's losses before the training, labels alone among them, where
            validation has 1,000 samples or more; that takes at most half as long as the training.
        allow_surgery: candidates changed for speed may race, too.
        device: where candidates are measured, "local", "ssh://[USER@]HOST[:PORT][/FOLDER]" or "adb:SERIAL[/FOLDER]".
        device_python: the interpreter on the device.
        student_init: "pretrained", "random", or the path of a checkpoint; None: pretrained, or random where the student
            is chosen and weights are not to be had.
        assistant: models between teacher and student, that learn first.
        qat: then train on under the fake quantization of the profile's int8 kernels.
        control: then train the same student on labels alone too, for the same steps; the result's `student.gain` says
            what distillation gained.
        teacher_classes: a file with the names of the teacher's outputs, one a line, where its weights have none.
        unlabelled: more images to learn from, without labels.
        teacher_cache: folder for the teacher's answers, or "off"; None: `out` until the run is finished, or the user's
            cache folder where `views.distinct` is given.
        data, task, text_column, label_column, recipe, input_size, max_length, clip_seconds, epochs, batch_size, seed,
            set, skip_bad, decode_cache, tracker, resume, overwrite, progress: see `teach`.

    Raises:
        KdcError: see `teach`.
    """
    from compressor import pipeline

    way = _prepared(locals())
    done = pipeline.distill(way.request, way.out, way.choosing, resources=way.resources, progress=way.heard)
    return RunResult(way.out.folder, done, way.heard.warnings)


@api_call
@called_like(distill)
def plan_distill(**keywords: Any) -> PlanResult:
    """What `distill` with the same keywords would do: checked, a few steps timed, nothing written where it would be.

    Args:
        keywords: those of `distill`.

    Raises:
        KdcError: see `distill`.
    """
    from compressor import planning

    way = _prepared(keywords)
    plan = planning.plan_distill(way.request, way.out, way.choosing, resources=way.resources, progress=way.heard)
    return PlanResult(plan, planning.to_text(plan), planning.exit_code(plan), way.heard.warnings)


@dataclass(frozen=True)
class _Way:
    """What the keywords of `distill` come to."""

    request: "Request"
    out: "Destination"
    choosing: "Choosing"
    resources: "Resources"
    heard: Listener


def _prepared(given: Mapping[str, Any]) -> _Way:
    """`given`: all keywords of `distill`."""
    from compressor.choice import Choosing
    from compressor.distill import Destination

    heard, profile, start = listener(given["progress"]), given["profile"], given["student_init"]
    asked = Asked(
        several(given["teacher"], "--teacher"), text_of(given["data"], "--data"),
        race_of(given["student"], given["students"], given["race_share"], profile), given["student"], start, profile,
        several(given["assistant"], "--assistant"), given["qat"],
        optional_path(given["teacher_classes"], "--teacher-classes"), given["unlabelled"], task_asked(given),
        given["skip_bad"], given["control"], given["race_losses"],
    )  # fmt: skip
    refuse_without_choice(given)
    flags = {name: given[name] for name in ("epochs", "batch_size", "seed")}
    to = Destination(path_of(given["out"], "--out"), resume=given["resume"], overwrite=given["overwrite"])
    request, wanted = asked.request(recipe_of(given["recipe"]), flags, assignments(given["set"]), heard)
    device = None if profile is None else profile_of(profile)
    return _Way(
        request,
        to,
        Choosing(device, given["device"], given["device_python"], start is None, given["allow_surgery"], wanted),
        _resources(given["decode_cache"], given["teacher_cache"], given["tracker"]),
        heard,
    )


@api_call
def precompute(
    *,
    teacher: str | Sequence[str],
    data: str,
    out: StrPath,
    task: str | None = None,
    text_column: str | Sequence[str] | None = None,
    label_column: str | None = None,
    profile: "ProfileLike | None" = None,
    student: str | None = None,
    student_init: str | None = None,
    qat: bool = False,
    teacher_classes: StrPath | None = None,
    unlabelled: str | None = None,
    recipe: "RecipeLike | None" = None,
    input_size: int | None = None,
    max_length: int | None = None,
    clip_seconds: float | None = None,
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
    from compressor.distill import decided
    from compressor.distill import precompute as run

    given = locals()
    heard, folder = listener(progress), path_of(out, "--out")
    asked = Asked(
        several(teacher, "--teacher"), text_of(data, "--data"), None, student, student_init, profile, [], qat,
        optional_path(teacher_classes, "--teacher-classes"), unlabelled, task_asked(given), skip_bad,
    )  # fmt: skip
    flags = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    request, wanted = asked.request(recipe_of(recipe), flags, assignments(set), heard)
    decide = None if wanted is None else lambda provisional: decided(provisional, wanted, None, heard)
    resources = _resources(decode_cache, teacher_cache, tracker)
    run(request, folder, progress=heard, resources=resources, decide=decide)


def _resources(decode_cache: str | int | None, teacher_cache: StrPath | None, tracker: str | None) -> "Resources":
    from compressor.distill import Resources

    kept = None if teacher_cache is None else str(path_of(teacher_cache, "--teacher-cache"))
    return Resources.of(decode_cache, kept, tracker)
