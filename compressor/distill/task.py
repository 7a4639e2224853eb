"""The seam between the training loop and what is being learned: the loop knows neither pixels nor tokens.

A task supplies batches of named tensors (views included), and measures a model on a split. A model takes a batch and
picks from it the tensors that are its own.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from torch import Tensor, nn

from compressor.spec.student import Accuracy

__all__ = ["Batch", "BatchModel", "Outputs", "SplitName", "Task"]

Batch = Mapping[str, Tensor]
SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Outputs:
    """What a model answers: logits [B, C], and named features where a loss asked for them."""

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)


class BatchModel(nn.Module):
    """`network` applied to the tensor `key` of a batch."""

    def __init__(self, network: nn.Module, key: str) -> None:
        super().__init__()
        self.network = network
        self.key = key

    def forward(self, batch: Batch) -> Outputs:
        return Outputs(self.network(batch[self.key]))


class Task(Protocol):
    """What the loop asks of a task."""

    @property
    def steps_per_epoch(self) -> int:
        """Batches an epoch, the same for every epoch."""

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        """The batches of an epoch from `first_step` on: a pure function of the seed, the epoch and the step. Each has
        "labels" int64 [B] besides the models' inputs."""

    def evaluate(self, model: BatchModel, split: SplitName) -> Accuracy:
        """`model` in evaluation mode on a whole split, without augmentation; its mode is restored."""
