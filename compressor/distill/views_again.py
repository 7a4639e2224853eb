"""Whether a default recipe shows the same few views of an image over and over, so that the teacher answers each once.

A regime may say so (`views.distinct`). It holds where all answers can be kept; else there are new views in every
epoch, which cost no more then.
"""

from dataclasses import replace
from pathlib import Path

from compressor.data.samples import Dataset
from compressor.distill.answers_ahead import Ahead, answers_ahead, to_be_kept
from compressor.distill.api import distillation
from compressor.distill.host.context import context_for
from compressor.distill.host.resources import Resources, readable
from compressor.distill.recipes import gives_views, repeats_by_default, with_new_views
from compressor.distill.teacher.keeping import over_budget
from compressor.processes.team import as_first, team
from compressor.progress import Progress, Silent
from compressor.schema.student import Request
from compressor.tasks.plain_feed import batch_size_of

__all__ = ["as_recorded", "settled_views"]


def settled_views(request: Request, data: Dataset, out: Path, resources: Resources, progress: Progress) -> Request:
    """`request` with the views of its regime, where the teacher's answers to them can all be kept, or with new ones in
    every epoch; said, and recorded in the regime."""
    regime = request.regime
    if regime is None or not repeats_by_default(request):
        return request
    size, why = as_first(_size_or_why(request, data, out, resources))
    distinct = request.recipe.views.distinct
    if why is None:
        said = f"{distinct} of each sample over and over, the teacher's answers to them kept ({readable(size)})"
    else:
        said = f"new ones in every epoch: {why}"
        request = request.model_copy(update={"recipe": with_new_views(request.recipe)})
    progress.note(f"views: {said}")
    return request.model_copy(update={"regime": regime.model_copy(update={"views": said})})


def as_recorded(request: Request, before: Request) -> Request:
    """`request` with the views of the run that it goes on with, whatever of the disk is free now."""
    assert before.regime is not None
    if request.regime is None or gives_views(request.regime.overrides) or gives_views(before.regime.overrides):
        return request
    views = request.recipe.views.model_copy(update={"distinct": before.recipe.views.distinct})
    return request.model_copy(
        update={
            "recipe": request.recipe.model_copy(update={"views": views}),
            "regime": request.regime.model_copy(update={"views": before.regime.views}),
        }
    )


def _size_or_why(request: Request, data: Dataset, out: Path, resources: Resources) -> tuple[int, str | None]:
    """What the answers to all trainings take; why they are not kept, where they are not."""
    if resources.teacher_cache is None:
        return 0, "--teacher-cache off"
    context = context_for(out, replace(resources, tracker=None), Silent())
    steps = len(data.train) // batch_size_of(request.recipe, len(data.train), team().num_processes)[0]
    ahead: dict[str, Ahead] = {}
    for student in request.raced or tuple(filter(None, (*request.assistants, request.student))):
        alone = request.model_copy(update={"student": student, "race": None, "assistants": (), "qat": None})
        ahead[student] = answers_ahead(request, distillation(alone, Silent(), data), steps, context)
    for each in ahead.values():
        if each.anew is not None or not each.after:
            return 0, each.anew or "no loss asks the teacher"
    largest = max(ahead, key=lambda name: sum(kept.bytes for kept in ahead[name].after))
    wanted = to_be_kept(request, ahead, largest)
    budget = resources.answers_budget
    return sum(kept.bytes for kept in wanted), None if budget is None else over_budget(wanted, budget)
