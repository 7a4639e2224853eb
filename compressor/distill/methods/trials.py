"""Trials: short trainings of several entrants, of which the better ones go on for longer.

    RUN/race/1 …       of students (methods/race.py)
    RUN/arms/1 …       of ways to weigh the losses (methods/arms.py)

Nobody sees the test split. All learn from the same views, so that the teacher's answers are asked for once.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from compressor.data.samples import Dataset
from compressor.distill.api import distillation
from compressor.distill.host.context import RunContext, feed_for
from compressor.distill.loop.guards import LearningError
from compressor.distill.loop.passes import Passes
from compressor.distill.methods.halving import trial_recipe
from compressor.distill.methods.ranking import estimate_of, keep_answers, lead_between, ranked
from compressor.distill.plan import TrainingPlan
from compressor.distill.run_files import remove, sweep
from compressor.distill.teacher.predictions import taught_by
from compressor.distill.teacher.setup import measured
from compressor.distill.teacher.sources import Teacher
from compressor.distill.trainer import Fitted, fit, inputs_of, looked_at, require_trainable, signal_for
from compressor.errors import KdcError
from compressor.progress import Muted, Silent
from compressor.schema.base import read_json, write_json
from compressor.schema.race import AnyTrial, Failure, RankedTrial, Trial
from compressor.schema.recipe import KeepBy
from compressor.schema.report import Estimate
from compressor.schema.student import Request, TeacherCard
from compressor.stats import accuracy_of
from compressor.tasks.base import BatchModel, Feed

__all__ = ["Entrant", "Ran", "Track", "epochs_text", "lead_of", "run_rounds"]

Ended = TypeVar("Ended", Trial, Failure)


@dataclass(frozen=True)
class Entrant:
    """Who takes part. `name`: as people are told; `request`: the distillation that it would be, into one student;
    `arm`: how the losses are weighed, where that is what is tried; `data`: what it learns from."""

    name: str
    request: Request
    data: Dataset
    arm: str | None = None

    @property
    def student(self) -> str:
        assert self.request.student is not None
        return self.request.student


@dataclass
class Track:
    """Where the trials run: in `folder`, numbered. `feeds` and what is in them: by the student's preprocessing, the
    views and the samples, which entrants share. `card`: of who teaches, once that was measured."""

    folder: Path
    store: Path
    context: RunContext
    feeds: dict[tuple[str, str, int], Feed] = field(default_factory=dict)
    teacher: tuple[TrainingPlan, BatchModel] | None = None
    table: Teacher | None = None
    card: TeacherCard | None = None

    def feed(self, plan: TrainingPlan) -> Feed:
        preprocess, views = plan.student.preprocess.model_dump_json(), plan.recipe.views.model_dump_json()
        key = preprocess, views, len(plan.data.train)
        if key not in self.feeds:
            number = len(self.feeds) + 1
            quiet = self.context if number == 1 else replace(self.context, progress=Muted(self.context.progress))
            self.feeds[key] = feed_for(
                plan.data, plan.inputs, plan.recipe, self.store / str(number), quiet, plan.teacher
            )
        feed = self.feeds[key]
        return feed if plan.passes is None else Passes(feed, plan.passes, plan.recipe.accumulate)


@dataclass(frozen=True)
class Ran:
    """A trial that came to its end, in `folder`."""

    trial: AnyTrial
    entrant: Entrant
    folder: Path


def run_rounds(
    track: Track, entrants: Sequence[Entrant], rounds: Sequence[tuple[int, int]], of: str, before: int | None = None
) -> tuple[list[list[Ran]], dict[str, str]]:
    """All trials, the best of each round first; and who could not learn, by name.

    Args:
        rounds: how many run, and the epochs of each; see `halving.rounds_of`.
        of: what the rounds are of, for people.
        before: how many trials ran before these, where each is the training itself, which goes on from its checkpoint.
    """
    runners, finished, failed, number = list(entrants), [], {}, before or 0
    for turn, (count, epochs) in enumerate(rounds, 1):
        trials: list[Ran] = []
        for entrant in runners[:count]:
            number += 1
            turns = f"round {turn} of {len(rounds)}" if before is None else "in full"
            track.context.progress.note(f"{of}, {turns}: {entrant.name}, {epochs_text(epochs)}")
            try:
                trials.append(_run(track, number, entrant, epochs, None if before is not None else rounds))
            except LearningError as error:
                failed[entrant.name] = error.message
                track.context.progress.warn(f"{entrant.name} is out of the race: {error.message}")
                if len(failed) == len(entrants):
                    raise
        # Stable: of equals, the one that stood first. Where a whole round failed, the one before decides.
        trials.sort(key=lambda ran: -ran.trial.rank_score.value)
        runners = [ran.entrant for ran in trials]
        finished += [trials] if trials else []
    return finished, failed


def epochs_text(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _run(track: Track, number: int, entrant: Entrant, epochs: int, rounds: Sequence[tuple[int, int]] | None) -> Ran:
    """Train an entrant for so many epochs in its folder, and measure it on validation; or what that came to. `rounds`:
    of which this is a trial; None: it is the training itself."""
    folder, context = track.folder / str(number), track.context
    recipe = entrant.request.recipe
    if rounds is not None:
        # Who passes over few labels many times in an epoch asks no teacher, and sees new views each time.
        most = None if entrant.request.steps_per_epoch is not None else max(length for _, length in rounds)
        recipe = trial_recipe(recipe, epochs, most)
    plan = distillation(entrant.request.model_copy(update={"recipe": recipe}), Silent(), entrant.data)
    if (folder / "failed.json").exists():
        raise LearningError(_known(folder / "failed.json", Failure, entrant, epochs, inputs_of(plan)).error)
    if (folder / "trial.json").exists():
        kind = Trial if recipe.keep_by == "accuracy" else RankedTrial
        return Ran(_known(folder / "trial.json", kind, entrant, epochs, inputs_of(plan)), entrant, folder)
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    feed = track.feed(plan)
    sides = looked_at(plan, context)
    require_trainable(plan)
    try:
        signal = _teacher(track, plan, feed, every_view=rounds is not None)
        fitted = fit(plan, folder, feed, signal, sides, context)
        trial = _measured(fitted, folder, feed, plan, entrant)
        if signal is not None:
            trial = trial.model_copy(update={"teacher": _figure(track.card, recipe.keep_by)})
    except LearningError as error:
        # Kept: with more memory it might learn another time, and another would win a race that is resumed.
        failure = Failure(
            student=entrant.student, arm=entrant.arm, epochs=epochs, error=error.message, inputs=inputs_of(plan)
        )
        write_json(folder / "failed.json", failure)
        remove(folder, ["checkpoint"])
        raise
    write_json(folder / "trial.json", trial)
    if rounds is not None:
        remove(folder, ["checkpoint"])
    return Ran(trial, entrant, folder)


def _measured(fitted: Fitted, folder: Path, feed: Feed, plan: TrainingPlan, entrant: Entrant) -> AnyTrial:
    """What a trial came to on validation; what it answered there is kept."""
    by, epochs = plan.recipe.keep_by, plan.recipe.epochs
    answers, labels = feed.answers_on(fitted.student, "validation")
    score = accuracy_of(answers, labels, "validation")
    figure = estimate_of(by, score)
    keep_answers(folder, by, answers, labels)
    trial = Trial(
        student=entrant.student,
        arm=entrant.arm,
        epochs=epochs,
        steps=epochs * feed.steps_per_epoch,
        accuracy=estimate_of("accuracy", score),
        seconds=round(sum(float(row["seconds"]) for row in fitted.position.history), 2),
        inputs=inputs_of(plan),
    )
    return ranked(trial, by, figure)


def _figure(card: TeacherCard | None, by: KeepBy) -> Estimate | None:
    """What a teacher comes to on validation, by the figure that trials are ranked by; None where it has none."""
    if card is None or (by == "auc" and card.accuracy.auc is None):
        return None
    return estimate_of(by, card.accuracy)


def _teacher(track: Track, plan: TrainingPlan, feed: Feed, every_view: bool) -> Teacher | None:
    """Measured and told once; its answers are kept for all of them, where they may be."""
    context = track.context
    if not any(term.asks_teacher for term in plan.terms):
        return None
    if plan.table is not None:
        if track.table is None:
            track.table, track.card = taught_by(plan.table, plan.data, context.progress)
        return track.table
    if plan.teacher is None:
        return None
    if track.teacher is None:
        model, (_, track.card) = measured(plan.teacher, feed, plan.data, context)
        track.teacher = plan, model
    first, model = track.teacher
    assert first.teacher is not None
    return signal_for(plan, first.teacher, model, plan.sides, feed, context, every_view=every_view)


def _known(path: Path, noun: type[Ended], entrant: Entrant, epochs: int, inputs: dict[str, str]) -> Ended:
    """How a trial ended. Raises KdcError where it learned from something else than is there now."""
    trial = read_json(path, noun)
    changed = [name for name in inputs if trial.inputs.get(name) != inputs[name]]
    if (trial.student, trial.arm, trial.epochs) != (entrant.student, entrant.arm, epochs):
        changed.append("the field")
    if changed:
        raise KdcError(
            f"--resume: since {path.parent} was run, {' and '.join(changed)} changed",
            "put it back as it was, or start again with --overwrite",
        )
    return trial


def lead_of(first: Ran, second: Ran) -> Estimate:
    """The figure that the first trial is ranked by - the second's, paired by sample."""
    labels = first.entrant.data.validation.labels
    return lead_between(first.trial.ranked_by, first.folder, second.folder, labels)
