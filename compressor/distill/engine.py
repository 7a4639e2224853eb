"""The training loop, for teaching and distilling alike. It reads top-down and knows neither pixels nor tokens."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from accelerate import Accelerator
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import AdamW

from compressor.distill.checkpoint import Position, load_state, save_state
from compressor.distill.guards import out_of_memory_explained, require_finite
from compressor.distill.interrupt import stop_requests
from compressor.distill.processes import any_of, mean_of, same_buffers
from compressor.distill.task import Batch, BatchModel, Task
from compressor.distill.teachers import Teacher
from compressor.errors import KdcError
from compressor.losses import bind
from compressor.progress import Progress
from compressor.spec.base import write_text
from compressor.spec.recipe import Recipe

__all__ = ["MIN_TO_CHOOSE", "Term", "bind_losses", "rate", "train"]

MIN_TO_CHOOSE = 1000
"""Validation samples from which on the best epoch is chosen; on a few hundred it is a lottery, so the last is kept."""

LOOK_EVERY = 25
"""Steps between looks at the loss, at the clock and at the other processes: a look waits for the device."""

SAVE_EVERY_S = 600.0
"""Seconds of an epoch after which the state is saved within it: what a kill costs at most."""


@dataclass(frozen=True)
class Term:
    """A loss of the recipe, its parameters filled in; `needs` names its arguments."""

    name: str
    weight: float
    function: Callable[..., Tensor]
    needs: tuple[str, ...]


def bind_losses(recipe: Recipe, has_teacher: bool) -> list[Term]:
    """The recipe's losses, ready to call; raises KdcError for an unknown one, or one that has no teacher."""
    terms = []
    for number, row in enumerate(recipe.losses):
        function, needs = bind(row.name, row.parameters, f"recipe losses.{number}")
        if "teacher_logits" in needs and not has_teacher:
            raise KdcError(f"recipe losses.{number}: {row.name} needs a teacher", "kdc teach learns from labels only")
        terms.append(Term(row.name, row.weight, function, needs))
    if not any(term.weight > 0 for term in terms):
        raise KdcError("recipe losses: every weight is 0, so nothing would be learned")
    return terms


def rate(step: int, steps_per_epoch: int, recipe: Recipe) -> float:
    """The learning rate of a step: linear warm-up, then half a cosine (Loshchilov & Hutter 2017, arXiv 1608.03983)."""
    how, total = recipe.optimizer, recipe.epochs * steps_per_epoch
    warmup = min(round(how.warmup_epochs * steps_per_epoch), total - 1)
    if step < warmup:
        return how.lr * (step + 1) / (warmup + 1)
    progress = (step - warmup) / max(1, total - warmup)
    return how.lr * (how.final_lr_share + (1 - how.final_lr_share) * 0.5 * (1 + math.cos(math.pi * progress)))


@dataclass
class Training:
    """What a step needs. `parallel`: the student as several processes train it, whose gradients are averaged."""

    student: BatchModel
    parallel: nn.Module
    teacher: Teacher | None
    task: Task
    recipe: Recipe
    terms: Sequence[Term]
    optimizer: AdamW
    average: ModelEmaV3 | None
    accelerator: Accelerator
    autocast: torch.dtype | None
    inputs: Mapping[str, str]
    checkpoint: Path
    progress: Progress
    stop_requested: Callable[[], bool] = lambda: False
    position: Position = field(default_factory=Position)
    saved_at: float = field(default_factory=time.monotonic)

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What has a state: all that is trained, and the average."""
        return {"student": self.student, **({"average": self.average} if self.average else {})}

    def save(self) -> None:
        if self.accelerator.is_main_process:
            save_state(self.checkpoint, self.position, self.modules, self.optimizer, self.inputs)
        self.saved_at = time.monotonic()


def train(
    student: BatchModel,
    teacher: Teacher | None,
    task: Task,
    recipe: Recipe,
    *,
    head: Sequence[nn.Parameter],
    validation_size: int,
    inputs: Mapping[str, str],
    folder: Path,
    progress: Progress,
    accelerator: Accelerator | None = None,
    autocast: torch.dtype | None = None,
) -> Position:
    """Train `student` in place, and leave in it the weights to keep (averaged over steps, where the recipe says so).

    Writes FOLDER/history.jsonl and FOLDER/checkpoint after every epoch, every ten minutes within one, and on a request
    to stop, which raises KeyboardInterrupt; continues from that state where there is one, if `inputs` (what it learns
    from, each with a fingerprint) are the same. `head`: trained alone for `recipe.head_epochs`. `accelerator`: its
    processes share each batch, and its trackers get a row an epoch.
    """
    accelerator = accelerator or Accelerator(cpu=next(student.parameters()).device.type == "cpu")
    average = ModelEmaV3(student, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
    run = Training(
        student, student, teacher, task, recipe, bind_losses(recipe, teacher is not None),
        AdamW(_groups(student, recipe.optimizer.weight_decay), lr=recipe.optimizer.lr, fused=True),
        average, accelerator, autocast, inputs, folder / "checkpoint", progress,
    )  # fmt: skip
    before = load_state(run.checkpoint, run.modules, run.optimizer, inputs, progress)
    if before is not None:
        run.position = before
        progress.note(f"resuming at epoch {before.epoch + 1} of {recipe.epochs}, step {before.step}")
    with stop_requests() as run.stop_requested, out_of_memory_explained(recipe):
        while run.position.epoch < recipe.epochs:
            started = time.perf_counter()
            _set_trainable(student, head, head_only=run.position.epoch < recipe.head_epochs)
            run.parallel = _shared(student, accelerator)
            if not _epoch(run):
                run.save()
                raise KeyboardInterrupt
            _finish_epoch(run, validation_size >= MIN_TO_CHOOSE, started)
            run.save()
            _write_history(run, folder)
            stop = any_of(accelerator, run.stop_requested())
            if stop and run.position.epoch < recipe.epochs:
                raise KeyboardInterrupt
    final = average.module if average else student
    student.load_state_dict(run.position.kept if run.position.kept is not None else final.state_dict())
    student.requires_grad_(True)
    return run.position


def _epoch(run: Training) -> bool:
    """Train until the epoch's end or a request to stop; whether it came to the end."""
    position, task, teacher = run.position, run.task, run.teacher
    device = next(run.student.parameters()).device
    sums = {term.name: torch.tensor(position.sums.get(term.name, 0.0), device=device) for term in run.terms}
    bad = torch.full((), -1, device=device)
    keys = {run.student.key, *([teacher.key] if teacher and teacher.wants(position.epoch) else [])}
    batches = task.batches(position.epoch, position.step, keys)
    doing = f"epoch {position.epoch + 1}/{run.recipe.epochs}"
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
    whole = position.step == task.steps_per_epoch
    if whole and teacher:
        teacher.end(position.epoch)
    return whole


