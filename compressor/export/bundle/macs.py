"""Multiply-accumulates of a forward pass."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from compressor.schema.tensors import TensorSpec
from compressor.tasks.base import example_inputs

__all__ = ["count_macs"]


def count_macs(network: nn.Module, inputs: Sequence[TensorSpec]) -> int:
    """MACs of one sample: convolutions, matrix products and attention, half of the FLOPs that torch's counter sees."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.eval()(*example_inputs(inputs))
    return int(counter.get_total_flops()) // 2
