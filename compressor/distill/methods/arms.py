"""How the losses are weighed, tried before a training: a regime's own weights, no features, labels alone.

Each is trained equally long in RUN/arms/1 …, and measured on validation. A teacher that knows no more than the student
comes to know by itself pulls it down, and no count of samples tells such a teacher (docs/experiments/regimes.md).

Soft targets lead early, whatever comes of them. So a trial may choose labels alone, but rules it out only where it is
long, and where labels alone would not come to what the teacher has by the end of the training. Else both are trained in
full, and the better one on validation is the student.
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path

from compressor.data.samples import Dataset
from compressor.data.transfer import transfer_set
from compressor.distill.methods.halving import LEAST_STEPS
from compressor.distill.methods.ranking import FIGURES, told, told_lead
from compressor.distill.methods.trials import Entrant, Ran, Track, epochs_text, lead_of, run_rounds
from compressor.distill.recipes import LABELS, OWN, arms_of, repeats_by_default, with_new_views
from compressor.progress import Silent
from compressor.schema.race import LossRace
from compressor.schema.recipe import Transfer
from compressor.schema.student import Request

__all__ = ["has_arms", "race_of_losses", "reach", "tried", "weighed"]

SHARE = 0.5
"""How long all arms may take together, in trainings."""

LEAST_EPOCHS = 3
"""Of a trial. After one epoch of five soft targets led by 1.6 to 2.0 points, and lost 0.7 in the end."""

SLOWEST = 0.25
"""The power of its length that the error of a training falls with, at least. From trials to the end it was 0.07 to 0.28
on Fashion-MNIST; on digits 0.5 to 0.9, and steep in the trial already (docs/experiments/regimes.md)."""


def tried(arms: Sequence[str], steps_per_epoch: int, epochs: int) -> tuple[tuple[str, ...], int]:
    """What is tried before a training of `epochs`, and for how many: all arms, briefly; or, where so short a trial
    tells nothing, or all take as long as the training, the default and labels alone in full, which is the training."""
    length = max(math.ceil(LEAST_STEPS / steps_per_epoch), int(SHARE * epochs / len(arms)))
    if length < LEAST_EPOCHS or len(arms) * length >= epochs:
        return tuple(arm for arm in arms if arm in (OWN, LABELS)), epochs
    return tuple(arms), length


def reach(scores: Sequence[float], epochs: int) -> float:
    """What a trial that came to `scores` after its epochs may come to in a training of `epochs`: its error goes on to
    fall as a power of the epochs, as over the last half of the trial, and with `SLOWEST` at least. Such curves flatten,
    and the falling rate steepens the end of a trial, so that this is rather more than it will be."""
    last, half = len(scores), max(1, len(scores) // 2)
    before, after = 1 - scores[half - 1], 1 - scores[-1]
    if after <= 0:
        return 1.0
    power = math.log(before / after) / math.log(last / half) if last > half and before > 0 else 0.0
    return 1 - after * math.pow(last / epochs, max(power, SLOWEST))


def has_arms(request: Request) -> bool:
    return request.regime is not None and len(request.regime.arms) > 1


def weighed(request: Request, arm: str, data: Dataset, *, trial: bool = False) -> tuple[Request, Dataset]:
    """`request` with the losses of an arm, and what it learns from: where only labels teach, the samples that have one,
    over and over, so that it makes as many steps as the others; and, but in a `trial`, which shares them, new views
    where a regime repeats them for the teacher's sake."""
    recipe = request.recipe.model_copy(update={"losses": arms_of(request.recipe)[arm]})
    changes: dict[str, object] = {"regime": None}
    if [term.name for term in recipe.losses] == ["cross_entropy"]:
        if repeats_by_default(request) and not trial:
            recipe = with_new_views(recipe)
        if (data.train.labels < 0).any():
            changes["steps_per_epoch"] = max(1, len(data.train) // request.recipe.batch_size)
            data = transfer_set(data, Transfer(), labels_only=True, progress=Silent())
    return request.model_copy(update={**changes, "recipe": recipe}), data


def race_of_losses(request: Request, track: Track, data: Dataset) -> tuple[LossRace, Path | None]:
    """Try arms of `request.regime` for equally long, and take the best of them on validation; and the folder in which
    it was trained in full, where it was. Raises KdcError."""
    assert request.regime is not None
    recipe, progress = request.recipe, track.context.progress
    names, epochs = tried(request.regime.arms, max(1, len(data.train) // recipe.batch_size), recipe.epochs)
    whole = epochs == recipe.epochs
    better = ", which is the training: the better one is kept" if whole else ""
    progress.note(f"weights of the losses: {', '.join(names)}; {epochs_text(epochs)} of each{better}")
    entrants = [_entrant(request, name, data, trial=not whole) for name in names]
    (trials,), failed = run_rounds(track, entrants, [(len(names), epochs)], "losses", 0 if whole else None)
    last, why = trials, ""
    if not whole:
        undecided, why = _undecided(trials, recipe.epochs)
        if undecided:
            progress.note(f"{why}: both are trained in full, and the better one is kept")
            pair = [_entrant(request, ran.entrant.name, data, trial=False) for ran in undecided]
            (last,), more = run_rounds(track, pair, [(2, recipe.epochs)], "losses", len(names))
            failed |= more
    winner, arms = last[0], arms_of(recipe)
    others = last[1:]
    base = next((ran for ran in others if ran.entrant.name == OWN), others[0] if others else None)
    return LossRace(
        arms={name: {term.name: term.weight_at(1.0) for term in arms[name]} for name in names},
        epochs=epochs,
        trials=tuple(ran.trial for ran in trials),
        in_full=() if last is trials else tuple(ran.trial for ran in last),
        failed=failed,
        winner=winner.entrant.name,
        lead=None if base is None else lead_of(winner, base),
        reason=_reason(last) + (f". {why}" if why and last is trials else ""),
    ), None if not whole and last is trials else winner.folder


def _entrant(request: Request, arm: str, data: Dataset, *, trial: bool) -> Entrant:
    return Entrant(arm, *weighed(request, arm, data, trial=trial), arm=arm)


def _undecided(trials: Sequence[Ran], epochs: int) -> tuple[list[Ran], str]:
    """The best of `trials` and labels alone, where that may still be the better one after all `epochs`; and why, or why
    not, in words. Nobody where labels alone leads, though trials favour the teacher, or could not learn."""
    best, labels = trials[0], next((ran for ran in trials if ran.entrant.name == LABELS), None)
    if labels is None or best is labels:
        return [], ""
    by, taught = best.trial.ranked_by, best.trial.teacher
    most = reach(_scores(labels), epochs)
    has = "not known" if taught is None else told(by, taught.value)
    why = f"labels alone may come to {told(by, most)} in {epochs_text(epochs)}, the teacher's {FIGURES[by]} is {has}"
    return [best, labels] if taught is None or most >= taught.value else [], why


def _scores(ran: Ran) -> list[float]:
    """What a trial came to after each epoch, and at last with the weights that it kept."""
    rows = [json.loads(row) for row in (ran.folder / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    figure = ran.trial.rank_score.value
    return [row["validation"].get(ran.trial.ranked_by, figure) for row in rows[:-1]] + [figure]


def _reason(trials: Sequence[Ran]) -> str:
    """Why the first is taken. `trials`: the best first; of equals the regime's own weights, which were tried first."""
    best = trials[0]
    if len(trials) == 1:
        return f"{best.entrant.name} is the only one left"
    base = next((ran for ran in trials[1:] if ran.entrant.name == OWN), trials[1])
    lead, by = lead_of(best, base), best.trial.ranked_by
    reason = (
        f"{best.entrant.name} has the highest validation {FIGURES[by]}, "
        f"{told(by, best.trial.rank_score.value)} against {told(by, base.trial.rank_score.value)} of "
        f"{base.entrant.name}: {told_lead(by, lead)}"
    )
    return reason if lead.low > 0 else f"{reason}, which cannot be told from none"
