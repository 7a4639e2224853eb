"""A small real data set (four of scikit-learn's digits, as IDX files), a teacher of it, and requests to train with."""

import os
import signal
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from compressor.distill import teach
from compressor.distill.run_folder import Destination
from compressor.progress import Silent
from compressor.schema.recipe import Recipe
from compressor.schema.student import Request

# Tiny networks: a second thread mostly waits for the first, and for long where other work shares the cores.
torch.set_num_threads(1)

T = TypeVar("T")
NAMES = ("zero", "one", "two", "three")


class InterruptAt(Silent):
    """Presses Ctrl-C in the middle of step number `step` (counted over all epochs, from 0)."""

    def __init__(self, step: int) -> None:
        self.left = step
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        for item in items:
            if doing.startswith("epoch"):
                if self.left == 0:
                    os.kill(os.getpid(), signal.SIGINT)
                self.left -= 1
            yield item


def write_idx(path: Path, array: NDArray[np.uint8]) -> None:
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.fixture(scope="session")
def digits4(tmp_path_factory: pytest.TempPathFactory) -> str:
    """`idx:…`: 240 images to train with (of which a tenth is split off for validation) and 120 to test with."""
    folder = tmp_path_factory.mktemp("data")
    bunch: Any = load_digits()
    few = np.flatnonzero(bunch.target < 4)[:360]
    pixels, labels = (bunch.images[few] * 15.9).astype(np.uint8), bunch.target[few].astype(np.uint8)
    for prefix, part in (("train", slice(0, 240)), ("t10k", slice(240, 360))):
        write_idx(folder / f"{prefix}-images-idx3-ubyte", pixels[part])
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", labels[part])
    (folder / "classes.txt").write_text("\n".join(NAMES) + "\n")
    return f"idx:{folder}"


def recipe(**changes: Any) -> Recipe:
    """Two short epochs; digits are not mirrored, and their strokes reach the border."""
    values: dict[str, Any] = {
        "epochs": 2,
        "batch_size": 32,
        "crop_pct": 1.0,
        "ema_decay": 0.9,
        "optimizer": {"lr": 0.01},
        "views": {"scale": (0.7, 1.0), "hflip": False},
        "losses": [{"name": "kd", "weight": 0.9}, {"name": "cross_entropy", "weight": 0.1}],
    }
    return Recipe.model_validate({"schema": 1, **values, **changes})


Ask = Callable[..., Request]


@pytest.fixture(scope="session")
def ask_teach(digits4: str) -> Ask:
    """`ask_teach(epochs=3)`: a request for `kdc teach`; keys of Request, or of the recipe."""

    def ask(teacher: str = "timm:test_resnet", init: str = "random", data: str = digits4, **changes: Any) -> Request:
        values = {"losses": [{"name": "cross_entropy"}], **changes}
        size = values.pop("input_size", 32)
        return Request(
            task="image-classification",
            command="teach", teacher=teacher, student=None, init=init, data=data, skip_bad=False, input_size=size,
            recipe=recipe(**values),
        )  # fmt: skip

    return ask


@pytest.fixture(scope="session")
def teacher_run(tmp_path_factory: pytest.TempPathFactory, ask_teach: Ask) -> Path:
    """Never change it."""
    out = tmp_path_factory.mktemp("teacher") / "teacher"
    teach(ask_teach(epochs=8), Destination(out), progress=Silent())
    return out


@pytest.fixture(scope="session")
def ask_distill(digits4: str, teacher_run: Path) -> Ask:
    """`ask_distill(student="timm:test_vit")`: a request for `kdc distill`; keys of Request, or of the recipe."""

    def ask(
        teacher: str = f"run:{teacher_run}",
        student: str = "timm:test_efficientnet",
        init: str = "random",
        data: str = digits4,
        teacher_classes: str | None = None,
        input_size: int = 32,
        **changes: Any,
    ) -> Request:
        return Request(
            task="image-classification",
            command="distill", teacher=teacher, student=student, init=init, data=data, skip_bad=False,
            input_size=input_size, teacher_classes=teacher_classes, recipe=recipe(**changes),
        )  # fmt: skip

    return ask


@pytest.fixture(scope="session")
def interrupt_at() -> type[InterruptAt]:
    """`interrupt_at(3)`: a progress that presses Ctrl-C in the middle of the fourth step."""
    return InterruptAt
