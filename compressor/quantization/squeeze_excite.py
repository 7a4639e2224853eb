"""Which layers compute the gates of squeeze-excite: one rule for networks in torch and for ONNX graphs.

Hu et al. 2018 (arXiv 1709.01507), equations 2 to 4: each channel's mean goes through small layers, and what they answer
is multiplied with the map. Such layers stay in float: they cost next to no time, and an error in a gate scales a whole
channel.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Literal

__all__ = ["Operation", "gates"]


@dataclass(frozen=True)
class Operation:
    """One operation of a network, `inputs` -> `outputs` (any names of values). `kind`: whether it pools a map to one
    value a channel, or multiplies. What is no other operation's output is a constant, but for the network's input."""

    name: str
    kind: Literal["pool", "product", "other"]
    inputs: tuple[Hashable, ...]
    outputs: tuple[Hashable, ...]


def gates(operations: Iterable[Operation], network_inputs: Iterable[Hashable]) -> set[str]:
    """Names of the operations that a pooled value goes through before it is multiplied with one that is not pooled;
    the pool is the first of them. `operations`: in the order in which they run."""
    maps = set(network_inputs)  # values that are neither constants nor pooled
    through: dict[Hashable, frozenset[str]] = {}  # pooled value -> the operations that it came through
    names: set[str] = set()
    for operation in operations:
        pooled = [value for value in operation.inputs if value in through]
        taken_maps = maps.intersection(operation.inputs)
        if operation.kind == "product" and taken_maps:
            names.update(*(through[value] for value in pooled))
        if (pooled and not taken_maps) or (taken_maps and operation.kind == "pool"):
            came = frozenset[str]().union(*(through[value] for value in pooled))
            through |= dict.fromkeys(operation.outputs, came | {operation.name})
        elif taken_maps:
            maps.update(operation.outputs)
    return names
