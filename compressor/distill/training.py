"""One training, from loaded models and data to a finished run on disk."""

import hashlib
from pathlib import Path

import numpy as np
import timm
import torch

from compressor.data import ImageData
from compressor.data.labels import listed
from compressor.distill.answer_codec import Codec
from compressor.distill.bias import correct_bias, unseen_recall, write_history
from compressor.distill.card import card_of, shown, tell_lost_classes
from compressor.distill.checkpoint import is_saved
from compressor.distill.connectors import Sides
from compressor.distill.engine import MIN_TO_CHOOSE, train
from compressor.distill.environment import environment
from compressor.distill.folder import abandon, settle, start
from compressor.distill.gap import tell_gap
from compressor.distill.image_task import ImageClassification
from compressor.distill.job import Job
from compressor.distill.layers import described, taps_of
from compressor.distill.learner import Learner
from compressor.distill.resources import Resources
from compressor.distill.setting import Setting, setting_for, store_in, task_for
from compressor.distill.signal import measured, on_device, scored, signal_of, teaching_itself
from compressor.distill.task import BatchModel
from compressor.distill.teacher_table import taught_by
from compressor.distill.teachers import Cached, Teacher
from compressor.errors import KdcError
from compressor.models import LoadedModel, load_run, save_run
from compressor.models.fake_quant import restore_channels
from compressor.models.features import POOLED
from compressor.models.trained_on import learned_before, save_trained_on
from compressor.models.weights import head_parameters
from compressor.progress import Muted, Progress
from compressor.spec.base import flat
from compressor.spec.recipe import Recipe
from compressor.spec.student import Student, TeacherCard
from compressor.statistics import accuracy_of

__all__ = ["not_kept", "precompute_answers", "say", "train_and_save"]


def not_kept() -> KdcError:
    return KdcError(
        "--precompute keeps logits and pooled features, and a loss of the recipe looks at other layers", "leave it out"
    )


def say(data: ImageData, progress: Progress) -> None:
    sizes = ", ".join(f"{name} {count:,}" for name, count in data.info.counts.items())
    names = data.info.class_names
    progress.note(f"data {data.info.source}: {len(names)} classes ({listed(names, 6)}); {sizes}")


def train_and_save(job: Job, out: Path, resume: bool, resources: Resources, progress: Progress) -> Student:
    """Decode and measure the teacher; then everything that changes the run in `out`.

    What stood in `out` (with --overwrite) goes only when the new run is finished, and is there again if not one
    checkpoint came of that. In a run of several processes the first one writes, and the others wait.
    """
    setting = setting_for(out, resources, progress)
    accelerator, progress = setting.accelerator, setting.progress
    with store_in(out, setting) as store:
        task = task_for(job.data, job.inputs, job.recipe, store, setting)
        teacher, card = None, None
        sides = _looked_at(job, setting)
        _require_trainable(job)
        if job.teacher is not None:
            known = job.quantize is not None  # the training in float has measured the same one
            teacher, card = measured(job.teacher, task, job.data, setting, known=known)
        signal: Teacher | None = None
        if job.teacher is not None and teacher is not None and any(term.asks_teacher for term in job.terms):
            signal = _signal(job, job.teacher, teacher, sides, task, setting, every_view=False)
        if job.table is not None:
            signal, card = taught_by(job.table, job.data, Muted(progress) if job.quantize is not None else progress)
        if accelerator.is_main_process:
            start(out, job.request, resume=resume)
        accelerator.wait_for_everyone()
        try:
            return _trained(job, out, task, signal, sides, card, setting)
        except BaseException:
            nothing = not is_saved(out / "checkpoint") and not (out / "student.json").exists()
            if nothing and not resume and accelerator.is_main_process:
                abandon(out)
            raise


def precompute_answers(job: Job, out: Path, resources: Resources, progress: Progress) -> None:
    """Ask the teacher for its answers to all views of all samples, and keep them; nothing stays in `out`."""
    setting = setting_for(out, resources, progress)
    with store_in(out, setting) as store:
        task = task_for(job.data, job.inputs, job.recipe, store, setting)
        assert job.teacher is not None
        teacher, _ = measured(job.teacher, task, job.data, setting)
        signal = _signal(job, job.teacher, teacher, job.sides, task, setting, every_view=True)
        if not isinstance(signal, Cached):
            raise not_kept()
        signal.precompute()


def _signal(
    job: Job, loaded: LoadedModel, model: BatchModel, sides: dict[str, Sides], task: ImageClassification,
    setting: Setting, *, every_view: bool,
) -> Teacher:  # fmt: skip
    """The teacher, with what the losses look at."""
    pooled = {layer.shape[0] for one in sides.values() for layer in one.teacher if layer.name == POOLED}
    return signal_of(
        loaded, model, job.recipe, job.data, task, setting,
        taps=taps_of(sides, job.student, loaded)[1], pooled=max(pooled, default=0), every_view=every_view,
    )  # fmt: skip


