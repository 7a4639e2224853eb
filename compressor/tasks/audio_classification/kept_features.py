"""The log-mel features of a split's sounds as they stand, computed once to disk: to compute them anew in every epoch
takes longer than a small network's step."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.data.samples import Split
from compressor.files.atomic import write_atomically
from compressor.files.rows import RowFile
from compressor.progress import Progress
from compressor.schema.preprocess import AudioPreprocess
from compressor.tasks.audio_classification.features import model_input
from compressor.tasks.audio_classification.waveforms import Waves, windows

__all__ = ["KeptFeatures", "bytes_of_features", "store_features"]

CHUNK = 256
VALUE = 4
"""Bytes."""


class KeptFeatures:
    """What a model takes of each sample, float32 [1, mels, frames], in a file."""

    def __init__(self, path: Path, preprocess: AudioPreprocess) -> None:
        self._shape = (1, preprocess.mels, preprocess.frames)
        self._file = RowFile(path, VALUE * preprocess.cost)

    def of(self, rows: NDArray[np.int64]) -> torch.Tensor:
        """Float32 [B, 1, mels, frames]."""
        return torch.from_numpy(self._file.read(rows).view("<f4").reshape(-1, *self._shape))


def store_features(
    split: Split, preprocess: AudioPreprocess, waves: Waves, folder: Path, progress: Progress
) -> KeptFeatures:
    """What `preprocess` makes of `waves`, the sounds of `split`, in a file in `folder`, which is written where it is
    not there."""
    made_of = f"{preprocess.model_dump_json()} {split.contents.tolist()}"
    path = folder / f"{split.name}-{hashlib.sha256(made_of.encode()).hexdigest()[:12]}.mel"
    if not path.exists():
        starts = range(0, len(split), CHUNK)
        with write_atomically(path) as temporary, temporary.open("wb") as file:
            for start in progress.track(starts, len(starts), f"features of {split.name}"):
                rows = np.arange(start, min(start + CHUNK, len(split)))
                made = model_input(torch.from_numpy(windows(split, rows, preprocess, waves)), preprocess)
                file.write(np.ascontiguousarray(made.numpy(), "<f4").data)
    return KeptFeatures(path, preprocess)


def bytes_of_features(split: Split, preprocess: AudioPreprocess) -> int:
    """What `store_features` takes; nothing of a model that takes the waveform."""
    return 0 if preprocess.features == "waveform" else VALUE * preprocess.cost * len(split)
