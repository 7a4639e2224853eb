"""`kdc distill --plan`: all that can be checked before a training, and how long it takes, from a few steps of it."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from compressor.data.samples import Dataset, Split
from compressor.distill.answers_ahead import NOTHING_KEPT, Ahead, answers_ahead, notes_on, to_be_kept
from compressor.distill.api import distillation
from compressor.distill.host.context import RunContext, context_for, feed_for
from compressor.distill.host.resources import Resources, free_bytes
from compressor.distill.methods.arms import has_arms, tried
from compressor.distill.methods.assistants import require_possible
from compressor.distill.methods.control import require_controllable
from compressor.distill.methods.halving import over_share, rounds_of
from compressor.distill.methods.qat import require_quantizable
from compressor.distill.recipes import with_new_views
from compressor.distill.run_folder import Destination, acquire
from compressor.distill.teacher.keeping import Keeping
from compressor.distill.teacher.predictions import taught_by
from compressor.distill.teacher.setup import measured
from compressor.distill.teacher.sources import Teacher
from compressor.distill.trainer import fit, require_trainable, signal_for
from compressor.errors import os_error
from compressor.files.scratch import scratch
from compressor.progress import Muted, Progress, Silent
from compressor.schema.estimate import Spread
from compressor.schema.forecast import Forecast, Part
from compressor.schema.student import Request
from compressor.tasks.plain_feed import batch_size_of
from compressor.tasks.table import task_named

__all__ = ["forecast"]

STEPS = 6
"""Steps of a pass that is timed."""
PASSES = 3
"""Passes that are timed, after one that is not: it warms up."""
VALIDATION = 512
"""Validation samples that the time of a look is taken from."""
STATES = 2 * 5
"""Weights, two moments, the average and the best so far; and the state before beside the last."""


@dataclass(frozen=True)
class _Timed:
    """What was timed of one student. `decoded`: bytes of all images, and whether they are `kept`, or decoded anew each
    time; `feed`: how it sees them, by which those who race share what is decoded; `ahead`: the teacher's answers that
    are kept for it; `stages`: steps of an epoch of each stage before the last."""

    steps: int
    step_s: Spread
    validation_s: float
    decode_s: float
    decoded: int
    parameters: int
    feed: str
    kept: bool = True
    ahead: Ahead = NOTHING_KEPT
    stages: tuple[int, ...] = ()

    def of_stage(self, number: int) -> "_Timed":
        """In a stage before the last, from 1."""
        return replace(self, steps=self.stages[number - 1]) if self.stages else self


def forecast(
    request: Request, out: Destination, *, progress: Progress, resources: Resources | None = None,
    data: Dataset | None = None,
) -> Forecast:  # fmt: skip
    """Check what `distill` with the same arguments would check, time a few steps, and say what would be done.

    Nothing is written where the run would be. Raises KdcError for whatever would stop it.
    """
    resources = resources or Resources()
    finished = acquire(out, request)
    if request.qat is not None:
        require_quantizable(request)
    require = require_controllable if request.control else require_possible
    data = require(request, progress, data)
    students = request.raced or tuple(filter(None, (*request.assistants, request.student)))
    timed: dict[str, _Timed] = {}
    try:
        with scratch("plan", "kdc distill --plan") as folder:
            context = context_for(folder, replace(resources, tracker=None), progress)
            for number, student in enumerate(dict.fromkeys(students)):
                progress.note(f"timing {(PASSES + 1) * STEPS} steps of {student}")
                timed[student] = _time(request, student, data, folder / str(number), context, out.folder)
    except OSError as error:
        raise os_error(error, "timing a few steps") from error
    parts = tuple(_parts(request, timed))
    parameters = max(each.parameters for each in timed.values())
    answers = to_be_kept(request, {name: each.ahead for name, each in timed.items()}, _last(request, timed))
    disk = {
        f"decoded {task_named(request.task).samples}": _decoded_at_once(request, timed),
        "checkpoint": 4 * STATES * parameters * (2 if has_arms(request) else 1),  # two are held against each other
        **({"teacher answers": sum(each.bytes for each in answers)} if answers else {}),
    }
    free = free_bytes(out.folder)
    decode_s = sum(each.decode_s for each in _decodings(request, timed))
    return Forecast(
        out=str(out.folder),
        teacher=" + ".join((request.teacher, *request.other_teachers)),
        data=data.info.source,
        counts=data.info.counts,
        timed=f"on {context.speed.device}, {PASSES} passes of {STEPS} steps each, after one that warmed up",
        decode_s=decode_s,
        parts=parts,
        disk=disk,
        free=free,
        seconds=sum(part.seconds for part in parts) + decode_s,
        notes=(*_notes_on_done(out, finished), *_notes(request, timed, answers)),
        stops=(*_stops(disk, free), *_stopped_by_answers(answers)),
    )


def _time(
    request: Request, student: str, data: Dataset, folder: Path, context: RunContext, out: Path
) -> _Timed:  # fmt: skip
    """Train `student` for a few passes over a few steps, in `folder`. Images are kept there where the run in `out`
    would keep its own."""
    plan = distillation(
        request.model_copy(update={"student": student, "race": None, "assistants": (), "qat": None}), Silent(), data
    )
    require_trainable(plan)
    batch, _ = batch_size_of(plan.recipe, len(data.train), 1)
    few = replace(data, train=_some(data.train, STEPS * batch), validation=_some(data.validation, VALIDATION))
    changes = {"epochs": PASSES + 1, "head_epochs": 0}
    short = replace(plan, data=few, recipe=with_new_views(plan.recipe).model_copy(update=changes))
    stored = task_named(request.task).stored_bytes(data, plan.inputs)
    kept, _ = context.resources.may_decode(stored, out)
    quiet = _quiet(context, kept)
    folder.mkdir()
    started = time.perf_counter()
    feed = feed_for(few, short.inputs, short.recipe, folder / "decoded", quiet, short.teacher)
    decoding = time.perf_counter() - started
    teacher: Teacher | None = None
    if short.teacher is not None and any(term.asks_teacher for term in short.terms):
        model, _ = measured(short.teacher, feed, few, quiet)
        teacher = signal_for(short, short.teacher, model, short.sides, feed, quiet, every_view=False)
    if short.table is not None:
        teacher, _ = taught_by(short.table, few, quiet.progress)
    ahead = answers_ahead(request, plan, len(data.train) // batch, context)
    fitted = fit(short, folder, feed, teacher, short.sides, quiet)
    passes = [float(row["seconds"]) / feed.steps_per_epoch for row in fitted.position.history[1:]]
    started = time.perf_counter()
    feed.evaluate(fitted.student, "validation")
    looking = time.perf_counter() - started
    whole = len(data.train) + len(data.validation) + len(data.test)
    return _Timed(
        steps=len(data.train) // batch,
        step_s=Spread(median=float(np.median(passes)), lowest=min(passes), highest=max(passes), n=len(passes)),
        validation_s=looking * len(data.validation) / len(few.validation),
        decode_s=decoding * whole / (len(few.train) + len(few.validation)) if kept else 0.0,
        decoded=stored if kept else 0,
        parameters=sum(
            weights.numel() for model in (plan.student, *plan.peers) for weights in model.network.parameters()
        ),
        feed=plan.student.preprocess.model_dump_json(),
        kept=kept,
        ahead=ahead,
        stages=tuple(len((other or data).train) // batch for other in plan.stage_data),
    )


def _quiet(context: RunContext, kept: bool) -> RunContext:
    """The same, saying little. `kept`: images are decoded to disk."""
    resources = context.resources if kept else replace(context.resources, decode_cache=0)
    return replace(context, progress=Muted(context.progress), resources=resources)


def _last(request: Request, timed: dict[str, _Timed]) -> str:
    """The student that is trained in the end; of those who race, the slowest is taken for it."""
    return max(timed, key=lambda name: timed[name].step_s.median) if request.race else str(request.student)


def _before(request: Request, timed: dict[str, _Timed]) -> list[_Timed]:
    """For whom images are decoded before the student's own training."""
    if request.race is None:
        return [timed[name] for name in request.assistants]
    return list({each.feed: each for each in timed.values()}.values()) if len(timed) > 1 else []


