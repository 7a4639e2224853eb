"""Quantization-aware distillation: the finished student is trained on while it rounds as an int8 kernel will, and the
teacher's loss teaches it to bear that.

    the student in float -> BatchNorms folded -> ranges from training images -> fake quantization
      -> a few epochs of the recipe's own losses at a small rate -> a run like any other

Batch statistics are gone with the BatchNorms, so that what is trained is what is exported (export/qat_onnx.py).
"""

from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import torch

from compressor.data.samples import Dataset
from compressor.data.transfer import transfer_set
from compressor.distill.api import already_finished, has_teacher, labels_only
from compressor.distill.beside_run import answers_beside
from compressor.distill.host.resources import Resources
from compressor.distill.loop.learner import bind_losses
from compressor.distill.methods.assistants import distill_chain, require_possible
from compressor.distill.overlap import seen_before, tell_table_overlap, with_notes
from compressor.distill.plan import Origin, TrainingPlan
from compressor.distill.run_folder import Destination, acquired, rollback, start
from compressor.distill.trainer import train_and_save
from compressor.errors import KdcError
from compressor.models import LoadedModel, load_run
from compressor.models.lineage import data_of, teacher_of
from compressor.models.prediction_table import same_table
from compressor.processes.team import team
from compressor.progress import Muted, Progress
from compressor.quantization.fake_quant import add_fake_quant, equalise_channels
from compressor.quantization.folding import fold_batchnorm, unfolded
from compressor.quantization.plan import quant_plan
from compressor.quantization.ranges import calibrate
from compressor.schema.accuracy import accuracy_in
from compressor.schema.base import read_json
from compressor.schema.quantization import Quantization, Scheme
from compressor.schema.recipe import LossTerm, Recipe
from compressor.schema.student import Request, Student
from compressor.tasks.base import BatchModel, Feed, example_inputs, inputs_of

__all__ = ["distill_quantized", "qat_recipe", "quantization_aware", "require_quantizable"]


def quantization_aware(
    run: Path,
    scheme: Scheme,
    out: Destination,
    *,
    teacher: str | None,
    epochs: int | None,
    progress: Progress,
    resources: Resources | None = None,
) -> Student:
    """Train the student of the finished `run` on for int8 kernels that round as `scheme` says, into a new run.

    Its own recipe, teacher and data are used; both must be what they were. `teacher`: where it lies now, if it was
    moved. `epochs`: instead of the recipe's `qat.epochs`. Raises KdcError.
    """
    _, record = load_run(run)
    if record.made_by != "distill" or record.quantization is not None:
        training = "under fake quantization already" if record.quantization is not None else f"by kdc {record.made_by}"
        raise KdcError(f"{run} was trained {training}: quantization-aware distillation starts from a student in float")
    before = read_json(run / "run.json", Request)
    _refuse_corrected(before.recipe)
    qat = before.recipe.qat.model_copy(update={} if epochs is None else {"epochs": epochs})
    changes = {
        "teacher": teacher or before.teacher,
        "init": f"run:{run}",
        "recipe": before.recipe.model_copy(update={"qat": qat}),
        "qat": scheme,
        "control": False,
    }
    request = before.model_copy(update=changes)
    moved = "if it lies elsewhere now: kdc export … --teacher REFERENCE"
    with acquired(out, request, progress) as finished:
        if finished:
            return already_finished(out.folder, progress)
        beside = answers_beside(out.folder, request, resources or Resources.of(None, None, None))
        return _train_on(request, run, out, moved, beside, progress)


def distill_quantized(
    request: Request,
    out: Destination,
    *,
    progress: Progress,
    resources: Resources | None = None,
    data: Dataset | None = None,
) -> Student:
    """Distill as `distill_chain` does, into float/ in the folder, and go on from there for `request.qat`. With
    assistants, too, the teacher of this part is the one that the chain began with, which the student is held against.

    Interrupted anywhere, it goes on with `resume`. `data`: where the caller has opened it already.
    """
    require_quantizable(request)
    with acquired(out, request, progress) as finished:
        if finished:
            return already_finished(out.folder, progress)
        return _quantized(request, out, progress, resources, data)


def _quantized(
    request: Request, out: Destination, progress: Progress, resources: Resources | None, data: Dataset | None
) -> Student:
    in_float = request.model_copy(update={"qat": None, "control": False})
    # What is mistyped must not cost the run that stood here.
    if not out.resume:
        data = require_possible(in_float, progress, data)
    if team().is_main_process:
        start(out, request)
    team().wait_for_everyone()
    plain = out.folder / "float"
    try:
        to = Destination(plain, resume=(plain / "run.json").is_file())
        distill_chain(in_float, to, progress=progress, resources=resources, data=data)
    except BaseException:
        if not out.resume and not (plain / "run.json").exists() and team().is_main_process:
            rollback(out.folder)
        raise
    moved = "put it back there, and give the same command with --resume"  # with another teacher it is another request
    return _train_on(request, plain, replace(out, resume=True), moved, resources or Resources(), progress)


