"""The state of a training on disk, so that a resumed run equals one that never stopped."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.errors import KdcError, first_line
from compressor.spec.base import write_atomically

__all__ = ["Position", "load_state", "save_state"]


@dataclass
class Position:
    """Where a training stands. `step` batches of `epoch` are done; `sums` are their losses, summed; `history` has a row
    a finished epoch; `kept` are the weights to keep so far (None: the last ones)."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    kept_epoch: int = 0
    kept_accuracy: float = -1.0
    kept: dict[str, Tensor] | None = None


def save_state(
    path: Path, position: Position, modules: Mapping[str, nn.Module], optimizer: Optimizer, inputs: Mapping[str, str]
) -> None:
    """Write everything that the next step depends on to `path`: all of it, or nothing. `inputs`: what the training
    learns from, each with a fingerprint."""
    state = {
        "inputs": dict(inputs),
        "position": dict(vars(position)),
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    # Through a file of our own: given a path, torch hides a full disk behind a message about its zip archive.
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        torch.save(state, file)


def load_state(
    path: Path, modules: Mapping[str, nn.Module], optimizer: Optimizer, inputs: Mapping[str, str]
) -> Position:
    """Put back what `save_state` wrote; raises KdcError for a damaged file, or where the inputs are others now."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        changed = [name for name in inputs if state["inputs"].get(name) != inputs[name]]
        if not changed:
            for name, module in modules.items():
                module.load_state_dict(state["modules"][name])
            optimizer.load_state_dict(state["optimizer"])
            torch.set_rng_state(state["rng"])
            if state["cuda_rng"]:
                torch.cuda.set_rng_state_all(state["cuda_rng"])
            return Position(**state["position"])
    except Exception as error:
        raise KdcError(f"{path} is damaged: {first_line(error)}", "start again with --overwrite") from None
    raise KdcError(
        f"--resume: since the run was interrupted, {' and '.join(changed)} changed",
        "put it back as it was, or start again with --overwrite",
    )
