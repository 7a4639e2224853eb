"""Multiply-accumulates of a forward pass."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["count_macs"]


def count_macs(network: nn.Module, input_size: tuple[int, int]) -> int:
    """MACs of one image: convolutions, matrix products and attention, half of the FLOPs that torch's counter sees."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(torch.zeros(1, 3, *input_size))
    return int(counter.get_total_flops()) // 2
