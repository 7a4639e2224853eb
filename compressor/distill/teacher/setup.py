"""The teacher of a training, as the loop asks it: measured first, then run online or read from kept answers."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from compressor.data.samples import Dataset
from compressor.distill.host.context import RunContext
from compressor.distill.teacher.card import Measured, measured_on, shown
from compressor.distill.teacher.codec import Codec
from compressor.distill.teacher.keeping import keeping
from compressor.distill.teacher.sources import Cached, Itself, Online, Teacher
from compressor.errors import KdcError
from compressor.models import LoadedModel
from compressor.models.ensemble import Mixture
from compressor.models.features import Taps
from compressor.models.references import is_table
from compressor.models.stages import Layer
from compressor.modes import freeze
from compressor.progress import Muted
from compressor.schema.accuracy import Accuracy, Score
from compressor.schema.recipe import Recipe
from compressor.stats import scored as figures
from compressor.stats.scores import scored_any
from compressor.tasks.base import BatchModel, Feed

__all__ = ["at_chance", "measured", "on_device", "refuse_chance", "scored", "signal_of", "teaching_itself"]


def measured(
    teacher: LoadedModel, task: Feed, data: Dataset, context: RunContext, *, known: bool = False
) -> tuple[BatchModel, Measured]:
    """The teacher, frozen, and what it is like on the validation split; raises KdcError for one at chance level.
    `known`: it was measured before, so that nothing of it is said again."""
    if known:
        context = replace(context, progress=Muted(context.progress))
    names, source = data.info.class_names, teacher.weights.source
    classes = len(names) or (teacher.preprocess.every_token or 0)
    if isinstance(teacher.network, Mixture):
        _measure_members(teacher.network, task, classes, context)
    model = on_device(
        freeze(BatchModel(teacher.network, "teacher", mask=teacher.preprocess.mask)), context.speed.device
    )
    figures_of = measured_on(task, model, names)
    assert figures_of.score is not None
    context.progress.note(f"teacher {source}: {scored(figures_of.score)}")
    refuse_chance(figures_of.score, classes, source)
    if figures_of.card is not None:
        shown(figures_of.card, names, context.progress)
    return model, figures_of


def _measure_members(network: Mixture, task: Feed, classes: int, context: RunContext) -> None:
    """One that knows nothing would be hidden by the others."""
    for number, member in enumerate(network.members, 1):
        model = on_device(freeze(BatchModel(member, "teacher")), context.speed.device)
        score = task.evaluate(model, "validation")
        context.progress.note(f"teacher {number} of {len(network.members)}: {scored(score)}")
        refuse_chance(score, classes, f"{number} of {len(network.members)}")


def signal_of(
    loaded: LoadedModel,
    model: BatchModel,
    recipe: Recipe,
    data: Dataset,
    task: Feed,
    context: RunContext,
    *,
    taps: Taps | None = None,
    kept: Sequence[Layer] = (),
    every_view: bool = False,
) -> Teacher:
    """The teacher as the loop asks it: with its answers kept, where a view comes more than once and they may be.

    `taps`: what the losses look at beside its logits; `kept`: those of these layers that can be kept, each with the
    shape to keep. `every_view`: keep answers even where this training shows each view once.
    """
    progress = context.progress
    classes = len(data.info.class_names) or (loaded.preprocess.every_token or 0)
    codec = Codec.of(recipe.teacher_answers, classes, kept)
    online = Online(BatchModel(model.network, model.key, taps, model.mask).eval(), codec, context.speed.autocast)
    names = taps.names if taps is not None else ()
    with context.accelerator.main_process_first():
        place_or_why = keeping(
            loaded, recipe, task, context, codec, samples=len(data.train), looked_at=names, every_view=every_view
        )
        if isinstance(place_or_why, str):
            progress.note(f"the teacher answers anew in every epoch: {place_or_why}")
            return online
        try:
            store = place_or_why.store()
        except KdcError as error:
            if context.resources.answers_budget is None:
                raise
            progress.warn(f"the teacher answers anew in every epoch, which takes longer: {error.message}")
            return online
    size = f"{store.bytes / 1e6:,.1f} MB for {store.views} views of {store.samples:,} samples"
    if codec.bytes_of_maps:
        size += (
            f", {codec.bytes / 1e3:,.1f} kB each, of which {codec.bytes_of_maps / 1e3:,.1f} kB are maps of its layers"
        )
    progress.note(f"the teacher's answers: {'new in' if store.new else 'in'} {store.folder} ({size})")
    if store.new and store.nearest is not None:
        progress.note(f"  answers that lie there already are others' in: {', '.join(store.nearest)}")
    share = context.accelerator.process_index, context.accelerator.num_processes
    cached = Cached(online, store, task, progress, share=share)
    compared = cached.replay()
    if compared:
        progress.note(f"  {compared} of them asked again: the teacher still answers so")
    return cached


def teaching_itself(student: BatchModel, recipe: Recipe, classes: int, context: RunContext) -> Teacher:
    """The student of the epoch before, as its own teacher."""
    context.progress.note("the student of each epoch teaches that of the next one")
    return Itself(student, Codec.of(recipe.teacher_answers, classes), context.speed.autocast)


def on_device(model: BatchModel, device: torch.device) -> BatchModel:
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def scored(score: Score) -> str:
    if isinstance(score, Accuracy):
        return f"{score.split} accuracy {figures(score)}, n={score.n}"
    return f"{score.split} {scored_any(score)}, n={score.n:,} documents of {score.bytes:,} bytes"


def at_chance(score: Score, classes: int) -> str | None:
    """What is to be said of a model that does not clearly beat guessing; None of one that does. It does not where its
    perplexity is not below the size of its vocabulary; or where its balanced accuracy, brought to 0 = chance and 1 =
    perfect, is below 0.05 or within two standard errors of 0 (as if each class held n / classes samples)."""
    guesses = "answers at chance level on the validation split"
    if not isinstance(score, Accuracy):
        return guesses if score.perplexity >= classes else None
    skill = (score.balanced - 1 / classes) / (1 - 1 / classes)
    if skill < 0.05:
        return guesses
    error = (score.balanced * (1 - score.balanced) / score.n) ** 0.5 / (1 - 1 / classes)
    return "cannot be told from chance by so small a validation split" if skill < 2 * error else None


def refuse_chance(score: Score, classes: int, source: str) -> None:
    said = at_chance(score, classes)
    if said is None:
        return
    hint = f"fine-tune it first: kdc teach --teacher {source} --data … --out teacher, then --teacher run:teacher"
    if is_table(source):
        hint = "check its labels and ids"
    elif " + " in source or source.startswith("specialists:"):
        hint = "measure each alone: kdc predict --teacher … --data … --out FILE"
    if isinstance(score, Accuracy):
        figure = f"balanced accuracy {score.balanced:.1%} of {classes} classes (n={score.n})"
    else:
        figure = f"perplexity {score.perplexity:.4g} with a vocabulary of {classes:,} (n={score.n})"
    raise KdcError(f"teacher {source} {said}: {figure}", hint)
