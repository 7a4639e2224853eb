"""One training, from loaded models and data to a finished run on disk."""

import hashlib
from pathlib import Path

import timm
import torch

from compressor.data.labels import listed
from compressor.data.samples import Dataset
from compressor.distill.features.connectors import Sides
from compressor.distill.features.layers import described, taps_of
from compressor.distill.finishing import Trained, finish
from compressor.distill.host.context import Setting, feed_for, setting_for, store_in
from compressor.distill.host.resources import Resources
from compressor.distill.loop.checkpoint import is_saved
from compressor.distill.loop.engine import train
from compressor.distill.loop.learner import Learner
from compressor.distill.plan import Job
from compressor.distill.run_folder import abandon, start
from compressor.distill.teacher.codec import Codec
from compressor.distill.teacher.predictions import taught_by
from compressor.distill.teacher.setup import measured, on_device, signal_of, teaching_itself
from compressor.distill.teacher.sources import Cached, Teacher
from compressor.errors import KdcError
from compressor.models import LoadedModel
from compressor.models.features import POOLED
from compressor.models.trained_on import learned_before
from compressor.models.weights import head_parameters
from compressor.progress import Muted, Progress
from compressor.quantization.fake_quant import restore_channels
from compressor.schema.base import flat
from compressor.schema.recipe import Recipe
from compressor.schema.student import Student, TeacherCard
from compressor.tasks.base import BatchModel, Feed
from compressor.tasks.table import task_named

__all__ = ["not_kept", "precompute_answers", "say", "train_and_save"]


def not_kept() -> KdcError:
    return KdcError(
        "--precompute keeps logits and pooled features, and a loss of the recipe looks at other layers", "leave it out"
    )


def say(data: Dataset, progress: Progress) -> None:
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
        feed = feed_for(job.data, job.inputs, job.recipe, store, setting)
        teacher, card = None, None
        sides = _looked_at(job, setting)
        _require_trainable(job)
        if job.teacher is not None:
            known = job.quantize is not None  # the training in float has measured the same one
            teacher, card = measured(job.teacher, feed, job.data, setting, known=known)
        signal: Teacher | None = None
        if job.teacher is not None and teacher is not None and any(term.asks_teacher for term in job.terms):
            signal = _signal(job, job.teacher, teacher, sides, feed, setting, every_view=False)
        if job.table is not None:
            signal, card = taught_by(job.table, job.data, Muted(progress) if job.quantize is not None else progress)
        if accelerator.is_main_process:
            start(out, job.request, resume=resume)
        accelerator.wait_for_everyone()
        try:
            return _trained(job, out, feed, signal, sides, card, setting)
        except BaseException:
            nothing = not is_saved(out / "checkpoint") and not (out / "student.json").exists()
            if nothing and not resume and accelerator.is_main_process:
                abandon(out)
            raise


def precompute_answers(job: Job, out: Path, resources: Resources, progress: Progress) -> None:
    """Ask the teacher for its answers to all views of all samples, and keep them; nothing stays in `out`."""
    setting = setting_for(out, resources, progress)
    with store_in(out, setting) as store:
        feed = feed_for(job.data, job.inputs, job.recipe, store, setting)
        assert job.teacher is not None
        teacher, _ = measured(job.teacher, feed, job.data, setting)
        signal = _signal(job, job.teacher, teacher, job.sides, feed, setting, every_view=True)
        if not isinstance(signal, Cached):
            raise not_kept()
        signal.precompute()


