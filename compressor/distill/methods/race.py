"""What is settled by trials before a training: which student, and how its losses are weighed.

    RUN/race/1 …, RUN/arms/1 … -> RUN

Of students, each is trained briefly, the better half goes on for longer, and the best is taken. Of the losses' weights,
see `arms`.
"""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from compressor.data.samples import Dataset
from compressor.distill.api import already_finished, distillation, has_teacher, training_data
from compressor.distill.host.context import context_for, store_in
from compressor.distill.host.resources import Resources
from compressor.distill.loop.checkpoint import is_saved
from compressor.distill.loop.learner import bind_losses
from compressor.distill.methods.arms import has_arms, race_of_losses, weighed
from compressor.distill.methods.halving import over_share, rounds_of
from compressor.distill.methods.ranking import FIGURES, told, told_lead
from compressor.distill.methods.trials import Entrant, Ran, Track, epochs_text, lead_of, run_rounds
from compressor.distill.run_files import ANSWERS, remove
from compressor.distill.run_folder import Destination, acquired, rollback, start
from compressor.distill.trainer import train_and_save
from compressor.errors import KdcError, os_error
from compressor.files.atomic import write_text
from compressor.processes.interruption import uninterrupted
from compressor.processes.team import team
from compressor.progress import Progress, Silent
from compressor.schema.race import Contender, LossRace, Race
from compressor.schema.report import Estimate
from compressor.schema.student import Request, Student

__all__ = ["distill_raced", "require_one_process_to_race", "require_raceable"]


def distill_raced(
    request: Request,
    out: Destination,
    *,
    progress: Progress,
    resources: Resources | None = None,
    data: Dataset | None = None,
) -> Student:
    """Let the contenders of `request.race` run, where there are some, and then the losses' weights, where the regime
    says so; and distill into the student that won, as it learned best. Interrupted anywhere, it goes on with `resume`:
    a trial that is finished is not run again.

    `data`: where `require_raceable` has opened it already. Raises KdcError before the first trial for whatever would
    stop a later one.
    """
    assert request.race is None or request.race.contenders, "pipeline.distill fills them in"
    with acquired(out, request, progress) as finished:
        if finished:
            return already_finished(out.folder, progress)
        data = require_raceable(request, progress, data)
        start(out, request)
        resources = resources or Resources()
        try:
            race, losses, done = _settled(request, out.folder, data, resources, progress)
        except BaseException:
            if not out.resume and not _begun(out.folder):
                rollback(out.folder)
            raise
        named = request if race is None else _with(request, race.winner)
        if losses is not None:
            named, data = weighed(named, losses.winner, data)
            request = _with_views(request, named, progress)
        if done is not None:
            _take_over(done, out.folder, progress)
        if resources.answers_budget is not None and resources.teacher_cache and named.recipe.views.distinct is None:
            remove(resources.teacher_cache.parent, [ANSWERS])  # the training has none: they were the trials' alone
        plan = distillation(named, progress, data)
        plan = replace(plan, request=request, race=race, losses=losses, learned=named.recipe)
        return train_and_save(plan, replace(out, resume=True), resources, progress)


def _with_views(request: Request, named: Request, progress: Progress) -> Request:
    """`request` as what it says of its views, where labels alone came out to teach, which see new ones."""
    if request.regime is None or request.recipe.views == named.recipe.views:
        return request
    said = "new ones in every epoch: labels alone teach"
    progress.note(f"views: {said}")
    return request.model_copy(update={"regime": request.regime.model_copy(update={"views": said})})


def _take_over(trained: Path, out: Path, progress: Progress) -> None:
    """Let the run in `out` go on from a training in full in the folder `trained`: from its end."""
    if is_saved(trained / "checkpoint"):
        progress.note(f"the student: as it was trained in {trained}")
        with uninterrupted():
            write_text(out / "history.jsonl", (trained / "history.jsonl").read_text(encoding="utf-8"))
            try:
                (trained / "checkpoint").replace(out / "checkpoint")
            except OSError as error:
                raise os_error(error, f"moving {trained / 'checkpoint'}") from error
    for other in trained.parent.iterdir():
        remove(other, ["checkpoint"])


