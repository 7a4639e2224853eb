"""The training loop, for teaching and distilling alike. It reads top-down and knows neither pixels nor tokens."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW

from compressor.distill.loop.average import Average, clip_gradients
from compressor.distill.loop.checkpoint import Position, load_state, save_state
from compressor.distill.loop.guards import out_of_memory_explained, require_finite
from compressor.distill.loop.interrupt import stop_requests
from compressor.distill.loop.learner import Learner
from compressor.distill.loop.shares import shares_of, weighed
from compressor.distill.loop.tracking import track_epoch
from compressor.distill.loop.writing import written
from compressor.distill.teacher.sources import Itself, Teacher
from compressor.files.atomic import write_text
from compressor.processes.interruption import uninterrupted
from compressor.processes.team import any_of, mean_of, same_buffers
from compressor.progress import Part, Progress
from compressor.schema.recipe import Recipe
from compressor.stats.scores import figures, goodness, in_short
from compressor.tasks.base import Batch, BatchModel, Feed

__all__ = ["MIN_TO_CHOOSE", "rate", "train"]

MIN_TO_CHOOSE = 1000
"""Validation samples from which on the best epoch is chosen; on a few hundred it is a lottery, so the last is kept."""

LOOK_EVERY = 25
"""Steps between looks at the loss, at the clock and at the other processes: a look waits for the device."""

SAVE_EVERY_S = 600.0
"""Seconds of an epoch after which the state is saved within it: what a kill costs at most."""


def rate(step: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """The learning rate of a step: linear warm-up, then half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983), or
    a line."""
    optimizer, total = recipe.optimizer, recipe.epochs * steps_per_epoch
    warmup = min(round(optimizer.warmup_epochs * steps_per_epoch), total - 1)
    if step < warmup:
        return optimizer.lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    left = 1 - progress if optimizer.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * progress))
    return optimizer.lr * (optimizer.final_lr_share + (1 - optimizer.final_lr_share) * left)


@dataclass
class Training:
    """What a step needs. `parallel`: the learner as several processes train it, whose gradients are averaged."""

    learner: Learner
    parallel: nn.Module
    teacher: Teacher | None
    task: Feed
    recipe: Recipe
    optimizer: AdamW
    average: Average[BatchModel] | None
    accelerator: Accelerator
    inputs: Mapping[str, str]
    checkpoint: Path
    progress: Progress
    stop_requested: Callable[[], bool] = lambda: False
    position: Position = field(default_factory=Position)
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def student(self) -> BatchModel:
        return self.learner.student

    @cached_property
    def parameters(self) -> list[nn.Parameter]:
        """All that is trained."""
        return list(self.learner.parameters())

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What has a state: all that is trained, the average, and a teacher that changes."""
        changing = self.teacher if isinstance(self.teacher, Itself) else None
        modules = {"learner": self.learner, "average": self.average, "teacher": changing}
        return {name: module for name, module in modules.items() if module is not None}

    def save(self) -> None:
        if self.accelerator.is_main_process:
            with uninterrupted():
                save_state(self.checkpoint, self.position, self.modules, self.optimizer, self.inputs)
        self.saved_at = time.monotonic()