def qat_recipe(recipe: Recipe, with_teacher: bool) -> tuple[Recipe, list[str]]:
    """The recipe of the epochs under fake quantization, and the losses that it leaves out. Without weight decay: there
    is no BatchNorm any more that would make up for smaller weights.

    The folded network has no stages that losses on features could look at, and its peers were not kept. Raises KdcError
    where no other loss is left.
    """
    settings = recipe.qat
    terms = bind_losses(recipe, has_teacher=with_teacher)
    kept = [term.loss for term in terms if term.row.taps is None and "peer_logits" not in term.row.needs]
    left_out = [term.name for term in terms if term.loss not in kept]
    if not kept:
        raise KdcError(
            f"under fake quantization losses on logits and labels are learned; there are only {', '.join(left_out)}",
            "add cross_entropy or kd to its losses",
        )
    changes = {
        "lr": recipe.optimizer.lr * settings.lr_share,
        "warmup_epochs": settings.warmup_epochs,
        "weight_decay": 0.0,
    }
    shorter = recipe.model_copy(
        update={
            "epochs": settings.epochs,
            "head_epochs": 0,
            "ema_decay": settings.ema_decay,
            "peers": (),
            "stages": (),
            "losses": tuple(_ended(term) for term in kept),
            "optimizer": recipe.optimizer.model_copy(update=changes),
        }
    )
    bind_losses(shorter, has_teacher=with_teacher)
    return shorter, left_out


def _ended(term: LossTerm) -> LossTerm:
    """With the weight that it had at the training's end, which this goes on from."""
    return term.model_copy(update={"weight": term.weight_at(1.0)})


def require_quantizable(request: Request) -> None:
    """Raise KdcError where `request.qat` could not be held once the student was trained in float."""
    assert request.qat is not None
    _refuse_corrected(request.recipe)
    qat_recipe(request.recipe, has_teacher(request))


def _refuse_corrected(recipe: Recipe) -> None:
    if recipe.transfer.correct_bias:
        raise KdcError(
            "transfer.correct_bias is for a student in float: training on under fake quantization would undo it",
            "leave --qat out, or transfer.correct_bias=false",
        )


def _train_on(
    request: Request, plain: Path, out: Destination, moved: str, resources: Resources, progress: Progress
) -> Student:
    """The epochs under fake quantization, from the student in float in the run `plain`, whose training has said all
    there is to say of data and teacher. `moved`: the hint where the teacher is not where it was."""
    assert request.qat is not None
    again = Muted(progress)
    student, record = load_run(plain)
    teacher, table = teacher_of(request, record, None, moved), same_table(request, record, moved)
    data = data_of(request, record, again, unlabelled=True)
    data = seen_before(request, data, again)
    if table is not None:
        data = with_notes(data, tell_table_overlap(table, data, again))
    quantize = _quantize(student, record, request, progress)
    # Where it was tried how the losses are best weighed, it goes on as that came out.
    weighed = {} if record.losses is None else {"losses": record.recipe.losses, "views": record.recipe.views}
    learned = request.recipe.model_copy(update=weighed)
    recipe, left_out = qat_recipe(learned, has_teacher(request))
    if left_out:
        progress.note(f"under fake quantization the student learns without {', '.join(left_out)}")
    useless = labels_only(bind_losses(recipe, has_teacher=has_teacher(request)))
    data = transfer_set(data, recipe.transfer, labels_only=useless, progress=again)
    passes = record.steps_per_epoch if record.losses is not None and useless else request.steps_per_epoch
    plan = TrainingPlan(
        request, recipe, data, student, teacher, f"run:{plain}", quantize, table=table, race=record.race,
        losses=record.losses, learned=learned, passes=passes,
    )  # fmt: skip
    if record.assistants and record.teacher is not None and record.teacher_validation is not None:
        plan = replace(plan, origin=Origin(record.teacher, record.teacher_validation, record.assistants))
    torch.manual_seed(request.recipe.seed)
    return train_and_save(plan, out, resources, progress)


def _quantize(
    student: LoadedModel, record: Student, request: Request, progress: Progress
) -> Callable[[Feed], tuple[LoadedModel, Quantization]]:
    """Fold the student, find its ranges on the first training images, and let it round."""
    assert request.qat is not None
    scheme, wanted = request.qat, request.recipe.qat.calibration

    def quantize(task: Feed) -> tuple[LoadedModel, Quantization]:
        example = example_inputs(student.preprocess.inputs)
        folded = fold_batchnorm(student.network, example)
        left = unfolded(folded)
        if left:
            progress.warn(f"{len(left)} BatchNorms follow no convolution and stay in float, e.g. {left[0]}")
        plan = quant_plan(folded, example)
        parts = islice(task.batches(0, 0, {"student"}), -(-wanted // task.batch_size))
        batches = [inputs_of(batch, "student") for batch in parts]
        folded = folded.to(batches[0][0].device)
        quantization = calibrate(folded, plan, scheme, batches)
        network = add_fake_quant(folded, quantization)
        equalise_channels(network)
        score = accuracy_in(task.evaluate(BatchModel(network, "student"), "validation"))
        progress.note(
            f"fake quantization ({_line(scheme)}) of {len(plan.inputs)} layers: validation accuracy "
            f"{accuracy_in(record.validation).accuracy:.2%} -> {score.accuracy:.2%} before training, n={score.n}"
        )
        parameters = sum(parameter.numel() for parameter in network.parameters())
        weights = student.weights.model_copy(update={"parameters": parameters})
        return replace(student, network=network, weights=weights), quantization

    return quantize


def _line(scheme: Scheme) -> str:
    scales = "a scale a channel" if scheme.per_channel else "one scale"
    return f"{scheme.activations} activations, {scheme.weight_bits}-bit weights with {scales}"
