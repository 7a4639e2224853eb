"""Image classification: the first user of the task seam."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from compressor.data import ImageData, Split, decode_split
from compressor.data.views import keyed_order, keyed_uniform, random_views
from compressor.distill.task import Batch, BatchModel, SplitName
from compressor.models.loaded import evaluating
from compressor.progress import Progress
from compressor.spec.preprocess import Preprocess
from compressor.spec.recipe import Recipe
from compressor.spec.student import Accuracy
from compressor.statistics import accuracy_of

__all__ = ["ImageClassification"]

EVAL_BATCH = 256


class ImageClassification:
    """Batches of augmented pictures, each model's copy at its own size and normalization.

    Pictures are decoded once, to uint8 files in `store`. `inputs`: key in the batch -> preprocessing of the model that
    takes it. The view is cut at the size of the largest model and brought down to the others'.
    """

    def __init__(
        self,
        data: ImageData,
        inputs: dict[str, Preprocess],
        recipe: Recipe,
        store: Path,
        device: torch.device,
        progress: Progress,
    ) -> None:
        self._data, self._inputs, self._recipe = data, inputs, recipe
        self._store, self._device, self._progress = store, device, progress
        self._largest = max(inputs.values(), key=lambda how: how.input_size[0] * how.input_size[1])
        # The whole resized picture, not only its centre: the random crop chooses from all of it.
        self._whole = self._largest.model_copy(update={"input_size": self._largest.resize})
        self._decoded: dict[tuple[str, Preprocess], NDArray[np.uint8]] = {}
        n = len(data.train)
        self.batch_size = min(recipe.batch_size, n)
        # The rest of an epoch that fills no batch is left out; another one each epoch, since the order changes.
        self._steps = n // self.batch_size

    @property
    def steps_per_epoch(self) -> int:
        return self._steps

    def decode(self) -> None:
        """Decode now what training needs, so that a full disk or an interruption costs nothing yet."""
        self._pictures(self._data.train, self._whole)
        for how in self._inputs.values():
            self._pictures(self._data.validation, how)

    def batches(self, epoch: int, first_step: int) -> Iterator[Batch]:
        pictures, labels = self._pictures(self._data.train, self._whole), self._data.train.labels
        order = keyed_order(self._recipe.seed, len(labels), epoch)
        for step in range(first_step, self._steps):
            index = order[step * self.batch_size : (step + 1) * self.batch_size]
            numbers = keyed_uniform(self._recipe.seed, index, epoch, 5)
            batch = torch.from_numpy(pictures[index]).to(self._device)
            views = random_views(batch, numbers, self._recipe.views, self._largest.input_size)
            yield {
                **{key: _prepared(views, how) for key, how in self._inputs.items()},
                "labels": torch.from_numpy(labels[index]).to(self._device),
            }

    def evaluate(self, model: BatchModel, split: SplitName) -> Accuracy:
        samples: Split = getattr(self._data, split)
        pictures = self._pictures(samples, self._inputs[model.key])
        answers = []
        with evaluating(model):
            for start in range(0, len(samples), EVAL_BATCH):
                chunk = torch.from_numpy(np.array(pictures[start : start + EVAL_BATCH])).to(self._device)
                pixels = chunk.permute(0, 3, 1, 2).float().div_(255)
                answers.append(model({model.key: _normalised(pixels, self._inputs[model.key])}).logits.float().cpu())
        return accuracy_of(torch.cat(answers).numpy(), samples.labels, split)

    def _pictures(self, split: Split, how: Preprocess) -> NDArray[np.uint8]:
        """The split, decoded as `how` says; a memory-mapped file."""
        if (split.name, how) not in self._decoded:
            path = self._store / f"{split.name}-{len(self._decoded)}.npy"
            self._decoded[split.name, how] = decode_split(split, how, path, self._progress)
        return self._decoded[split.name, how]


def _prepared(views: Tensor, how: Preprocess) -> Tensor:
    """Views in [0, 1] as the input of the model that preprocesses as `how` says."""
    if views.shape[-2:] != how.input_size:
        views = F.interpolate(views, how.input_size, mode="bilinear", antialias=True, align_corners=False)
    return _normalised(views, how)


def _normalised(pixels: Tensor, how: Preprocess) -> Tensor:
    mean = torch.tensor(how.mean, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(how.std, device=pixels.device).view(3, 1, 1)
    return ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
