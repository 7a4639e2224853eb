"""Networks in evaluation mode: for a while, or for good."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

__all__ = ["evaluating", "freeze"]

N = TypeVar("N", bound=nn.Module)


def freeze(network: N) -> N:
    """`network` in evaluation mode and without gradients: batch statistics stand still, and nothing trains it."""
    return network.eval().requires_grad_(False)


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """Inside, `network` is in evaluation mode and without gradients; then every module of it has its own mode back.

    `network.train(before)` would not do: it sets the mode of the outermost module to all, and a frozen network within a
    wrapper would train.
    """
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode
