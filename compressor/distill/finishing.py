"""The end of a training: the student measured once on test, said, and written."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from compressor.distill.host.context import RunContext
from compressor.distill.host.environment import environment
from compressor.distill.loop.checkpoint import Position
from compressor.distill.loop.engine import MIN_TO_CHOOSE
from compressor.distill.methods.bias_correction import correct_bias, unseen_recall, write_history
from compressor.distill.methods.ranking import FIGURES
from compressor.distill.plan import TrainingPlan
from compressor.distill.run_folder import discard_backup
from compressor.distill.stages import steps_before
from compressor.distill.teacher.card import Measured, measured_on, shown, tell_lost_classes
from compressor.distill.teacher.gap import tell_bits, tell_gap
from compressor.distill.teacher.setup import scored
from compressor.models import LoadedModel, load_run, save_run
from compressor.models.compared import save_right
from compressor.models.trained_on import Images as Contents
from compressor.models.trained_on import save_trained_on
from compressor.schema.accuracy import Score, accuracy_in
from compressor.schema.quantization import Quantization
from compressor.schema.recipe import KeepBy
from compressor.schema.student import Student, TeacherCard
from compressor.stats.scores import figures
from compressor.tasks.base import BatchModel, Feed

__all__ = ["Trained", "finish"]


@dataclass(frozen=True)
class Trained:
    """What a training has come to: of `plan`, the `model` with its new weights, and the epoch that was kept
    (`position`). `teacher`: what its teacher is like. `before`: what those weights had learned from already, where that
    is known."""

    plan: TrainingPlan
    model: LoadedModel
    quantization: Quantization | None
    teacher: Measured
    position: Position
    before: Contents | None


def finish(trained: Trained, student: BatchModel, feed: Feed, out: Path, context: RunContext) -> Student:
    """Correct the student's biases where that was asked for, measure it, say what it is, and write the run in `out`."""
    plan, accelerator = trained.plan, context.accelerator
    row = {}
    if plan.recipe.transfer.correct_bias:
        row = correct_bias(student, feed, plan.data, plan.recipe.transfer, context.progress)
    if row and accelerator.is_main_process:
        write_history(out, [*trained.position.history, row])
    validation, test = feed.evaluate(student, "validation"), feed.evaluate(student, "test")
    card = _told(trained, student, feed, (validation, test), out, context)
    if context.resources.tracker:
        accelerator.log({f"test/{name}": value for name, value in figures(test).items()}, step=plan.recipe.epochs)
        accelerator.end_training()
    student.taps = None
    student.network.cpu().eval()
    finished = _record(trained, card, validation, test, context)
    finished = finished.model_copy(update={"steps_per_epoch": feed.steps_per_epoch})
    if row:
        finished = finished.model_copy(update={"bias_correction": row["bias_correction"]})
    if accelerator.is_main_process:
        learned = plan.learned_from
        if trained.before is not None:
            learned = np.concatenate([learned, trained.before])
        finished = finished.model_copy(update={"trained_on": save_trained_on(out, learned)})
        if plan.request.is_compared:
            right = {
                "validation": feed.right[student.key, "validation"],
                "test": feed.right[student.key, "test"],
            }
            save_right(out, plan.data, right)
        save_run(out, trained.model, finished)
        discard_backup(out)
    accelerator.wait_for_everyone()
    return load_run(out)[1]


def _told(
    trained: Trained, student: BatchModel, feed: Feed, scores: tuple[Score, Score], out: Path, context: RunContext
) -> TeacherCard | None:
    """The card: of a model that was taught, its own; else its teacher's; None where there are no classes. `scores`: on
    validation and test."""
    plan, progress, (validation, test) = trained.plan, context.progress, scores
    progress.note(f"kept epoch {trained.position.kept_epoch}: {scored(validation)}; {scored(test)}")
    names, teaching = plan.data.info.class_names, plan.request.command == "teach"
    steps = plan.recipe.epochs * feed.steps_per_epoch + steps_before(out)
    if not names:
        if plan.teacher is not None:
            tell_bits(feed.costs, plan.teacher.weights.source, steps, progress)
        return None
    made = "the model" if teaching else "the student"
    card, accuracies = trained.teacher.card, [accuracy_in(score) for score in scores]
    if teaching:
        card = measured_on(feed, student, names).card
        assert card is not None
        shown(card, names, progress, made)
    left_out = plan.recipe.transfer.without
    tell_lost_classes(made, accuracies[teaching:], names, progress, left_out=left_out)
    if plan.teacher is not None:
        tell_gap(feed.right, plan.teacher.weights.source, steps, progress)
    if left_out:
        progress.note(unseen_recall(feed.right[student.key, "test"], plan.data, plan.recipe.transfer))
    return card


def _record(trained: Trained, card: TeacherCard | None, validation: Score, test: Score, context: RunContext) -> Student:
    plan, model, origin = trained.plan, trained.model, trained.plan.origin
    measured = trained.teacher.score if plan.taught_by else None
    return Student(
        task=plan.request.task,
        made_by=plan.request.command,
        family=model.family,
        architecture=model.weights.architecture,
        init=plan.init,
        weights=model.weights,
        class_names=plan.data.info.class_names,
        preprocess=model.preprocess,
        teacher=origin.teacher if origin else plan.taught_by,
        data=plan.data.info,
        recipe=plan.learned or plan.request.recipe,
        regime=plan.request.regime,
        kept_epoch=trained.position.kept_epoch,
        kept_rule=_rule(len(plan.data.validation), plan.recipe.keep_by),
        validation=validation,
        test=test,
        teacher_validation=origin.validation if origin else measured,
        teacher_card=card,
        environment=environment(context.speed.device),
        quantization=trained.quantization,
        specialty=plan.specialty,
        assistants=origin.assistants if origin else (),
        race=plan.race,
        losses=plan.losses,
    )


def _rule(n: int, keep_by: KeepBy) -> str:
    if n >= MIN_TO_CHOOSE:
        return f"best validation {FIGURES[keep_by]} (n={n} >= {MIN_TO_CHOOSE})"
    return f"last epoch (validation n={n} < {MIN_TO_CHOOSE} is too small to choose on)"
