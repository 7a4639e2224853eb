"""One training, from loaded models and data to a finished run on disk."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from accelerate import Accelerator

from compressor.data import ImageData
from compressor.distill.answer_codec import Codec
from compressor.distill.answer_store import AnswerStore
from compressor.distill.card import card_of, shown
from compressor.distill.checkpoint import is_saved
from compressor.distill.engine import MIN_TO_CHOOSE, bind_losses, train
from compressor.distill.environment import environment
from compressor.distill.folder import start
from compressor.distill.image_task import ImageClassification, needed_bytes
from compressor.distill.processes import any_of
from compressor.distill.resources import Resources
from compressor.distill.speed import Speed, set_up
from compressor.distill.task import BatchModel
from compressor.distill.teachers import Cached, Online, Teacher
from compressor.errors import KdcError, os_error
from compressor.models import LoadedModel, freeze, load_run, save_run
from compressor.models.fake_quant import restore_channels
from compressor.models.weights import head_parameters
from compressor.progress import Progress, Silent
from compressor.spec.base import flat
from compressor.spec.quantization import Quantization
from compressor.spec.recipe import Recipe
from compressor.spec.student import Accuracy, Request, Student, TeacherCard

__all__ = ["Job", "is_chance", "precompute_answers", "say", "train_and_save"]


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


@dataclass(frozen=True)
class Setting:
    """What a job runs in: this process, its device, and what it may use."""

    speed: Speed
    accelerator: Accelerator
    resources: Resources
    progress: Progress


def say(data: ImageData, progress: Progress) -> None:
    sizes = ", ".join(f"{name} {count:,}" for name, count in data.info.counts.items())
    progress.note(f"data {data.info.source}: {len(data.info.class_names)} classes; {sizes}")


def train_and_save(job: Job, out: Path, resume: bool, resources: Resources, progress: Progress) -> Student:
    """Decode and measure the teacher beside `out`; then everything that writes in it.

    What stood in `out` goes (with --overwrite) only when training begins, and a new run's folder goes again if not one
    checkpoint came of it. In a run of several processes the first one writes, and the others wait.
    """
    setting, store = _setting(out, resources, progress), _store(out)
    accelerator, progress = setting.accelerator, setting.progress
    try:
        task = _task(job, store, setting)
        teacher, card = _measured_teacher(job, task, setting)
        signal = _signal(job, teacher, task, setting, every_view=False) if teacher and _asked(job.recipe) else None
        if accelerator.is_main_process:
            start(out, job.request, resume=resume)
        accelerator.wait_for_everyone()
        try:
            return _trained(job, out, task, signal, card, setting)
        except BaseException as error:
            if not is_saved(out / "checkpoint"):
                if not resume and accelerator.is_main_process:
                    shutil.rmtree(out, ignore_errors=True)
            elif isinstance(error, KeyboardInterrupt):
                progress.warn(f"stopped; the state is saved in {out}: the same command with --resume goes on")
            raise
    finally:
        if accelerator.is_local_main_process:
            shutil.rmtree(store, ignore_errors=True)


def precompute_answers(job: Job, out: Path, resources: Resources, progress: Progress) -> None:
    """Ask the teacher for its answers to all views of all samples, and keep them; `out` is not touched."""
    setting, store = _setting(out, resources, progress), _store(out)
    try:
        task = _task(job, store, setting)
        teacher, _ = _measured_teacher(job, task, setting)
        assert teacher is not None
        signal = _signal(job, teacher, task, setting, every_view=True)
        assert isinstance(signal, Cached)
        signal.precompute()
    finally:
        if setting.accelerator.is_local_main_process:
            shutil.rmtree(store, ignore_errors=True)


def _setting(out: Path, resources: Resources, progress: Progress) -> Setting:
    speed = set_up()
    accelerator = Accelerator(cpu=speed.device.type == "cpu", log_with=resources.tracker, project_dir=out / "tracker")
    if not accelerator.is_main_process:
        progress = Silent()
    for line in speed.lines:
        progress.note(line)
    if accelerator.num_processes > 1:
        progress.note(f"{accelerator.num_processes} processes share each batch; {_batch_norm(speed)}")
    return Setting(speed, accelerator, resources, progress)


def _batch_norm(speed: Speed) -> str:
    if speed.device.type == "cuda":
        return "BatchNorm takes its statistics over all of it"
    return "each BatchNorm takes its statistics over its process's part (torch has no synchronised one on CPU)"


def _store(out: Path) -> Path:
    """Where this machine decodes to; several machines may see the same folder."""
    machine = os.environ.get("GROUP_RANK", "0")
    return out.parent / f".{out.name}.decoded{'' if machine == '0' else '-' + machine}"


def _task(job: Job, store: Path, setting: Setting) -> ImageClassification:
    inputs = {"student": job.student.preprocess}
    if job.teacher is not None:
        inputs["teacher"] = job.teacher.preprocess
    if setting.accelerator.is_local_main_process:
        _make_empty(store)
    setting.accelerator.wait_for_everyone()
    kept, line = setting.resources.may_decode(needed_bytes(job.data, inputs), store.parent)
    # One answer for all: what is free changes as soon as the first of them decodes.
    kept = not any_of(setting.accelerator, not kept)
    setting.progress.note(line)
    task = ImageClassification(
        job.data, inputs, job.recipe, store if kept else None, setting.speed.device, setting.progress
    )
    task.decode()
    return task


def _make_empty(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise os_error(error, f"preparing {folder}") from error


def _measured_teacher(
    job: Job, task: ImageClassification, setting: Setting
) -> tuple[BatchModel | None, TeacherCard | None]:
    """The teacher, frozen, and its card from the validation split; raises KdcError for one at chance level."""
    if job.teacher is None:
        return None, None
    teacher = _on(freeze(BatchModel(job.teacher.network, "teacher")), setting.speed.device)
    card = card_of(task, teacher, job.data.info.class_names)
    setting.progress.note(f"teacher {job.teacher.weights.source}: {_scored(card.accuracy)}")
    _refuse_chance(card.accuracy, len(job.data.info.class_names), job.teacher.weights.source)
    return teacher, shown(card, setting.progress)


def _asked(recipe: Recipe) -> bool:
    """Whether a loss takes the teacher's answers; with labels alone it need not run."""
    return any("teacher_logits" in term.needs for term in bind_losses(recipe, has_teacher=True))


