"""The test split as it travels in the bundle: pictures ready but for normalization, labels, torch's own answers."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compressor.data.samples import Split
from compressor.errors import os_error
from compressor.progress import Progress
from compressor.schema.bundle import EvalSet
from compressor.schema.preprocess import Preprocess
from compressor.tasks.image_classification import decode_split, normalise
from compressor.tasks.image_classification.views import keyed_order

__all__ = ["eval_set", "part_of", "write_pictures", "write_reference"]

CHUNK = 64


def part_of(split: Split, most: int) -> Split:
    """At most that many samples of a split, drawn without a seed, so that it is always the same ones."""
    if len(split) <= most:
        return split
    return split.part(keyed_order(0, len(split), 0)[:most])


def write_pictures(test: Split, how: Preprocess, path: Path, progress: Progress) -> None:
    """uint8 [N, height, width, 3]: resized and cropped, so that only the normalization is left to the runner."""
    decode_split(test, how, path, progress)


def eval_set(test: Split, root: Path) -> EvalSet:
    """Write eval/labels.npy (int64 [N]) and eval/ids.txt (one a line) into the bundle in `root`, and describe them."""
    folder = root / "eval"
    try:
        np.save(folder / "labels.npy", test.labels.astype(np.int64), allow_pickle=False)
        (folder / "ids.txt").write_text("".join(f"{sample}\n" for sample in test.ids), encoding="utf-8")
    except OSError as error:
        raise os_error(error, "writing the bundle's labels") from error
    contents = hashlib.sha256(test.contents.astype("<u8").tobytes()).hexdigest()
    return EvalSet(split="test", n=len(test), labels="eval/labels.npy", ids="eval/ids.txt", contents=contents)


@torch.no_grad()
def write_reference(network: nn.Module, how: Preprocess, pictures: Path, path: Path, progress: Progress) -> None:
    """torch's logits, float32 [N, classes], for the pictures in that .npy file: what every runtime must reproduce."""
    pixels = np.load(pictures, mmap_mode="r", allow_pickle=False)
    starts = range(0, len(pixels), CHUNK)
    logits = [
        network.eval()(torch.from_numpy(normalise(pixels[start : start + CHUNK], how))).numpy()
        for start in progress.track(starts, len(starts), f"torch's answers ({path.stem})")
    ]
    try:
        np.save(path, np.concatenate(logits).astype(np.float32), allow_pickle=False)
    except OSError as error:
        raise os_error(error, f"writing {path.name}") from error
