"""The training loop, for teaching and distilling alike. It reads top-down and knows neither pixels nor tokens."""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.optim import AdamW

from compressor.distill.checkpoint import Position, load_state, save_state
from compressor.distill.interrupt import stop_requests
from compressor.distill.task import Batch, BatchModel, Outputs, Task
from compressor.errors import KdcError
from compressor.losses import bind
from compressor.progress import Progress
from compressor.spec.base import write_text
from compressor.spec.recipe import Recipe

__all__ = ["MIN_TO_CHOOSE", "Term", "bind_losses", "rate", "train"]

MIN_TO_CHOOSE = 1000
"""Validation samples from which on the best epoch is chosen; on a few hundred it is a lottery, so the last is kept."""

LOOK_EVERY = 25
"""Steps between looks at the loss: a look waits for the device."""


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


def train(
    student: BatchModel,
    teacher: BatchModel | None,
    task: Task,
    recipe: Recipe,
    *,
    head: Sequence[nn.Parameter],
    validation_size: int,
    inputs: Mapping[str, str],
    folder: Path,
    progress: Progress,
) -> Position:
    """Train `student` in place, and leave in it the weights to keep (averaged over steps, where the recipe says so).

    Writes FOLDER/history.jsonl and FOLDER/checkpoint/state.pt after every epoch and on a request to stop, which raises
    KeyboardInterrupt; continues from that state where there is one, if `inputs` (what it learns from, each with a
    fingerprint) are the same. `head`: trained alone for `recipe.head_epochs`.
    """
    terms = bind_losses(recipe, teacher is not None)
    assert teacher is None or not any(module.training for module in teacher.modules()), (
        "its batch statistics would drift"
    )
    optimizer = AdamW(_groups(student, recipe.optimizer.weight_decay), lr=recipe.optimizer.lr)
    average = ModelEmaV3(student, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
    modules: dict[str, nn.Module] = {"student": student, **({"average": average} if average else {})}
    state_file, position = folder / "checkpoint" / "state.pt", Position()
    if state_file.exists():
        position = load_state(state_file, modules, optimizer, inputs)
        progress.note(f"resuming at epoch {position.epoch + 1} of {recipe.epochs}, step {position.step}")
    with stop_requests() as stop_requested:
        while position.epoch < recipe.epochs:
            started = time.perf_counter()
            _set_trainable(student, head, head_only=position.epoch < recipe.head_epochs)
            _epoch(student, teacher, task, recipe, terms, optimizer, average, position, stop_requested, progress)
            if position.step < task.steps_per_epoch:
                save_state(state_file, position, modules, optimizer, inputs)
                raise KeyboardInterrupt
            evaluated = average.module if average else student
            _finish_epoch(evaluated, task, position, validation_size >= MIN_TO_CHOOSE, time.perf_counter() - started)
            save_state(state_file, position, modules, optimizer, inputs)
            write_text(folder / "history.jsonl", "".join(json.dumps(row) + "\n" for row in position.history))
            progress.note(_line(position.history[-1], recipe.epochs))
            if stop_requested() and position.epoch < recipe.epochs:
                raise KeyboardInterrupt
    final = average.module if average else student
    student.load_state_dict(position.kept if position.kept is not None else final.state_dict())
    student.requires_grad_(True)
    return position


def _epoch(
    student: BatchModel,
    teacher: BatchModel | None,
    task: Task,
    recipe: Recipe,
    terms: Sequence[Term],
    optimizer: AdamW,
    average: ModelEmaV3 | None,
    position: Position,
    stop_requested: Callable[[], bool],
    progress: Progress,
) -> None:
    """Train until the epoch's end or a request to stop; `position` says how far it came."""
    device = next(student.parameters()).device
    sums = {term.name: torch.tensor(position.sums.get(term.name, 0.0), device=device) for term in terms}
    doing = f"epoch {position.epoch + 1}/{recipe.epochs}"
    remaining = task.steps_per_epoch - position.step
    for batch in progress.track(task.batches(position.epoch, position.step), remaining, doing):
        step = position.epoch * task.steps_per_epoch + position.step
        for group in optimizer.param_groups:
            group["lr"] = rate(step, task.steps_per_epoch, recipe)
        losses = _losses(student, teacher, batch, terms, device)
        optimizer.zero_grad(set_to_none=True)
        torch.stack([term.weight * losses[term.name] for term in terms]).sum().backward()  # type: ignore[no-untyped-call]
        if recipe.optimizer.clip_norm:
            nn.utils.clip_grad_norm_(student.parameters(), recipe.optimizer.clip_norm)
        optimizer.step()
        if average:
            average.update(student, step=step)
        for name, loss in losses.items():
            sums[name] += loss.detach()
        position.step += 1
        if position.step % LOOK_EVERY == 0:
            _require_finite(sums, position)
        if stop_requested():
            break
    _require_finite(sums, position)
    position.sums = {name: float(total) for name, total in sums.items()}


def _losses(
    student: BatchModel, teacher: BatchModel | None, batch: Batch, terms: Sequence[Term], device: torch.device
) -> dict[str, Tensor]:
    """Every term's loss on a batch, unweighted. bfloat16 on CUDA; on CPU it slows depthwise convolutions down."""
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        answers: Outputs = student(batch)
        given = {"student_logits": answers.logits, "labels": batch["labels"]}
        if teacher is not None and any("teacher_logits" in term.needs for term in terms):
            with torch.no_grad():
                given["teacher_logits"] = teacher(batch).logits
    return {term.name: term.function(*(given[name] for name in term.needs)) for term in terms}


def _finish_epoch(model: BatchModel, task: Task, position: Position, choose: bool, seconds: float) -> None:
    """Measure on validation, decide what to keep, and move to the next epoch."""
    score = task.evaluate(model, "validation")
    steps = task.steps_per_epoch
    position.history.append(
        {
            "epoch": position.epoch + 1,
            "steps": steps,
            "loss": {name: round(total / steps, 6) for name, total in position.sums.items()},
            "validation": {"accuracy": score.accuracy, "balanced": score.balanced, "n": score.n},
            "seconds": round(seconds, 2),
        }
    )
    position.epoch, position.step, position.sums = position.epoch + 1, 0, {}
    if not choose:
        position.kept_epoch = position.epoch
    elif score.accuracy > position.kept_accuracy:
        position.kept_epoch, position.kept_accuracy = position.epoch, score.accuracy
        position.kept = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def _require_finite(sums: dict[str, Tensor], position: Position) -> None:
    for name, total in sums.items():
        if not math.isfinite(float(total)):
            raise KdcError(
                f"loss {name} is not finite near step {position.step} of epoch {position.epoch + 1}",
                "lower the learning rate: --set optimizer.lr=…",
            )


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


def _line(row: dict[str, object], epochs: int) -> str:
    losses = ", ".join(f"{name} {value:.4f}" for name, value in row["loss"].items())  # type: ignore[attr-defined]
    score: dict[str, float] = row["validation"]  # type: ignore[assignment]
    validation = f"validation {score['accuracy']:.2%} (n={score['n']})"
    return f"epoch {row['epoch']}/{epochs}: {losses}; {validation}; {row['seconds']} s"
