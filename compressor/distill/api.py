"""`kdc teach` and `kdc distill`: from a request to loaded models and data."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from compressor.data.samples import Dataset
from compressor.data.specialty import specialised
from compressor.data.transfer import transfer_set
from compressor.distill.host.resources import Resources
from compressor.distill.loop.engine import MIN_TO_CHOOSE
from compressor.distill.loop.learner import Term, bind_losses
from compressor.distill.methods.bias_correction import require_correctable
from compressor.distill.overlap import seen_before, tell_table_overlap, with_notes
from compressor.distill.plan import TrainingPlan
from compressor.distill.recipes import refuse_new_views
from compressor.distill.run_folder import Destination, acquired, discard_backup, held
from compressor.distill.run_refusals import refuse_place
from compressor.distill.stages import bind_stages, opened, refuse_stages, require_learnable
from compressor.distill.teacher.predictions import require_teachable
from compressor.distill.token_heads import give_heads, head_for_views
from compressor.distill.trainer import log_sizes, precompute_answers, train_and_save
from compressor.distill.without_effect import refuse_unserved, refuse_without_effect
from compressor.distill.written import of_completions
from compressor.errors import KdcError
from compressor.losses import LOSSES
from compressor.models import LoadedModel, load_model, load_run
from compressor.models.licences import refuse_broken
from compressor.models.lineage import cut_from, load_teacher, told
from compressor.models.lookup import of_peer, require_found
from compressor.models.prediction_table import load_completions, load_table, require_alone
from compressor.models.references import NO_MODEL, is_table
from compressor.processes.team import team
from compressor.progress import Progress, Silent
from compressor.schema.recipe import Recipe, Transfer
from compressor.schema.student import Request, Student
from compressor.schema.weights import merged
from compressor.tasks.table import TASKS, task_named

__all__ = [
    "already_finished",
    "counted",
    "distill",
    "distillation",
    "early_checked",
    "has_teacher",
    "made_from_weights",
    "precompute",
    "require_one_process",
    "teach",
    "training_data",
]


def teach(
    request: Request,
    out: Destination,
    *,
    progress: Progress,
    resources: Resources | None = None,
) -> Student:
    """Fine-tune `request.teacher` on the classes of `request.data`: the new classifier first, then everything."""
    with acquired(out, request, progress) as finished:
        if finished:
            return already_finished(out.folder, progress)
        return train_and_save(_teaching(request, progress), out, resources or Resources(), progress)


def _teaching(request: Request, progress: Progress) -> TrainingPlan:
    """What is to be taught, and the data, checked against each other."""
    terms = bind_losses(request.recipe, has_teacher=False)
    if request.recipe.peers:
        raise KdcError("recipe peers: kdc teach trains one network", "kdc distill --teacher peers")
    refuse_stages(request.recipe)
    _refuse_specialty_of_less(request)
    schemes = TASKS[request.task].named
    drawn = request.teacher.partition(":")[0] in schemes and "@" not in request.teacher
    if request.init == "random" and not drawn:
        forms = " or ".join(f"{scheme}:NAME" for scheme in schemes)
        raise KdcError(f"--teacher-init random takes a {forms}, and {request.teacher} is none")
    data, specialty = training_data(request, terms, progress), None
    if request.specialty is not None:
        data, specialty = specialised(data, request.specialty, request.recipe.seed)
        progress.note(data.info.notes[-1])
    _refuse_unkeepable(request.recipe, data, progress)
    names, recipe, task = data.info.class_names, request.recipe, task_named(request.task)
    if request.init == "random":
        torch.manual_seed(recipe.seed)
        made_from = "random"
        trainee = task.create_student(request.teacher, "random", names, request.input_size, recipe.crop_pct)
    else:
        (backbone,) = told(progress, load_model(request.teacher, request.input_size, request.task))
        torch.manual_seed(recipe.seed)
        trainee = task.create_trainee(backbone, names, recipe.crop_pct)
        made_from = made_from_weights(request.teacher, backbone)
    trainee = task.fitted(task.with_range(trainee, recipe.pixel_range, progress), data, request.input_size, progress)
    if recipe.transfer.correct_bias:
        require_correctable(trainee, data, recipe.transfer)
    give_heads(terms, trainee, None, progress)
    return TrainingPlan(request, recipe, data, trainee, None, made_from, specialty=specialty)


def distill(
    request: Request,
    out: Destination,
    *,
    progress: Progress,
    resources: Resources | None = None,
    data: Dataset | None = None,
) -> Student:
    """Distill `request.teacher` into `request.student` on `request.data`.

    Before any training the teacher is measured on the validation split; one at chance level is refused. `data`: where
    the caller has opened it already (`training_data`).
    """
    assert request.qat is None, "qat.distill_quantized goes on from the student in float"
    require_one_process(request)  # before the folder is there: of processes that fail, the launcher kills the others
    with acquired(out, request, progress) as finished:
        if finished:
            return already_finished(out.folder, progress)
        return train_and_save(distillation(request, progress, data), out, resources or Resources(), progress)


def require_one_process(request: Request) -> None:
    """Raise KdcError in a run of several processes where a loss cannot be spread over them."""
    alone = [term.name for term in request.recipe.losses if term.name in LOSSES and LOSSES[term.name].one_process]
    if alone and team().num_processes > 1:
        raise KdcError(
            f"{alone[0]} keeps a memory of all samples, which several processes would not share", "use one process"
        )


def precompute(
    request: Request,
    out: Path,
    *,
    progress: Progress,
    resources: Resources | None = None,
    decide: Callable[[Request], tuple[Request, Dataset | None]] | None = None,
) -> None:
    """Ask the teacher for its answers to all that `distill` would show it, and keep them for any run that shows it the
    same. Nothing stays in `out`, where images may be decoded meanwhile. `decide`: how the request gets its recipe,
    where that goes by the data (`deciding.decided`). Raises KdcError where nothing may be kept."""
    resources = resources or Resources()
    if decide is None or resources.unnamed:
        refuse_new_views(request.recipe)
    if is_table(request.teacher):
        raise KdcError(f"--precompute: {request.teacher} holds the teacher's answers already", "leave it out")
    if request.teacher in NO_MODEL:
        raise KdcError(f"--precompute: --teacher {request.teacher} learns along with the student", "leave it out")
    if resources.teacher_cache is None:
        raise KdcError("--precompute keeps the teacher's answers, and --teacher-cache is off", "give it a folder")
    refuse_place(out, request)
    with held(out, "kdc distill --precompute", progress):
        request, data = decide(request) if decide is not None else (request, None)
        refuse_new_views(request.recipe)
        precompute_answers(distillation(request, progress, data), out, resources, progress)


def already_finished(out: Path, progress: Progress) -> Student:
    progress.note(f"{out} is finished already: nothing to resume")
    if team().is_main_process:
        discard_backup(out)
    return load_run(out)[1]


def has_teacher(request: Request) -> bool:
    """Whether something answers for the losses that ask a teacher: the student of the epoch before does, too."""
    return request.teacher != "peers"


def distillation(request: Request, progress: Progress, data: Dataset | None = None) -> TrainingPlan:
    """The teacher, the student and the data of a request, checked against one another."""
    recipe, terms = request.recipe, early_checked(request)
    data = data or training_data(request, terms, progress)
    _refuse_unkeepable(recipe, data, progress)
    data, stage_data = opened(request, data, progress)
    names = data.info.class_names
    teacher, table = load_teacher(request, names, progress=progress), load_table(request, names)
    if table is not None:
        require_teachable(table, data, terms, recipe, progress)
        data = with_notes(data, tell_table_overlap(table, data, progress))
    torch.manual_seed(request.recipe.seed)
    assert request.student is not None
    task = task_named(request.task)
    origin = cut_from(request, names, teacher)
    made = task.create_student(request.student, request.init, names, request.input_size, recipe.crop_pct, origin)
    (student,) = told(progress, task.with_range(made, recipe.pixel_range, Silent()))
    student = task.fitted(student, data, request.input_size, progress)
    for other in stage_data:
        if other is not None:  # whether it can be read, and what of it is cut
            task.fitted(student, other, None, progress)
    if recipe.transfer.correct_bias:
        require_correctable(student, data, recipe.transfer)
    peers = [_peer(number, request, data) for number, _ in enumerate(recipe.peers)]
    plan = TrainingPlan(
        request, recipe, data, student, teacher, request.init, peers=tuple(peers), table=table,
        written_by=written[1] if (written := load_completions(request)) else None,
        passes=request.steps_per_epoch, stage_data=stage_data,
    )  # fmt: skip
    refuse_broken(recipe.licence, merged(filter(None, (student.weights, plan.taught_by))), "recipe", progress)
    give_heads(terms, student, teacher, progress)
    head_for_views(recipe.views, teacher)
    require_learnable(plan)
    if plan.left_out and not any(term.asks_teacher for term in plan.terms):
        name, why = next(iter(plan.left_out.items()))
        raise KdcError(
            f"recipe losses: {name} would be left out, and no other loss learns from the teacher: {why}",
            "give kd a weight, or `at: auto`",
        )
    return plan


def early_checked(request: Request) -> list[Term]:
    """The losses of a distillation, of all its stages; raises KdcError for what is wrong with the request as far as
    that is known before the data are open."""
    require_alone(request)
    terms = bind_stages(request.recipe, has_teacher=has_teacher(request))
    refuse_without_effect(request, terms)
    return terms


def _peer(number: int, request: Request, data: Dataset) -> LoadedModel:
    peer, task = request.recipe.peers[number], task_named(request.task)
    with of_peer(number):
        names = data.info.class_names
        model = task.create_student(peer.student, peer.init, names, request.input_size, request.recipe.crop_pct)
        model = task.fitted(model, data, request.input_size, Silent())
        return task.with_range(model, request.recipe.pixel_range, Silent())


def _refuse_unkeepable(recipe: Recipe, data: Dataset, progress: Progress) -> None:
    """Raise KdcError where no epoch could be chosen by the recipe's `keep_by`; say so where none will be."""
    names, n = data.info.class_names, len(data.validation)
    if (recipe.keep_by == "bits_per_byte") != (not names):
        fitting = "accuracy, balanced or auc" if names else "bits_per_byte"
        raise KdcError(f"recipe keep_by: {recipe.keep_by} is not what these {data.samples} are measured by", fitting)
    if recipe.keep_by == "auc" and len(names) != 2:
        raise KdcError(f"recipe keep_by: auc is for two classes, and the data has {len(names)}", "keep_by: balanced")
    if recipe.keep_by == "auc" and (data.validation.labels == data.validation.labels[0]).all():
        (only,) = {names[label] for label in data.validation.labels.tolist()}
        raise KdcError(
            f"recipe keep_by: auc needs both classes in validation, which has only {only}", "more data there"
        )
    if recipe.keep_by in ("balanced", "auc") and n < MIN_TO_CHOOSE:
        progress.warn(
            f"keep_by {recipe.keep_by}: validation has {n} samples, and on fewer than {MIN_TO_CHOOSE} no epoch is "
            "chosen: the last one is kept"
        )


