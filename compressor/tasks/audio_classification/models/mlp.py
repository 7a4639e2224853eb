"""`mlp:WIDTHxDEPTH`: a fully connected network on all log-mel features of a sample at once.

The acoustic model of Hinton, Vinyals & Dean 2015 (arXiv 1503.02531, sec. 3): layers of rectified linear units on a
window of frames, and one output a class; here each layer with batch normalization (Ioffe & Szegedy 2015, arXiv
1502.03167) before its units, and dropout after them.
"""

import re

from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.schema.preprocess import AudioPreprocess

__all__ = ["FAMILY", "Mlp", "asked_size", "create"]

FAMILY = "mlp"
DROPOUT = 0.2
HINT = "for example mlp:384x3: three layers of 384 units"


class Mlp(nn.Module):
    """log-mel [B, 1, mels, frames] -> logits [B, classes]."""

    def __init__(self, values: int, width: int, depth: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(depth):
            layers += [nn.Linear(values if number == 0 else width, width), nn.BatchNorm1d(width), nn.ReLU()]
            layers.append(nn.Dropout(DROPOUT))
        self.layers = nn.Sequential(*layers)
        self.classifier = nn.Linear(width, classes)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.layers(features.flatten(1)))
        return logits


def asked_size(reference: str) -> tuple[int, int]:
    """WIDTH and DEPTH of `mlp:WIDTHxDEPTH`; raises KdcError where it is none."""
    match = re.fullmatch(r"mlp:([1-9]\d{0,4})x([1-9]\d?)", reference)
    if match is None:
        raise KdcError(f"{reference!r} is not mlp:WIDTHxDEPTH", HINT)
    return int(match[1]), int(match[2])


def create(reference: str, preprocess: AudioPreprocess, classes: int) -> Mlp:
    """Its weights are drawn from torch's generator."""
    width, depth = asked_size(reference)
    if preprocess.features != "log-mel":
        raise KdcError(f"{reference} takes log-mel features, and not a waveform")
    return Mlp(preprocess.inputs[0].values, width, depth, classes)
