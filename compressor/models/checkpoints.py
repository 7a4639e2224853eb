"""The state dict in a checkpoint: which of several, under which names, as timm's own loader chooses.

timm.models.load_state_dict takes the first of "state_dict_ema", "model_ema", "state_dict" and "model". Where a
checkpoint holds other weights beside these, it would silently pass over averaged ones: there the user is asked.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.errors import KdcError
from compressor.models.checkpoint_files import load_content, plain, stored_in_half

__all__ = ["Checkpoint", "read_checkpoint", "read_tensors", "split_key"]

TIMM = ("state_dict_ema", "model_ema", "state_dict", "model")
"""timm's own order."""

WRAPPERS = ("module", "_orig_mod", "model", "network", "net")
"""What DataParallel, torch.compile and Lightning modules put before every name."""

DEPTH = 3


@dataclass(frozen=True)
class Checkpoint:
    """`state`: names -> tensors, as they were stored. `notes`: lines for people: which weights were taken of several,
    and how they were stored."""

    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Found:
    """Weights that could be meant: those under `key` whose names begin with `prefix`. `others`: names that do not."""

    key: str
    prefix: str
    tensors: Mapping[str, Tensor]
    others: int

    @property
    def spelt(self) -> str:
        return ".".join(part for part in (self.key, self.prefix.rstrip(".")) if part)

    @property
    def is_wrapped(self) -> bool:
        """Whether the prefix is that of a wrapper, around everything."""
        return not self.prefix or (not self.others and set(self.prefix.split(".")[:-1]) <= set(WRAPPERS))


def split_key(spelt: str) -> tuple[Path, str | None]:
    """PATH or PATH#KEY -> the path, and the key."""
    path, mark, key = spelt.rpartition("#")
    if not mark or Path(spelt).exists():
        return Path(spelt), None
    return Path(path), key


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A file that holds a state dict and nothing else; raises KdcError."""
    content = load_content(path)
    if not _is_state(content):
        raise _no_state(path)
    return {name: plain(name, tensor, f"checkpoint {path}") for name, tensor in content.items()}


def read_checkpoint(path: Path, names: Collection[str], key: str | None = None) -> Checkpoint:
    """The weights in `path` for a network whose state dict has `names`; the prefixes of wrappers are taken off.

    `key`: which of several to take, as the error for several names them. Raises KdcError for a file that is damaged or
    would run code, and where it is not clear which weights are meant.
    """
    content = load_content(path)
    names = {name for name in names if not name.endswith("num_batches_tracked")}
    if key is not None:
        content = _under(content, key, path)
    found = list(_search(content, names))
    chosen = _chosen(found, list(_nameless(content, len(names))), path, key) if found else _by_timms_rule(content, path)
    state = {name: plain(name, tensor, f"checkpoint {path}") for name, tensor in chosen.tensors.items()}
    notes = []
    if chosen.spelt:
        others = sorted({one.spelt for one in found} - {chosen.spelt})
        beside = f"; it also holds {', '.join(others)}" if others else ""
        notes.append(f"{path.name}: the weights under {chosen.spelt} are taken{beside}")
    stored = stored_in_half({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})
    return Checkpoint(state, tuple(notes) + ((f"{path.name}: {stored}",) if stored else ()))


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _no_state(path: Path) -> KdcError:
    return KdcError(f"checkpoint {path} is no state dict (names -> tensors)")


def _by_timms_rule(content: Any, path: Path) -> _Found:
    """Where no names fit the network: what would be taken, for whoever says what does not fit."""
    if isinstance(content, Mapping):
        for key in TIMM:
            if _is_state(content.get(key)):
                return _Found(key, "", content[key], 0)
    if not _is_state(content):
        raise _no_state(path)
    return _Found("", "", content, 0)


def _search(content: Any, names: set[str], key: str = "", depth: int = DEPTH) -> Iterator[_Found]:
    """All mappings in `content` that hold at least half of the network's names, behind whatever prefix."""
    if not isinstance(content, Mapping):
        return
    tensors = {name: value for name, value in content.items() if isinstance(name, str) and isinstance(value, Tensor)}
    for prefix in _prefixes(tensors, names):
        under = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
        yield _Found(key, prefix, under, len(tensors) - len(under))
    if depth > 0:
        for name, value in content.items():
            yield from _search(value, names, f"{key}.{name}" if key else str(name), depth - 1)


