"""What stops a training with a word on what to do next."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from compressor.distill.loop.checkpoint import Position
from compressor.errors import KdcError
from compressor.schema.recipe import Recipe
from compressor.tasks.base import Feed

__all__ = ["LearningError", "out_of_memory_explained", "require_finite"]

NAMED = 5


class LearningError(KdcError):
    """It is this network, with this recipe: another one might learn."""


def require_finite(sums: Mapping[str, Tensor], bad: Tensor, position: Position, task: Feed) -> None:
    """Raise LearningError where a loss of this epoch is not finite. `bad`: the first step that was so, or -1."""
    for name, total in sums.items():
        if not math.isfinite(float(total)):
            raise LearningError(
                f"loss {name} is not finite at step {int(bad) + 1} of epoch {position.epoch + 1}: "
                f"{_samples(task, position.epoch, int(bad))}",
                "look at these samples, or lower the learning rate: --set optimizer.lr=…",
            )


def _samples(task: Feed, epoch: int, step: int) -> str:
    samples = task.samples_of(epoch, step)
    suffix = f" and {len(samples) - NAMED} more" if len(samples) > NAMED else ""
    return f"samples {', '.join(task.names(samples[:NAMED]))}{suffix}"


@contextmanager
def out_of_memory_explained(recipe: Recipe) -> Iterator[None]:
    """Turns an allocation that failed, on CUDA or CPU, into what to try next."""
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _explained(recipe) from error
    except RuntimeError as error:
        if "can't allocate memory" not in str(error):
            raise
        raise _explained(recipe) from error


def _explained(recipe: Recipe) -> LearningError:
    return LearningError(
        f"out of memory with batch_size {recipe.batch_size} in {recipe.accumulate} part(s)",
        f"--set accumulate={2 * recipe.accumulate} takes half of it for the same batch; or a smaller --input-size",
    )
