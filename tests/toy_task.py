"""A second task, for the tests alone: sequences of tokens, told apart by which tokens they are made of."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.data.records import StoredRecords, write_records
from compressor.data.samples import Dataset, Split
from compressor.errors import KdcError
from compressor.models.features import Staged
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.weights import tensors_sha256
from compressor.progress import Progress
from compressor.schema.preprocess import Preprocess
from compressor.schema.recipe import Recipe
from compressor.schema.student import DataInfo, Student, Weights
from compressor.schema.tensors import TensorSpec
from compressor.tasks.base import Feed, Inputs
from compressor.tasks.plain_feed import PlainFeed

NAMES, TOKENS, LONGEST = ("low", "middle", "high"), 18, 12


class ToyPreprocess(Preprocess):
    task: ClassVar[str] = "toy"
    most: int

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        shape = ("batch", "tokens")
        ids, kinds = TensorSpec("ids", "int64", shape, TOKENS), TensorSpec("kinds", "int64", shape, 2)
        return ids, kinds, TensorSpec("mask", "int64", shape, 2, mask=True)

    @property
    def described(self) -> str:
        return f"sequences of up to {self.most} tokens"


class Network(Staged):
    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.tokens, self.kinds = nn.Embedding(TOKENS, width), nn.Embedding(2, width)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(width, width), nn.GELU()) for _ in range(2))
        self.head = nn.Linear(width, classes)

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.stages(*inputs)[0]

    def stages(self, *inputs: Tensor) -> tuple[Tensor, list[Tensor]]:
        ids, kinds, mask = inputs
        states = [self.tokens(ids) + self.kinds(kinds)]
        for block in self.blocks:
            states.append(states[-1] + block(states[-1]))
        counts = mask.unsqueeze(-1).to(states[-1].dtype)
        return self.head((states[-1] * counts).sum(1) / counts.sum(1)), states


def sample(split: Split, row: int, longest: int) -> dict[str, NDArray[np.int64]]:
    tokens = split.read(row)
    ids, mask = np.zeros(longest, np.int64), np.zeros(longest, np.int64)
    ids[: len(tokens)], mask[: len(tokens)] = tokens, 1
    return {"ids": ids, "kinds": ids % 2, "mask": mask}


def stacked(split: Split, rows: Sequence[int], how: Preprocess) -> dict[str, Tensor]:
    """Only as long as the longest of them."""
    longest = max(len(split.read(row)) for row in rows)
    made = [sample(split, row, longest) for row in rows]
    return {name: torch.from_numpy(np.stack([one[name] for one in made])) for name in made[0]}


def split_of(name: str, size: int, seed: int) -> Split:
    """Two of three tokens are of the class's own third."""
    rng = np.random.default_rng(seed)
    labels, rows = np.arange(size) % 3, []
    for label in labels:
        length = rng.integers(4, LONGEST + 1)
        own, any_token = label * 6 + rng.integers(6, size=length), rng.integers(TOKENS, size=length)
        rows.append(np.where(rng.random(length) < 2 / 3, own, any_token))
    contents = np.array([int(hashlib.sha256(row.tobytes()).hexdigest()[:16], 16) for row in rows], np.uint64)
    return Split(name, tuple(f"{name}/{row}" for row in range(size)), labels, lambda row: rows[row], contents)


class Toy:
    name, sample, samples = "toy", "sequence", "sequences"

    def open_data(self, reference: str, *, progress: Progress, **options: Any) -> Dataset:
        splits = split_of("train", 240, 0), split_of("validation", 120, 1), split_of("test", 120, 2)
        counts = {one.name: len(one) for one in splits}
        return Dataset(DataInfo(source=reference, fingerprint="of seeds", class_names=NAMES, counts=counts), *splits)

    def load_model(self, reference: str, input_size: int | None) -> LoadedModel:
        raise KdcError(f"{reference} has no weights", "--teacher-init random")

    def require_model(self, reference: str, input_size: int | None) -> None:
        pass

    def require_student(self, reference: str, init: str, input_size: int | None) -> None:
        pass

    def create_student(self, reference: str, init: str, class_names: Sequence[str], *sizes: Any) -> LoadedModel:
        width = reference.removeprefix("toy:")
        network = Network(int(width), len(class_names))
        weights = Weights(
            source=reference, architecture=width, sha256=tensors_sha256(network.state_dict()), licence="none",
            parameters=sum(one.numel() for one in network.parameters()),
        )  # fmt: skip
        names = tuple((name,) for name in class_names)
        return check_input(LoadedModel(network, ToyPreprocess(most=LONGEST), names, weights, "toy"))

    def create_trainee(self, backbone: LoadedModel, class_names: Sequence[str], crop_pct: float | None) -> LoadedModel:
        return replace(backbone)

    def fitted(self, model: LoadedModel, data: Dataset, input_size: int | None, progress: Progress) -> LoadedModel:
        return model

    def with_range(self, model: LoadedModel, pixel_range: object, progress: Progress) -> LoadedModel:
        return model

    def network_of(self, student: Student, folder: Path, parameters: int) -> nn.Module:
        return Network(int(student.architecture), len(student.class_names))

    def merged(self, network: nn.Module) -> nn.Module:
        return network

    def save_architecture(self, network: nn.Module, folder: Path) -> None:
        pass

    def adapted(self, network: nn.Module, own: Preprocess, given: Preprocess) -> tuple[nn.Module, str]:
        return network, ""

    def feed(self, data: Dataset, inputs: Mapping[str, Preprocess], recipe: Recipe, **where: Any) -> Feed:
        return PlainFeed(data, inputs, recipe, stacked, where["device"])

    def stored_bytes(self, data: Dataset, inputs: Mapping[str, Preprocess]) -> int:
        return 0

    def store(self, split: Split, how: Preprocess, path: Path, progress: Progress) -> StoredRecords:
        like = dict.fromkeys(("ids", "kinds", "mask"), np.zeros(LONGEST, np.int64))
        return write_records((sample(split, row, LONGEST) for row in range(len(split))), like, path)

    def stored(self, path: Path, how: Preprocess) -> StoredRecords:
        return StoredRecords(np.load(path, mmap_mode="r", allow_pickle=False), path)

    def evaluation(self, split: Split, how: Preprocess, batch: int, device: torch.device) -> Iterator[Inputs]:
        for start in range(0, len(split), batch):
            yield tuple(stacked(split, range(start, min(start + batch, len(split))), how).values())


TASK = Toy()
