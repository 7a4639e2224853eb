"""A network on images that were prepared for another one."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from compressor.schema.preprocess import ImagePreprocess

__all__ = ["Renormalised", "adapted"]


class Renormalised(nn.Module):
    """`network`, which wants images as `expected` says, on images as `given` says: normalised anew, and resized where
    its input size is another."""

    def __init__(self, network: nn.Module, expected: ImagePreprocess, given: ImagePreprocess) -> None:
        super().__init__()
        self.network = network
        self._size = None if expected.input_size == given.input_size else expected.input_size
        self.scale: Tensor
        self.shift: Tensor
        std, given_std = torch.tensor(expected.std), torch.tensor(given.std)
        mean, given_mean = torch.tensor(expected.mean), torch.tensor(given.mean)
        self.register_buffer("scale", (given_std / std).reshape(3, 1, 1), persistent=False)
        self.register_buffer("shift", ((given_mean - mean) / std).reshape(3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        renormalised = images * self.scale + self.shift
        if self._size is not None:
            renormalised = F.interpolate(renormalised, self._size, mode="bilinear", antialias=True, align_corners=False)
        logits: Tensor = self.network(renormalised)
        return logits


def adapted(network: nn.Module, expected: ImagePreprocess, given: ImagePreprocess) -> tuple[nn.Module, str]:
    """`network` for images prepared as `given` says, and a word on it where it sees another part or size of them."""
    if expected == given:
        return network, ""
    note = ""
    if _geometry(expected) != _geometry(given):
        note = f"({given.input_size[0]} px), brought to its own {expected.input_size[0]} px, not cut its own way"
    return Renormalised(network, expected, given), note


def _geometry(preprocess: ImagePreprocess) -> ImagePreprocess:
    return preprocess.model_copy(update={"mean": (0.0,) * 3, "std": (1.0,) * 3})
