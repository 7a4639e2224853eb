"""Text classification as a task: what the table of tasks names."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from compressor.data.records import StoredRecords, write_records
from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.files.atomic import write_text
from compressor.models.features import inner_of
from compressor.models.hugging_face import require_hf
from compressor.models.loaded import LoadedModel
from compressor.progress import Progress
from compressor.references import Reference
from compressor.schema.preprocess import PixelRange, Preprocess, TextPreprocess
from compressor.schema.recipe import Recipe
from compressor.schema.student import Columns, Student, UnlabelledInfo
from compressor.tasks.base import Feed, Stored
from compressor.tasks.text_classification import lengths
from compressor.tasks.text_classification.feed import TextFeed, encoded_split
from compressor.tasks.text_classification.models import hf_models, static, students
from compressor.tasks.text_classification.models.classifier import Member, TextClassifier, position_limit
from compressor.tasks.text_classification.models.static import StaticClassifier
from compressor.tasks.text_classification.opening import open_data
from compressor.tasks.text_classification.stacking import stacked
from compressor.tasks.text_classification.tokenization import FILE, of_texts, read_tokenizer
from compressor.tasks.text_classification.unlabelled import open_unlabelled, with_unlabelled
from compressor.tasks.text_classification.vocabulary import trimmed

__all__ = ["TASK", "TextClassification"]


class TextClassification:
    """See `tasks.base.Task`."""

    name = TextPreprocess.task
    sample, samples = "text", "texts"

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
            raise KdcError("pixel_range is of images, and texts have no pixels", "leave it out")
        data = open_data(reference, skip_bad=skip_bad, progress=progress, class_names=class_names, columns=columns)
        if unlabelled is None:
            return data
        return with_unlabelled(data, unlabelled, columns=columns or Columns(), skip_bad=skip_bad, progress=progress)

    def open_unlabelled(
        self, reference: str, data: Dataset, *, progress: Progress, said: str, skip_bad: bool = False,
        columns: Columns | None = None,
    ) -> tuple[Split, UnlabelledInfo, list[str]]:  # fmt: skip
        held_out = (data.validation, data.test)
        return open_unlabelled(
            reference, data, held_out, columns=columns or Columns(), skip_bad=skip_bad, progress=progress, said=said
        )

    def load_model(self, reference: str, input_size: int | None) -> LoadedModel:
        return hf_models.load_hf(Reference.parse(reference).rest or "", input_size)

    def require_model(self, reference: str, input_size: int | None) -> None:
        require_hf(Reference.parse(reference).rest or "")

    def require_student(self, reference: str, init: str, input_size: int | None) -> None:
        students.require_student(reference, init)

    def create_student(
        self, reference: str, init: str, class_names: Sequence[str], input_size: int | None, crop_pct: float | None,
        teacher: LoadedModel | None = None,
    ) -> LoadedModel:  # fmt: skip
        _refuse_crop(crop_pct)
        return students.create_student(reference, init, class_names, input_size, teacher)

    def create_trainee(self, backbone: LoadedModel, class_names: Sequence[str], crop_pct: float | None) -> LoadedModel:
        _refuse_crop(crop_pct)
        return students.create_trainee(backbone, class_names)

    def fitted(self, model: LoadedModel, data: Dataset, input_size: int | None, progress: Progress) -> LoadedModel:
        network = inner_of(model.network)
        if isinstance(network, StaticClassifier):
            lengths.refuse_pairs(data.train, model.weights.source)
            return lengths.fitted(model, data, input_size, static.LONGEST, progress)
        assert isinstance(network, TextClassifier)
        limit = position_limit(network.model, hf_models.LONGEST)
        return lengths.fitted(model, data, input_size, limit, progress)

    def with_range(self, model: LoadedModel, pixel_range: PixelRange | None, progress: Progress) -> LoadedModel:
        return model

    def network_of(self, student: Student, folder: Path, parameters: int) -> nn.Module:
        tokenizer = read_tokenizer(folder / "hf", str(folder))
        if tokenizer.sha256 != of_texts(student.preprocess).tokenizer:
            raise KdcError(f"{folder / 'hf' / FILE} was changed: it is not the tokenizer of student.json")
        if student.family == static.FAMILY:
            vocabulary = of_texts(student.preprocess).vocabulary
            return static.network_of(student.architecture, vocabulary, len(student.class_names), tokenizer.text)
        return hf_models.from_run(folder / "hf", len(student.class_names), parameters, tokenizer)

    def merged(self, network: nn.Module) -> nn.Module:
        return network

    def trimmed(self, student: LoadedModel, data: Dataset, progress: Progress) -> tuple[LoadedModel, str, str]:
        return trimmed(student, data, progress)

    def save_architecture(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, (TextClassifier, StaticClassifier))
        write_text(folder / "hf" / FILE, network.tokenizer)
        if isinstance(network, TextClassifier):
            hf_models.save_architecture(network, folder / "hf")

    def adapted(self, network: nn.Module, expected: Preprocess, given: Preprocess) -> tuple[nn.Module, str]:
        ours, theirs = of_texts(expected), of_texts(given)
        alike = (ours.tokenizer, ours.pad_id) == (theirs.tokenizer, theirs.pad_id)
        told = ours.token_types == 0 or theirs.token_types > 0
        if not alike or not told or (True in (ours.pair, theirs.pair) and False in (ours.pair, theirs.pair)):
            raise KdcError(
                "teachers that read texts otherwise, as other tokens or as pairs, cannot answer as one yet",
                "kdc predict with each, or take teachers of one tokenizer",
            )
        same = ours.max_length == theirs.max_length
        untold, single = theirs.token_types > ours.token_types == 0, ours.pair is False and theirs.pair is None
        network = Member(network, untold=untold, single=single) if untold or single else network
        return network, "" if same else f"(up to {theirs.max_length} tokens, not {ours.max_length})"

    def feed(self, data: Dataset, inputs: Mapping[str, Preprocess], recipe: Recipe, **where: Any) -> Feed:
        read = {key: of_texts(preprocess) for key, preprocess in inputs.items()}
        return TextFeed(data, read, recipe, where["device"], where.get("teacher"))

    def stored_bytes(self, data: Dataset, inputs: Mapping[str, Preprocess]) -> int:
        return 0

    def store(self, split: Split, preprocess: Preprocess, path: Path, progress: Progress) -> Stored:
        texts = of_texts(preprocess)
        like = {spec.name: np.zeros(texts.max_length, np.int64) for spec in texts.inputs}

        def rows() -> Iterator[dict[str, Any]]:
            for sample in encoded_split(split, texts):
                made = stacked([sample], texts)
                yield {
                    name: np.pad(
                        tensor[0].numpy(), (0, texts.max_length - tensor.shape[1]),
                        constant_values=texts.pad_id if name == "input_ids" else 0,
                    )
                    for name, tensor in made.items()
                }  # fmt: skip

        return write_records(rows(), like, path, texts.mask)

    def stored(self, path: Path, preprocess: Preprocess) -> Stored:
        return StoredRecords(np.load(path, mmap_mode="r", allow_pickle=False), path, preprocess.mask)

    def evaluation(
        self, split: Split, preprocess: Preprocess, batch: int, device: torch.device
    ) -> Iterator[tuple[Tensor, ...]]:
        texts = of_texts(preprocess)
        lengths.require_texts(texts, split, "the model")
        encoded = encoded_split(split, texts)
        for start in range(0, len(encoded), batch):
            yield tuple(tensor.to(device) for tensor in stacked(encoded[start : start + batch], texts).values())


def _refuse_crop(crop_pct: float | None) -> None:
    if crop_pct is not None:
        raise KdcError("recipe crop_pct is of images, and a text is not cropped", "leave it out")


TASK = TextClassification()