def train(
    learner: Learner,
    teacher: Teacher | None,
    task: Feed,
    recipe: Recipe,
    *,
    head: Sequence[nn.Parameter],
    validation_size: int,
    inputs: Mapping[str, str],
    folder: Path,
    progress: Progress,
    accelerator: Accelerator | None = None,
    more: bool = False,
) -> Position:
    """Train `learner` in place, and leave in its student the weights to keep (averaged over steps, where the recipe
    says so).

    Writes FOLDER/history.jsonl and FOLDER/checkpoint after every epoch, every ten minutes within one, and on a request
    to stop, which raises KeyboardInterrupt; continues from that state where there is one, if `inputs` (what it learns
    from, each with a fingerprint) are the same. `head`: trained alone for `recipe.head_epochs`. `accelerator`: its
    processes share each batch, and its trackers get a row an epoch. `more`: another stage follows: stop before it.
    """
    student = learner.student
    accelerator = accelerator or Accelerator(cpu=next(student.parameters()).device.type == "cpu")
    average = Average(student, recipe.ema_decay) if recipe.ema_decay else None
    run = Training(
        learner, learner, teacher if learner.asks_teacher else None, task, recipe,
        AdamW(_groups(learner, recipe.optimizer.weight_decay), lr=recipe.optimizer.lr, fused=True),
        average, accelerator, inputs, folder / "checkpoint", progress,
    )  # fmt: skip
    before = load_state(run.checkpoint, run.modules, run.optimizer, inputs, progress)
    if before is not None:
        run.position = before
        if before.epoch < recipe.epochs:
            progress.note(f"resuming at epoch {before.epoch + 1} of {recipe.epochs}, step {before.step}")
    with stop_requests() as run.stop_requested, out_of_memory_explained(recipe):
        while run.position.epoch < recipe.epochs:
            started = time.perf_counter()
            _set_trainable(learner, head, head_only=run.position.epoch < recipe.head_epochs)
            run.parallel = _shared(learner, accelerator)
            if not _epoch(run):
                run.save()
                raise KeyboardInterrupt
            _finish_epoch(run, validation_size >= MIN_TO_CHOOSE, started)
            run.save()
            _write_history(run, folder)
            if any_of(accelerator, run.stop_requested()) and (more or run.position.epoch < recipe.epochs):
                raise KeyboardInterrupt
    final = average.module if average else student
    student.load_state_dict(run.position.kept if run.position.kept is not None else final.state_dict())
    student.requires_grad_(True)
    return run.position


def _epoch(run: Training) -> bool:
    """Train until the epoch's end or a request to stop; whether it came to the end."""
    position, task, teacher = run.position, run.task, run.teacher
    device = next(run.student.parameters()).device
    sums = {name: torch.tensor(position.sums.get(name, 0.0), device=device) for name in run.learner.weights(0.0)}
    bad = torch.full((), -1, device=device)
    keys = run.learner.keys | set(teacher.keys if teacher and teacher.wants(position.epoch) else ())
    batches = task.batches(position.epoch, position.step, keys)
    doing = _doing(run)
    steps = iter(lambda: list(islice(batches, run.recipe.accumulate)), [])
    for parts in run.progress.track(steps, task.steps_per_epoch - position.step, doing):
        losses = _step(run, parts)
        for name, loss in losses.items():
            sums[name] += loss
        total = torch.stack(list(losses.values())).sum()
        bad = torch.where((bad < 0) & ~total.isfinite(), position.step, bad)
        position.step += 1
        if position.step % LOOK_EVERY == 0:
            require_finite(sums, bad, position, task)
            if any_of(run.accelerator, time.monotonic() - run.saved_at > SAVE_EVERY_S):
                position.sums = _totals(run, sums)
                run.save()
                sums = {name: torch.tensor(value, device=device) for name, value in position.sums.items()}
        if _asked_to_stop(run):
            break
    require_finite(sums, bad, position, task)
    position.sums = _totals(run, sums)
    is_complete = position.step == task.steps_per_epoch
    if is_complete and teacher:
        # It may be what teaches the next epoch: the same in all processes.
        same_buffers(run.accelerator, [run.student])
        teacher.end(position.epoch, run.student)
    return is_complete


def _step(run: Training, parts: Sequence[Batch]) -> dict[str, Tensor]:
    """One step of the optimizer, its batch in `parts`; the mean loss of each term, unweighted."""
    position, recipe = run.position, run.recipe
    step = position.epoch * run.task.steps_per_epoch + position.step
    _seed_step(recipe.seed, step, run.accelerator)
    for group in run.optimizer.param_groups:
        group["lr"] = rate(step, run.task.steps_per_epoch, recipe)
    last_step = recipe.epochs * run.task.steps_per_epoch - 1
    weights = run.learner.weights(step / max(1, last_step))
    run.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    with run.learner.precision(run.accelerator.device):
        texts = written(run.task, parts, run.student, step)
    counts = [run.learner.counts(batch, text) for batch, text in zip(parts, texts, strict=True)]
    shares = shares_of(counts, run.accelerator)
    for number, (batch, text) in enumerate(zip(parts, texts, strict=True)):
        answers = run.teacher.answers(text or batch, position.epoch) if run.teacher else None
        # Gradients are averaged over the processes once a step, with its last part.
        last = number == len(parts) - 1
        with nullcontext() if last else run.accelerator.no_sync(run.parallel):
            losses = weighed(run.parallel(batch, answers, text), shares[number])
            total = torch.stack([weights[name] * loss for name, loss in losses.items()]).sum() / len(parts)
            total.backward()  # type: ignore[no-untyped-call]
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.detach() / len(parts)
    if recipe.optimizer.clip_norm:
        clip_gradients(run.parameters, recipe.optimizer.clip_norm)
    run.optimizer.step()
    if run.average:
        run.average.update(run.student, step)
    return sums


