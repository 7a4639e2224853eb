"""The sounds of a split at a model's rate, as a training reads them over and over: decoded once to disk, or anew."""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from compressor.data.samples import Split
from compressor.files.atomic import write_atomically
from compressor.files.rows import RowFile
from compressor.processes.threads import in_order
from compressor.progress import Progress
from compressor.schema.preprocess import AudioPreprocess
from compressor.tasks.audio_classification.features import resampled, start_of, window_of
from compressor.tasks.audio_classification.reading import Clip, Recording

__all__ = ["Decoding", "StoredWaves", "Waves", "bytes_of", "store_waves", "windows"]

Rows = NDArray[np.int64]
Wave = NDArray[np.float32]
VALUE = 4
"""Bytes."""


class Waves(Protocol):
    """The sounds of a split at one rate."""

    def of(self, rows: Rows) -> list[Wave]:
        """Each of them whole, float32 [n]."""


class Decoding:
    """Decoded, and resampled, each time that they are asked for: for data that the disk may not hold."""

    def __init__(self, split: Split, rate: int) -> None:
        self._split, self._rate = split, rate

    def of(self, rows: Rows) -> list[Wave]:
        with closing(in_order(self._wave, rows.tolist())) as waves:
            return list(waves)

    def _wave(self, row: int) -> Wave:
        return _wave(self._split.read(row), self._rate)


class StoredWaves:
    """All of them in one file, one behind the other; samples that are cut from one recording share its values."""

    def __init__(self, path: Path, starts: Rows, lengths: Rows) -> None:
        self._file, self._starts, self._lengths = RowFile(path, VALUE), starts, lengths

    def of(self, rows: Rows) -> list[Wave]:
        return [
            self._file.run(int(self._starts[row]), int(self._lengths[row])).view("<f4")[:, 0] for row in rows.tolist()
        ]


def _wave(clip: Clip, rate: int) -> Wave:
    return resampled(clip.values(), clip.rate, rate)


def _length(clip: Clip, rate: int) -> int:
    """Of the resampled sound."""
    return -(-clip.length * rate // clip.rate)


def store_waves(split: Split, rate: int, folder: Path, progress: Progress) -> StoredWaves:
    """The sounds of `split` at `rate` Hz, in a file in `folder`, which is written where it is not there.

    A recording that is at `rate` is written once and whole; of another one each sample by itself, since what is cut
    and then resampled is not what is resampled and then cut.
    """
    clips: list[Clip] = [split.read(row) for row in range(len(split))]
    pieces, starts = _layout(clips, rate)
    lengths = np.array([_length(clip, rate) for clip in clips], np.int64)
    name = hashlib.sha256(f"{rate} {starts.tolist()} {split.contents.tolist()}".encode()).hexdigest()[:12]
    path = folder / f"{split.name}-{name}.f32"
    if not path.exists():
        with (
            write_atomically(path) as temporary,
            temporary.open("wb") as file,
            closing(in_order(lambda piece: _wave(piece, rate), pieces)) as waves,
        ):
            for wave in progress.track(waves, len(pieces), f"decoding {split.name}"):
                file.write(np.ascontiguousarray(wave, "<f4").data)
    return StoredWaves(path, starts, lengths)


def _layout(clips: Sequence[Clip], rate: int) -> tuple[list[Clip], Rows]:
    """What is written, in its order, and where each sample begins in that."""
    pieces: list[Clip] = []
    starts, at = np.zeros(len(clips), np.int64), 0
    begins: dict[Recording, int] = {}
    totals = _totals(clips)
    for row, clip in enumerate(clips):
        if clip.rate != rate or clip.whole:
            pieces.append(clip)
            starts[row], at = at, at + _length(clip, rate)
            continue
        if clip.recording not in begins:
            pieces.append(replace(clip, start=0, length=clip.total, whole=True))
            begins[clip.recording], at = at, at + totals[clip.recording]
        starts[row] = begins[clip.recording] + clip.start
    return pieces, starts


def _totals(clips: Iterable[Clip]) -> dict[Recording, int]:
    """How many values each recording has of which parts are samples."""
    return {clip.recording: clip.total for clip in clips if not clip.whole}


def bytes_of(split: Split, rate: int) -> int:
    """What `store_waves` takes."""
    clips: list[Clip] = [split.read(row) for row in range(len(split))]
    alone = sum(_length(clip, rate) for clip in clips if clip.whole or clip.rate != rate)
    shared = sum(_totals(clip for clip in clips if clip.rate == rate).values())
    return VALUE * (alone + shared)


def windows(split: Split, rows: Rows, preprocess: AudioPreprocess, waves: Waves | None = None) -> NDArray[np.float32]:
    """The sounds of `rows`, cut or filled up as `preprocess` says, without views: float32 [B, samples]."""
    read = (waves or Decoding(split, preprocess.sample_rate)).of(rows)
    made = [window_of(wave, start_of(len(wave), preprocess.samples), preprocess.samples) for wave in read]
    return np.stack(made) if made else np.zeros((0, preprocess.samples), np.float32)
