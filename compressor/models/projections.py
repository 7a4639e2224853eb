"""Queries, keys and values of a transformer's blocks, as their linear layers give them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import KdcError

__all__ = ["projections_in", "projections_of"]

NAMES = (
    ("query", "key", "value"),
    ("query_proj", "key_proj", "value_proj"),
    ("q_lin", "k_lin", "v_lin"),
    ("q_proj", "k_proj", "v_proj"),
    ("q", "k", "v"),
)
"""What the three layers of a block are called in transformers."""


def projections_in(network: nn.Module) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The paths of the modules that have such layers, and what these are called there."""
    for path, block in network.named_modules():
        for names in NAMES:
            if all(isinstance(getattr(block, name, None), nn.Linear) for name in names):
                yield path, names


@contextmanager
def projections_of(network: nn.Module, tensors: list[Tensor]) -> Iterator[None]:
    """Inside, a forward pass adds the queries, keys and values of each block to `tensors`, [B, 3, N, D], before they
    are split into heads. Raises KdcError at the end where there are none."""
    handles = []
    try:
        for path, names in projections_in(network):
            block = network.get_submodule(path)
            seen: dict[str, Tensor] = {}
            for name in names:
                layer = getattr(block, name)
                handles.append(layer.register_forward_hook(partial(_keep, names, name, seen, tensors)))
        yield
    finally:
        for handle in handles:
            handle.remove()
    if not tensors:
        raise KdcError(f"{type(network).__name__} shows no queries, keys and values", "choose a loss on stages")


def _keep(names: Sequence[str], name: str, seen: dict[str, Tensor], tensors: list[Tensor], *called: Any) -> None:
    """Of a block: the output of one of its layers; all three, once they are there."""
    seen[name] = called[-1]
    if len(seen) < len(names):
        return
    sides = [seen.pop(one_name) for one_name in names]
    if len({side.shape for side in sides}) > 1:
        raise KdcError(
            f"a block's queries are {sides[0].shape[-1]} wide and its keys {sides[1].shape[-1]}: relations want one "
            "width", "choose a loss on stages",
        )  # fmt: skip
    tensors.append(torch.stack(sides, 1))
