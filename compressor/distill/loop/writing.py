"""On-policy steps: the batches in which the student itself writes what it is compared with its teacher on."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from compressor.tasks.base import Batch, BatchModel, Feed

__all__ = ["Writes", "written"]


@runtime_checkable
class Writes(Protocol):
    """A feed whose student can write."""

    def written(self, parts: Sequence[Batch], student: BatchModel, step: int) -> Sequence[Batch | None]:
        """For each part of a step, counted from the start of the training, a batch of what `student` writes behind its
        prompts; None where the recipe has it write nothing in this step (`Recipe.on_policy`)."""


def written(task: Feed, parts: Sequence[Batch], student: BatchModel, step: int) -> Sequence[Batch | None]:
    """See `Writes`; None for each part where nothing can be written."""
    return task.written(parts, student, step) if isinstance(task, Writes) else [None for _ in parts]
