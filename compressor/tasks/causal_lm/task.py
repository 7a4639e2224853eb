"""Causal language modelling as a task: what the table of tasks names."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.models.features import inner_of
from compressor.models.loaded import LoadedModel
from compressor.progress import Progress
from compressor.references import Reference
from compressor.schema.preprocess import LanguagePreprocess, PixelRange, Preprocess
from compressor.schema.recipe import Recipe
from compressor.schema.student import Columns, Student, UnlabelledInfo
from compressor.tasks.base import Feed, Stored
from compressor.tasks.causal_lm.encoding import blocks_of, encoded_split
from compressor.tasks.causal_lm.feed import LanguageFeed, stacked
from compressor.tasks.causal_lm.models import loading, students
from compressor.tasks.causal_lm.models.network import CausalLm, block_limit
from compressor.tasks.causal_lm.opening import open_data
from compressor.tasks.causal_lm.pairs import differs
from compressor.tasks.causal_lm.tokenizer import of_documents

__all__ = ["TASK", "CausalLanguageModelling"]


class CausalLanguageModelling:
    """See `tasks.base.Task`."""

    name = LanguagePreprocess.task
    sample, samples = "document", "documents"

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
            raise KdcError("pixel_range is of images, and documents have no pixels", "leave it out")
        if unlabelled is not None:
            raise KdcError("--unlabelled: a document needs no label", "put it into --data")
        return open_data(reference, skip_bad=skip_bad, progress=progress, columns=columns)

    def open_unlabelled(
        self, reference: str, data: Dataset, *, progress: Progress, said: str, skip_bad: bool = False,
        columns: Columns | None = None,
    ) -> tuple[Split, UnlabelledInfo, list[str]]:  # fmt: skip
        raise KdcError(f"{said}: a document needs no label", "put it into --data")

    def load_model(self, reference: str, input_size: int | None) -> LoadedModel:
        return loading.load_hf(Reference.parse(reference).rest or "", input_size)

    def require_model(self, reference: str, input_size: int | None) -> None:
        loading.require_model(Reference.parse(reference).rest or "")

    def require_student(self, reference: str, init: str, input_size: int | None) -> None:
        students.require_student(reference, init)

    def create_student(
        self, reference: str, init: str, class_names: Sequence[str], input_size: int | None, crop_pct: float | None,
        teacher: LoadedModel | None = None,
    ) -> LoadedModel:  # fmt: skip
        _refuse_crop(crop_pct)
        return students.create_student(reference, init, input_size, teacher)

    def create_trainee(self, backbone: LoadedModel, class_names: Sequence[str], crop_pct: float | None) -> LoadedModel:
        _refuse_crop(crop_pct)
        return students.trainee(backbone)

    def fitted(self, model: LoadedModel, data: Dataset, input_size: int | None, progress: Progress) -> LoadedModel:
        network, preprocess = inner_of(model.network), of_documents(model.preprocess)
        assert isinstance(network, CausalLm)
        limit, source = block_limit(network.model), model.weights.source
        if limit is not None and preprocess.max_length > limit:
            raise KdcError(
                f"--max-length {preprocess.max_length}: {source} takes {limit} tokens at most", f"--max-length {limit}"
            )
        samples = encoded_split(data.train, preprocess)
        blocks = blocks_of(samples, preprocess.max_length)
        long = sum(len(sample.ids) - 1 > preprocess.max_length for sample in samples)
        hidden = sum(not sample.learned[1 : preprocess.max_length + 1].any() for sample in samples)
        told = f"{hidden:,} of these by their prompts alone, which then are not read; " if hidden else ""
        progress.note(
            f"blocks of {preprocess.max_length} tokens: {len(blocks):,} of {len(samples):,} training documents, of "
            f"which {long:,} are longer; {told}{sum(int(sample.learned.sum()) for sample in samples):,} tokens to learn"
        )
        return replace(model)

    def with_range(self, model: LoadedModel, pixel_range: PixelRange | None, progress: Progress) -> LoadedModel:
        return model

    def network_of(self, student: Student, folder: Path, parameters: int) -> nn.Module:
        network = loading.from_run(folder / "hf", parameters)
        preprocess, tokenizer = of_documents(student.preprocess), network.tokenizer
        stated = preprocess.tokenizer, preprocess.start_id, preprocess.end_id, preprocess.chat_template
        if tokenizer.key != stated:
            raise KdcError(f"the tokenizer in {folder / 'hf'} was changed: it is not that of student.json")
        return network

    def merged(self, network: nn.Module) -> nn.Module:
        return network

    def trimmed(self, student: LoadedModel, data: Dataset, progress: Progress) -> tuple[LoadedModel, str, str]:
        raise KdcError("kdc does not trim the vocabulary of language models")

    def save_architecture(self, network: nn.Module, folder: Path) -> None:
        assert isinstance(network, CausalLm)
        loading.save_architecture(network, folder / "hf")

    def adapted(self, network: nn.Module, expected: Preprocess, given: Preprocess) -> tuple[nn.Module, str]:
        ours, theirs = of_documents(expected), of_documents(given)
        if differs(ours, theirs) is not None or ours.vocabulary != theirs.vocabulary:
            raise KdcError(
                "teachers that read documents as other tokens cannot answer as one", "take teachers of one tokenizer"
            )
        return network, ""

    def feed(self, data: Dataset, inputs: Mapping[str, Preprocess], recipe: Recipe, **where: Any) -> Feed:
        read = {key: of_documents(preprocess) for key, preprocess in inputs.items()}
        return LanguageFeed(data, read, recipe, where["device"], where.get("progress"))

    def stored_bytes(self, data: Dataset, inputs: Mapping[str, Preprocess]) -> int:
        return 0

    def store(self, split: Split, preprocess: Preprocess, path: Path, progress: Progress) -> Stored:
        raise KdcError("documents are not stored one by one: a language model's bundle holds their blocks of tokens")

    def stored(self, path: Path, preprocess: Preprocess) -> Stored:
        raise KdcError("documents are not stored one by one: a language model's bundle holds their blocks of tokens")

    def evaluation(
        self, split: Split, preprocess: Preprocess, batch: int, device: torch.device
    ) -> Iterator[tuple[Tensor, ...]]:
        read = of_documents(preprocess)
        samples = encoded_split(split, read)
        blocks = blocks_of(samples, read.max_length)
        for start in range(0, len(blocks), batch):
            made = stacked(samples, blocks[start : start + batch], read.pad_id)
            yield made["input_ids"].to(device), made["attention_mask"].to(device)


def _refuse_crop(crop_pct: float | None) -> None:
    if crop_pct is not None:
        raise KdcError("recipe crop_pct is of images, and a document is not cropped", "leave it out")


TASK = CausalLanguageModelling()
