"""The state of a training on disk, so that a resumed run equals one that never stopped.

No random state is in it: what a step draws is a function of the seed, the step and the process (`engine._seed_step`).
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.errors import KdcError, first_line
from compressor.files.atomic import write_atomically
from compressor.progress import Progress

__all__ = ["Position", "is_saved", "load_state", "save_state"]

STATE, BEFORE = "state.pt", "before.pt"


@dataclass
class Position:
    """Where a training stands. `step` steps of `epoch` are done; `sums` are their losses, summed; `history` has a row a
    finished epoch; `kept` are the weights to keep so far (None: the last ones), and `kept_score` what chose them."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    kept_epoch: int = 0
    kept_score: float = -1.0
    kept: dict[str, Tensor] | None = None


def is_saved(folder: Path) -> bool:
    """Whether there is a state to go on from."""
    return any((folder / name).exists() for name in (STATE, BEFORE))


def save_state(
    folder: Path, position: Position, modules: Mapping[str, nn.Module], optimizer: Optimizer, inputs: Mapping[str, str]
) -> None:
    """Write everything that the next step depends on to `folder`: all of it, or nothing. The state before stays beside
    it. `inputs`: what the training learns from, each with a fingerprint."""
    state = {
        "inputs": dict(inputs),
        "position": dict(vars(position)),
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizer": optimizer.state_dict(),
    }
    path = folder / STATE
    with write_atomically(path) as temporary:
        with temporary.open("wb") as file:
            _save(state, file)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            path.replace(folder / BEFORE)


class _Telling:
    """A file that remembers why a write failed: torch hides a full disk behind a message about its zip archive."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self._file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()


def _save(state: dict[str, Any], file: BinaryIO) -> None:
    telling = _Telling(file)
    try:
        torch.save(state, cast(BinaryIO, telling))
    except RuntimeError:
        if telling.error is not None:
            raise telling.error from None
        raise


def load_state(
    folder: Path,
    modules: Mapping[str, nn.Module],
    optimizer: Optimizer,
    inputs: Mapping[str, str],
    progress: Progress,
) -> Position | None:
    """Put back what `save_state` wrote last, or the state before where the last one is damaged; None where there is
    none. Raises KdcError where all are damaged, or where the inputs are others now."""
    errors = []
    for path in (folder / STATE, folder / BEFORE):
        if not path.exists():
            continue
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            changed = [name for name in inputs if state["inputs"].get(name) != inputs[name]]
            if not changed:
                for name, module in modules.items():
                    module.load_state_dict(state["modules"][name])
                optimizer.load_state_dict(state["optimizer"])
                position = Position(**state["position"])
        except Exception as error:
            errors.append(f"{path} is damaged: {first_line(error)}")
            continue
        if changed:
            raise KdcError(
                f"--resume: since the run was interrupted, {' and '.join(changed)} changed",
                "put it back as it was, or start again with --overwrite",
            )
        for message in errors:
            progress.warn(f"{message}; going on from the state before")
        return position
    if errors:
        raise KdcError(errors[0], "start again with --overwrite")
    return None
