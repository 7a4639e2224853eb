"""What the feeds of images and of sounds share: which samples a step has, what they are mixed with, their labels."""

import hashlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.randomness import keyed_order
from compressor.data.samples import Dataset, Split
from compressor.processes.team import team
from compressor.schema.recipe import Recipe
from compressor.schema.student import Accuracy
from compressor.stats import accuracy_of, top1
from compressor.stats.language import Costs
from compressor.tasks.base import BatchModel, SplitName
from compressor.tasks.mixing import Mix, mix_of, mixed_labels
from compressor.tasks.plain_feed import batch_size_of

__all__ = ["MixedFeed", "Rows"]

Rows = NDArray[np.int64]


class MixedFeed:
    """The part of `tasks.base.Feed` that does not hang on what a sample is: each is shown in views that are functions
    of the seed, the sample and the view's number, and may be mixed with another. `right`: which samples a model (by its
    key) had right when it was last evaluated on a split, bool [N]."""

    def __init__(self, data: Dataset, recipe: Recipe, device: torch.device) -> None:
        self._data, self._recipe, self._device = data, recipe, device
        self.right: dict[tuple[str, str], NDArray[np.bool_]] = {}
        self.costs: dict[tuple[str, str], Costs] = {}
        self._team = team()
        self._has_label = data.train.labels >= 0
        self._global, self.batch_size = batch_size_of(recipe, len(data.train), self._team.num_processes)

    @property
    def steps_per_epoch(self) -> int:
        # The rest of an epoch that fills no step is left out; another one each epoch, since the order changes.
        return len(self._data.train) // self._global

    def samples_of(self, epoch: int, step: int) -> Rows:
        return self._step(self._order(epoch), step)

    def names(self, samples: Rows) -> list[str]:
        return [self._data.train.ids[number] for number in samples]

    def logits(self, model: BatchModel, split: SplitName) -> NDArray[np.float32]:
        """See `tasks.base.Feed`."""
        raise NotImplementedError

    def answers_on(self, model: BatchModel, split: SplitName) -> tuple[NDArray[np.float32], Rows]:
        held: Split = getattr(self._data, split)
        logits = self.logits(model, split)
        self.right[model.key, split] = top1(logits) == held.labels
        return logits, held.labels

    def evaluate(self, model: BatchModel, split: SplitName) -> Accuracy:
        return accuracy_of(*self.answers_on(model, split), split)

    def _shown(self) -> dict[str, object]:
        """Of `Feed.identity`, what does not hang on the model."""
        unlabelled = self._data.info.unlabelled
        return {
            "data": self._data.info.fingerprint,
            **({"unlabelled": unlabelled.fingerprint} if unlabelled else {}),
            "order": hashlib.sha256(self._data.train.contents.tobytes()).hexdigest(),
            "seed": self._recipe.seed,
        }

    def _order(self, epoch: int) -> Rows:
        return keyed_order(self._recipe.seed, len(self._data.train), epoch)

    def _step(self, order: Rows, step: int) -> Rows:
        """The samples of a step, of all processes and parts."""
        return order[step * self._global : (step + 1) * self._global]

    def _view(self, epoch: int) -> int:
        distinct = self._recipe.views.distinct
        return epoch if distinct is None else epoch % distinct

    def _parts_of_process(self, samples: Rows) -> list[Rows]:
        """This process's share of a step, in parts."""
        parts = samples.reshape(self._recipe.accumulate, self._team.num_processes, -1)
        return [parts[number, self._team.process_index] for number in range(self._recipe.accumulate)]

    def _mix(self, samples: Rows, view: int) -> Mix | None:
        return mix_of(self._recipe.seed, samples, view, len(self._data.train), self._recipe.views)

    def _targets(self, part: Rows, mix: Mix | None, step: Rows, view: int) -> dict[str, Tensor]:
        """What a batch holds beside the models' inputs: labels, mixed as the samples are; and where some have none,
        which rows of the part have one, and what its mean over them counts in the mean over the whole step."""
        labels = self._data.train.labels
        targets = torch.from_numpy(labels[part]).to(self._device, non_blocking=True)
        if mix is not None:
            partners = torch.from_numpy(labels[mix.partner]).to(self._device, non_blocking=True)
            targets = mixed_labels(targets, partners, mix, len(self._data.info.class_names))
        made = {"labels": targets, "index": torch.from_numpy(part)}
        if self._has_label.all():
            return made
        known = self._known(part, mix)
        known_in_step = self._known(step, self._mix(step, view))
        share = known.mean() / known_in_step.mean() if known_in_step.any() else 0.0
        labelled = torch.from_numpy(np.flatnonzero(known))
        return made | {"labelled": labelled, "labelled_share": torch.tensor(float(share))}

    def _known(self, samples: Rows, mix: Mix | None) -> NDArray[np.bool_]:
        """Whether each has a label: where samples are mixed, all of those that count (`mixed_labels`)."""
        known = self._has_label[samples]
        if mix is not None:
            known = (known | (mix.weight == 0)) & (self._has_label[mix.partner] | (mix.weight == 1))
        return known
