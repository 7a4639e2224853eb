"""The seam: what everything else knows of what is learned. The loop knows neither pixels nor tokens.

A task opens data, loads models and says what these take (`Preprocess.inputs`). For a training it makes a feed: batches
of named tensors (views included), and a model's answers to a split. A model takes from a batch what is its own.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.data.samples import Dataset, Split
from compressor.progress import Progress
from compressor.schema.accuracy import Score
from compressor.schema.preprocess import PixelRange, Preprocess
from compressor.schema.recipe import Recipe
from compressor.schema.student import Columns, Student, UnlabelledInfo
from compressor.schema.tensors import EXAMPLE_LENGTH, TensorSpec
from compressor.stats.language import Costs

if TYPE_CHECKING:
    from compressor.models.loaded import LoadedModel

__all__ = [
    "Arrays",
    "Batch",
    "BatchModel",
    "Feed",
    "Inputs",
    "Outputs",
    "SplitName",
    "Stored",
    "Taps",
    "Task",
    "drawn_inputs",
    "example_inputs",
    "has_inputs",
    "inputs_of",
]

Batch = Mapping[str, Tensor]
"""Named tensors: of a model `key` that takes one tensor "key", of one that takes several "key/name", in its order."""
Inputs = tuple[Tensor, ...]
Arrays = dict[str, NDArray[Any]]
"""A batch of a model's inputs, by their names."""
Taps = Callable[[nn.Module, Inputs], tuple[Tensor, dict[str, Tensor]]]
"""Applies a network to its inputs, and gives beside the logits what comes out of some of its layers, by name."""
SplitName = Literal["train", "validation", "test"]


def inputs_of(batch: Batch, key: str) -> Inputs:
    """What the model `key` takes of a batch. Raises KeyError where there is nothing for it."""
    inputs = _inputs_of(batch, key)
    if not inputs:
        raise KeyError(f"the task's batch holds nothing for the model {key!r}; it holds {', '.join(batch)}")
    return inputs


def has_inputs(batch: Batch, key: str) -> bool:
    """Whether a batch holds what the model `key` takes."""
    return bool(_inputs_of(batch, key))


def _inputs_of(batch: Batch, key: str) -> Inputs:
    if key in batch:
        return (batch[key],)
    return tuple(tensor for name, tensor in batch.items() if name.startswith(f"{key}/"))


def example_inputs(
    specs: Sequence[TensorSpec], batch: int = 1, device: torch.device | None = None, length: int = EXAMPLE_LENGTH
) -> Inputs:
    """Zeros, and masks that leave nothing out: what a network is called with to find out what it does. `length`: of
    what varies beside the batch."""
    kinds = {"float32": torch.float32, "int64": torch.int64}
    return tuple(
        torch.full(spec.sizes(batch, length), int(spec.mask), dtype=kinds[spec.dtype], device=device) for spec in specs
    )


def drawn_inputs(specs: Sequence[TensorSpec], seed: int, device: torch.device | None = None) -> Inputs:
    """One sample of random values, always the same for a seed."""
    generator = torch.Generator().manual_seed(seed)
    drawn = []
    for spec in specs:
        if spec.mask:
            values = torch.ones(spec.sizes(1), dtype=torch.int64)
        elif spec.dtype == "int64":
            values = torch.randint(spec.high, spec.sizes(1), generator=generator)
        else:
            values = torch.randn(spec.sizes(1), generator=generator)
        drawn.append(values.to(device))
    return tuple(drawn)


@dataclass(frozen=True)
class Outputs:
    """What a model answers: logits [B, C], or of one that answers every token a row for each that counts, [n, V]; and
    named features where a loss asked for them. `mask`: [B, N], which tokens count for these; None: all."""

    logits: Tensor
    features: Mapping[str, Tensor] = field(default_factory=dict)
    mask: Tensor | None = None

    def flat(self, name: str) -> Tensor:
        """A feature as a loss sees it that takes no mask: of tokens [B, N, D] the rows that count, [n, D]; all else as
        it is."""
        feature = self.features[name]
        if feature.ndim != 3:
            return feature
        return feature.flatten(0, 1) if self.mask is None else feature[self.mask.bool()]