def made_from_weights(reference: str, backbone: LoadedModel) -> str:
    """`Student.init` of a model that `teach` made from the weights of another."""
    return f"{reference} (sha256 {backbone.weights.sha256[:12]})"


def _refuse_specialty_of_less(request: Request) -> None:
    if request.specialty is not None and request.recipe.transfer != Transfer():
        raise KdcError("--specialty draws its own part of the training data: recipe transfer cannot cut it too")


def labels_only(terms: Sequence[Term]) -> bool:
    """Whether every loss needs labels, so that a sample without one teaches nothing."""
    return all("labels" in term.row.needs for term in terms if term.loss.ever)


def training_data(request: Request, terms: Sequence[Term], progress: Progress) -> Dataset:
    """The data of a request, its training split cut to the recipe's transfer set. All else that the request names is
    looked up first: a misspelt teacher must not cost the time that reading takes."""
    if request.unlabelled is not None and labels_only(terms):
        counting = ", ".join(term.name for term in terms if term.loss.ever)
        raise KdcError(
            f"--unlabelled {request.unlabelled}: every loss that counts ({counting}) needs labels, so nothing could be "
            "learned from it",
            "give a loss that only asks the teacher a weight, such as kd, or leave --unlabelled out",
        )
    refuse_unserved(request, terms)
    require_found(request)
    data = task_named(request.task).open_data(
        request.data, skip_bad=request.skip_bad, progress=progress, unlabelled=request.unlabelled,
        pixel_range=request.recipe.pixel_range, columns=request.columns,
    )  # fmt: skip
    log_sizes(data, progress)
    data = of_completions(request, seen_before(request, data, progress), progress)
    data = transfer_set(data, request.recipe.transfer, labels_only=labels_only(terms), progress=progress)
    _warn_of_mixed(data, request.recipe, terms, progress)
    _require_counted(request, data)
    return data


def counted(data: Dataset) -> tuple[int, int]:
    """The training samples, and how many of them have a label: what a default recipe goes by."""
    return len(data.train), int((data.train.labels >= 0).sum())


def _require_counted(request: Request, data: Dataset) -> None:
    """Raise KdcError where a run is resumed whose default recipe was for other data."""
    regime = request.regime
    if regime is not None and (regime.images, regime.labelled) != counted(data):
        images, labelled = counted(data)
        raise KdcError(
            f"--resume: the recipe is for {regime.images:,} training {data.samples}, {regime.labelled:,} with a label, "
            f"and now there are {images:,}, {labelled:,} with a label",
            "put the data back as they were, or start again with --overwrite",
        )


def _warn_of_mixed(data: Dataset, recipe: Recipe, terms: Sequence[Term], progress: Progress) -> None:
    """A mixed image has a label only where both of its parts have one."""
    without = float((data.train.labels < 0).mean())
    asks = any("labels" in term.row.needs for term in terms if term.loss.ever)
    if without and asks and (recipe.views.mixup or recipe.views.cutmix):
        progress.warn(
            f"with {without:.0%} unlabelled {data.samples}, mixed views have a label only where both parts do: "
            f"about {(1 - without) ** 2:.1%} of them"
        )