def _decodings(request: Request, timed: dict[str, _Timed]) -> list[_Timed]:
    """For whom images are decoded, as often as they are: every training has its own, the losses' weights have one, and
    a race one of each kind."""
    trainings = (1 if request.qat is None else 2) * (2 if request.control else 1) + has_arms(request)
    return _before(request, timed) + [timed[_last(request, timed)]] * trainings


def _decoded_at_once(request: Request, timed: dict[str, _Timed]) -> int:
    """Bytes of decoded images at most at a time: those of a race lie there together."""
    alone = max(each.decoded for each in _decodings(request, timed))
    together = sum(each.decoded for each in _before(request, timed)) if request.race is not None else 0
    return max(alone, together)


def _parts(request: Request, timed: dict[str, _Timed]) -> Iterator[Part]:
    """Every training, in the order in which they run."""
    epochs = request.recipe.epochs
    if request.race is not None:
        names = list(timed)
        rounds = rounds_of(len(names), next(iter(timed.values())).steps, epochs, request.race.share)
        slowest = sorted(names, key=lambda name: -timed[name].step_s.median)
        for turn, (count, length) in enumerate(rounds, 1):
            for name in names if count == len(names) else slowest[:count]:
                yield _part(f"race, round {turn}", name, length, timed[name])
        yield from _arms(request, timed)
        yield _part("the winner", slowest[0], request.recipe.epochs_in_all, timed[slowest[0]])
    else:
        for name in request.assistants:
            yield _part("assistant", name, request.recipe.epochs_in_all, timed[name])
        assert request.student is not None
        yield from _arms(request, timed)
        for number, stage in enumerate(request.recipe.stages, 1):
            timed_stage = timed[request.student].of_stage(number)
            yield _part(f"student, stage {number}", request.student, stage.epochs, timed_stage)
        yield _part("student", request.student, epochs, timed[request.student])
    last = _last(request, timed)
    if request.qat is not None:
        yield _part("under fake quantization", last, request.recipe.qat.epochs, timed[last])
    if request.control:
        more = request.recipe.qat.epochs if request.qat is not None else 0
        yield _part("the control", last, request.recipe.epochs_in_all + more, timed[last])


