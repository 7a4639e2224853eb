"""The state dict in a checkpoint: which of several, under which names, as timm's own loader chooses.

timm.models.load_state_dict takes the first of "state_dict_ema", "model_ema", "state_dict" and "model". Where a
checkpoint holds other weights beside these, it would silently pass over averaged ones: there the user is asked.
"""

from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from compressor.errors import KdcError
from compressor.files.reading import JSON_BYTES, json_value, read_text
from compressor.models.checkpoints.files import load_content, plain, stored_in_half
from compressor.models.checkpoints.search import Candidate, parts_of, unloadable, weights_in

__all__ = ["Checkpoint", "read_checkpoint", "read_tensors", "split_key"]

TIMM = ("state_dict_ema", "model_ema", "state_dict", "model")
"""timm's own order."""


@dataclass(frozen=True)
class Checkpoint:
    """`state`: names -> tensors, as they were stored. `notes`: lines for people: which weights were taken of several,
    and how they were stored. `architecture`: of which network it says that they are, as timm's train.py does, or the
    student.json beside a run's weights."""

    state: dict[str, Tensor]
    notes: tuple[str, ...] = ()
    architecture: str | None = None


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
    stated = _stated(content, path)
    names = {name for name in names if not name.endswith("num_batches_tracked")}
    if key is not None:
        content = _under(content, key, path)
    candidates = weights_in(content, names)
    chosen = (
        _chosen(candidates, unloadable(content, candidates), path, key) if candidates else _by_timms_rule(content, path)
    )
    state = {name: plain(name, tensor, f"checkpoint {path}") for name, tensor in chosen.tensors.items()}
    notes = []
    if chosen.spelt:
        alternatives = sorted({candidate.spelt for candidate in candidates} - {chosen.spelt})
        suffix = f"; it also holds {', '.join(alternatives)}" if alternatives else ""
        notes.append(f"{path.name}: the weights under {chosen.spelt} are taken{suffix}")
    stored = stored_in_half({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})
    notes += [f"{path.name}: {stored}"] if stored else []
    return Checkpoint(state, tuple(notes), stated if isinstance(stated, str) else None)


def _stated(content: Any, path: Path) -> Any:
    """Of which network the weights in `path` are said to be."""
    if isinstance(content, Mapping) and "arch" in content:
        return content["arch"]
    beside = path.with_name("student.json")
    if path.name != "student.safetensors" or not beside.is_file():
        return None
    with suppress(KdcError, LookupError, TypeError):  # whoever loads the run tells of a damaged one
        return json_value(read_text(beside, most=JSON_BYTES), str(beside))["architecture"]
    return None


def _is_state(content: Any) -> bool:
    return (
        isinstance(content, Mapping)
        and len(content) > 0
        and all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())
    )


def _no_state(path: Path) -> KdcError:
    return KdcError(f"checkpoint {path} is no state dict (names -> tensors)")


def _by_timms_rule(content: Any, path: Path) -> Candidate:
    """Where no names fit the network: what would be taken, for whoever says what does not fit."""
    if isinstance(content, Mapping):
        for key in TIMM:
            if _is_state(content.get(key)):
                return Candidate(key, "", content[key], 0)
    if not _is_state(content):
        raise _no_state(path)
    return Candidate("", "", content, 0)


def _chosen(candidates: Sequence[Candidate], beside: Sequence[str], path: Path, key: str | None) -> Candidate:
    if len(candidates) == 1 and not beside:
        if candidates[0].is_wrapped:
            return candidates[0]
        suffix = f", and {candidates[0].left_over} others" if candidates[0].left_over else ""
        raise KdcError(
            f"checkpoint {path} holds weights whose names begin with {candidates[0].prefix}{suffix}",
            f"if {'the first' if suffix else 'they'} are meant: {_spelt(path, key, candidates[0])}",
        )
    by_timm = sorted(
        (candidate for candidate in candidates if candidate.key in TIMM and candidate.is_wrapped),
        key=lambda candidate: TIMM.index(candidate.key),
    )
    if not beside and len(by_timm) == len(candidates) == len({candidate.key for candidate in candidates}):
        return by_timm[0]
    if not beside and all(_same(candidates[0], candidate) for candidate in candidates[1:]):
        return candidates[0]
    spelt = ", ".join(candidate.spelt or "its own names" for candidate in candidates)
    partly = f", and averages without names, or of some layers alone, under {', '.join(beside)}"
    listed = f"{partly}, which cannot be loaded" if beside else ""
    several = "several weights that could be meant" if len(candidates) > 1 else "more weights than one"
    raise KdcError(
        f"checkpoint {path} holds {several}: {spelt}{listed}",
        f"say which, for example {_spelt(path, key, candidates[-1])}",
    )


def _spelt(path: Path, key: str | None, candidate: Candidate) -> str:
    return f"{path}#{'.'.join(part for part in (key, candidate.spelt) if part)}"


def _same(first: Candidate, second: Candidate) -> bool:
    return first.tensors.keys() == second.tensors.keys() and all(
        value.shape == second.tensors[name].shape and torch.equal(value, second.tensors[name])
        for name, value in first.tensors.items()
    )


def _under(content: Any, key: str, path: Path) -> Any:
    """What lies in `content` under a key such as "ema.module"; of a state dict, the names that begin with it; under ""
    its tensors that have no key."""
    parts = parts_of(content)
    if not parts:
        raise _no_state(path)
    if not key:
        return {name: value for name, value in parts.items() if isinstance(value, Tensor)}
    if parts_of(parts.get(key)):
        return parts[key]
    for name, value in parts.items():
        if key.startswith(f"{name}.") and parts_of(value):
            return _under(value, key.removeprefix(f"{name}."), path)
    under = {name.removeprefix(f"{key}."): value for name, value in parts.items() if name.startswith(f"{key}.")}
    if under:
        return under
    holding = [name for name, value in parts.items() if parts_of(value)]
    there = f"; there are {', '.join(holding[:8])}" if holding else ""
    raise KdcError(f"checkpoint {path} has no weights under {key}{there}")
