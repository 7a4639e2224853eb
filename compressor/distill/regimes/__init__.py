"""The default recipes, a YAML each in this folder, and the rules that choose one of them for `kdc distill`.

They go by what the data and the request are, in counts, and never by names. The first that holds:

    few_labels    more training images without a label than with one
    pretrained    the student begins with weights
    small         fewer than 10,000 training images
    large         all else

Then, whatever the regime, there must be steps enough to learn in: the batch is halved, and the epochs are raised.
docs/experiments/regimes.md has what was measured.
"""

import copy
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from compressor.overrides import read_yaml

__all__ = ["BY_NAME", "REGIMES", "Facts", "built_in", "choose", "with_steps"]

REGIMES = ("few_labels", "pretrained", "small", "large")

BY_NAME = ("text_distilbert", "text_tinybert")
"""Recipes that are nobody's default: `--recipe NAME`."""

SMALL = 10_000
"""Training images from which on 30 epochs of batches of 128 are steps enough."""

STEPS = 2_000
"""What a training has at least, unless the data are so few that it would take more than `MOST_EPOCHS`."""

SMALLEST_BATCH = 32
"""BatchNorm sees too little of the data in a smaller one."""

MOST_EPOCHS = 300

BOUNDS = {"text": (700, 30), "text_static": (700, 30), "language": (0, 1)}
"""Of regimes that have other bounds: steps, and the most epochs. Pretrained transformers learn in fewer; documents
are no measure of steps, which are of blocks."""


@dataclass(frozen=True)
class Facts:
    """What the rules look at: the training `images`, how many of them are `labelled`, and whether the student begins
    with weights, the hub's or a checkpoint's."""

    images: int
    labelled: int
    pretrained: bool


def choose(facts: Facts) -> tuple[str, str]:
    """The regime's name, and why, in one sentence."""
    images = f"{facts.images:,} training images"
    starts = "begins with weights that were trained before" if facts.pretrained else "begins at random"
    if 2 * facts.labelled < facts.images:
        return "few_labels", f"{facts.labelled:,} of the {images} have a label, less than half"
    if facts.pretrained:
        return "pretrained", f"the student {starts}"
    if facts.images < SMALL:
        return "small", f"{images}, fewer than {SMALL:,}, and the student {starts}"
    return "large", f"{images}, and the student {starts}"


@cache
def _read(name: str) -> dict[str, Any]:
    return read_yaml(Path(__file__).parent / f"{name}.yaml")


def built_in(name: str) -> dict[str, Any]:
    """The keys and values of a recipe in this folder: a regime's, "teach", "self", "peers", or one of `BY_NAME`."""
    return copy.deepcopy(_read(name))


def with_steps(recipe: dict[str, Any], images: int, batch_size: int | None, regime: str = "") -> dict[str, Any]:
    """`recipe` with a batch and epochs that give `STEPS` steps on so many training images: the batch is halved down to
    `SMALLEST_BATCH`, and then the epochs are raised up to `MOST_EPOCHS`. `batch_size`: the user's own, which stays."""
    batch, epochs = batch_size or recipe["batch_size"], recipe["epochs"]
    steps, most = BOUNDS.get(regime, (STEPS, MOST_EPOCHS))
    if batch_size is None:
        while batch >= 2 * SMALLEST_BATCH and epochs * (images // batch) < steps:
            batch //= 2
    needed = math.ceil(steps / max(1, images // batch))
    return {**recipe, "batch_size": batch, "epochs": max(epochs, min(needed, most))}
