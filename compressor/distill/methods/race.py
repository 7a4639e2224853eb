"""A race of students: each is trained briefly, the better half goes on for longer, and the best is taken.

    RUN/race/1 … -> RUN

Nobody sees the test split. All learn from the same views, so that the teacher's answers are asked for once.
"""

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.data.samples import Dataset
from compressor.distill.api import already_finished, distillation, has_teacher, training_data
from compressor.distill.host.context import RunContext, context_for, feed_for, store_in
from compressor.distill.host.resources import Resources
from compressor.distill.loop.checkpoint import is_saved
from compressor.distill.loop.guards import LearningError
from compressor.distill.loop.learner import bind_losses
from compressor.distill.methods.halving import LEAST_STEPS, rounds_of, trial_recipe
from compressor.distill.plan import TrainingPlan
from compressor.distill.run_files import remove, sweep
from compressor.distill.run_folder import Destination, acquired, rollback, start
from compressor.distill.teacher.predictions import taught_by
from compressor.distill.teacher.setup import measured
from compressor.distill.teacher.sources import Teacher
from compressor.distill.trainer import fit, inputs_of, looked_at, require_trainable, signal_for, train_and_save
from compressor.errors import KdcError
from compressor.files.atomic import write_atomically
from compressor.processes.team import team
from compressor.progress import Muted, Progress, Silent
from compressor.schema.base import read_json, write_json
from compressor.schema.race import Contender, Race, Trial
from compressor.schema.report import Estimate
from compressor.schema.student import Request, Student
from compressor.stats import difference
from compressor.stats.intervals import wilson_interval
from compressor.tasks.base import BatchModel, Feed

__all__ = ["distill_raced", "require_raceable"]


def distill_raced(
    request: Request,
    out: Destination,
    *,
    progress: Progress,
    resources: Resources | None = None,
    data: Dataset | None = None,
) -> Student:
    """Let the contenders of `request.race` run, and distill into the one that won. Interrupted anywhere, it goes on
    with `resume`: a trial that is finished is not run again.

    `data`: where `require_raceable` has opened it already. Raises KdcError before the first trial for whatever would
    stop a later one.
    """
    assert request.race is not None
    assert request.race.contenders, "pipeline.distill fills them in"
    with acquired(out, request, progress) as finished:
        if finished:
            return already_finished(out.folder, progress)
        data = require_raceable(request, progress, data)
        start(out, request)
        resources = resources or Resources()
        try:
            race = _race(request, out.folder, data, resources, progress)
        except BaseException:
            if not out.resume and not _begun(out.folder):
                rollback(out.folder)
            raise
        progress.note(f"the race: {race.reason}")
        plan = distillation(_with(request, race.winner), progress, data)
        return train_and_save(replace(plan, request=request, race=race), replace(out, resume=True), resources, progress)


def _begun(folder: Path) -> bool:
    return any((path / "trial.json").exists() or is_saved(path / "checkpoint") for path in folder.glob("race/[0-9]*"))


def require_raceable(request: Request, progress: Progress, data: Dataset | None = None) -> Dataset:
    """Open the data (or take it, where it is open), and make every contender once. Raises KdcError for whatever would
    stop a trial later; changes nothing."""
    assert request.race is not None
    if team().num_processes > 1:
        raise KdcError("a race of students runs in one process", "name the student: --student timm:NAME")
    if request.assistants:
        raise KdcError(
            "--assistant stands between the teacher and one student, and several would race",
            "name the student: --student timm:NAME",
        )
    if request.teacher == "peers":
        raise KdcError(
            "--teacher peers: the student's peers are its twins, so that it must be named", "--student timm:NAME"
        )
    terms = bind_losses(request.recipe, has_teacher=has_teacher(request))
    data = data or training_data(request, terms, progress)
    for contender in request.race.contenders:
        distillation(_with(request, contender.student), Silent(), data)
    return data


def _with(request: Request, student: str) -> Request:
    """The distillation into one of the contenders."""
    return request.model_copy(update={"student": student, "race": None})


