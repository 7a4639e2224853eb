"""A small network with all that mobile networks have, and a judge that really runs what it is given."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from compressor.export.base import Source
from compressor.export.judge import ValidationJudge
from compressor.profiles import load_profile
from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.image_classification import normalise
from compressor.tasks.image_classification.stored import StoredImages

SIDE, CLASSES = 16, 4
HOW = ImagePreprocess(input_size=(SIDE, SIDE), resize=(SIDE, SIDE), mean=(0.4, 0.5, 0.6), std=(0.25, 0.25, 0.25))


class Gate(nn.Module):
    """Squeeze-excite."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = nn.Conv2d(channels, 4, 1), nn.Conv2d(4, channels, 1)

    def forward(self, maps: Tensor) -> Tensor:
        gate = self.expand(self.reduce(maps.mean((2, 3), keepdim=True)).relu())
        return maps * nn.functional.hardsigmoid(gate)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, 1, 1, groups=8, bias=False), nn.BatchNorm2d(8), nn.Hardswish())
        self.gate, self.head = Gate(8), nn.Linear(8, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.stem(images)
        maps = maps + self.gate(self.deep(maps))
        answer: Tensor = self.head(maps.mean((2, 3)))
        return answer


def network() -> nn.Module:
    torch.manual_seed(0)
    made = Net()
    for module in made.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.3, 0.3)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
    return made.eval().requires_grad_(False)


def images(seed: int, count: int) -> NDArray[np.uint8]:
    """Smooth ones: squares of one colour on another, so that the classes differ."""
    random = np.random.default_rng(seed)
    made = np.empty((count, SIDE, SIDE, 3), np.uint8)
    for image in made:
        image[:] = random.integers(0, 256, 3)
        row, column = random.integers(0, SIDE // 2, 2)
        image[row : row + SIDE // 2, column : column + SIDE // 2] = random.integers(0, 256, 3)
    return made


def source(batch: int = 1) -> Source:
    """For the profile of a phone. No ONNX file: the mobile builders start from torch."""
    profile = load_profile("android-snapdragon-8gen3", [f"batch={batch}"])
    return Source(network(), Path("model.onnx"), HOW, StoredImages(images(0, 48), HOW), profile)


def normalised(shown: NDArray[np.uint8]) -> NDArray[np.float32]:
    return normalise(shown, HOW)


def logits(shown: NDArray[np.uint8]) -> NDArray[np.float32]:
    with torch.no_grad():
        answer: NDArray[np.float32] = network()(torch.from_numpy(normalised(shown))).numpy()
    return answer


def judge(folder: Path, batch: int = 1) -> ValidationJudge:
    """64 images whose labels are the network's own answers, so that fp32 is right on all."""
    shown = images(1, 64)
    np.save(folder / "validation.npy", shown)
    answers = logits(shown)
    labels = answers.argmax(axis=1).astype(np.int64)
    stored = StoredImages(shown, HOW, folder / "validation.npy")
    return ValidationJudge(stored, labels, answers, batch=batch, threads=1, needed=60, max_drop=1)
