"""What trackers (TensorBoard and others) are told of a training."""

from typing import Any

from accelerate import Accelerator

__all__ = ["track_epoch"]


def track_epoch(accelerator: Accelerator, row: dict[str, Any], **more: float) -> None:
    """Tell them an epoch. `row`: as history.jsonl has it."""
    losses = {f"loss/{name}": value for name, value in row["loss"].items()}
    scores = {f"validation/{name}": row["validation"][name] for name in row["validation"] if name != "n"}
    accelerator.log({**losses, **scores, "seconds": row["seconds"], **more}, step=row["epoch"])
