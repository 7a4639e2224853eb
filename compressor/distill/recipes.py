"""The recipes that hold where the user brings none, and what the user lays over them. What a key means stands in
`schema/recipe.py`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compressor.errors import KdcError
from compressor.models.references import NO_MODEL, TABLE
from compressor.overrides import apply_overrides, read_yaml
from compressor.progress import Progress
from compressor.schema.base import parse
from compressor.schema.recipe import Recipe

__all__ = [
    "ANSWERS",
    "DEFAULT_STUDENT",
    "LAYERS",
    "PEERS",
    "SELF",
    "TEACH",
    "default_for",
    "distillation_recipe",
    "has_layers",
    "recipe_from",
]

DEFAULT_STUDENT = "timm:mobilenetv3_small_100"

# What can be learned from any teacher: a table, several models, answers that were kept.
ANSWERS: dict[str, Any] = {
    "schema": 1,
    "optimizer": {"lr_for_batch": 128},
    "losses": [
        {"name": "kd", "weight": 0.9, "temperature": 4.0},
        {"name": "cross_entropy", "weight": 0.1},
    ],
}

# What wins where one network teaches (docs/experiments/what-a-student-learns-from.md), and can be kept with its
# answers. The weight holds for every network: pkd does not see the scale of its features. A plain transformer's stages
# say a CNN nothing.
LAYERS: dict[str, Any] = {
    **ANSWERS,
    "losses": [*ANSWERS["losses"], {"name": "pkd", "weight": 10.0, "at": "same_stride"}],
}

TEACH: dict[str, Any] = {
    "schema": 1,
    "epochs": 10,
    "head_epochs": 1,
    "optimizer": {"lr": 1e-3, "lr_for_batch": 128},
    "losses": [{"name": "cross_entropy", "weight": 1.0, "label_smoothing": 0.0}],
}

SELF: dict[str, Any] = {
    **ANSWERS,
    # Exits on the student's stages, taught by its last layer (Zhang et al. 2019, arXiv 1905.08094): they gain most of
    # the ways to learn from oneself (docs/experiments/what-a-student-learns-from.md).
    "losses": [
        {"name": "cross_entropy", "weight": 1.0},
        {"name": "early_exits", "weight": 1.0, "temperature": 3.0, "alpha": 0.3},
    ],
}

PEERS: dict[str, Any] = {
    **ANSWERS,
    # Deep mutual learning of two networks of the same kind (arXiv 1706.00384): labels and the peer, weighted alike.
    "losses": [
        {"name": "mutual", "weight": 1.0, "temperature": 1.0},
        {"name": "cross_entropy", "weight": 1.0},
    ],
}


def has_layers(teachers: Sequence[str]) -> bool:
    """Whether `--teacher`, which may be given several times, names one network, whose layers can be looked at."""
    return len(teachers) == 1 and teachers[0] not in NO_MODEL and not teachers[0].startswith(("specialists:", TABLE))


def default_for(teachers: Sequence[str], student: str, student_init: str) -> dict[str, Any]:
    """The recipe for `--teacher`, which may be given several times. A peer is the student's twin, and begins as it does
    where that is not a file."""
    if teachers[0] == "self":
        return SELF
    if teachers[0] == "peers":
        init = student_init if student_init in ("pretrained", "random") else "random"
        return {**PEERS, "peers": [{"student": student, "init": init}]}
    return LAYERS if has_layers(teachers) else ANSWERS


def recipe_from(
    defaults: dict[str, Any], file: Path | Mapping[str, Any] | None, flags: dict[str, Any], sets: Sequence[str]
) -> Recipe:
    """The recipe in `file`, or its keys and values (or `defaults`), with the command's flags and --set laid over it.

    A learning rate that is meant for another batch size is scaled here (`Optimizer.lr_for_batch`), so that the recipe
    holds what is used; one that --set names is taken as it is. Raises KdcError where the same key is given by a flag
    and by --set.
    """
    given = {key: value for key, value in flags.items() if value is not None}
    for assignment in sets:
        key = assignment.partition("=")[0].strip()
        if key in given:
            flag = "--" + key.replace("_", "-")
            raise KdcError(f"{flag} {given[key]} and --set {assignment} both set {key}", "give one of them")
    named = {assignment.partition("=")[0].strip() for assignment in sets}
    if "optimizer.lr" in named and "optimizer.lr_for_batch" not in named:
        sets = [*sets, "optimizer.lr_for_batch=null"]
    values = dict(defaults) if file is None else read_yaml(file) if isinstance(file, Path) else dict(file)
    where = f"recipe {file}" if isinstance(file, Path) else "recipe"
    return _scaled(parse(Recipe, apply_overrides({**values, **given}, sets, where), where))


def distillation_recipe(
    teachers: Sequence[str],
    student: str,
    student_init: str,
    file: Path | Mapping[str, Any] | None,
    flags: dict[str, Any],
    sets: Sequence[str],
    progress: Progress,
) -> Recipe:
    """The recipe of `kdc distill`: `file`, or the default for those who teach."""
    return recipe_from(default_for(teachers, student, student_init), file, flags, sets)


def _scaled(recipe: Recipe) -> Recipe:
    """With the learning rate for its own batch size."""
    optimizer = recipe.optimizer
    if optimizer.lr_for_batch in (None, recipe.batch_size):
        return recipe
    lr = optimizer.lr * (recipe.batch_size / optimizer.lr_for_batch) ** 0.5
    return recipe.model_copy(
        update={"optimizer": optimizer.model_copy(update={"lr": lr, "lr_for_batch": recipe.batch_size})}
    )
