"""Small sounds of three pitches under noise, as files."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.kit import call
from tests.shared import made_once

__all__ = [
    "PITCHES",
    "RATE",
    "SPEED",
    "distilled",
    "encoded",
    "taught",
    "tone",
    "tones",
    "write_sound",
    "write_table",
]

RATE = 4000
PITCHES = {"high": 1400.0, "low": 300.0, "middle": 700.0}
SPEED = ("--batch-size", "16", "--set", "optimizer.lr=0.005", "--set", "optimizer.lr_for_batch=null")


def tone(pitch: float, seed: int, seconds: float = 0.2, rate: int = RATE) -> NDArray[np.float32]:
    """A sine of a phase of its own, its pitch a little off, under noise."""
    rng = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    wave = 0.3 * np.sin(2 * np.pi * pitch * rng.uniform(0.95, 1.05) * time + rng.uniform(0, 6))
    return np.asarray(wave + rng.normal(0, 0.1, len(time)), np.float32)


def encoded(values: NDArray[np.floating], rate: int = RATE, kind: str = "WAV", subtype: str | None = None) -> bytes:
    """A sound file; `values` [n] or [n, channels]."""
    soundfile = pytest.importorskip("soundfile")
    buffer = io.BytesIO()
    soundfile.write(buffer, values, rate, format=kind, subtype=subtype)
    return buffer.getvalue()


def write_sound(path: Path, values: NDArray[np.floating], rate: int = RATE, **how: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(values, rate, **how))
    return path


def tones(folder: Path, count: int = 30, seconds: float = 0.2, rate: int = RATE, first: int = 0) -> Path:
    """`count` files of each class, none like another."""
    for number, (name, pitch) in enumerate(PITCHES.items()):
        for row in range(count):
            wave = tone(pitch, first + 1000 * number + row, seconds, rate)
            write_sound(folder / name / f"{row:03}.wav", wave, rate)
    return folder


def write_table(path: Path, rows: Iterable[Sequence[object]], header: Sequence[str] = ("path", "label")) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def _run(verb: str, out: Path, *options: object) -> None:
    code = call(verb, *options, "--out", out)
    assert code == 0, verb


def taught(factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """`data`, 40 sounds a class, and `teacher`, a run that was taught on them."""

    def make(folder: Path) -> None:
        data = tones(folder / "data", 40)
        _run(
            "teach", folder / "teacher", "--teacher", "timm:test_resnet", "--teacher-init", "random",
            "--data", f"folder:{data}", "--epochs", 4, *SPEED,
        )  # fmt: skip

    folder = made_once(factory, "sounds-taught", make)
    return {"data": folder / "data", "teacher": folder / "teacher"}


def distilled(factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    """The same, and `student`, a run that learned from the teacher."""
    folders = taught(factory)

    def make(folder: Path) -> None:
        _run(
            "distill", folder / "student", "--teacher", f"run:{folders['teacher']}", "--data",
            f"folder:{folders['data']}", "--student", "mlp:64x2", "--student-init", "random", "--epochs", 10,
            "--set", "ema_decay=0", *SPEED,
        )  # fmt: skip

    return {**folders, "student": made_once(factory, "sounds-distilled", make) / "student"}
