"""`kdc teach` and `kdc distill`, from a request to a finished run on disk."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from compressor.data import ImageData, open_data
from compressor.distill.allocator import keep_large_blocks
from compressor.distill.engine import MIN_TO_CHOOSE, bind_losses, train
from compressor.distill.environment import environment
from compressor.distill.folder import claim, start
from compressor.distill.image_task import ImageClassification
from compressor.distill.task import BatchModel
from compressor.errors import KdcError, os_error
from compressor.models import (
    LoadedModel,
    create_student,
    freeze,
    load_model,
    load_run,
    map_classes,
    save_run,
    with_classes,
)
from compressor.models.fake_quant import restore_channels
from compressor.models.references import with_class_file
from compressor.models.students import create_trainee
from compressor.models.weights import head_parameters
from compressor.progress import Progress
from compressor.spec.quantization import Quantization
from compressor.spec.recipe import Recipe
from compressor.spec.student import Accuracy, Request, Student

__all__ = ["Job", "already_finished", "distill", "is_chance", "say", "teach", "train_and_save"]

DEFAULT_INPUT_SIZE = 224


def teach(request: Request, out: Path, *, resume: bool, overwrite: bool, progress: Progress) -> Student:
    """Fine-tune `request.teacher` on the classes of `request.data`: the new classifier first, then everything."""
    if claim(out, request, resume=resume, overwrite=overwrite):
        return already_finished(out, progress)
    bind_losses(request.recipe, has_teacher=False)
    data = open_data(request.data, skip_bad=request.skip_bad, progress=progress)
    say(data, progress)
    names, recipe = data.info.class_names, request.recipe
    if request.init == "random":
        if not request.teacher.startswith("timm:") or "@" in request.teacher:
            raise KdcError(f"--teacher-init random takes a timm:NAME, and {request.teacher} is none")
        torch.manual_seed(recipe.seed)
        size = request.input_size or DEFAULT_INPUT_SIZE
        trainee, made_from = create_student(request.teacher, "random", names, size, recipe.crop_pct), "random"
    else:
        backbone = load_model(request.teacher, request.input_size)
        torch.manual_seed(recipe.seed)
        trainee = create_trainee(backbone, names, recipe.crop_pct)
        made_from = f"{request.teacher} (sha256 {backbone.weights.sha256[:12]})"
    job = Job(request, recipe, data, trainee, None, made_from)
    return train_and_save(job, out, resume, progress)


def distill(request: Request, out: Path, *, resume: bool, overwrite: bool, progress: Progress) -> Student:
    """Distill `request.teacher` into `request.student` on `request.data`.

    Before any training the teacher is measured on the validation split; one at chance level is refused.
    """
    assert request.qat is None, "qat.distill_quantized goes on from the student in float"
    if claim(out, request, resume=resume, overwrite=overwrite):
        return already_finished(out, progress)
    bind_losses(request.recipe, has_teacher=True)
    data = open_data(request.data, skip_bad=request.skip_bad, progress=progress)
    say(data, progress)
    names = data.info.class_names
    teacher = load_model(request.teacher)
    if request.teacher_classes is not None:
        teacher = with_class_file(teacher, Path(request.teacher_classes))
    teacher = with_classes(teacher, map_classes(teacher, names), names)
    torch.manual_seed(request.recipe.seed)
    size = request.input_size or DEFAULT_INPUT_SIZE
    assert request.student is not None
    student = create_student(request.student, request.init, names, size, request.recipe.crop_pct)
    job = Job(request, request.recipe, data, student, teacher, request.init)
    return train_and_save(job, out, resume, progress)


@dataclass(frozen=True)
class Job:
    """One training. `recipe`: how, from the request. `quantize`: makes the student one that rounds, once there are
    pictures to find its ranges on."""

    request: Request
    recipe: Recipe
    data: ImageData
    student: LoadedModel
    teacher: LoadedModel | None
    init: str
    quantize: Callable[[ImageClassification], tuple[LoadedModel, Quantization]] | None = None


def already_finished(out: Path, progress: Progress) -> Student:
    progress.note(f"{out} is finished already: nothing to resume")
    return load_run(out)[1]


def say(data: ImageData, progress: Progress) -> None:
    sizes = ", ".join(f"{name} {count:,}" for name, count in data.info.counts.items())
    progress.note(f"data {data.info.source}: {len(data.info.class_names)} classes; {sizes}")


def train_and_save(job: Job, out: Path, resume: bool, progress: Progress) -> Student:
    """Decode and measure the teacher beside `out`; then everything that writes in it.

    What stood in `out` goes (with --overwrite) only when training begins, and a new run's folder goes again if not one
    checkpoint came of it.
    """
    store = out.parent / f".{out.name}.decoded"
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu" and keep_large_blocks():
        progress.note("on CPU: the allocator keeps blocks of up to 1 GiB for reuse")
    inputs = {"student": job.student.preprocess}
    if job.teacher is not None:
        inputs["teacher"] = job.teacher.preprocess
    task = ImageClassification(job.data, inputs, job.recipe, store, device, progress)
    try:
        _make_empty(store)
        task.decode()
        teacher, score = _measured_teacher(job, task, device, progress)
        start(out, job.request, resume=resume)
        try:
            return _trained(job, out, task, teacher, score, device, progress)
        except BaseException as error:
            if not (out / "checkpoint" / "state.pt").exists():
                if not resume:
                    shutil.rmtree(out, ignore_errors=True)
            elif isinstance(error, KeyboardInterrupt):
                progress.warn(f"stopped; the state is saved in {out}: the same command with --resume goes on")
            raise
    finally:
        shutil.rmtree(store, ignore_errors=True)


def _make_empty(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise os_error(error, f"preparing {folder}") from error


def _measured_teacher(
    job: Job, task: ImageClassification, device: torch.device, progress: Progress
) -> tuple[BatchModel | None, Accuracy | None]:
    """The teacher, frozen, and its accuracy on the validation split; raises KdcError for one at chance level."""
    if job.teacher is None:
        return None, None
    teacher = _on(freeze(BatchModel(job.teacher.network, "teacher")), device)
    score = task.evaluate(teacher, "validation")
    progress.note(f"teacher {job.teacher.weights.source}: {_scored(score)}")
    _refuse_chance(score, len(job.data.info.class_names), job.teacher.weights.source)
    return teacher, score


def _trained(
    job: Job,
    out: Path,
    task: ImageClassification,
    teacher: BatchModel | None,
    teacher_score: Accuracy | None,
    device: torch.device,
    progress: Progress,
) -> Student:
    recipe, data = job.recipe, job.data
    inputs = {"the data": data.info.fingerprint}
    model, quantization = job.student, None
    if job.quantize is not None:
        model, quantization = job.quantize(task)
        inputs["the student in float"] = job.student.weights.sha256
    student = _on(BatchModel(model.network, "student"), device)
    if job.teacher is not None:
        inputs["the teacher"] = job.teacher.weights.sha256
    head = head_parameters(model.network, len(data.info.class_names)) if recipe.head_epochs else []
    position = train(
        student, teacher, task, recipe,
        head=head, validation_size=len(data.validation), inputs=inputs, folder=out, progress=progress,
    )  # fmt: skip
    restore_channels(model.network)
    validation, test = task.evaluate(student, "validation"), task.evaluate(student, "test")
    progress.note(f"kept epoch {position.kept_epoch}: {_scored(validation)}; {_scored(test)}")
    student.network.cpu().eval()
    finished = Student(
        made_by=job.request.command,
        family=model.family,
        architecture=model.weights.architecture,
        init=job.init,
        weights=model.weights,
        class_names=data.info.class_names,
        preprocess=model.preprocess,
        teacher=job.teacher.weights if job.teacher else None,
        data=data.info,
        recipe=job.request.recipe,
        kept_epoch=position.kept_epoch,
        kept_rule=_rule(len(data.validation)),
        validation=validation,
        test=test,
        teacher_validation=teacher_score,
        environment=environment(device),
        quantization=quantization,
    )
    finished = save_run(out, model, finished)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    return finished


def _rule(n: int) -> str:
    if n >= MIN_TO_CHOOSE:
        return f"best validation accuracy (n={n} >= {MIN_TO_CHOOSE})"
    return f"last epoch (validation n={n} < {MIN_TO_CHOOSE} is too small to choose on)"


def _on(model: BatchModel, device: torch.device) -> BatchModel:
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _scored(score: Accuracy) -> str:
    return f"{score.split} accuracy {score.accuracy:.2%} [{score.low:.2%}–{score.high:.2%}], n={score.n}"


def is_chance(score: Accuracy, classes: int) -> bool:
    """Whether a model does not clearly beat guessing: its balanced accuracy, brought to 0 = chance and 1 = perfect,
    is below 0.05 or within two standard errors of 0 (as if each class held n / classes samples)."""
    chance = 1 / classes
    error = (score.balanced * (1 - score.balanced) / score.n) ** 0.5
    skill = (score.balanced - chance) / (1 - chance)
    return bool(skill < max(0.05, 2 * error / (1 - chance)))


def _refuse_chance(score: Accuracy, classes: int, source: str) -> None:
    if is_chance(score, classes):
        raise KdcError(
            f"teacher {source} answers at chance level on the validation split: balanced accuracy "
            f"{score.balanced:.1%} of {classes} classes (n={score.n})",
            f"fine-tune it first: kdc teach --teacher {source} --data … --out teacher, then --teacher run:teacher",
        )