def _arms(request: Request, timed: dict[str, _Timed]) -> Iterator[Part]:
    """The trials of the losses' weights, and labels alone in full, which they may rule out; each is counted as the
    default, which in full is the training itself."""
    if has_arms(request):
        assert request.regime is not None
        last, whole = _last(request, timed), request.recipe.epochs
        arms, epochs = tried(request.regime.arms, timed[last].steps, whole)
        for arm in arms if epochs < whole else ():
            yield _part(f"losses, {arm}", last, epochs, timed[last])
        yield _part("losses, labels in full", last, whole, timed[last])


def _part(name: str, student: str, epochs: int, timed: _Timed) -> Part:
    seconds = epochs * (timed.steps * timed.step_s.median + timed.validation_s)
    return Part(
        name=name,
        student=student,
        epochs=epochs,
        steps=timed.steps,
        step_s=timed.step_s,
        validation_s=timed.validation_s,
        seconds=seconds,
    )


def _notes_on_done(out: Destination, finished: bool) -> Iterator[str]:
    """Of a run to be resumed: the figures are those of one from the start."""
    if finished:
        yield f"{out.folder} is finished already, so that nothing would be done: counted is a run from the start"
    elif out.resume:
        yield f"what is done already in {out.folder} is counted, too"


def _notes(request: Request, timed: dict[str, _Timed], answers: Sequence[Keeping] = ()) -> Iterator[str]:
    """Which recipe it is; what the figures leave out, or take for something else."""
    if request.regime is not None:
        yield f"the default recipe for the regime {request.regime.name}: {request.regime.why}"
        if request.regime.views is not None:
            yield f"views: {request.regime.views}"
    students = [*timed]
    if any(not each.kept for each in timed.values()):
        samples = task_named(request.task).samples
        yield f"{samples} are decoded anew in every epoch, since they may not lie on disk (--decode-cache)"
    yield from notes_on(answers, timed[_last(request, timed)].ahead)
    if request.race is not None:
        rounds = rounds_of(len(students), next(iter(timed.values())).steps, request.recipe.epochs, request.race.share)
        if (over := over_share(rounds, request.recipe.epochs, request.race.share)) is not None:
            yield over
    if request.race is not None and len(students) > 2:
        yield "who goes on in the race is not known yet: the slowest are counted"
    elif request.race is not None:
        yield "who wins the race is not known yet: the slower one is counted"
    if request.assistants:
        yield "each is timed with the teacher, which teaches the first of them alone"
    if request.recipe.stages:
        yield "a step of an earlier stage is counted as one of the last"
    if has_arms(request):
        yield "labels alone in full are counted, and left out where their trial shows that the teacher stays ahead"
    if request.qat is not None:
        yield "steps under fake quantization are counted as steps in float, and take longer"
    if request.control:
        yield "the control's steps are counted as the student's, and take less: no teacher answers"
    yield "other work on this machine, a hot CPU or a GPU that is shared make it longer"


def _stops(disk: dict[str, int], free: int) -> Iterator[str]:
    if disk["checkpoint"] > free:
        yield f"the checkpoint takes about {disk['checkpoint'] / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free"


def _stopped_by_answers(answers: Sequence[Keeping]) -> Iterator[str]:
    size = sum(each.bytes for each in answers)
    if answers and size > (free := free_bytes(answers[0].folder)):
        yield (
            f"the teacher's answers take {size / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are free in "
            f"{answers[0].folder}: --teacher-cache DIR, or --teacher-cache off"
        )


def _some(split: Split, count: int) -> Split:
    """`count` samples from all over the split."""
    return split.part(np.unique(np.linspace(0, len(split) - 1, min(count, len(split))).astype(np.int64)))