def _require_trainable(job: Job) -> None:
    """Raise KdcError for what would stop the training once it has begun."""
    Codec.of(job.recipe.teacher_answers, job.classes)
    if job.recipe.head_epochs:
        head_parameters(job.student.network, job.classes)


def _looked_at(job: Job, setting: Setting) -> dict[str, Sides]:
    """The layers that the losses on features look at, said for people."""
    sides = job.sides
    for name, one in sides.items():
        setting.progress.note(described(name, one))
    for name, why in job.left_out.items():
        setting.progress.note(f"{name} is left out: {why}")
    if "crd" in sides and setting.accelerator.num_processes > 1:
        raise KdcError("crd keeps a memory of all samples, which several processes would not share", "use one process")
    return sides


def _trained(
    job: Job, out: Path, task: ImageClassification, teacher: Teacher | None, sides: dict[str, Sides],
    card: TeacherCard | None, setting: Setting,
) -> Student:  # fmt: skip
    recipe, data, accelerator, progress = job.recipe, job.data, setting.accelerator, setting.progress
    origin, before = job.origin, learned_before(job.request)
    # A view is a function of the sample's number: with the same pictures in another order it would be another one's.
    order = hashlib.sha256(data.train.contents.tobytes()).hexdigest()
    inputs = {"the data": data.info.fingerprint, "the order of the training pictures": order}
    model, quantization = job.student, None
    if job.quantize is not None:
        model, quantization = job.quantize(task)
        inputs["the student in float"] = job.student.weights.sha256
    elif job.init != "random":
        inputs["the weights that it starts from"] = job.student.weights.sha256
    inputs["the preprocessing"] = job.student.preprocess.model_dump_json()
    device = setting.speed.device
    student = on_device(BatchModel(model.network, "student", taps_of(sides, model, job.teacher)[0]), device)
    if job.request.teacher == "self" and any(term.asks_teacher for term in job.terms):
        teacher = teaching_itself(student, recipe, job.classes, setting)
    peers = [
        on_device(BatchModel(peer.network, key), device) for key, peer in zip(job.peer_keys, job.peers, strict=True)
    ]
    torch.manual_seed(recipe.seed)  # what is put between the networks does not depend on what was drawn before
    learner = Learner(student, job.terms, layers=sides, peers=peers, autocast=setting.speed.autocast).to(device)
    if accelerator.num_processes > 1 and device.type == "cuda":
        learner = timm.layers.convert_sync_batchnorm(learner)
    if job.taught_by is not None:
        inputs["the teacher"] = job.taught_by.identity
    if data.info.unlabelled is not None:
        inputs["the unlabelled pictures"] = data.info.unlabelled.fingerprint
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
        learner, teacher, task, recipe,
        head=head, validation_size=len(data.validation), inputs=inputs, folder=out, progress=progress,
        accelerator=accelerator,
    )  # fmt: skip
    student = learner.student
    restore_channels(model.network)
    row = correct_bias(student, task, data, recipe.transfer, progress) if recipe.transfer.correct_bias else {}
    if row and accelerator.is_main_process:
        write_history(out, [*position.history, row])
    validation, answers = task.evaluate(student, "validation"), task.logits(student, "test")
    test = accuracy_of(answers, data.test.labels, "test")
    progress.note(f"kept epoch {position.kept_epoch}: {scored(validation)}; {scored(test)}")
    names, made = data.info.class_names, "the model" if job.request.command == "teach" else "the student"
    if job.request.command == "teach":
        card = shown(card_of(task, student, names), names, progress, made)
    told = (test,) if job.request.command == "teach" else (validation, test)
    tell_lost_classes(made, told, names, progress, left_out=recipe.transfer.without)
    if job.teacher is not None:
        tell_gap(task.right, job.teacher.weights.source, recipe.epochs * task.steps_per_epoch, progress)
    if recipe.transfer.without:
        progress.note(unseen_recall(answers, data, recipe.transfer))
    if setting.resources.tracker:
        accelerator.log({"test/accuracy": test.accuracy}, step=recipe.epochs)
        accelerator.end_training()
    student.taps = None
    student.network.cpu().eval()
    finished = Student(
        made_by=job.request.command,
        family=model.family,
        architecture=model.weights.architecture,
        init=job.init,
        weights=model.weights,
        class_names=data.info.class_names,
        preprocess=model.preprocess,
        teacher=origin.teacher if origin else job.taught_by,
        data=data.info,
        recipe=job.request.recipe,
        kept_epoch=position.kept_epoch,
        kept_rule=_rule(len(data.validation)),
        validation=validation,
        test=test,
        teacher_validation=origin.validation if origin else card.accuracy if card and job.taught_by else None,
        teacher_card=card,
        environment=environment(setting.speed.device),
        quantization=quantization,
        specialty=job.specialty,
        assistants=origin.assistants if origin else (),
        bias_correction=row.get("bias_correction"),
    )
    if accelerator.is_main_process:
        learned = data.train.contents if before is None else np.concatenate([data.train.contents, before])
        finished = finished.model_copy(update={"trained_on": save_trained_on(out, learned)})
        save_run(out, model, finished)
        settle(out)
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