class BatchModel(nn.Module):
    """`network` applied to what a batch holds for `key`. With `taps`, what comes out of those layers is answered, too.
    `mask`: the name of the input that says which tokens count."""

    def __init__(self, network: nn.Module, key: str, taps: Taps | None = None, mask: str | None = None) -> None:
        super().__init__()
        self.network = network
        self.key = key
        self.taps = taps
        self.mask = mask

    def forward(self, batch: Batch) -> Outputs:
        inputs = inputs_of(batch, self.key)
        logits, features = (self.network(*inputs), {}) if self.taps is None else self.taps(self.network, inputs)
        at = batch.get(f"{self.key}_positions", batch.get("positions"))
        return Outputs(logits if at is None else logits[at], features, self.mask_of(batch) if self.taps else None)

    def mask_of(self, batch: Batch) -> Tensor | None:
        """Which tokens of a batch count, [B, N]; None: all, or what it takes are no tokens."""
        return None if self.mask is None else batch[f"{self.key}/{self.mask}"]


class Stored(Protocol):
    """The inputs of some samples in the form in which they travel to a device: in files that a runner reads."""

    def __len__(self) -> int:
        """How many samples."""

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """How long each sample is, [N]; None where they are all as large."""

    @property
    def request(self) -> dict[str, object]:
        """What a runner is told so that it feeds them to a model (targets/README.md, "predict")."""

    @property
    def cost(self) -> int:
        """The values of all of them: what the time to go through them grows with."""

    def fed(self, rows: NDArray[np.int64]) -> Arrays:
        """Those samples as the network takes them, by the names of its inputs."""

    def first(self, most: int, folder: Path) -> "Stored":
        """The first of them alone, in files in `folder` where they are not all of them."""


class Feed(Protocol):
    """What a training is fed with: of its data, its models' inputs, as its recipe says. In a run of several processes
    each has a feed of its own, with its share."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps an epoch, the same for every epoch."""

    @property
    def batch_size(self) -> int:
        """Samples of a batch: of one process, and of one of the parts that a step is taken in."""

    @property
    def right(self) -> Mapping[tuple[str, str], NDArray[np.bool_]]:
        """Which samples a model (by its key) had right when it was last evaluated on a split, bool [N]; none where
        samples have no classes."""

    @property
    def costs(self) -> Mapping[tuple[str, str], Costs]:
        """Likewise what each document cost it; none where samples have classes."""

    def prepare(self) -> None:
        """Store now what training needs, so that a full disk or an interruption costs nothing yet."""

    def identity(self, key: str) -> dict[str, object]:
        """What the samples that the model `key` is shown depend on, but for the numbers of sample and view."""

    def batches(self, epoch: int, first_step: int, keys: Collection[str] | None = None) -> Iterator[Batch]:
        """The batches of an epoch from `first_step` on, one for each part of a step: a pure function of the seed, the
        epoch and the step. Each has the inputs of the models `keys` (None: of all), "labels" (int64 [B], or
        probabilities [B, C]) and "index", the samples' numbers in the training data (int64 [B], always on the CPU).
        Where some samples of the training data have no label, "labelled" names the rows that have one (int64, on the
        CPU), and the others' label is -1, or a row of zeros; "labelled_share" is what the mean over the labelled rows
        of this part is multiplied by, so that its mean over all parts is that over the step (float, on the CPU).
        Where models answer every token, "positions" (bool [B, N]), of a teacher of other tokens "teacher_positions",
        says whose answers count: losses see those rows alone, and "labels" (int64 [n]) has one for each. "columns"
        (int64 [], on the CPU): how many values of unequal numbers mean the same. "token_labels" (int64 [B, N]): tokens
        that were hidden, -100 elsewhere."""

    def input_of(self, key: str, samples: NDArray[np.int64], view: int) -> Batch:
        """What `batches` gives the model `key` for these samples in an epoch that shows this view."""

    def samples_of(self, epoch: int, step: int) -> NDArray[np.int64]:
        """The samples of a step, of all processes."""

    def names(self, samples: NDArray[np.int64]) -> list[str]:
        """What a person finds these samples by."""

    def logits(self, model: BatchModel, split: SplitName) -> NDArray[np.float32]:
        """What `model` answers to a whole split, float32 [N, C], in evaluation mode and without augmentation; all of it
        in every process. Its mode is restored."""

    def answers_on(self, model: BatchModel, split: SplitName) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """`logits`, and the labels int64 [N]."""

    def evaluate(self, model: BatchModel, split: SplitName) -> Score:
        """How often `answers_on` are right; or where samples have no classes, what their text costs the model."""


