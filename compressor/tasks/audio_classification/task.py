"""Audio classification as a task: what the table of tasks names."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.data.records import StoredRecords, write_records
from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.models.loaded import LoadedModel
from compressor.progress import Progress
from compressor.references import Reference
from compressor.schema.preprocess import AudioPreprocess, PixelRange, Preprocess
from compressor.schema.recipe import Recipe
from compressor.schema.student import Columns, Student, UnlabelledInfo
from compressor.tasks.audio_classification.features import of_sounds
from compressor.tasks.audio_classification.feed import AudioFeed, model_input, needed_bytes
from compressor.tasks.audio_classification.fitting import fitted_preprocess
from compressor.tasks.audio_classification.models import hf_models, mlp, students, timm_models
from compressor.tasks.audio_classification.models.hf_models import HfSound
from compressor.tasks.audio_classification.opening import open_data
from compressor.tasks.audio_classification.unlabelled import open_unlabelled, with_unlabelled
from compressor.tasks.audio_classification.waveforms import windows
from compressor.tasks.base import Feed, Stored

__all__ = ["TASK", "AudioClassification"]


class AudioClassification:
    """See `tasks.base.Task`. An input size is how long a model hears, in milliseconds."""

    name = AudioPreprocess.task
    sample, samples = "sound", "sounds"

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
        if pixel_range is not None:
            raise KdcError("pixel_range is of images, and sounds have no pixels", "leave it out")
        _refuse_columns(columns)
        data = open_data(reference, skip_bad=skip_bad, progress=progress, class_names=class_names)
        return data if unlabelled is None else with_unlabelled(data, unlabelled, skip_bad=skip_bad, progress=progress)

    def open_unlabelled(
        self, reference: str, data: Dataset, *, progress: Progress, said: str, skip_bad: bool = False,
        columns: Columns | None = None,
    ) -> tuple[Split, UnlabelledInfo, list[str]]:  # fmt: skip
        _refuse_columns(columns)
        held_out = (data.validation, data.test)
        return open_unlabelled(reference, data, held_out, skip_bad=skip_bad, progress=progress, said=said)

    def load_model(self, reference: str, input_size: int | None) -> LoadedModel:
        named = Reference.parse(reference)
        if named.scheme == mlp.FAMILY:
            mlp.asked_size(reference)
            raise KdcError(f"{reference} has no weights that could be loaded", "--teacher-init random, or run:DIR")
        if named.scheme == "hf":
            return hf_models.load_hf(named.rest or "", input_size)
        return timm_models.load_timm(reference)

    def require_model(self, reference: str, input_size: int | None) -> None:
        named = Reference.parse(reference)
        if named.scheme == mlp.FAMILY:
            self.load_model(reference, input_size)
        elif named.scheme == "hf":
            hf_models.require_model(named.rest or "")
        else:
            timm_models.require_timm(reference)

    def require_student(self, reference: str, init: str, input_size: int | None) -> None:
        students.require_student(reference, init)

    def create_student(
        self, reference: str, init: str, class_names: Sequence[str], input_size: int | None, crop_pct: float | None,
        teacher: LoadedModel | None = None,
    ) -> LoadedModel:  # fmt: skip
        _refuse_crop(crop_pct)
        return students.create_student(reference, init, class_names, teacher)

    def create_trainee(self, backbone: LoadedModel, class_names: Sequence[str], crop_pct: float | None) -> LoadedModel:
        _refuse_crop(crop_pct)
        return students.create_trainee(backbone, class_names)

    def fitted(self, model: LoadedModel, data: Dataset, input_size: int | None, progress: Progress) -> LoadedModel:
        return students.refitted(model, fitted_preprocess(model, data, input_size, progress))

    def with_range(self, model: LoadedModel, pixel_range: PixelRange | None, progress: Progress) -> LoadedModel:
        return model

    def network_of(self, student: Student, folder: Path, parameters: int) -> nn.Module:
        classes = len(student.class_names)
        if student.family == hf_models.FAMILY:
            return hf_models.from_run(folder / "hf", classes, parameters)
        if student.family == mlp.FAMILY:
            return mlp.create(student.architecture, of_sounds(student.preprocess), classes)
        timm_models.require_known(student.architecture)
        return timm_models.create(student.architecture, classes)

    def merged(self, network: nn.Module) -> nn.Module:
        return network

    def trimmed(self, student: LoadedModel, data: Dataset, progress: Progress) -> tuple[LoadedModel, str, str]:
        raise KdcError("--trim-vocabulary is of texts, and sounds have no vocabulary", "leave it out")

    def save_architecture(self, network: nn.Module, folder: Path) -> None:
        if isinstance(network, HfSound):
            hf_models.save_architecture(network, folder / "hf")

    def adapted(self, network: nn.Module, expected: Preprocess, given: Preprocess) -> tuple[nn.Module, str]:
        ours, theirs = of_sounds(expected), of_sounds(given)
        scale = {"mean", "std"}
        if ours.model_dump(exclude=scale) != theirs.model_dump(exclude=scale):
            raise KdcError(
                f"teachers that hear sound otherwise, {ours.described} and {theirs.described}, or other features of "
                "it, cannot answer as one yet",
                "kdc predict with each, or take teachers that were taught on the same data",
            )
        same = (ours.mean, ours.std) == (theirs.mean, theirs.std)
        return (network if same else _Rescaled(network, ours, theirs)), ""

    def feed(self, data: Dataset, inputs: Mapping[str, Preprocess], recipe: Recipe, **where: Any) -> Feed:
        where.pop("teacher", None)  # no view of a sound is made by it
        return AudioFeed(data, {key: of_sounds(preprocess) for key, preprocess in inputs.items()}, recipe, **where)

    def stored_bytes(self, data: Dataset, inputs: Mapping[str, Preprocess]) -> int:
        return needed_bytes(data, {key: of_sounds(preprocess) for key, preprocess in inputs.items()})

    def store(self, split: Split, preprocess: Preprocess, path: Path, progress: Progress) -> Stored:
        spec = preprocess.inputs[0]
        like = {spec.name: np.zeros(spec.sizes(1)[1:], np.float32)}
        inputs = self.evaluation(split, preprocess, 64, torch.device("cpu"))
        return write_records(({spec.name: row.numpy()} for (batch,) in inputs for row in batch), like, path)

    def stored(self, path: Path, preprocess: Preprocess) -> Stored:
        return StoredRecords(np.load(path, mmap_mode="r", allow_pickle=False), path)

    def evaluation(
        self, split: Split, preprocess: Preprocess, batch: int, device: torch.device
    ) -> Iterator[tuple[Tensor, ...]]:
        heard = of_sounds(preprocess)
        for start in range(0, len(split), batch):
            rows = np.arange(start, min(start + batch, len(split)))
            yield (model_input(torch.from_numpy(windows(split, rows, heard)).to(device), heard),)


class _Rescaled(nn.Module):
    """One of several teachers, for features that were normalised for another of them."""

    def __init__(self, network: nn.Module, ours: AudioPreprocess, theirs: AudioPreprocess) -> None:
        super().__init__()
        self.network, self.factor, self.shift = network, theirs.std / ours.std, (theirs.mean - ours.mean) / ours.std

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.network(features * self.factor + self.shift)
        return logits


def _refuse_crop(crop_pct: float | None) -> None:
    if crop_pct is not None:
        raise KdcError("recipe crop_pct is of images, and a sound is not cropped so", "leave it out")


def _refuse_columns(columns: Columns | None) -> None:
    if columns is not None and columns != Columns():
        raise KdcError(
            "--text-column and --label-column are of texts; sounds have columns of known names", "docs/sound.md"
        )


TASK = AudioClassification()
