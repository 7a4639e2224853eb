"""What several test modules share besides fixtures."""

import re
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from compressor.cli import app as cli
from compressor.measure.baseline import attach_baseline
from compressor.progress import Silent
from compressor.report import Baseline, compared_with, release_of
from compressor.schema.bundle import Bundle
from compressor.schema.measurement import Machine
from compressor.schema.quantization import ByClass, Score
from compressor.schema.student import Request
from compressor.schema.tensors import TensorSpec

__all__ = [
    "MACHINE",
    "MARKUP",
    "MARKUP_SHOWN",
    "TRAINING",
    "Ended",
    "attach",
    "by_classes",
    "call",
    "score_of",
    "version_of",
    "write_colours",
]

COLOURS = {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}
MARKUP = "<script>alert(1)</script>&\"'\u202e"
MARKUP_SHOWN = "&lt;script&gt;alert(1)&lt;/script&gt;&amp;&quot;&#x27;\\u202e"
TRAINING = ("--input-size", "32", "--batch-size", "16", "--set", "crop_pct=1.0")


MACHINE = Machine(
    arch="aarch64",
    system="Linux 6.6",
    cpu="Cortex-A76",
    isa=("asimd",),
    cores=4,
    usable_cores=4,
    affinity=None,
    quota_cores=None,
    quota_throttled_s=None,
    memory_gb=7.9,
    memory_available_gb=6.5,
    python="3.11.2",
    load_1m=None,
    steal_s=None,
    governor=None,
    mhz=None,
    max_mhz=None,
    temperature_c=None,
    throttle_count=None,
    throttled=None,
    power_mode=None,
    gpus=(),
)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str


def call(*arguments: object) -> int:
    """`kdc`, for fixtures that outlive a test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["kdc", *map(str, arguments)])
        return cli.run()


def write_colours(folder: Path, each: int = 40) -> Path:
    """A folder data set: noisy images of a colour, one folder a colour."""
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for number in range(each):
            pixels = rng.normal(colour, 40, (24, 24, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
    return folder


def version_of(package: str) -> tuple[int, ...]:
    """The first three numbers of an installed version, for what differs between the versions that pyproject.toml
    permits."""
    return tuple(int(number) for number in re.findall(r"\d+", metadata.version(package))[:3])


class Hearing(Silent):
    """A progress that keeps what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def attach(bundle: Path, baseline: Path) -> Bundle:
    """Put a bundle's baseline, sealed or not, into another bundle, as `kdc measure --baseline` does before it
    measures."""
    found = Baseline(f"--baseline {baseline}", release_of(baseline), baseline)
    shared = compared_with(bundle, found)
    return attach_baseline(bundle, baseline, shared.release, same_test=shared.is_whole)


def by_classes(*rows: tuple[int, int, int]) -> ByClass:
    """A row a class: samples, those that the student in fp32 has right, those that the artefact has; both as many as
    may be."""
    n, reference, correct = zip(*rows, strict=True)
    return ByClass(n=n, reference=reference, correct=correct, both=tuple(map(min, reference, correct)))


def score_of(
    n: int,
    correct: int,
    reference: int,
    *,
    cosine: float | None = 1.0,
    sqnr_db: float | None = 60.0,
    same: int | None = None,
    by_class: ByClass | None = None,
    stand_in: str | None = None,
) -> Score:
    """A score whose samples are all of one class, or as `by_class` says; close to torch."""
    whole = by_classes((n, reference, correct))
    return Score(
        n=n, correct=correct, reference_correct=reference, same=n if same is None else same,
        by_class=by_class or whole, cosine=cosine, sqnr_db=sqnr_db, not_finite=0, stand_in=stand_in,
    )  # fmt: skip


def diverging(request: Request) -> Request:
    """The request with a learning rate that no recipe may have: its loss is soon not finite."""
    optimizer = request.recipe.optimizer.model_copy(update={"lr": 1e30, "clip_norm": None})
    return request.model_copy(update={"recipe": request.recipe.model_copy(update={"optimizer": optimizer})})


def pixels(height: int, width: int) -> tuple[TensorSpec, ...]:
    """What a network for images of that size takes."""
    return (TensorSpec("input", "float32", ("batch", 3, height, width)),)
