"""Image classification as a task: what the table of tasks names."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor, nn

from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.models.loaded import LoadedModel
from compressor.progress import Progress
from compressor.references import Reference
from compressor.schema.preprocess import ImagePreprocess, PixelRange, Preprocess
from compressor.schema.recipe import Recipe
from compressor.schema.student import Columns, Student
from compressor.tasks.base import Feed, Stored
from compressor.tasks.image_classification.decoding import decode_split
from compressor.tasks.image_classification.feed import ImageFeed, needed_bytes
from compressor.tasks.image_classification.models import hf_models, lookup, students, timm_models
from compressor.tasks.image_classification.models.channels import read_channels, save_channels
from compressor.tasks.image_classification.models.hf_classifier import HfClassifier
from compressor.tasks.image_classification.models.merging import merged
from compressor.tasks.image_classification.models.pixel_range import seeing
from compressor.tasks.image_classification.models.renormalised import adapted
from compressor.tasks.image_classification.opening import open_data
from compressor.tasks.image_classification.pixel_cache import Decoding
from compressor.tasks.image_classification.preprocessing import normalise, of_images
from compressor.tasks.image_classification.stored import StoredImages

__all__ = ["TASK", "ImageClassification"]

DEFAULT_INPUT_SIZE = 224


class ImageClassification:
    """See `tasks.base.Task`."""

    name = ImagePreprocess.task
    sample, samples = "image", "images"

    def open_data(
        self,
        reference: str,
        *,
        progress: Progress,
        skip_bad: bool = False,
        class_names: Sequence[str] | None = None,
        unlabelled: str | None = None,
        pixel_range: PixelRange | None = None,
        columns: Columns | None = None,
    ) -> Dataset:
        if columns is not None and columns != Columns():
            raise KdcError(
                "--text-column and --label-column are of texts; images have columns of known names", "kdc teach --help"
            )
        return open_data(
            reference, skip_bad=skip_bad, progress=progress, class_names=class_names, unlabelled=unlabelled,
            pixel_range=pixel_range,
        )  # fmt: skip

    def open_unlabelled(self, reference: str, data: Dataset, *, said: str, **_: Any) -> NoReturn:
        raise KdcError(f"{said} {reference}: all stages of images learn from the same", "--unlabelled adds images")

    def load_model(self, reference: str, input_size: int | None) -> LoadedModel:
        named = Reference.parse(reference)
        if named.scheme == "hf":
            return hf_models.load_hf(named.rest or "", input_size)
        if named.local is not None:
            return timm_models.load_local(named.local, reference, input_size)
        if named.at is not None:
            return timm_models.load_checkpoint(named.name, named.at, reference, input_size)
        return timm_models.load_hub(named.name, input_size)

    def require_model(self, reference: str, input_size: int | None) -> None:
        lookup.require_model(reference, input_size)

    def require_student(self, reference: str, init: str, input_size: int | None) -> None:
        lookup.require_student(reference, init, input_size)

    def create_student(
        self,
        reference: str,
        init: str,
        class_names: Sequence[str],
        input_size: int | None,
        crop_pct: float | None,
        teacher: LoadedModel | None = None,
    ) -> LoadedModel:
        return students.create_student(reference, init, class_names, input_size or DEFAULT_INPUT_SIZE, crop_pct)

    def create_trainee(self, backbone: LoadedModel, class_names: Sequence[str], crop_pct: float | None) -> LoadedModel:
        return students.create_trainee(backbone, class_names, crop_pct)

    def fitted(self, model: LoadedModel, data: Dataset, input_size: int | None, progress: Progress) -> LoadedModel:
        return model

    def with_range(self, model: LoadedModel, pixel_range: PixelRange | None, progress: Progress) -> LoadedModel:
        return seeing(model, pixel_range, progress)

    def network_of(self, student: Student, folder: Path, parameters: int) -> nn.Module:
        if student.family == "hf":
            return hf_models.from_config(folder / "hf", len(student.class_names), parameters)
        timm_models.require_known(student.architecture)
        height = of_images(student.preprocess).input_size[0]
        like = read_channels(student.architecture, folder)
        return timm_models.create(student.architecture, len(student.class_names), height, like=like)

    def merged(self, network: nn.Module) -> nn.Module:
        return merged(network)

    def trimmed(self, student: LoadedModel, data: Dataset, progress: Progress) -> tuple[LoadedModel, str, str]:
        raise KdcError("--trim-vocabulary is of texts, and images have no vocabulary", "leave it out")

    def save_architecture(self, network: nn.Module, folder: Path) -> None:
        if isinstance(network, HfClassifier):
            hf_models.save_config(network, folder / "hf")
        else:
            save_channels(network, folder)

    def adapted(self, network: nn.Module, expected: Preprocess, given: Preprocess) -> tuple[nn.Module, str]:
        return adapted(network, of_images(expected), of_images(given))

    def feed(self, data: Dataset, inputs: Mapping[str, Preprocess], recipe: Recipe, **where: Any) -> Feed:
        where.pop("teacher", None)  # no view of an image is made by it
        return ImageFeed(data, {key: of_images(preprocess) for key, preprocess in inputs.items()}, recipe, **where)

    def stored_bytes(self, data: Dataset, inputs: Mapping[str, Preprocess]) -> int:
        return needed_bytes(data, {key: of_images(preprocess) for key, preprocess in inputs.items()})

    def store(self, split: Split, preprocess: Preprocess, path: Path, progress: Progress) -> Stored:
        return StoredImages(decode_split(split, of_images(preprocess), path, progress), of_images(preprocess), path)

    def stored(self, path: Path, preprocess: Preprocess) -> Stored:
        return StoredImages(np.load(path, mmap_mode="r", allow_pickle=False), of_images(preprocess), path)

    def evaluation(
        self, split: Split, preprocess: Preprocess, batch: int, device: torch.device
    ) -> Iterator[tuple[Tensor, ...]]:
        image_preprocess = of_images(preprocess)
        chunks = [np.arange(start, min(start + batch, len(split))) for start in range(0, len(split), batch)]
        for (pixels,) in Decoding(split, (image_preprocess,)).batches(chunks):
            yield (torch.from_numpy(normalise(pixels, image_preprocess)).to(device, memory_format=torch.channels_last),)


TASK = ImageClassification()
