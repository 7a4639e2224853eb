"""The state of a training on disk, so that a resumed run equals one that never stopped."""

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from compressor.errors import KdcError
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


def save_state(path: Path, position: Position, modules: dict[str, nn.Module], optimizer: Optimizer) -> None:
    """Write everything that the next step depends on to `path`: all of it, or nothing."""
    state = {
        "position": {key: value for key, value in asdict(position).items() if key != "kept"},
        "kept": position.kept,
        "modules": {name: module.state_dict() for name, module in modules.items()},
        "optimizer": optimizer.state_dict(),
        "rng": torch.get_rng_state(),
        "cuda_rng": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }
    with write_atomically(path) as temporary:
        _save(state, temporary)


def _save(state: dict[str, Any], path: Path) -> None:
    try:
        torch.save(state, path)
    except RuntimeError as error:  # torch's zip writer hides a full disk behind a message of its own
        raise OSError(28, "No space left on device") from error


def load_state(path: Path, modules: dict[str, nn.Module], optimizer: Optimizer) -> Position:
    """Put back what `save_state` wrote; raises KdcError for a damaged file."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        for name, module in modules.items():
            module.load_state_dict(state["modules"][name])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"]:
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        return Position(**state["position"], kept=state["kept"])
    except Exception as error:
        raise KdcError(f"{path} is damaged: {str(error).splitlines()[0]}", "start again with --overwrite") from None