class Task(Protocol):
    """A kind of thing to learn: what a row of the table of tasks names. `sample`, `samples`: what one is called, and
    several."""

    name: str
    sample: str
    samples: str

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
        """The data that `reference` names, checked and in three splits. With `class_names` it must have exactly these,
        and labels follow their order. `columns`: which ones of tables count, where that was stated. Raises KdcError."""

    def open_unlabelled(
        self, reference: str, data: Dataset, *, progress: Progress, said: str, skip_bad: bool = False,
        columns: Columns | None = None,
    ) -> tuple[Split, UnlabelledInfo, list[str]]:  # fmt: skip
        """Samples without labels, as a training split, what is kept of them in student.json, and notes; without copies
        of what `data` holds out. `said`: what asks for them. Raises KdcError."""

    def load_model(self, reference: str, input_size: int | None) -> "LoadedModel":
        """The model that `reference` names, of one of its schemes. Raises KdcError."""

    def require_model(self, reference: str, input_size: int | None) -> None:
        """Raise KdcError for what `load_model` would, as far as that is known without loading anything."""

    def require_student(self, reference: str, init: str, input_size: int | None) -> None:
        """Raise KdcError for what `create_student` would, as far as that is known without loading anything."""

    def create_student(
        self,
        reference: str,
        init: str,
        class_names: Sequence[str],
        input_size: int | None,
        crop_pct: float | None,
        teacher: "LoadedModel | None" = None,
    ) -> "LoadedModel":
        """A network to be trained, with a new classifier for `class_names` unless its weights fit. `teacher`: whose
        layers it may be made of. Raises KdcError."""

    def create_trainee(
        self, backbone: "LoadedModel", class_names: Sequence[str], crop_pct: float | None
    ) -> "LoadedModel":
        """`backbone` with a new classifier for `class_names`. Raises KdcError."""

    def fitted(self, model: "LoadedModel", data: Dataset, input_size: int | None, progress: Progress) -> "LoadedModel":
        """`model`, which is to be trained, with what its preprocessing takes from the training split, where
        `input_size` does not say it; said. Raises KdcError where it cannot take these data."""

    def with_range(self, model: "LoadedModel", pixel_range: PixelRange | None, progress: Progress) -> "LoadedModel":
        """`model` for samples that are read so (`Recipe.pixel_range`). Raises KdcError where it learned from others."""

    def network_of(self, student: Student, folder: Path, parameters: int) -> nn.Module:
        """The network of a run in `folder`, without its weights, of so many values in all. Raises KdcError."""

    def merged(self, network: nn.Module) -> nn.Module:
        """`network` as it ships, in evaluation mode: branches that only serve training are merged into one. The same
        answers but for rounding; itself where there is nothing to merge."""

    def trimmed(self, student: "LoadedModel", data: Dataset, progress: Progress) -> tuple["LoadedModel", str, str]:
        """The student with the tokens alone that the training samples use, its tokenizer's file, and in words, said,
        what that changed on validation. Raises KdcError where samples are not made of tokens."""

    def save_architecture(self, network: nn.Module, folder: Path) -> None:
        """Write to the run in `folder` what `network_of` needs beside student.json."""

    def adapted(self, network: nn.Module, expected: Preprocess, given: Preprocess) -> tuple[nn.Module, str]:
        """`network`, which takes inputs prepared as `expected` says, for inputs prepared as `given` says; and where it
        sees less of a sample then, or otherwise, a word on that. Raises KdcError."""

    def feed(self, data: Dataset, inputs: Mapping[str, Preprocess], recipe: Recipe, **where: Any) -> Feed:
        """What a training is fed with. `inputs`: key in the batch -> what the model takes. `where`: `store`, the folder
        that samples are stored in (None: they are made anew each time), `device` and `progress`; `teacher`, the network
        that teaches, where views are made by it."""

    def stored_bytes(self, data: Dataset, inputs: Mapping[str, Preprocess]) -> int:
        """What a feed's `store` takes, about."""

    def store(self, split: Split, preprocess: Preprocess, path: Path, progress: Progress) -> Stored:
        """Write the inputs of all samples of `split`, without augmentation, to the new .npy file `path`."""

    def stored(self, path: Path, preprocess: Preprocess) -> Stored:
        """What `store` wrote."""

    def evaluation(self, split: Split, preprocess: Preprocess, batch: int, device: torch.device) -> Iterator[Inputs]:
        """The inputs of a whole split, without augmentation, in batches of that size, the last of what is left."""
