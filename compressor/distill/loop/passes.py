"""A feed for a training that learns from fewer samples than another one, and for as many steps."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from compressor.distill.loop.writing import written
from compressor.schema.accuracy import Score
from compressor.stats.language import Costs
from compressor.tasks.base import Batch, BatchModel, Feed, SplitName

__all__ = ["Passes"]


class Passes:
    """See `tasks.base.Feed`: the batches of `feed`, of which `steps_per_epoch` steps make an epoch.

    They go on from pass to pass over its samples, each in an order and with views of its own: step s of epoch e is the
    step (e * steps_per_epoch + s) of all passes. `parts`: batches that a step is taken in (`Recipe.accumulate`).
    """

    def __init__(self, feed: Feed, steps_per_epoch: int, parts: int) -> None:
        self._feed, self._parts, self.steps_per_epoch = feed, parts, steps_per_epoch

    @property
    def batch_size(self) -> int:
        return self._feed.batch_size

    @property
    def right(self) -> Mapping[tuple[str, str], NDArray[np.bool_]]:
        return self._feed.right

    @property
    def costs(self) -> Mapping[tuple[str, str], Costs]:
        return self._feed.costs

    def prepare(self) -> None:
        self._feed.prepare()

    def identity(self, key: str) -> dict[str, object]:
        return self._feed.identity(key)

    def batches(self, epoch: int, first_step: int, keys: Collection[str] | None = None) -> Iterator[Batch]:
        step = first_step
        while step < self.steps_per_epoch:
            number, inside = self._pass_of(epoch, step)
            steps = min(self._feed.steps_per_epoch - inside, self.steps_per_epoch - step)
            yield from islice(self._feed.batches(number, inside, keys), steps * self._parts)
            step += steps

    def written(self, parts: Sequence[Batch], student: BatchModel, step: int) -> Sequence[Batch | None]:
        return written(self._feed, parts, student, step)

    def input_of(self, key: str, samples: NDArray[np.int64], view: int) -> Batch:
        return self._feed.input_of(key, samples, view)

    def samples_of(self, epoch: int, step: int) -> NDArray[np.int64]:
        return self._feed.samples_of(*self._pass_of(epoch, step))

    def names(self, samples: NDArray[np.int64]) -> list[str]:
        return self._feed.names(samples)

    def logits(self, model: BatchModel, split: SplitName) -> NDArray[np.float32]:
        return self._feed.logits(model, split)

    def answers_on(self, model: BatchModel, split: SplitName) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        return self._feed.answers_on(model, split)

    def evaluate(self, model: BatchModel, split: SplitName) -> Score:
        return self._feed.evaluate(model, split)

    def _pass_of(self, epoch: int, step: int) -> tuple[int, int]:
        """The pass over the samples, and the step in it."""
        return divmod(epoch * self.steps_per_epoch + step, self._feed.steps_per_epoch)
