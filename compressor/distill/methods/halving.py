"""Successive halving (Jamieson & Talwalkar 2016, arXiv 1502.07943), but that every trial has a whole schedule of its
own: a student that was stopped while the rate was high says little about where it would have ended."""

import math
from collections.abc import Sequence

from compressor.schema.recipe import Recipe

__all__ = ["LEAST_STEPS", "over_share", "rounds_of", "trial_recipe"]

LEAST_STEPS = 200
"""Steps of a trial, or all that the training itself has: after fewer, students of a small data set all look alike."""


def rounds_of(students: int, steps_per_epoch: int, epochs: int, share: float) -> list[tuple[int, int]]:
    """(students, epochs of each) of every round: each has half of those of the one before, down to two, and all
    rounds take about equally long. A round that is no longer than the one before it is left out: with the same seed its
    trials would be the same ones again.

    Args:
        students: how many begin.
        steps_per_epoch: of the training data.
        epochs: of the training that the winner is for.
        share: what all trials may take together, in trainings. More, where a trial would have fewer than LEAST_STEPS.
    """
    counts = [students]
    while counts[-1] > 2:
        counts.append(math.ceil(counts[-1] / 2))
    if students < 2:
        return []
    least = math.ceil(LEAST_STEPS / steps_per_epoch)
    lengths = [max(1, least, math.floor(share * epochs / len(counts) / count)) for count in counts]
    rounds: list[tuple[int, int]] = []
    for count, length in zip(counts, lengths, strict=True):
        if not rounds or min(epochs, length) > rounds[-1][1]:
            rounds.append((count, min(epochs, length)))
    return rounds


def over_share(rounds: Sequence[tuple[int, int]], epochs: int, share: float) -> str | None:
    """That the trials take longer than they were to, in words; None where they do not."""
    planned, permitted = sum(count * length for count, length in rounds), share * epochs
    if planned <= permitted:
        return None
    return (
        f"the race takes {planned} epochs, more than the {permitted:g} of --race-share {share:g}: a trial has an epoch "
        f"and {LEAST_STEPS} steps at least, or the students could not be told apart"
    )


def trial_recipe(recipe: Recipe, epochs: int, most: int | None) -> Recipe:
    """The recipe of a trial of so many epochs, of the last stage alone: its own schedule, and the views of a trial of
    `most` epochs, so that a teacher answers once for all of them; None: the recipe's own views."""
    warmup = min(recipe.optimizer.warmup_epochs, epochs / 5)
    views = recipe.views
    if most is not None and not views.distinct:
        views = views.model_copy(update={"distinct": most})
    changes = {
        "epochs": epochs,
        "head_epochs": min(recipe.head_epochs, epochs - 1),
        "stages": (),
        "optimizer": recipe.optimizer.model_copy(update={"warmup_epochs": warmup}),
        "views": views,
    }
    return recipe.model_copy(update=changes)
