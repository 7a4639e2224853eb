"""Multiply-accumulates of a forward pass."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from compressor.schema.tensors import EXAMPLE_LENGTH, TensorSpec
from compressor.tasks.base import example_inputs

__all__ = ["count_macs"]


def count_macs(network: nn.Module, inputs: Sequence[TensorSpec], length: int | None = None) -> int:
    """MACs of one sample, of `length` where that varies: convolutions, matrix products and attention, half of the FLOPs
    that torch's counter sees."""
    # Attention as plain matrix products: the counter does not know the fused kernel of CPUs.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        network.eval()(*example_inputs(inputs, length=length or EXAMPLE_LENGTH))
    return int(counter.get_total_flops()) // 2