def _step(run: Training, parts: Sequence[Batch]) -> dict[str, Tensor]:
    """One step of the optimizer, its batch in `parts`; the mean loss of each term, unweighted."""
    position, recipe = run.position, run.recipe
    step = position.epoch * run.task.steps_per_epoch + position.step
    _seed_step(recipe.seed, step, run.accelerator.process_index)
    for group in run.optimizer.param_groups:
        group["lr"] = rate(step, run.task.steps_per_epoch, recipe)
    run.optimizer.zero_grad(set_to_none=True)
    sums: dict[str, Tensor] = {}
    for number, batch in enumerate(parts):
        losses = _losses(run, batch)
        total = torch.stack([term.weight * losses[term.name] for term in run.terms]).sum() / len(parts)
        # Gradients are averaged over the processes once a step, with its last part.
        last = number == len(parts) - 1
        with nullcontext() if last else run.accelerator.no_sync(run.parallel):
            total.backward()  # type: ignore[no-untyped-call]
        for name, loss in losses.items():
            sums[name] = sums.get(name, 0.0) + loss.detach() / len(parts)
    if recipe.optimizer.clip_norm:
        nn.utils.clip_grad_norm_(run.student.parameters(), recipe.optimizer.clip_norm)
    run.optimizer.step()
    if run.average:
        run.average.update(run.student, step=step)
    return sums


def _losses(run: Training, batch: Batch) -> dict[str, Tensor]:
    """Every term's loss on a batch, unweighted."""
    given = {"labels": batch["labels"]}
    device = batch["labels"].device
    with torch.autocast(device.type, run.autocast, enabled=run.autocast is not None):
        given["student_logits"] = run.parallel(batch).logits
    if run.teacher is not None and any("teacher_logits" in term.needs for term in run.terms):
        given["teacher_logits"] = run.teacher.answers(batch, run.position.epoch).logits
    return {term.name: term.function(*(given[name] for name in term.needs)) for term in run.terms}


def _seed_step(seed: int, step: int, process: int) -> None:
    """Make what a step draws (dropout, stochastic depth) a function of the seed, the step and the process, so that a
    run can go on from any step without a saved random state."""
    torch.manual_seed(((seed << 32) + step * 4096 + process) % 2**63)


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
            "validation": {"accuracy": score.accuracy, "balanced": score.balanced, "n": score.n},
            "seconds": round(training_s, 2),
        }
    )
    position.epoch, position.step, position.sums = position.epoch + 1, 0, {}
    if not choose:
        position.kept_epoch = position.epoch
    elif score.accuracy > position.kept_accuracy:
        position.kept_epoch, position.kept_accuracy = position.epoch, score.accuracy
        position.kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _write_history(run: Training, folder: Path) -> None:
    row = run.position.history[-1]
    run.progress.note(_line(row, run.recipe.epochs))
    if run.accelerator.is_main_process:
        write_text(folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in run.position.history))
    losses = {f"loss/{name}": value for name, value in row["loss"].items()}
    scores = {f"validation/{name}": row["validation"][name] for name in ("accuracy", "balanced")}
    lr = run.optimizer.param_groups[0]["lr"]
    run.accelerator.log({**losses, **scores, "lr": lr, "seconds": row["seconds"]}, step=row["epoch"])


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, object]]:
    """Biases and normalization (one dimension or none) are not decayed."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]


def _set_trainable(model: nn.Module, head: Sequence[nn.Parameter], head_only: bool) -> None:
    """Training mode; while the head trains alone, the rest has no gradients and its batch statistics stand still."""
    model.train(not head_only)
    model.requires_grad_(not head_only)
    for parameter in head:
        parameter.requires_grad_(True)


def _shared(student: BatchModel, accelerator: Accelerator) -> nn.Module:
    """The student itself, or wrapped so that its gradients are averaged over the processes. Anew each epoch: the
    wrapper notes which parameters have gradients, and that changes when the head has trained alone."""
    if accelerator.num_processes == 1:
        return student
    devices = [accelerator.device] if accelerator.device.type == "cuda" else None
    return nn.parallel.DistributedDataParallel(student, device_ids=devices)


def _line(row: dict[str, object], epochs: int) -> str:
    losses = ", ".join(f"{name} {value:.4f}" for name, value in row["loss"].items())  # type: ignore[attr-defined]
    score: dict[str, float] = row["validation"]  # type: ignore[assignment]
    validation = f"validation {score['accuracy']:.2%} (n={score['n']})"
    return f"epoch {row['epoch']}/{epochs}: {losses}; {validation}; {row['seconds']} s"
