"""What the teacher's answers will take that the trainings of a request keep: for `--plan`."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from compressor.distill.api import has_teacher
from compressor.distill.features.layers import kept_layers
from compressor.distill.host.context import RunContext
from compressor.distill.host.resources import readable
from compressor.distill.methods.arms import has_arms, tried
from compressor.distill.methods.halving import rounds_of, trial_recipe
from compressor.distill.methods.qat import qat_recipe
from compressor.distill.plan import TrainingPlan
from compressor.distill.recipes import arms_of
from compressor.distill.stages import stages_of
from compressor.distill.teacher.codec import Codec
from compressor.distill.teacher.keeping import Keeping, keeping
from compressor.progress import Silent
from compressor.schema.recipe import Recipe
from compressor.schema.student import Request
from compressor.tasks.table import task_named

__all__ = ["NOTHING_KEPT", "Ahead", "answers_ahead", "notes_on", "to_be_kept"]


@dataclass(frozen=True)
class Ahead:
    """What the trainings of one student keep: its trials in a race of `students`, all that comes `after` such a race;
    and why the training itself keeps nothing, where it does not though it asks a teacher."""

    students: tuple[Keeping, ...] = ()
    after: tuple[Keeping, ...] = ()
    anew: str | None = None


NOTHING_KEPT = Ahead()


def answers_ahead(request: Request, plan: TrainingPlan, steps: int, context: RunContext) -> Ahead:
    """What the trainings of `request` into the student of `plan` will keep. `steps`: of an epoch."""

    def kept(recipe: Recipe, every_view: bool) -> Keeping | str | None:
        return _kept(plan, recipe, every_view, context)

    race = [kept(recipe, True) for recipe in _of_race(request, steps)]
    trials = [kept(recipe, True) for recipe in _of_arms(request, steps)]
    earlier = [_kept(stage, stage.recipe, True, context) for stage in stages_of(plan)]
    again = bool(earlier)  # what one stage shows once, another shows again
    training = kept(request.recipe, again)
    rounded = kept(qat_recipe(request.recipe, has_teacher(request))[0], again) if request.qat is not None else None
    return Ahead(
        tuple(each for each in race if isinstance(each, Keeping)),
        tuple(each for each in (*trials, *earlier, training, rounded) if isinstance(each, Keeping)),
        training if isinstance(training, str) else None,
    )


def to_be_kept(request: Request, ahead: Mapping[str, Ahead], last: str) -> list[Keeping]:
    """What needs room yet, each once. `ahead`: by student; `last`: who is trained in the end."""
    if request.assistants:  # each has a teacher of its own, and none but the first is there
        first, *others = ahead.values()
        return [each for each in first.after if not each.is_there] + [each for other in others for each in other.after]
    wanted = [*(each for student in ahead.values() for each in student.students), *ahead[last].after]
    return [each for each in {str(each.key): each for each in wanted}.values() if not each.is_there]


def notes_on(kept: Sequence[Keeping], last: Ahead) -> Iterator[str]:
    """Where they lie, and what a step takes with them; or why the teacher answers anew."""
    if last.anew is not None:
        yield f"the teacher answers anew in every epoch: {last.anew}"
    elif last.after:
        yield "timed with the teacher answering anew; once its answers are kept, a step takes less"
    if kept:
        size, folder = readable(sum(each.bytes for each in kept)), kept[0].folder
        until = "until the run is finished" if kept[0].unasked else "for other runs too"
        yield f"the teacher's answers, {size}, are kept in {folder}, {until} (--teacher-cache)"
    elif there := (*last.students, *last.after):
        yield f"the teacher's answers have their room already in {there[0].folder}"


def _of_race(request: Request, steps: int) -> Iterator[Recipe]:
    """All trials of a race show the same views."""
    if request.race is not None:
        recipe = request.recipe
        rounds = rounds_of(len(request.raced), steps, recipe.epochs, request.race.share)
        if rounds:
            longest = max(length for _, length in rounds)
            yield trial_recipe(recipe, longest, longest)


def _of_arms(request: Request, steps: int) -> Iterator[Recipe]:
    if has_arms(request):
        assert request.regime is not None
        recipe, arms = request.recipe, arms_of(request.recipe)
        names, epochs = tried(request.regime.arms, steps, recipe.epochs)
        for name in names if epochs < recipe.epochs else ():  # what is trained in full is the training
            yield trial_recipe(recipe.model_copy(update={"losses": arms[name]}), epochs, epochs)


def _kept(plan: TrainingPlan, recipe: Recipe, every_view: bool, context: RunContext) -> Keeping | str | None:
    """None where no model is asked."""
    # To look for the layers takes long, and they depend on the losses alone.
    looking = plan if recipe.losses == plan.recipe.losses else replace(plan, recipe=recipe)
    if plan.teacher is None or not any(term.asks_teacher for term in looking.terms):
        return None
    task = task_named(plan.request.task)
    feed = task.feed(
        plan.data, plan.inputs, recipe, store=None, device=context.speed.device, progress=Silent(), teacher=plan.teacher
    )
    codec = Codec.of(recipe.teacher_answers, plan.classes, kept_layers(looking.terms, looking.sides))
    names = [layer.name for side in looking.sides.values() for layer in side.teacher]
    return keeping(
        plan.teacher, recipe, feed, context, codec, samples=len(plan.data.train), looked_at=names,
        every_view=every_view,
    )  # fmt: skip
