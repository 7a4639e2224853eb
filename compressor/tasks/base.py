"""The seam between the training loop and what is being learned: the loop knows neither pixels nor tokens.

A task supplies batches of named tensors (views included), and measures a model on a split. A model takes a batch and
picks from it the tensors that are its own.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.schema.student import Accuracy

__all__ = ["Batch", "BatchModel", "Outputs", "SplitName", "Taps", "Task"]

Batch = Mapping[str, Tensor]
Taps = Callable[[nn.Module, Tensor], tuple[Tensor, dict[str, Tensor]]]
"""Applies a network to its input, and gives beside the logits what comes out of some of its layers, by name."""
SplitName = Literal["train", "validation", "test"]


@dataclass(frozen=True)
class Outputs:
    """What a model answers: logits [B, C], and named features where a loss asked for them."""

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)


class BatchModel(nn.Module):
    """`network` applied to the tensor `key` of a batch. With `taps`, what comes out of those layers is answered too."""

    def __init__(self, network: nn.Module, key: str, taps: Taps | None = None) -> None:
        super().__init__()
        self.network = network
        self.key = key
        self.taps = taps

    def forward(self, batch: Batch) -> Outputs:
        if self.taps is None:
            return Outputs(self.network(batch[self.key]))
        return Outputs(*self.taps(self.network, batch[self.key]))


class Task(Protocol):
    """What the loop asks of a task. In a run of several processes each has a task of its own, with its share."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps an epoch, the same for every epoch."""

    @property
    def batch_size(self) -> int:
        """Samples of a batch: of one process, and of one of the parts that a step is taken in."""

    def batches(self, epoch: int, first_step: int, keys: Collection[str] | None = None) -> Iterator[Batch]:
        """The batches of an epoch from `first_step` on, one for each part of a step: a pure function of the seed, the
        epoch and the step. Each has the inputs of the models `keys` (None: of all), "labels" (int64 [B], or
        probabilities [B, C]) and "index", the samples' numbers in the training data (int64 [B], always on the CPU).
        Where some samples of the training data have no label, "labelled" names the rows that have one (int64, on the
        CPU), and the others' label is -1, or a row of zeros; "labelled_share" is what the mean over the labelled rows
        of this part is multiplied by, so that its mean over all parts is that over the step (float, on the CPU)."""

    def input_of(self, key: str, samples: NDArray[np.int64], view: int) -> Tensor:
        """What `batches` gives the model `key` for these samples in an epoch that shows this view."""

    def samples_of(self, epoch: int, step: int) -> NDArray[np.int64]:
        """The samples of a step, of all processes."""

    def names(self, samples: NDArray[np.int64]) -> list[str]:
        """What a person finds these samples by."""

    def answers_on(self, model: BatchModel, split: SplitName) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The logits float32 [N, C] of `model`, in evaluation mode and without augmentation, and the labels int64 [N]
        of a whole split; all of them in every process. Its mode is restored."""

    def evaluate(self, model: BatchModel, split: SplitName) -> Accuracy:
        """How often `answers_on` are right."""
