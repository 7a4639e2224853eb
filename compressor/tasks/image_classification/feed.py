"""Image classification: the first user of the task seam."""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate.utils import gather_object
from numpy.typing import NDArray
from torch import Tensor

from compressor.data.randomness import keyed_uniform
from compressor.data.samples import Dataset, Split
from compressor.modes import evaluating
from compressor.progress import Progress
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.recipe import Recipe
from compressor.schema.views import OF_SOUNDS, OF_TEXTS
from compressor.tasks.base import Batch, BatchModel, SplitName
from compressor.tasks.image_classification.decoding import decode_split
from compressor.tasks.image_classification.mixing import mixed
from compressor.tasks.image_classification.pixel_cache import Decoding, Images, Stored, bytes_of
from compressor.tasks.image_classification.views import DRAWS, random_views
from compressor.tasks.mixed_feed import MixedFeed, Rows
from compressor.tasks.mixing import Mix
from compressor.tasks.plain_feed import refuse_foreign_views

__all__ = ["ImageFeed", "needed_bytes"]

EVAL_BATCH = 256


class ImageFeed(MixedFeed):
    """Batches of augmented images, each model's copy at its own size and normalization.

    `inputs`: key in the batch -> preprocessing of the model that takes it. All see the same part of an image, the
    larger model's, each from a copy that was resized for it: so a student's view does not depend on whether the
    teacher's is made. `store`: where images are decoded to; None: they are decoded anew each time.
    """

    def __init__(
        self,
        data: Dataset,
        inputs: dict[str, ImagePreprocess],
        recipe: Recipe,
        store: Path | None,
        device: torch.device,
        progress: Progress,
    ) -> None:
        refuse_foreign_views(recipe.views)
        super().__init__(data, recipe, device)
        self._inputs, self._store, self._progress = inputs, store, progress
        self._largest = max(inputs.values(), key=lambda preprocess: preprocess.input_size[0] * preprocess.input_size[1])
        self._uncropped = {key: self._uncropped_of(preprocess) for key, preprocess in inputs.items()}
        self._scales = {key: _Scale(preprocess, device) for key, preprocess in inputs.items()}
        self._opened: dict[tuple[str, tuple[ImagePreprocess, ...]], Images] = {}

    def prepare(self) -> None:
        """Decode now what training needs, so that a full disk or an interruption costs nothing yet."""
        self._images(self._data.train, tuple(dict.fromkeys(self._uncropped.values())))
        for preprocess in self._inputs.values():
            self._images(self._data.validation, (preprocess,))

    def identity(self, key: str) -> dict[str, object]:
        """What the images that the model `key` is shown depend on, but for the numbers of sample and view."""
        return {
            **self._shown(),
            "preprocess": self._inputs[key].model_dump(mode="json"),
            "whole": self._uncropped[key].model_dump(mode="json"),
            "views": self._recipe.views.model_dump(mode="json", exclude={*OF_TEXTS, *OF_SOUNDS}),
        }

    def batches(self, epoch: int, first_step: int, keys: Collection[str] | None = None) -> Iterator[Batch]:
        keys = [key for key in self._inputs if keys is None or key in keys]
        view, order = self._view(epoch), self._order(epoch)
        steps = [self._step(order, step) for step in range(first_step, self.steps_per_epoch)]
        parts = [part for samples in steps for part in self._parts_of_process(samples)]
        mixes = [self._mix(part, view) for part in parts]
        wanted = [
            part if mix is None else np.concatenate([part, mix.partner]) for part, mix in zip(parts, mixes, strict=True)
        ]
        ways = list(dict.fromkeys(self._uncropped[key] for key in keys))
        images = self._images(self._data.train, tuple(ways)).batches(wanted)
        for number, (part, mix, pixels) in enumerate(zip(parts, mixes, images, strict=True)):
            inputs = self._inputs_of(keys, dict(zip(ways, pixels, strict=True)), part, view, mix)
            yield inputs | self._targets(part, mix, steps[number // self._recipe.accumulate], view)

    def input_of(self, key: str, samples: Rows, view: int) -> Batch:
        mix = self._mix(samples, view)
        rows = samples if mix is None else np.concatenate([samples, mix.partner])
        ways = list(dict.fromkeys(self._uncropped.values()))
        pixels = next(iter(self._images(self._data.train, tuple(ways)).batches([rows])))
        return self._inputs_of([key], dict(zip(ways, pixels, strict=True)), samples, view, mix)

    def logits(self, model: BatchModel, split: SplitName) -> NDArray[np.float32]:
        """What `model` answers to a whole split, [N, C]. Each process takes every so many-th chunk; the answers are
        gathered, so that all have them."""
        samples: Split = getattr(self._data, split)
        starts = range(0, len(samples), EVAL_BATCH)[self._team.process_index :: self._team.num_processes]
        chunks = [np.arange(start, min(start + EVAL_BATCH, len(samples))) for start in starts]
        images = self._images(samples, (self._inputs[model.key],)).batches(chunks)
        answers: list[tuple[int, NDArray[np.float32]]] = []
        with evaluating(model):
            for chunk, (pixels,) in zip(chunks, images, strict=True):
                inputs = self._scales[model.key](_on(pixels, self._device).permute(0, 3, 1, 2).float().div_(255))
                answers.append((int(chunk[0]), model.network(inputs).float().cpu().numpy()))
        if self._team.num_processes > 1:
            answers = sorted(gather_object(answers), key=lambda answer: answer[0])
        return np.concatenate([logits for _, logits in answers])

    def _uncropped_of(self, preprocess: ImagePreprocess) -> ImagePreprocess:
        """What a model's view is cut from: the whole resized image, not only its centre. Its part of the image is
        that of the largest model, its resolution its own."""
        size, largest = self._largest.resize, self._largest.input_size
        if preprocess.input_size[0] * largest[1] == preprocess.input_size[1] * largest[0]:
            scale = preprocess.input_size[0] / largest[0]
            size = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
        return self._largest.model_copy(
            update={"resize": size, "input_size": size, "interpolation": preprocess.interpolation}
        )

    def _inputs_of(
        self, keys: Sequence[str], pixels: Mapping[ImagePreprocess, NDArray[np.uint8]], samples: Rows, view: int,
        mix: Mix | None,
    ) -> dict[str, Tensor]:  # fmt: skip
        """The models' inputs, from the images of `samples`, and of their partners after them. Models that look at the
        same pixels at the same size see one view, made once; each has it normalised in its own way."""
        rows = samples if mix is None else np.concatenate([samples, mix.partner])
        numbers = keyed_uniform(self._recipe.seed, rows, view, DRAWS)
        made: dict[tuple[ImagePreprocess, tuple[int, int]], Tensor] = {}
        inputs = {}
        for key in keys:
            way, size = self._uncropped[key], self._inputs[key].input_size
            if (way, size) not in made:
                views = random_views(_on(pixels[way], self._device), numbers, self._recipe.views, size)
                made[way, size] = views if mix is None else mixed(views[: len(samples)], views[len(samples) :], mix)
            inputs[key] = self._scales[key](made[way, size])
        return inputs

    def _images(self, split: Split, ways: tuple[ImagePreprocess, ...]) -> Images:
        if (split.name, ways) not in self._opened:
            if self._store is None:
                self._opened[split.name, ways] = Decoding(split, ways)
            else:
                paths = [self._decoded(split, preprocess, self._store) for preprocess in ways]
                self._opened[split.name, ways] = Stored(split, ways, paths)
        return self._opened[split.name, ways]

    def _decoded(self, split: Split, preprocess: ImagePreprocess, store: Path) -> Path:
        """The file of a split, decoded as `preprocess` says; one process of a machine makes it, the others wait."""
        name = hashlib.sha256(preprocess.model_dump_json().encode()).hexdigest()[:12]
        path = store / f"{split.name}-{name}.npy"
        with self._team.local_main_process_first():
            if not path.exists():
                decode_split(split, preprocess, path, self._progress)
        return path


def needed_bytes(data: Dataset, inputs: dict[str, ImagePreprocess]) -> int:
    """What all splits take, decoded for these models (about: a training view's margin is counted as of the test's)."""
    splits = len(data.train) + len(data.validation) + len(data.test)
    uncropped = [preprocess.model_copy(update={"input_size": preprocess.resize}) for preprocess in inputs.values()]
    return bytes_of(splits, uncropped)


class _Scale:
    """Images in [0, 1], [B, 3, h, w] -> what a model wants, channels_last. Its numbers are on the device already:
    copying them there at each step would make every step wait. They are laid out along a line of pixels, since
    arithmetic over a last dimension of 3 takes three times as long."""

    def __init__(self, preprocess: ImagePreprocess, device: torch.device) -> None:
        width = preprocess.input_size[1]
        self._mean = torch.tensor(preprocess.mean, device=device).repeat(width)
        self._std = torch.tensor(preprocess.std, device=device).repeat(width)

    def __call__(self, pixels: Tensor) -> Tensor:
        lines = pixels.permute(0, 2, 3, 1)
        scaled = (lines.reshape(*lines.shape[:2], -1) - self._mean) / self._std
        return scaled.reshape(lines.shape).permute(0, 3, 1, 2)


def _on(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    batch = torch.from_numpy(pixels)
    if device.type == "cuda":
        return batch.pin_memory().to(device, non_blocking=True)
    return batch.to(device)