def _seed_step(seed: int, step: int, accelerator: Accelerator) -> None:
    """Make what a step draws (dropout, stochastic depth) a function of the seed, the step and the process, so that a
    run can go on from any step without a saved random state. On a CPU that one alone: all take half a millisecond."""
    seeded = torch.default_generator.manual_seed if accelerator.device.type == "cpu" else torch.manual_seed
    seeded(((seed << 32) + step * 4096 + accelerator.process_index) % 2**63)


def _asked_to_stop(run: Training) -> bool:
    """At once in a run of one process; several agree on it at the next look, since a process that left alone would
    leave the others waiting for its gradients."""
    if run.accelerator.num_processes == 1:
        return run.stop_requested()
    return run.position.step % LOOK_EVERY == 0 and any_of(run.accelerator, run.stop_requested())


def _totals(run: Training, sums: Mapping[str, Tensor]) -> dict[str, float]:
    return {name: mean_of(run.accelerator, total) for name, total in sums.items()}


def _finish_epoch(run: Training, choose: bool, started: float) -> None:
    """Measure on validation, decide what to keep, and move to the next epoch."""
    position, steps = run.position, run.task.steps_per_epoch
    model = run.average.module if run.average else run.student
    same_buffers(run.accelerator, [run.student, model])
    training_s = time.perf_counter() - started
    score = run.task.evaluate(model, "validation")
    position.history.append(
        {
            "epoch": position.epoch + 1,
            "steps": steps,
            "loss": {name: round(total / steps, 6) for name, total in position.sums.items()},
            "validation": figures(score),
            "seconds": round(training_s, 2),
        }
    )
    position.epoch, position.step, position.sums = position.epoch + 1, 0, {}
    # An epoch whose answers are not finite has no AUC.
    by = goodness(score, run.recipe.keep_by)
    if not choose or (by is None and position.kept is None):
        position.kept_epoch = position.epoch
    elif by is not None and by > position.kept_score:
        position.kept_epoch, position.kept_score = position.epoch, by
        position.kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _write_history(run: Training, folder: Path) -> None:
    row = run.position.history[-1]
    run.progress.note(_line(row, run.recipe.epochs))
    if run.accelerator.is_main_process:
        write_text(folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in run.position.history))
    track_epoch(run.accelerator, row, lr=run.optimizer.param_groups[0]["lr"])


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Biases and normalization (one dimension or none) are not decayed."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _set_trainable(learner: Learner, head: Sequence[nn.Parameter], head_only: bool) -> None:
    """Training mode; while the head trains alone, the rest of the student has no gradients and its batch statistics
    stand still."""
    learner.train()
    learner.student.train(not head_only)
    learner.student.requires_grad_(not head_only)
    for parameter in head:
        parameter.requires_grad_(True)


def _shared(learner: Learner, accelerator: Accelerator) -> nn.Module:
    """The learner itself, or wrapped so that its gradients are averaged over the processes. Anew each epoch: the
    wrapper notes which parameters have gradients, and that changes when the head has trained alone."""
    if accelerator.num_processes == 1:
        return learner
    devices = [accelerator.device] if accelerator.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(learner, device_ids=devices)


def _doing(run: Training) -> Part:
    """The epoch at hand, and what the one before came to."""
    number, epochs = run.position.epoch + 1, run.recipe.epochs
    history = run.position.history
    score = f", validation {in_short(history[-1]['validation'], whole=False)}" if history else ""
    return Part(f"epoch {number}/{epochs}{score}", number, epochs, "epochs")


def _line(row: dict[str, object], epochs: int) -> str:
    losses = ", ".join(f"{name} {value:.4f}" for name, value in row["loss"].items())  # type: ignore[attr-defined]
    score: dict[str, float] = row["validation"]  # type: ignore[assignment]
    return f"epoch {row['epoch']}/{epochs}: {losses}; validation {in_short(score)}; {row['seconds']} s"