def _settled(
    request: Request, out: Path, data: Dataset, resources: Resources, progress: Progress
) -> tuple[Race | None, LossRace | None, Path | None]:
    """Who won, and with which weights of the losses; and where it was trained in full already, if it was."""
    context = context_for(out, replace(resources, tracker=None), progress)
    race = losses = teacher = card = done = None
    if request.race is not None:
        with store_in(out, context) as store:
            track = Track(out / "race", store, context)
            race, teacher, card = _race(request, track, data, progress), track.teacher, track.card
        progress.note(f"the race: {race.reason}")
        request = _with(request, race.winner)
    if has_arms(request):
        with store_in(out, context) as store:
            track = Track(out / "arms", store, context, teacher=teacher, card=card)
            losses, done = race_of_losses(request, track, data)
        progress.note(f"the losses: {losses.reason}")
    return race, losses, done


def _begun(folder: Path) -> bool:
    trials = (*folder.glob("race/[0-9]*"), *folder.glob("arms/[0-9]*"))
    return any((path / "trial.json").exists() or is_saved(path / "checkpoint") for path in trials)


def require_raceable(request: Request, progress: Progress, data: Dataset | None = None) -> Dataset:
    """Open the data (or take it, where it is open), and make every contender once. Raises KdcError for whatever would
    stop a trial later; changes nothing."""
    if request.race is None:
        data = data or training_data(request, bind_losses(request.recipe, has_teacher=has_teacher(request)), progress)
        distillation(request, Silent(), data)
        return data
    require_one_process_to_race()
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


def require_one_process_to_race() -> None:
    if team().num_processes > 1:
        raise KdcError("a race of students runs in one process", "name the student: --student timm:NAME")


def _with(request: Request, student: str) -> Request:
    """The distillation into one of the contenders."""
    return request.model_copy(update={"student": student, "race": None})


def _race(request: Request, track: Track, data: Dataset, progress: Progress) -> Race:
    asked = request.race
    assert asked is not None
    steps = max(1, len(data.train) // request.recipe.batch_size)
    rounds = rounds_of(len(asked.contenders), steps, request.recipe.epochs, asked.share)
    planned = sum(count * epochs for count, epochs in rounds)
    _tell(request, rounds, planned, progress)
    entrants = [Entrant(each.student, _with(request, each.student), data) for each in asked.contenders]
    finished, failed = run_rounds(track, entrants, rounds, "race")
    winner, lead, reason = _winner(finished, asked.contenders, failed)
    return Race(
        contenders=asked.contenders,
        why=asked.why,
        share=asked.share,
        planned=planned,
        rounds=tuple(tuple(ran.trial for ran in trials) for trials in finished),
        failed=failed,
        winner=winner,
        lead=lead,
        reason=reason,
    )


def _tell(request: Request, rounds: Sequence[tuple[int, int]], planned: int, progress: Progress) -> None:
    asked = request.race
    assert asked is not None
    progress.note(f"{len(asked.contenders)} students: {asked.why}")
    if not rounds:
        return
    told = ", then ".join(f"{count} for {epochs_text(epochs)}" for count, epochs in rounds)
    progress.note(f"a race: {told}; {planned} epochs in all, beside the {request.recipe.epochs} of the training itself")
    if (over := over_share(rounds, request.recipe.epochs, asked.share)) is not None:
        progress.note(over)


def _winner(
    rounds: Sequence[Sequence[Ran]], contenders: Sequence[Contender], failed: Collection[str]
) -> tuple[str, Estimate | None, str]:
    """Who won, by how much, and why in words."""
    if not rounds:
        return contenders[0].student, None, f"{contenders[0].student} is the only one"
    sound = ([ran for ran in trials if ran.entrant.name not in failed] for trials in reversed(rounds))
    last = next(filter(None, sound))
    first = last[0].trial
    if len(last) == 1:
        return first.student, None, f"{first.student} is the only one left"
    lead, by, second = lead_of(last[0], last[1]), first.ranked_by, last[1].trial
    reason = (
        f"{first.student} has the highest validation {FIGURES[by]} of the last round, "
        f"{told(by, first.rank_score.value)} against {told(by, second.rank_score.value)} of {second.student}: "
        f"{told_lead(by, lead)}"
    )
    if lead.low <= 0:
        reason += ", which cannot be told from none"
    return first.student, lead, reason
