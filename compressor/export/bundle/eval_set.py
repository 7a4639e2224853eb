"""The test split as it travels in the bundle: what its models take, labels, torch's own answers."""

import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import nn

from compressor.data.randomness import keyed_order
from compressor.data.samples import Split
from compressor.errors import os_error
from compressor.progress import Progress
from compressor.schema.bundle import EvalSet
from compressor.tasks.base import Stored

__all__ = ["eval_set", "part_of", "write_reference"]

CHUNK = 64


def part_of(split: Split, most: int) -> Split:
    """At most that many samples of a split, drawn without a seed, so that it is always the same ones."""
    if len(split) <= most:
        return split
    return split.part(keyed_order(0, len(split), 0)[:most])


def eval_set(test: Split, root: Path) -> EvalSet:
    """Write eval/labels.npy (int64 [N]), eval/digests.npy (uint64 [N]) and eval/ids.txt (one a line) into the bundle in
    `root`, and describe them."""
    folder = root / "eval"
    try:
        np.save(folder / "labels.npy", test.labels.astype(np.int64), allow_pickle=False)
        np.save(folder / "digests.npy", test.contents.astype("<u8"), allow_pickle=False)
        (folder / "ids.txt").write_text("".join(f"{sample}\n" for sample in test.ids), encoding="utf-8")
    except OSError as error:
        raise os_error(error, "writing the bundle's labels") from error
    contents = hashlib.sha256(test.contents.astype("<u8").tobytes()).hexdigest()
    named = {"labels": "eval/labels.npy", "ids": "eval/ids.txt", "digests": "eval/digests.npy"}
    return EvalSet(split="test", n=len(test), contents=contents, **named)


@torch.no_grad()
def write_reference(network: nn.Module, inputs: Stored, path: Path, progress: Progress) -> None:
    """torch's logits, float32 [N, classes], for these inputs: what every runtime must reproduce."""
    starts = range(0, len(inputs), CHUNK)
    logits = []
    for start in progress.track(starts, len(starts), f"torch's answers ({path.stem})"):
        batch = inputs.fed(np.arange(start, min(start + CHUNK, len(inputs))))
        logits.append(network.eval()(*map(torch.from_numpy, batch.values())).numpy())
    try:
        np.save(path, np.concatenate(logits).astype(np.float32), allow_pickle=False)
    except OSError as error:
        raise os_error(error, f"writing {path.name}") from error
