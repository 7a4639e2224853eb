"""The recipes that hold where the user brings none, and what the user lays over them. What a key means stands in
`schema/recipe.py`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.distill.regimes import Facts, built_in, choose, with_steps
from compressor.errors import KdcError
from compressor.models.references import NO_MODEL, TABLE, holds_completions, is_table
from compressor.overrides import apply_overrides, read_yaml
from compressor.processes.team import team
from compressor.progress import Progress
from compressor.references import Reference
from compressor.schema.base import parse
from compressor.schema.recipe import LossTerm, Optimizer, Recipe
from compressor.schema.student import Regime, Request
from compressor.tasks.table import DEFAULT, TASKS

__all__ = [
    "ENOUGH",
    "LABELS",
    "OWN",
    "PROVISIONAL",
    "RecipeAsked",
    "arms_of",
    "default_for",
    "gives_views",
    "has_layers",
    "recipe_from",
    "refuse_new_views",
    "repeats_by_default",
    "with_new_views",
    "without_layers",
]

PROVISIONAL = "large"
"""The regime that a request is checked with before the data are counted. All regimes have the same losses, in the same
order, and none has fewer epochs."""

LAYERS_AT = 2
"""Where the loss that looks at layers stands among a regime's."""


ENOUGH = 1_000
"""Validation samples from which on a point or two between weights of the losses can be told: one standard error of the
difference of two models that disagree on a sample in ten is a point at 1,000."""

OWN = "default"
"""The regime's own weights of its losses."""

LABELS = "labels"
"""Labels alone."""

OTHERS = {"logits": {"pkd": 0.0}, LABELS: {"kd": 0.0, "cross_entropy": 1.0, "pkd": 0.0}}
"""Other weights that are tried beside them. A loss that is not named keeps its weight; 0 leaves it out. Half for the
teacher came to what the default came to, and is not among them (docs/experiments/regimes.md)."""


def arms_of(recipe: Recipe) -> dict[str, tuple[LossTerm, ...]]:
    """How the losses of a default may be weighed: its own way first; without those that would be the same again."""
    arms = {OWN: recipe.losses}
    for name, weights in OTHERS.items():
        losses = tuple(
            term.model_copy(update={"weight": weights.get(term.name, term.weight)})
            for term in recipe.losses
            if weights.get(term.name) != 0
        )
        if losses not in arms.values():
            arms[name] = losses
    return arms


def gives_views(overrides: Collection[str]) -> bool:
    """Whether these keys of a recipe, which the user gave, say how many views an image has."""
    return "views" in overrides or "views.distinct" in overrides


def repeats_by_default(request: Request) -> bool:
    """Whether the same views come again since the regime says so."""
    regime = request.regime
    return regime is not None and request.recipe.views.distinct is not None and not gives_views(regime.overrides)


def with_new_views(recipe: Recipe) -> Recipe:
    """With new views in every epoch."""
    return recipe.model_copy(update={"views": recipe.views.model_copy(update={"distinct": None})})


def refuse_new_views(recipe: Recipe) -> None:
    """Raise KdcError where there is nothing that `--precompute` could keep."""
    if recipe.views.distinct is None:
        raise KdcError(
            "--precompute: every epoch shows new views, or ones whose predictions are for one run, so there is nothing "
            "to compute ahead",
            "--set views.distinct=10",
        )


def has_layers(teachers: Sequence[str]) -> bool:
    """Whether `--teacher`, which may be given several times, names one network, whose layers can be looked at."""
    return len(teachers) == 1 and teachers[0] not in NO_MODEL and not teachers[0].startswith(("specialists:", TABLE))


def without_layers(values: dict[str, Any]) -> dict[str, Any]:
    """A regime's recipe for teachers of whom there are only predictions: a table, several models."""
    return {**values, "losses": values["losses"][:LAYERS_AT]}


def default_for(
    teachers: Sequence[str], student: str, student_init: str, *, regime: str = PROVISIONAL
) -> dict[str, Any]:
    """The recipe of `regime` for `--teacher`, which may be given several times. A peer is the student's twin, and
    begins as it does where that is not a file."""
    values = built_in(regime)
    if teachers[0] in NO_MODEL:
        values |= built_in(teachers[0])
    elif not has_layers(teachers):
        values = without_layers(values)
    if teachers[0] == "peers":
        init = student_init if student_init in ("pretrained", "random") else "random"
        values["peers"] = [{"student": student, "init": init}]
    return values


def recipe_from(
    defaults: dict[str, Any], file: Path | Mapping[str, Any] | None, flags: dict[str, Any], sets: Sequence[str]
) -> Recipe:
    """The recipe in `file`, or its keys and values (or `defaults`), with the command's flags and --set laid over it.

    A learning rate that is meant for another batch size is scaled here (`Optimizer.lr_for_batch`), so that the recipe
    holds what is used; one that --set names is taken as it is. Raises KdcError where the same key is given by a flag
    and by --set.
    """
    given = _given(flags)
    for assignment in sets:
        key = assignment.partition("=")[0].strip()
        if key in given:
            flag = "--" + key.replace("_", "-")
            raise KdcError(f"{flag} {given[key]} and --set {assignment} both set {key}", "give one of them")
    named = {assignment.partition("=")[0].strip() for assignment in sets}
    if "optimizer.lr" in named and "optimizer.lr_for_batch" not in named:
        sets = [*sets, "optimizer.lr_for_batch=null"]
    values = dict(defaults) if file is None else read_yaml(file) if isinstance(file, Path) else dict(file)
    if "keep_by" in defaults:  # what the task is measured by, which a recipe need not say
        values.setdefault("keep_by", defaults["keep_by"])
    where = f"recipe {file}" if isinstance(file, Path) else "recipe"
    return _scaled(parse(Recipe, apply_overrides({**values, **given}, sets, where), where))


