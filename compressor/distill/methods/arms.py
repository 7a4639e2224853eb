"""How the losses are weighed, tried before a training: a regime's own weights, no features, labels alone.

Each is trained equally long in RUN/arms/1 …, and measured on validation. A teacher that knows no more than the student
comes to know by itself pulls it down, and no count of samples tells such a teacher (docs/experiments/regimes.md).
"""

import math
from collections.abc import Sequence

from compressor.data.samples import Dataset
from compressor.data.transfer import transfer_set
from compressor.distill.methods.halving import LEAST_STEPS
from compressor.distill.methods.ranking import FIGURES, told, told_lead
from compressor.distill.methods.trials import Entrant, Ran, Track, epochs_text, lead_of, run_rounds
from compressor.distill.recipes import OWN, arms_of
from compressor.progress import Silent
from compressor.schema.race import LossRace
from compressor.schema.recipe import Transfer
from compressor.schema.student import Request

__all__ = ["arm_epochs", "has_arms", "race_of_losses", "weighed"]

SHARE = 0.5
"""How long all arms may take together, in trainings."""


def arm_epochs(arms: int, steps_per_epoch: int, epochs: int) -> int:
    """How long each of so many is tried, before a training of `epochs`."""
    return min(epochs, max(1, math.ceil(LEAST_STEPS / steps_per_epoch), int(SHARE * epochs / arms)))


def has_arms(request: Request) -> bool:
    return request.regime is not None and len(request.regime.arms) > 1


def weighed(request: Request, arm: str, data: Dataset) -> tuple[Request, Dataset]:
    """`request` with the losses of an arm, and what it learns from: where only labels teach, the samples that have one,
    over and over, so that it makes as many steps as the others."""
    losses = arms_of(request.recipe)[arm]
    changes: dict[str, object] = {"recipe": request.recipe.model_copy(update={"losses": losses}), "regime": None}
    if [term.name for term in losses] == ["cross_entropy"] and (data.train.labels < 0).any():
        changes["steps_per_epoch"] = max(1, len(data.train) // request.recipe.batch_size)
        data = transfer_set(data, Transfer(), labels_only=True, progress=Silent())
    return request.model_copy(update=changes), data


def race_of_losses(request: Request, track: Track, data: Dataset) -> LossRace:
    """Try each arm of `request.regime` for equally long, and take the best of them on validation. Raises KdcError."""
    assert request.regime is not None
    names, progress = request.regime.arms, track.context.progress
    steps = max(1, len(data.train) // request.recipe.batch_size)
    epochs = arm_epochs(len(names), steps, request.recipe.epochs)
    progress.note(f"weights of the losses: {', '.join(names)}; {epochs_text(epochs)} of each")
    entrants = [Entrant(name, *weighed(request, name, data), arm=name) for name in names]
    finished, failed = run_rounds(track, entrants, [(len(names), epochs)], "losses")
    (trials,) = finished
    winner, others = trials[0], trials[1:]
    base = next((ran for ran in others if ran.entrant.name == OWN), others[0] if others else None)
    arms = arms_of(request.recipe)
    return LossRace(
        arms={name: {term.name: term.weight_at(1.0) for term in arms[name]} for name in names},
        epochs=epochs,
        trials=tuple(ran.trial for ran in trials),
        failed=failed,
        winner=winner.entrant.name,
        lead=None if base is None else lead_of(winner, base),
        reason=_reason(trials),
    )


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
