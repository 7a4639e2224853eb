"""Trainings in stages: what a student learns before it learns by the recipe's own losses.

    RUN/stages/1    its history, and its state, which an interrupted run goes on from
    RUN             the last stage, as in a run of one

Every stage is a training of the same network, from the weights that the one before left. FitNets (Romero et al. 2015,
arXiv 1412.6550) learn hints first and logits then, TinyBERT (Jiao et al. 2020, arXiv 1909.10351) hidden states and
attention first.
"""

import json
from dataclasses import replace
from pathlib import Path

from compressor.data.samples import Dataset
from compressor.distill.loop.checkpoint import is_saved
from compressor.distill.loop.learner import Term, bind_losses
from compressor.distill.overlap import with_notes
from compressor.distill.plan import TrainingPlan
from compressor.errors import KdcError
from compressor.losses import LOSSES, hides_tokens
from compressor.models.lineage import last_part
from compressor.models.references import is_table
from compressor.processes.team import team
from compressor.progress import Progress
from compressor.schema.recipe import Recipe, Stage
from compressor.schema.student import Request
from compressor.tasks.table import task_named

__all__ = [
    "FOLDER", "bind_stages", "has_own_feed", "is_begun", "opened", "recipe_of", "refuse_stages", "require_learnable",
    "stages_of", "steps_before",
]  # fmt: skip

FOLDER = "stages"


def recipe_of(recipe: Recipe, number: int) -> Recipe:
    """The recipe of stage `number`, from 1, as one of a single stage."""
    stage = recipe.stages[number - 1]
    optimizer = stage.optimizer or recipe.optimizer
    changes = {"losses": stage.losses, "epochs": stage.epochs, "optimizer": optimizer, "stages": (), "head_epochs": 0}
    return recipe.model_copy(update=changes)


def bind_stages(recipe: Recipe, *, has_teacher: bool) -> list[Term]:
    """The losses of all stages, those of the last one first; raises KdcError as `bind_losses` does."""
    terms = bind_losses(recipe, has_teacher=has_teacher)
    for number in range(1, len(recipe.stages) + 1):
        terms += bind_losses(recipe_of(recipe, number), has_teacher=has_teacher, stage=number)
    return terms


def stages_of(plan: TrainingPlan) -> list[TrainingPlan]:
    """A plan for each stage before the last, which is `plan` itself."""
    listed = plan.stage_data or (None,) * len(plan.recipe.stages)
    return [
        replace(plan, recipe=recipe_of(plan.recipe, number), stage=number, data=data or plan.data, stage_data=())
        for number, data in enumerate(listed, 1)
    ]


def opened(request: Request, data: Dataset, progress: Progress) -> tuple[Dataset, tuple[Dataset | None, ...]]:
    """What each stage before the last learns from, where it names data of its own: these with the held-out samples of
    `data`, none of which they hold. And `data`, with notes on that, which were said. Raises KdcError."""
    made: list[Dataset | None] = []
    for number, stage in enumerate(request.recipe.stages):
        said = f"recipe stages.{number}.data"
        if stage.data is None:
            made.append(None)
            continue
        _require_without_labels(request, stage, f"{said} {stage.data}")
        train, info, notes = task_named(request.task).open_unlabelled(
            stage.data, data, progress=progress, said=said, skip_bad=request.skip_bad, columns=request.columns
        )
        notes.insert(0, f"stage {number + 1} learns from {info.count:,} {data.samples} of {last_part(stage.data)}")
        for note in notes:
            progress.note(note)
        data = with_notes(data, notes)
        made.append(replace(data, train=train, info=data.info.model_copy(update={"unlabelled": info})))
    return data, tuple(made)


def _require_without_labels(request: Request, stage: Stage, said: str) -> None:
    """Raise KdcError for losses that want what samples without labels do not have."""
    for term in stage.losses:
        needs = LOSSES[term.name].needs
        if term.ever and "labels" in needs:
            raise KdcError(
                f"{said}: {term.name} needs labels, and none are read there", "leave `data` or that loss out"
            )
        if term.ever and is_table(request.teacher) and any(name.startswith("teacher_") for name in needs):
            raise KdcError(
                f"{said}: {request.teacher} holds no predictions for these {task_named(request.task).samples}",
                "a --teacher that can be asked",
            )


def has_own_feed(stage: TrainingPlan, plan: TrainingPlan) -> bool:
    """Whether a stage of `plan` is fed otherwise than the last: from data of its own, or with tokens hidden."""
    hides = [hides_tokens(term.name for term in each.recipe.losses if term.ever) for each in (stage, plan)]
    return stage.data is not plan.data or hides[0] != hides[1]


def require_learnable(plan: TrainingPlan) -> None:
    """Raise KdcError for a stage that would find nothing to learn from, and for several processes: each would wait for
    gradients that a stage which leaves the classifier out does not make."""
    if plan.recipe.stages and team().num_processes > 1:
        raise KdcError("recipe stages: several processes cannot share a training in stages yet", "use one process")
    for stage in stages_of(plan):
        if not stage.terms:
            name, why = next(iter(stage.left_out.items()))
            raise KdcError(
                f"recipe stages.{(stage.stage or 1) - 1}: {name} would be left out, and nothing is left: {why}"
            )


def refuse_stages(recipe: Recipe) -> None:
    """Raise KdcError for a training that learns in one."""
    if recipe.stages:
        raise KdcError("recipe stages: kdc teach learns in one", "kdc distill, or leave them out")


def steps_before(folder: Path) -> int:
    """Of the stages before the last, as the run in `folder` has taken them."""
    histories = sorted((folder / FOLDER).glob("[0-9]*/history.jsonl"))
    rows = [json.loads(line) for path in histories for line in path.read_text(encoding="utf-8").splitlines()]
    return sum(int(row["steps"]) for row in rows)


def is_begun(folder: Path) -> bool:
    """Whether a training in `folder` has left a state to go on from, in any of its stages."""
    stages = (folder / FOLDER).glob("[0-9]*")
    return is_saved(folder / "checkpoint") or any(is_saved(stage / "checkpoint") for stage in stages)