@dataclass(frozen=True)
class RecipeAsked:
    """What is asked of the recipe of `kdc distill`: who teaches, what learns and from which weights; `file`, the user's
    own recipe, or its keys and values; flags and --set, which are laid over it, or over the default, and always win.
    `arms`: whether other weights of a default's losses are tried, where validation is large enough; `task`: what is
    learned."""

    teachers: Sequence[str]
    student: str
    init: str
    file: Path | Mapping[str, Any] | None
    flags: dict[str, Any]
    sets: Sequence[str]
    arms: bool = False
    task: str = DEFAULT

    @property
    def overrides(self) -> list[str]:
        """The keys of the recipe that flags and --set give."""
        return sorted({*_given(self.flags), *(text.partition("=")[0].strip() for text in self.sets)})

    def recipe(self, facts: Facts | None = None) -> Recipe:
        """The user's own, or the default for those who teach. `facts`: of the data, which the default goes by; None:
        they are not known yet."""
        regime = self._regime(facts)[0]
        values = default_for(self.teachers, self.student, self.init, regime=regime)
        if facts is not None and self.file is None:
            chosen = recipe_from(values, None, self.flags, self.sets).batch_size
            values = with_steps(values, facts.images, chosen if "batch_size" in self.overrides else None, regime)
        recipe = recipe_from(values, self.file, self.flags, self.sets)
        return recipe if self.file is not None else self._with_views(recipe, known=facts is not None)

    def _with_views(self, recipe: Recipe, *, known: bool) -> Recipe:
        """A default's views come again where a model is asked about each of them more than once, and that is known."""
        distinct, asked = recipe.views.distinct, self.teachers[0] not in NO_MODEL and not is_table(self.teachers[0])
        if distinct is None or gives_views(self.overrides) or (known and asked and recipe.epochs > distinct):
            return recipe
        return with_new_views(recipe)

    def _regime(self, facts: Facts | None) -> tuple[str, str]:
        """Its name, and why: that of the task, where it has one of its own."""
        row = TASKS[self.task]
        if row.completes and holds_completions(self.teachers[0]):
            return row.sequence, "completions are learned as they stand"
        if row.regime:
            scheme = Reference.parse(self.student).scheme
            if scheme in row.regimes:
                return row.regimes[scheme], f"that of {scheme}: students, whatever the data"
            return row.regime, f"that of {self.task}, whatever the data"
        return (PROVISIONAL, "") if facts is None else choose(facts)

    def decided(
        self, request: Request, images: int, labelled: int, validation: int | None, progress: Progress
    ) -> Request:
        """`request` with the default recipe for so many training images, and why it is this one; said in a line or two.
        `validation`: samples to tell by how its losses are best weighed; None: a run of an earlier kdc, which tried no
        weights."""
        facts = Facts(images, labelled, pretrained=request.init != "random")
        (name, why), recipe = self._regime(facts), self.recipe(facts)
        arms = self._arms(request, recipe, validation, progress)
        regime = Regime(
            name=name, why=why, images=images, labelled=labelled, overrides=tuple(self.overrides),
            validation=validation, arms=arms,
        )  # fmt: skip
        over = f"; over it: {', '.join(regime.overrides)}" if regime.overrides else ""
        progress.note(f"recipe: the default for the regime {name} ({why}){over}")
        return request.model_copy(update={"recipe": recipe, "regime": regime})

    def _arms(self, request: Request, recipe: Recipe, validation: int | None, progress: Progress) -> tuple[str, ...]:
        """The weights of the losses that are tried; none where that was not asked for, or could tell nothing."""
        weighed = any(key.partition(".")[0] in ("losses", "stages") for key in self.overrides)
        if (
            validation is None
            or not self.arms
            or "--race-losses" in TASKS[self.task].lacks
            or weighed
            or request.teacher in NO_MODEL
            or request.assistants
            or team().num_processes > 1
        ):
            return ()
        if validation < ENOUGH:
            progress.note(
                f"the losses have the default's weights: {validation:,} validation samples are too few to tell others "
                f"from them (--control tells what they gain; {ENOUGH:,} are enough to try them)"
            )
            return ()
        return tuple(arms_of(recipe))


def _given(flags: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in flags.items() if value is not None}


def _scaled(recipe: Recipe) -> Recipe:
    """With the learning rates for its own batch size."""
    stages = tuple(
        stage.model_copy(update={"optimizer": stage.optimizer and _rated(stage.optimizer, recipe.batch_size)})
        for stage in recipe.stages
    )
    return recipe.model_copy(update={"optimizer": _rated(recipe.optimizer, recipe.batch_size), "stages": stages})


def _rated(optimizer: Optimizer, batch_size: int) -> Optimizer:
    if optimizer.lr_for_batch in (None, batch_size):
        return optimizer
    lr = optimizer.lr * (batch_size / optimizer.lr_for_batch) ** 0.5
    return optimizer.model_copy(update={"lr": lr, "lr_for_batch": batch_size})