def _signal(
    job: Job, loaded: LoadedModel, model: BatchModel, sides: dict[str, Sides], feed: Feed,
    setting: Setting, *, every_view: bool,
) -> Teacher:  # fmt: skip
    """The teacher, with what the losses look at."""
    pooled = {layer.shape[0] for one in sides.values() for layer in one.teacher if layer.name == POOLED}
    return signal_of(
        loaded, model, job.recipe, job.data, feed, setting,
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
    alone = [term.name for term in job.terms if term.row.one_process]
    if alone and setting.accelerator.num_processes > 1:
        raise KdcError(
            f"{alone[0]} keeps a memory of all samples, which several processes would not share", "use one process"
        )
    return sides


def _trained(
    job: Job, out: Path, feed: Feed, teacher: Teacher | None, sides: dict[str, Sides],
    card: TeacherCard | None, setting: Setting,
) -> Student:  # fmt: skip
    recipe, before = job.recipe, learned_before(job.request)
    model, quantization = job.student, None
    if job.quantize is not None:
        model, quantization = job.quantize(feed)
    learner = _learner(job, model, sides, setting)
    if job.request.teacher == "self" and any(term.asks_teacher for term in job.terms):
        teacher = teaching_itself(learner.student, recipe, job.classes, setting)
    if setting.accelerator.num_processes > 1 and setting.speed.device.type == "cuda":
        learner = timm.layers.convert_sync_batchnorm(learner)
    _say_plan(job, feed, setting)
    if setting.resources.tracker:
        setting.accelerator.init_trackers("kdc", config=_settings(recipe))
    position = train(
        learner, teacher, feed, recipe,
        head=head_parameters(model.network, job.classes) if recipe.head_epochs else [],
        validation_size=len(job.data.validation), inputs=_inputs(job), folder=out, progress=setting.progress,
        accelerator=setting.accelerator,
    )  # fmt: skip
    restore_channels(model.network)
    return finish(Trained(job, model, quantization, card, position, before), learner.student, feed, out, setting)


def _learner(job: Job, model: LoadedModel, sides: dict[str, Sides], setting: Setting) -> Learner:
    """The student with its peers, and what its losses put between it and its teacher."""
    device = setting.speed.device
    taps = taps_of(sides, model, job.teacher)[0]
    student = on_device(BatchModel(model.network, "student", taps, model.preprocess.mask), device)
    peers = [
        on_device(BatchModel(peer.network, key, mask=peer.preprocess.mask), device)
        for key, peer in zip(job.peer_keys, job.peers, strict=True)
    ]
    torch.manual_seed(job.recipe.seed)  # what is put between the networks does not depend on what was drawn before
    return Learner(student, job.terms, layers=sides, peers=peers, autocast=setting.speed.autocast).to(device)


def _inputs(job: Job) -> dict[str, str]:
    """What a resumed training must find as it was."""
    data = job.data
    # A view is a function of the sample's number: with the same samples in another order it would be another one's.
    order = hashlib.sha256(data.train.contents.tobytes()).hexdigest()
    inputs = {"the data": data.info.fingerprint, "the order of the training pictures": order}
    if job.quantize is not None:
        inputs["the student in float"] = job.student.weights.sha256
    elif job.init != "random":
        inputs["the weights that it starts from"] = job.student.weights.sha256
    inputs["the preprocessing"] = job.student.preprocess.model_dump_json()
    if job.taught_by is not None:
        inputs["the teacher"] = job.taught_by.identity
    if data.info.unlabelled is not None:
        inputs["the unlabelled pictures"] = data.info.unlabelled.fingerprint
    return inputs


def _say_plan(job: Job, feed: Feed, setting: Setting) -> None:
    recipe, task = job.recipe, task_named(job.request.task)
    shares = f", in {recipe.accumulate} parts" if recipe.accumulate > 1 else ""
    size = feed.batch_size * recipe.accumulate * setting.accelerator.num_processes
    setting.progress.note(
        f"{recipe.epochs} epochs of {feed.steps_per_epoch} steps of {size} {task.samples}{shares}; AdamW, learning "
        f"rate {recipe.optimizer.lr:.3g}"
    )


def _settings(recipe: Recipe) -> dict[str, int | float | str]:
    """What trackers take: numbers and texts."""
    rows = flat(recipe.model_dump(mode="json"))
    return {key: value if isinstance(value, int | float | str) else str(value) for key, value in rows.items()}
