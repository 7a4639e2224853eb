"""Where a training runs: this process and its device, and the place that images are decoded to."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from accelerate import Accelerator

from compressor.data.samples import Dataset
from compressor.distill.host.device import Speed, set_up
from compressor.distill.host.resources import Resources
from compressor.errors import KdcError, first_line, os_error
from compressor.files.atomic import TEMPORARY
from compressor.models import LoadedModel
from compressor.processes.interruption import uninterrupted
from compressor.processes.team import any_of
from compressor.progress import Progress, Silent
from compressor.schema.preprocess import Preprocess
from compressor.schema.recipe import Recipe
from compressor.tasks.base import Feed
from compressor.tasks.table import task_named

__all__ = ["RunContext", "context_for", "feed_for", "store_in"]


@dataclass(frozen=True)
class RunContext:
    """What a plan runs in: this process, its device, and what it may use."""

    speed: Speed
    accelerator: Accelerator
    resources: Resources
    progress: Progress


def context_for(out: Path, resources: Resources, progress: Progress) -> RunContext:
    speed = set_up()
    try:
        accelerator = Accelerator(
            cpu=speed.device.type == "cpu", log_with=resources.tracker, project_dir=out / "tracker"
        )
    except ValueError as error:  # of a variable that accelerate reads, e.g. ACCELERATE_MIXED_PRECISION
        raise KdcError(f"accelerate does not start: {first_line(error)}", "look at `env | grep ACCELERATE`") from error
    if not accelerator.is_main_process:
        progress = Silent()
    for line in speed.lines:
        progress.note(line)
    if accelerator.num_processes > 1:
        progress.note(f"{accelerator.num_processes} processes share each batch; {_batch_norm(speed)}")
    return RunContext(speed, accelerator, resources, progress)


def _batch_norm(speed: Speed) -> str:
    if speed.device.type == "cuda":
        return "BatchNorm takes its statistics over all of it"
    return "each BatchNorm takes its statistics over its process's part (torch has no synchronised one on CPU)"


@contextmanager
def store_in(out: Path, context: RunContext) -> Iterator[Path]:
    """Where this machine decodes to, in the run's own folder, where its lock is: several machines may see it. Gone
    afterwards; what a kill leaves, the next command there removes."""
    machine = os.environ.get("GROUP_RANK", "0")
    store = out / f"{TEMPORARY}decoded-{machine}"
    try:
        yield store
    finally:
        if context.accelerator.is_local_main_process:
            with uninterrupted():
                shutil.rmtree(store, ignore_errors=True)


def feed_for(
    data: Dataset, inputs: dict[str, Preprocess], recipe: Recipe, store: Path, context: RunContext,
    teacher: LoadedModel | None = None,
) -> Feed:  # fmt: skip
    """What a training is fed with. `store`: where this machine may decode to; `teacher`: by whom views may be made."""
    if context.accelerator.is_local_main_process:
        _make_empty(store)
    context.accelerator.wait_for_everyone()
    task = task_named(next(iter(inputs.values())).task)
    size = task.stored_bytes(data, inputs)
    kept, line = context.resources.may_decode(size, store.parent, task.samples)
    # One answer for all: what is free changes as soon as the first of them decodes.
    kept = not any_of(context.accelerator, not kept)
    if size:
        context.progress.note(line)
    feed = task.feed(
        data, inputs, recipe, store=store if kept else None, device=context.speed.device, progress=context.progress,
        teacher=teacher,
    )  # fmt: skip
    feed.prepare()
    return feed


def _make_empty(folder: Path) -> None:
    try:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
    except OSError as error:
        raise os_error(error, f"preparing {folder}") from error