def _signal(job: Job, teacher: BatchModel, task: ImageClassification, setting: Setting, *, every_view: bool) -> Teacher:
    """The teacher as the loop asks it: with its answers kept, where a view comes more than once and they may be.

    `every_view`: keep them even where this training shows each view once.
    """
    assert job.teacher is not None
    recipe, progress = job.recipe, setting.progress
    codec = Codec.of(recipe.teacher_answers, len(job.data.info.class_names))
    online = Online(teacher, codec, setting.speed.autocast)
    distinct, folder = recipe.views.distinct, setting.resources.teacher_cache
    if distinct is None:
        progress.note("the teacher answers anew in every epoch: views never repeat (--set views.distinct=N)")
        return online
    if folder is None or (recipe.epochs <= distinct and not every_view):
        why = "--teacher-cache off" if folder is None else f"{recipe.epochs} epochs show {distinct} views once each"
        progress.note(f"the teacher answers anew in every epoch: {why}")
        return online
    key = {
        "teacher": {"sha256": job.teacher.weights.sha256, "architecture": job.teacher.weights.architecture},
        "classes": [names[0] for names in job.teacher.class_names or ()],
        "pictures": task.identity("teacher"),
        "answers": recipe.teacher_answers.model_dump(mode="json"),
        "computed": {"autocast": str(setting.speed.autocast), "torch": torch.__version__, "timm": timm.__version__},
    }
    with setting.accelerator.main_process_first():
        store = AnswerStore(folder, key, views=distinct, samples=len(job.data.train), size=codec.bytes)
    size = f"{store.bytes / 1e6:,.1f} MB for {distinct} views of {store.samples:,} samples"
    progress.note(f"the teacher's answers: {'new in' if store.new else 'in'} {store.folder} ({size})")
    if store.new and store.nearest is not None:
        progress.note(f"  answers that lie there already are others' in: {', '.join(store.nearest)}")
    share = setting.accelerator.process_index, setting.accelerator.num_processes
    cached = Cached(online, store, task, progress, share=share)
    compared = cached.replay()
    if compared:
        progress.note(f"  {compared} of them asked again: the teacher still answers so")
    return cached


def _trained(
    job: Job, out: Path, task: ImageClassification, teacher: Teacher | None, card: TeacherCard | None,
    setting: Setting,
) -> Student:  # fmt: skip
    recipe, data, accelerator, progress = job.recipe, job.data, setting.accelerator, setting.progress
    inputs = {"the data": data.info.fingerprint}
    model, quantization = job.student, None
    if job.quantize is not None:
        model, quantization = job.quantize(task)
        inputs["the student in float"] = job.student.weights.sha256
    student = _on(BatchModel(model.network, "student"), setting.speed.device)
    if accelerator.num_processes > 1 and setting.speed.device.type == "cuda":
        student = timm.layers.convert_sync_batchnorm(student)
    if job.teacher is not None:
        inputs["the teacher"] = job.teacher.weights.sha256
    head = head_parameters(model.network, len(data.info.class_names)) if recipe.head_epochs else []
    shares = f", in {recipe.accumulate} parts" if recipe.accumulate > 1 else ""
    size = task.batch_size * recipe.accumulate * accelerator.num_processes
    progress.note(
        f"{recipe.epochs} epochs of {task.steps_per_epoch} steps of {size} pictures{shares}; AdamW, learning rate "
        f"{recipe.optimizer.lr:.3g}"
    )
    if setting.resources.tracker:
        accelerator.init_trackers("kdc", config=_settings(recipe))
    position = train(
        student, teacher, task, recipe,
        head=head, validation_size=len(data.validation), inputs=inputs, folder=out, progress=progress,
        accelerator=accelerator, autocast=setting.speed.autocast,
    )  # fmt: skip
    restore_channels(model.network)
    validation, test = task.evaluate(student, "validation"), task.evaluate(student, "test")
    progress.note(f"kept epoch {position.kept_epoch}: {_scored(validation)}; {_scored(test)}")
    if job.request.command == "teach":
        card = shown(card_of(task, student, data.info.class_names), progress)
    if setting.resources.tracker:
        accelerator.log({"test/accuracy": test.accuracy}, step=recipe.epochs)
        accelerator.end_training()
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
        teacher_validation=card.accuracy if job.teacher and card else None,
        teacher_card=card,
        environment=environment(setting.speed.device),
        quantization=quantization,
    )
    if accelerator.is_main_process:
        save_run(out, model, finished)
        shutil.rmtree(out / "checkpoint", ignore_errors=True)
    accelerator.wait_for_everyone()
    return load_run(out)[1]


def _settings(recipe: Recipe) -> dict[str, int | float | str]:
    """What trackers take: numbers and texts."""
    rows = flat(recipe.model_dump(mode="json"))
    return {key: value if isinstance(value, int | float | str) else str(value) for key, value in rows.items()}


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
