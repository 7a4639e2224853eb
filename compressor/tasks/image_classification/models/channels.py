"""RUN/channels.json: what a run keeps of a network whose channels were pruned, so that it can be built again."""

from pathlib import Path

from torch import nn

from compressor.errors import KdcError
from compressor.schema.base import read_json, write_json
from compressor.schema.channels import Channels
from compressor.schema.student import trained_anew
from compressor.tasks.image_classification.models.narrowing import Shapes
from compressor.tasks.image_classification.models.surgery import width_of

__all__ = ["read_channels", "save_channels"]

FILE = "channels.json"


def save_channels(network: nn.Module, folder: Path) -> None:
    """Write it to `folder`, if channels of `network` were pruned."""
    cfg = getattr(network, "pretrained_cfg", None) or {}
    if "channels" in cfg:
        write_json(folder / FILE, Channels(architecture=cfg["architecture"], shapes=cfg["channels"]))


def read_channels(architecture: str, folder: Path) -> Shapes | None:
    """The shapes in `folder`; None where the name `architecture` says that no channels were pruned. Raises KdcError."""
    if width_of(architecture) is None:
        return None
    path = folder / FILE
    kept = read_json(path, Channels)
    if kept.architecture != architecture:
        raise KdcError(f"{path} is of {kept.architecture}, and the run of {architecture}", trained_anew(path))
    return kept.shapes
