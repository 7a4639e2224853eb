"""Where in a checkpoint a network's weights lie: under which keys, behind which prefixes, or without their names."""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

__all__ = ["Candidate", "parts_of", "unloadable", "weights_in"]

WRAPPERS = ("module", "model", "network", "net")
"""What DataParallel and Lightning modules put before every name."""

WITHIN = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch puts into names wherever it wraps a part: torch.compile, FSDP, activation checkpointing."""

COUNTS = frozenset({"n_averaged"})
"""What torch's AveragedModel keeps beside the weights."""

DEPTH = 8

LEAST = 8
"""Tensors of a network's shapes that make one think of it: what an optimizer keeps of one parameter is fewer."""


@dataclass(frozen=True)
class Candidate:
    """Weights that could be meant: those under `key` whose names begin with `prefix`. `left_over`: how many do not."""

    key: str
    prefix: str
    tensors: Mapping[str, Tensor]
    left_over: int

    @property
    def spelt(self) -> str:
        return ".".join(part for part in (self.key, self.prefix.rstrip(".")) if part)

    @property
    def is_wrapped(self) -> bool:
        """Whether the prefix is that of a wrapper, around everything."""
        return not self.prefix or (not self.left_over and set(self.prefix.split(".")[:-1]) <= set(WRAPPERS))


def parts_of(content: Any) -> dict[str, Any]:
    """What a mapping holds by name, and a list by number; nothing of anything else."""
    if isinstance(content, Mapping):
        return {str(name): value for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return {str(number): value for number, value in enumerate(content)}
    return {}


def weights_in(content: Any, names: Collection[str]) -> list[Candidate]:
    """All that holds at least half of the network's `names`, behind whatever prefix."""
    candidates = []
    for key, tensors in _tensors_in(content):
        for prefix in _prefixes(tensors, names):
            under = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
            left_over = sum(not name.startswith(prefix) and name not in COUNTS for name in tensors)
            candidates.append(Candidate(key, prefix, under, left_over))
    return candidates


def unloadable(content: Any, candidates: Sequence[Candidate]) -> list[str]:
    """Where else in `content` lie weights that could be meant, and cannot be loaded: averages that were kept without
    their names, or of some layers alone. They have the shapes of the `candidates`."""
    network, keys = candidates[0].tensors, {candidate.key for candidate in candidates}
    return [key for key, tensors in _tensors_in(content) if key not in keys and _resembles(tensors, network)]


def _resembles(tensors: Mapping[str, Tensor], network: Mapping[str, Tensor]) -> bool:
    shapes, network_shapes = (
        Counter(tuple(value.shape) for value in state.values() if value.ndim and value.is_floating_point())
        for state in (tensors, network)
    )
    alike = (shapes & network_shapes).total()
    if alike >= max(LEAST, len(network) / 8) and 2 * alike >= shapes.total():  # an optimizer's groups are a list each
        return True
    named = (
        value.shape == network[end].shape and value.ndim > 0
        for name, value in tensors.items()
        for end in _ends(name)
        if end in network
    )
    return sum(named) > 1


def _ends(name: str) -> Iterator[str]:
    """The name, and what is left of it behind each of its points."""
    parts = name.split(".")
    return (".".join(parts[start:]) for start in range(min(len(parts), 8)))


def _tensors_in(content: Any) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Everything in `content` that holds tensors, with its key."""
    for key, parts in _collections(content, "", DEPTH, set()):
        tensors = {name: value for name, value in parts.items() if isinstance(value, Tensor)}
        plain = {".".join(part for part in name.split(".") if part not in WITHIN): name for name in tensors}
        if len(plain) == len(tensors):
            tensors = {short: tensors[name] for short, name in plain.items()}
        if tensors:
            yield key, tensors


def _collections(content: Any, key: str, depth: int, seen: set[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    """`content` and all mappings and lists in it. What holds others is looked into once: a pickle may hold one thing
    many times, even itself."""
    parts = parts_of(content)
    inside = {name: value for name, value in parts.items() if isinstance(value, (Mapping, list, tuple))}
    if inside and id(content) in seen:
        return
    seen.add(id(content))
    yield key, parts
    if depth > 0:
        for name, value in inside.items():
            yield from _collections(value, f"{key}.{name}" if key else name, depth - 1, seen)


def _prefixes(tensors: Mapping[str, Tensor], names: Collection[str]) -> list[str]:
    counts: Counter[str] = Counter()
    for name in tensors:
        for end in _ends(name):
            if end in names:
                counts[name[: len(name) - len(end)]] += 1
    return sorted(prefix for prefix, count in counts.items() if 2 * count >= len(names))