@dataclass
class _Track:
    """Where the trials run. `feeds` and what is in them: by the student's preprocessing, which contenders share."""

    request: Request
    folder: Path
    data: Dataset
    store: Path
    context: RunContext
    feeds: dict[str, Feed] = field(default_factory=dict)
    teacher: tuple[TrainingPlan, BatchModel] | None = None
    table: Teacher | None = None

    def feed(self, plan: TrainingPlan) -> Feed:
        key = plan.student.preprocess.model_dump_json()
        if key not in self.feeds:
            number = len(self.feeds) + 1
            quiet = self.context if number == 1 else replace(self.context, progress=Muted(self.context.progress))
            self.feeds[key] = feed_for(plan.data, plan.inputs, plan.recipe, self.store / str(number), quiet)
        return self.feeds[key]


def _race(request: Request, out: Path, data: Dataset, resources: Resources, progress: Progress) -> Race:
    asked = request.race
    assert asked is not None
    context = context_for(out, replace(resources, tracker=None), progress)
    steps = max(1, len(data.train) // request.recipe.batch_size)
    rounds = rounds_of(len(asked.contenders), steps, request.recipe.epochs, asked.share)
    planned = sum(count * epochs for count, epochs in rounds)
    _tell(request, rounds, planned, progress)
    with ExitStack() as stack:
        track = _Track(request, out, data, stack.enter_context(store_in(out, context)), context)
        finished, failed = _run(track, asked.contenders, rounds)
    winner, lead, reason = _winner(finished, asked.contenders, failed)
    return Race(
        contenders=asked.contenders,
        why=asked.why,
        share=asked.share,
        planned=planned,
        rounds=tuple(tuple(trial for trial, _, _ in trials) for trials in finished),
        failed=failed,
        winner=winner,
        lead=lead,
        reason=reason,
    )


def _run(
    track: _Track, contenders: Sequence[Contender], rounds: Sequence[tuple[int, int]]
) -> tuple[list[list["_Ran"]], dict[str, str]]:
    """All trials, the best of each round first; and who could not learn."""
    runners, finished, failed, number = list(contenders), [], {}, 0
    for turn, (count, epochs) in enumerate(rounds, 1):
        trials: list[_Ran] = []
        for contender in runners[:count]:
            number += 1
            track.context.progress.note(f"race, round {turn} of {len(rounds)}: {contender.student}, {_epochs(epochs)}")
            try:
                trial = _trial(track, number, contender, epochs, rounds)
            except LearningError as error:
                failed[contender.student] = error.message
                track.context.progress.warn(f"{contender.student} is out of the race: {error.message}")
                if len(failed) == len(contenders):
                    raise
                continue
            trials.append((trial, contender, track.folder / "race" / str(number)))
        # Stable: of equals, the one that computes more. Where a whole round failed, the one before decides.
        trials.sort(key=lambda ran: -ran[0].accuracy.value)
        runners = [contender for _, contender, _ in trials]
        finished += [trials] if trials else []
    return finished, failed


def _epochs(count: int) -> str:
    return "1 epoch" if count == 1 else f"{count} epochs"


def _tell(request: Request, rounds: Sequence[tuple[int, int]], planned: int, progress: Progress) -> None:
    asked = request.race
    assert asked is not None
    progress.note(f"{len(asked.contenders)} students: {asked.why}")
    if not rounds:
        return
    told = ", then ".join(f"{count} for {_epochs(epochs)}" for count, epochs in rounds)
    permitted = asked.share * request.recipe.epochs
    progress.note(f"a race: {told}; {planned} epochs in all, beside the {request.recipe.epochs} of the training itself")
    if planned > permitted:
        progress.note(
            f"that is more than the {permitted:g} of --race-share {asked.share:g}: a trial has an epoch and "
            f"{LEAST_STEPS} steps at least, or the students could not be told apart"
        )


def _trial(track: _Track, number: int, contender: Contender, epochs: int, rounds: Sequence[tuple[int, int]]) -> Trial:
    """Train a contender for so many epochs in RUN/race/NUMBER, and measure it on validation; or what that came to."""
    folder, context = track.folder / "race" / str(number), track.context
    recipe = trial_recipe(track.request.recipe, epochs, max(length for _, length in rounds))
    request = _with(track.request, contender.student).model_copy(update={"recipe": recipe})
    plan = distillation(request, Silent(), track.data)
    if (folder / "trial.json").exists():
        return _known(folder / "trial.json", contender.student, epochs, inputs_of(plan))
    folder.mkdir(parents=True, exist_ok=True)
    sweep(folder)
    feed = track.feed(plan)
    sides = looked_at(plan, context)
    require_trainable(plan)
    fitted = fit(plan, folder, feed, _teacher(track, plan, feed), sides, context)
    answers, labels = feed.answers_on(fitted.student, "validation")
    right = answers.argmax(axis=1) == labels
    _save(folder / "right.npy", right)
    share = wilson_interval(int(right.sum()), len(right))
    trial = Trial(
        student=contender.student,
        epochs=epochs,
        steps=epochs * feed.steps_per_epoch,
        accuracy=Estimate(value=share.value, low=share.low, high=share.high, n=share.n, of="validation samples"),
        seconds=round(sum(float(row["seconds"]) for row in fitted.position.history), 2),
        inputs=inputs_of(plan),
    )
    write_json(folder / "trial.json", trial)
    remove(folder, ["checkpoint"])
    return trial


def _teacher(track: _Track, plan: TrainingPlan, feed: Feed) -> Teacher | None:
    """Measured and told once; its answers are kept for all of them, where they may be."""
    context = track.context
    if plan.table is not None:
        if track.table is None:
            track.table, _ = taught_by(plan.table, plan.data, context.progress)
        return track.table
    if plan.teacher is None or not any(term.asks_teacher for term in plan.terms):
        return None
    if track.teacher is None:
        model, _ = measured(plan.teacher, feed, plan.data, context)
        track.teacher = plan, model
    first, model = track.teacher
    assert first.teacher is not None
    return signal_for(plan, first.teacher, model, plan.sides, feed, context, every_view=True)


def _known(path: Path, student: str, epochs: int, inputs: dict[str, str]) -> Trial:
    """The trial that is finished. Raises KdcError where it learned from something else than is there now."""
    trial = read_json(path, Trial)
    changed = [name for name in inputs if trial.inputs.get(name) != inputs[name]]
    if (trial.student, trial.epochs) != (student, epochs):
        changed.append("the field")
    if changed:
        raise KdcError(
            f"--resume: since {path.parent} was run, {' and '.join(changed)} changed",
            "put it back as it was, or start again with --overwrite",
        )
    return trial


def _save(path: Path, right: NDArray[np.bool_]) -> None:
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        np.save(file, right)


_Ran = tuple[Trial, Contender, Path]


def _winner(
    rounds: Sequence[Sequence[_Ran]], contenders: Sequence[Contender], failed: Collection[str]
) -> tuple[str, Estimate | None, str]:
    """Who won, by how much, and why in words."""
    if not rounds:
        return contenders[0].student, None, f"{contenders[0].student} is the only one"
    sound = ([ran for ran in trials if ran[0].student not in failed] for trials in reversed(rounds))
    last = next(filter(None, sound))
    if len(last) == 1:
        return last[0][0].student, None, f"{last[0][0].student} is the only one left"
    (first, _, first_folder), (second, _, second_folder) = last[:2]
    gap = difference(_right(first_folder), _right(second_folder))
    lead = Estimate(value=gap.value, low=gap.low, high=gap.high, n=gap.n, of="validation samples")
    told = (
        f"{first.student} has the highest validation accuracy of the last round, {first.accuracy.value:.2%} against "
        f"{second.accuracy.value:.2%} of {second.student}: {100 * gap.value:+.2f} points "
        f"[{100 * gap.low:+.2f} to {100 * gap.high:+.2f}], n={gap.n}"
    )
    if gap.low <= 0:
        told += ", which cannot be told from none"
    return first.student, lead, told


def _right(folder: Path) -> NDArray[np.bool_]:
    try:
        right: NDArray[np.bool_] = np.load(folder / "right.npy", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise KdcError(f"{folder / 'right.npy'} is damaged", "start again with --overwrite") from error
    return right
