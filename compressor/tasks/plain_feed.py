"""A feed for tasks that show each sample as it is: no views, nothing decoded to disk."""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import torch
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.randomness import keyed_order
from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.modes import evaluating
from compressor.processes.team import team
from compressor.schema.preprocess import Preprocess
from compressor.schema.recipe import Recipe
from compressor.schema.student import Accuracy
from compressor.schema.views import OF_SOUNDS, OF_TEXTS, Views
from compressor.stats import accuracy_of, top1
from compressor.tasks.base import Batch, BatchModel, SplitName

__all__ = ["PlainFeed", "batch_size_of", "refuse_foreign_views"]

EVAL_BATCH = 256
Rows = NDArray[np.int64]
Make = Callable[[Split, Sequence[int], Preprocess], Mapping[str, Tensor]]
"""The inputs of some samples of a split, by their names, for a model that takes them as the Preprocess says."""


class PlainFeed:
    """See `tasks.base.Feed`. `inputs`: key in the batch -> what that model takes; `make` makes it."""

    def __init__(
        self, data: Dataset, inputs: Mapping[str, Preprocess], recipe: Recipe, make: Make, device: torch.device
    ) -> None:
        if (data.train.labels < 0).any():
            raise KdcError("this task cannot learn from samples without labels yet", "leave --unlabelled out")
        refuse_foreign_views(recipe.views)
        self._data, self._inputs, self._recipe, self._make, self._device = data, dict(inputs), recipe, make, device
        self._team = team()
        self._global, self.batch_size = batch_size_of(recipe, len(data.train), self._team.num_processes)
        self.right: dict[tuple[str, str], NDArray[np.bool_]] = {}

    @property
    def steps_per_epoch(self) -> int:
        return len(self._data.train) // self._global

    def prepare(self) -> None:
        pass

    def identity(self, key: str) -> dict[str, object]:
        return {
            "data": self._data.info.fingerprint,
            "order": hashlib.sha256(self._data.train.contents.tobytes()).hexdigest(),
            "preprocess": self._inputs[key].model_dump(mode="json"),
            "seed": self._recipe.seed,
        }

    def batches(self, epoch: int, first_step: int, keys: Collection[str] | None = None) -> Iterator[Batch]:
        for step in range(first_step, self.steps_per_epoch):
            for part in self._parts_of_process(self.samples_of(epoch, step)):
                batch: dict[str, Tensor] = {}
                for key in self._inputs if keys is None else keys:
                    batch |= self.input_of(key, part, epoch)
                labels = torch.from_numpy(self._data.train.labels[part]).to(self._device)
                yield {**batch, "labels": labels, "index": torch.from_numpy(part)}

    def input_of(self, key: str, samples: Rows, view: int) -> Batch:
        made = self._made(self._data.train, samples.tolist(), key)
        return {key if len(made) == 1 else f"{key}/{name}": tensor for name, tensor in made.items()}

    def samples_of(self, epoch: int, step: int) -> Rows:
        order = keyed_order(self._recipe.seed, len(self._data.train), epoch)
        return order[step * self._global : (step + 1) * self._global]

    def names(self, samples: Rows) -> list[str]:
        return [self._data.train.ids[row] for row in samples]

    def logits(self, model: BatchModel, split: SplitName) -> NDArray[np.float32]:
        held: Split = getattr(self._data, split)
        starts = range(0, len(held), EVAL_BATCH)[self._team.process_index :: self._team.num_processes]
        answers: list[tuple[int, NDArray[np.float32]]] = []
        with evaluating(model):
            for start in starts:
                rows = range(start, min(start + EVAL_BATCH, len(held)))
                answers.append(
                    (start, model.network(*self._made(held, rows, model.key).values()).float().cpu().numpy())
                )
        if self._team.num_processes > 1:
            answers = sorted(gather_object(answers), key=lambda answer: answer[0])
        logits = np.concatenate([part for _, part in answers])
        self.right[model.key, split] = top1(logits) == held.labels
        return logits

    def answers_on(self, model: BatchModel, split: SplitName) -> tuple[NDArray[np.float32], Rows]:
        held: Split = getattr(self._data, split)
        return self.logits(model, split), held.labels

    def evaluate(self, model: BatchModel, split: SplitName) -> Accuracy:
        return accuracy_of(*self.answers_on(model, split), split)

    def _made(self, split: Split, rows: Sequence[int], key: str) -> dict[str, Tensor]:
        made = self._make(split, rows, self._inputs[key])
        return {name: tensor.to(self._device) for name, tensor in made.items()}

    def _parts_of_process(self, samples: Rows) -> list[Rows]:
        """This process's share of a step, in parts."""
        parts = samples.reshape(self._recipe.accumulate, self._team.num_processes, -1)
        return [parts[number, self._team.process_index] for number in range(self._recipe.accumulate)]


def refuse_foreign_views(views: Views) -> None:
    """Raise KdcError where a recipe asks for views that only texts or sounds have."""
    for what, names in (("texts", OF_TEXTS), ("sounds", OF_SOUNDS)):
        for name in names:
            if getattr(views, name):
                raise KdcError(f"recipe views.{name} changes {what}, and this task has none", "leave it out")


def batch_size_of(recipe: Recipe, samples: int, processes: int) -> tuple[int, int]:
    """The samples of a step of all processes, and of one part of one process. Fewer than the recipe asks for only
    where there are fewer; raises KdcError where a step cannot be shared out evenly."""
    parts = processes * recipe.accumulate
    if recipe.batch_size % parts:
        raise KdcError(
            f"batch_size {recipe.batch_size} cannot be shared evenly by {processes} processes in parts of "
            f"accumulate={recipe.accumulate}",
            f"--batch-size {max(1, round(recipe.batch_size / parts)) * parts}",
        )
    size = min(recipe.batch_size, samples) // parts
    if size == 0:
        raise KdcError(f"{samples} training samples are too few for {parts} parts of a step")
    return size * parts, size