def _prefixes(tensors: Mapping[str, Tensor], names: set[str]) -> list[str]:
    counts: Counter[str] = Counter()
    for name in tensors:
        parts = name.split(".")
        for start in range(min(len(parts), 8)):
            if ".".join(parts[start:]) in names:
                counts["".join(f"{part}." for part in parts[:start])] += 1
    return sorted(prefix for prefix, count in counts.items() if 2 * count >= len(names))


def _nameless(content: Any, wanted: int, key: str = "", depth: int = DEPTH) -> Iterator[str]:
    """Lists of about as many tensors as the network has weights: averages kept without their names."""
    if isinstance(content, Mapping) and depth > 0:
        for name, value in content.items():
            yield from _nameless(value, wanted, f"{key}.{name}" if key else str(name), depth - 1)
    elif (
        isinstance(content, (list, tuple))
        and 0 < wanted <= 3 * len(content)
        and all(isinstance(value, Tensor) for value in content)
    ):
        yield key


def _chosen(found: Sequence[_Found], nameless: Sequence[str], path: Path, key: str | None) -> _Found:
    if len(found) == 1 and not nameless:
        if found[0].is_wrapped:
            return found[0]
        raise KdcError(
            f"checkpoint {path} holds weights whose names begin with {found[0].prefix}, and {found[0].others} others",
            f"if the first are meant: {_spelt(path, key, found[0])}",
        )
    by_timm = sorted((one for one in found if one.key in TIMM and one.is_wrapped), key=lambda one: TIMM.index(one.key))
    if not nameless and len(by_timm) == len(found) == len({one.key for one in found}):
        return by_timm[0]
    if not nameless and all(_same(found[0], one) for one in found[1:]):
        return found[0]
    spelt = ", ".join(one.spelt or "its own names" for one in found)
    listed = f", and averages without names under {', '.join(nameless)}, which cannot be loaded" if nameless else ""
    several = "several weights that could be meant" if len(found) > 1 else "more weights than one"
    raise KdcError(
        f"checkpoint {path} holds {several}: {spelt}{listed}",
        f"say which, for example {_spelt(path, key, found[-1])}",
    )


def _spelt(path: Path, key: str | None, found: _Found) -> str:
    return f"{path}#{'.'.join(part for part in (key, found.spelt) if part)}"


def _same(one: _Found, other: _Found) -> bool:
    return one.tensors.keys() == other.tensors.keys() and all(
        value.shape == other.tensors[name].shape and torch.equal(value, other.tensors[name])
        for name, value in one.tensors.items()
    )


def _under(content: Any, key: str, path: Path) -> Any:
    """What lies in `content` under a key such as "ema.module"; of a state dict, the names that begin with it; under ""
    its tensors that have no key."""
    if isinstance(content, Mapping) and not key:
        return {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if isinstance(content, Mapping):
        if isinstance(content.get(key), Mapping):
            return content[key]
        for name, value in content.items():
            if isinstance(value, Mapping) and key.startswith(f"{name}."):
                return _under(value, key.removeprefix(f"{name}."), path)
        under = {
            name.removeprefix(f"{key}."): value
            for name, value in content.items()
            if isinstance(name, str) and name.startswith(f"{key}.")
        }
        if under:
            return under
        holding = [str(name) for name, value in content.items() if isinstance(value, Mapping)]
        there = f"; there are {', '.join(holding[:8])}" if holding else ""
        raise KdcError(f"checkpoint {path} has no weights under {key}{there}")
    raise _no_state(path)
