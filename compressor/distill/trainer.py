"""One training, from loaded models and data to a finished run on disk."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import timm
import torch

from compressor.data.labels import listed
from compressor.data.samples import Dataset
from compressor.distill.features.connectors import LayerPairs
from compressor.distill.features.layers import described, kept_layers, taps_of, whole_layers
from compressor.distill.finishing import Trained, finish
from compressor.distill.host.context import RunContext, context_for, feed_for, store_in
from compressor.distill.host.resources import Resources
from compressor.distill.loop.checkpoint import Position
from compressor.distill.loop.engine import train
from compressor.distill.loop.learner import Learner
from compressor.distill.loop.passes import Passes
from compressor.distill.loop.tracking import track_epoch
from compressor.distill.plan import TrainingPlan
from compressor.distill.run_files import sweep
from compressor.distill.run_folder import Destination, rollback, start
from compressor.distill.stages import FOLDER, has_own_feed, is_begun, stages_of
from compressor.distill.teacher.card import Measured
from compressor.distill.teacher.codec import Codec
from compressor.distill.teacher.predictions import taught_by
from compressor.distill.teacher.setup import measured, on_device, signal_of, teaching_itself
from compressor.distill.teacher.sources import Cached, Teacher
from compressor.distill.token_heads import head_sha256, leave_heads
from compressor.errors import KdcError
from compressor.models import LoadedModel
from compressor.models.trained_on import learned_before
from compressor.models.weights import head_parameters
from compressor.progress import Muted, Progress, note_once
from compressor.quantization.fake_quant import restore_channels
from compressor.schema.base import flat
from compressor.schema.quantization import Quantization
from compressor.schema.recipe import Recipe
from compressor.schema.student import Student
from compressor.tasks.base import BatchModel, Feed
from compressor.tasks.table import TASKS, task_named

__all__ = [
    "Fitted",
    "fit",
    "inputs_of",
    "log_sizes",
    "looked_at",
    "precompute_answers",
    "require_trainable",
    "signal_for",
    "train_and_save",
]


def log_sizes(data: Dataset, progress: Progress) -> None:
    sizes = ", ".join(f"{name} {count:,}" for name, count in data.info.counts.items())
    names = data.info.class_names
    classes = f"{len(names)} classes ({listed(names, 6)})" if names else data.samples
    note_once(progress, f"data {data.info.source}: {classes}; {sizes}")


def train_and_save(plan: TrainingPlan, out: Destination, resources: Resources, progress: Progress) -> Student:
    """Decode and measure the teacher; then everything that changes the run in the folder.

    What stood there (with --overwrite) goes only when the new run is finished, and is there again if not one
    checkpoint came of that. In a run of several processes the first one writes, and the others wait.
    """
    folder, context = out.folder, context_for(out.folder, resources, progress)
    accelerator, progress = context.accelerator, context.progress
    with store_in(folder, context) as store:
        feed = feed_for(plan.data, plan.inputs, plan.recipe, store, context, plan.teacher)
        if plan.passes is not None:
            feed = Passes(feed, plan.passes, plan.recipe.accumulate)
        teacher: BatchModel | None = None
        known = Measured(None, None)
        sides = looked_at(plan, context)
        require_trainable(plan)
        if plan.teacher is not None:
            again = plan.quantize is not None  # the training in float has measured the same one
            teacher, known = measured(plan.teacher, feed, plan.data, context, known=again)
        signal: Teacher | None = None
        if plan.table is not None:
            quiet = Muted(progress) if plan.quantize is not None else progress
            signal, card = taught_by(plan.table, plan.data, quiet)
            known = Measured(card.accuracy if card else None, card)
        if accelerator.is_main_process:
            start(out, plan.request)
        accelerator.wait_for_everyone()
        try:
            signal = signal if signal is not None else _asked(plan, teacher, sides, feed, context)
            for stage in stages_of(plan):
                its_feed = stage_feed(stage, plan, feed, store, context)
                _train_stage(stage, folder, its_feed, teacher, signal, context)
            return _trained(plan, folder, feed, signal, sides, known, context)
        except BaseException:
            nothing = not is_begun(folder) and not (folder / "student.json").exists()
            if nothing and not out.resume and accelerator.is_main_process:
                rollback(folder)
            raise


def _asked(
    plan: TrainingPlan, teacher: BatchModel | None, sides: dict[str, LayerPairs], feed: Feed, context: RunContext
) -> Teacher | None:
    """The teacher as the losses of `plan` ask it; None where none of them does, or no network teaches."""
    if plan.teacher is None or teacher is None or not any(term.asks_teacher for term in plan.terms):
        return None
    # What one stage shows once, another shows again.
    again = bool(plan.request.recipe.stages)
    return signal_for(plan, plan.teacher, teacher, sides, feed, context, every_view=again)


def _train_stage(
    plan: TrainingPlan, folder: Path, feed: Feed, teacher: BatchModel | None, table: Teacher | None, context: RunContext
) -> None:
    """Train the student of `plan`, which is a stage before the last, in place. `table`: who answers where no network
    teaches."""
    names = ", ".join(term.name for term in plan.terms)
    context.progress.note(f"stage {plan.stage} of {len(plan.request.recipe.stages) + 1}: {names}")
    where = folder / FOLDER / str(plan.stage)
    where.mkdir(parents=True, exist_ok=True)
    sweep(where)
    sides = looked_at(plan, context)
    signal = table if plan.table is not None else _asked(plan, teacher, sides, feed, context)
    # Its classifier may know nothing, so that no epoch is chosen by what it answers: the last is kept.
    fit(plan, where, feed, signal, sides, context)


def stage_feed(stage: TrainingPlan, plan: TrainingPlan, feed: Feed, store: Path, context: RunContext) -> Feed:
    """That of a stage of `plan`, whose last one is fed by `feed`."""
    if not has_own_feed(stage, plan):
        return feed
    return feed_for(stage.data, stage.inputs, stage.recipe, store / f"stage{stage.stage}", context, plan.teacher)


def precompute_answers(plan: TrainingPlan, out: Path, resources: Resources, progress: Progress) -> None:
    """Ask the teacher for its answers to all views of all samples, and keep them; nothing stays in `out`."""
    whole = whole_layers(plan.terms, plan.sides)
    if whole:
        term, layer = next(iter(whole.items()))
        raise KdcError(
            f"--precompute: {term} looks at all of the teacher's {layer}, and what is kept are logits, pooled features "
            "and coarse maps (of pkd)",
            "leave --precompute out: that teacher runs in every epoch",
        )
    context = context_for(out, resources, progress)
    with store_in(out, context) as store:
        feed = feed_for(plan.data, plan.inputs, plan.recipe, store, context, plan.teacher)
        assert plan.teacher is not None
        teacher, _ = measured(plan.teacher, feed, plan.data, context)
        signal = signal_for(plan, plan.teacher, teacher, looked_at(plan, context), feed, context, every_view=True)
        if not isinstance(signal, Cached):
            raise KdcError(
                "--precompute: there is no room for the teacher's answers, with the maps of its layers, in "
                f"{resources.teacher_cache}",
                "--teacher-cache DIR with more room, or fewer views: --set views.distinct=2",
            )
        signal.precompute()


def signal_for(
    plan: TrainingPlan, loaded: LoadedModel, model: BatchModel, sides: dict[str, LayerPairs], feed: Feed,
    context: RunContext, *, every_view: bool,
) -> Teacher:  # fmt: skip
    """The teacher, with what the losses look at."""
    return signal_of(
        loaded, model, plan.recipe, plan.data, feed, context,
        taps=taps_of(sides, plan.student, loaded)[1], kept=kept_layers(plan.terms, sides), every_view=every_view,
    )  # fmt: skip


def require_trainable(plan: TrainingPlan) -> None:
    """Raise KdcError for what would stop the training once it has begun."""
    Codec.of(plan.recipe.teacher_answers, plan.classes)
    if plan.recipe.head_epochs:
        head_parameters(plan.student.network, plan.classes)


def looked_at(plan: TrainingPlan, context: RunContext) -> dict[str, LayerPairs]:
    """The layers that the losses on features look at, said for people."""
    sides = plan.sides
    given = {term.name: term.loss.parameters for term in plan.terms}
    for name, side in sides.items():
        context.progress.note(described(name, side, given.get(name)))
    for name, why in plan.left_out.items():
        context.progress.note(f"{name} is left out: {why}")
    return sides


def _trained(
    plan: TrainingPlan, out: Path, feed: Feed, teacher: Teacher | None, sides: dict[str, LayerPairs],
    teacher_measured: Measured, context: RunContext,
) -> Student:  # fmt: skip
    before = learned_before(plan.request)
    fitted = fit(plan, out, feed, teacher, sides, context)
    if plan.losses is not None and (plan.losses.in_full or plan.losses.epochs == plan.recipe.epochs):
        # It was trained while its losses were settled, of which trackers heard nothing.
        for row in fitted.position.history:
            track_epoch(context.accelerator, row)
    trained = Trained(plan, fitted.model, fitted.quantization, teacher_measured, fitted.position, before)
    return finish(trained, fitted.student, feed, out, context)


@dataclass(frozen=True)
class Fitted:
    """What the loop leaves: `student` has the weights to keep, of `model`; `position`: the epoch that was kept."""

    student: BatchModel
    model: LoadedModel
    quantization: Quantization | None
    position: Position


def fit(
    plan: TrainingPlan, out: Path, feed: Feed, teacher: Teacher | None, sides: dict[str, LayerPairs],
    context: RunContext,
) -> Fitted:  # fmt: skip
    """Train the student of `plan` in the folder `out`, whose checkpoint it goes on from."""
    recipe, model, quantization = plan.recipe, plan.student, None
    if plan.quantize is not None:
        model, quantization = plan.quantize(feed)
    learner = _learner(plan, model, sides, context)
    if plan.request.teacher == "self" and any(term.asks_teacher for term in plan.terms):
        teacher = teaching_itself(learner.student, recipe, plan.classes, context)
    if context.accelerator.num_processes > 1 and context.speed.device.type == "cuda":
        learner = timm.layers.convert_sync_batchnorm(learner)
    _say_plan(plan, feed, context)
    if context.resources.tracker and plan.stage is None:
        context.accelerator.init_trackers("kdc", config=_settings(recipe))
    position = train(
        learner, teacher, feed, recipe,
        head=head_parameters(model.network, plan.classes) if recipe.head_epochs else [],
        validation_size=0 if plan.stage else len(plan.data.validation), inputs=inputs_of(plan), folder=out,
        progress=context.progress, accelerator=context.accelerator, more=plan.stage is not None,
    )  # fmt: skip
    restore_channels(model.network)
    if plan.stage is None:
        leave_heads(model.network, keep=plan.request.command == "teach")
        learner.student.taps = None
    return Fitted(learner.student, model, quantization, position)


def _learner(plan: TrainingPlan, model: LoadedModel, sides: dict[str, LayerPairs], context: RunContext) -> Learner:
    """The student with its peers, and what its losses put between it and its teacher."""
    device = context.speed.device
    taps = taps_of(sides, model, plan.teacher)[0]
    student = on_device(BatchModel(model.network, "student", taps, model.preprocess.mask), device)
    peers = [
        on_device(BatchModel(peer.network, key, mask=peer.preprocess.mask), device)
        for key, peer in zip(plan.peer_keys, plan.peers, strict=True)
    ]
    torch.manual_seed(plan.recipe.seed)  # what is put between the networks does not depend on what was drawn before
    return Learner(student, plan.terms, layers=sides, peers=peers, autocast=context.speed.autocast).to(device)


def inputs_of(plan: TrainingPlan) -> dict[str, str]:
    """What a resumed training must find as it was."""
    data = plan.data
    # A view is a function of the sample's number: with the same samples in another order it would be another one's.
    order = hashlib.sha256(data.train.contents.tobytes()).hexdigest()
    inputs = {"the data": data.info.fingerprint, f"the order of the training {data.samples}": order}
    if plan.quantize is not None:
        inputs["the student in float"] = plan.student.weights.sha256
    elif plan.init != "random":
        inputs["the weights that it starts from"] = plan.student.weights.sha256
    inputs["the preprocessing"] = plan.student.preprocess.model_dump_json()
    if plan.taught_by is not None:
        inputs["the teacher"] = plan.taught_by.identity
    if (head := head_sha256(plan.terms, plan.recipe.views, plan.teacher)) is not None:
        inputs["the teacher's masked-LM head"] = head
    if data.info.unlabelled is not None:
        inputs[f"the unlabelled {data.samples}"] = data.info.unlabelled.fingerprint
    return inputs


def _say_plan(plan: TrainingPlan, feed: Feed, context: RunContext) -> None:
    recipe, shown = plan.recipe, TASKS[plan.request.task].shown or task_named(plan.request.task).samples
    shares = f", in {recipe.accumulate} parts" if recipe.accumulate > 1 else ""
    size = feed.batch_size * recipe.accumulate * context.accelerator.num_processes
    context.progress.note(
        f"{recipe.epochs} epochs of {feed.steps_per_epoch} steps of {size} {shown}{shares}; AdamW, learning "
        f"rate {recipe.optimizer.lr:.3g}"
    )


def _settings(recipe: Recipe) -> dict[str, int | float | str]:
    """What trackers take: numbers and texts."""
    rows = flat(recipe.model_dump(mode="json"))
    return {key: value if isinstance(value, int | float | str) else str(value) for key, value in rows.items()}
