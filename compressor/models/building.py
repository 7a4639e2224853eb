"""Networks that somebody else's configuration describes: built within bounds, and refused in one line.

A config.json may ask for a million layers or a billion channels. What it may need is bounded by the weights that lie
beside it, and is seen before it is allocated.
"""

import math
import re
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from compressor.errors import KdcError, first_line
from compressor.files.reading import json_value, open_regular, read_bytes

__all__ = ["config_in", "described_by", "require_files", "require_size", "said", "weights_file"]

CONFIG_BYTES = 16_000_000
LARGEST_SIDE = 8192
LARGEST_NUMBER = 1_000_000
MOST_CALLS = 200_000
"""Of torch's functions, while a network is built: the largest that timm knows need a tenth of it."""
SPARE = 2**28
"""Numbers (1 GB) that a network may have beside three times its weights: what is computed while it is built."""
UNKNOWN = 2**34
"""The most that a network may have whose weights were not counted: more than any that timm knows."""
MOST_LAYERS = 1000
DEEP = re.compile(r"depth|layers?$|blocks?$")
DESCRIBES = frozenset(
    f"{name}config.json" for name in ("", "preprocessor_", "processor_", "image_processor_", "generation_", "adapter_")
)
"""Files whose numbers are sizes. Others lie beside them, as what a model was trained on."""
WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
FACTORIES = ("empty", "zeros", "ones", "full", "rand", "randn", "empty_strided", "repeat")
NO_SIZE = re.compile(r"param|theta|seed|flop|mac|bytes|version|date|_id$|^id$|scale|license|index|pixel")


def require_size(input_size: int | None) -> None:
    """Raise KdcError for an input size, in pixels, that no network is given."""
    if input_size is not None and not 1 <= input_size <= LARGEST_SIDE:
        raise KdcError(f"input size {input_size} is outside 1 to {LARGEST_SIDE} pixels", "for example --input-size 224")


def require_files(folder: Path) -> None:
    """Raise KdcError where a model's folder holds what a library could not read to its end: a pipe or a device under
    the name of a configuration or of weights, or JSON without bounds."""
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".safetensors", ".bin") or path.name == "README.md":
            open_regular(path).close()
        if path.name in DESCRIBES:
            config_in(path)
        elif path.suffix == ".json" and not path.name.startswith(("vocab", "tokenizer")):
            json_value(read_bytes(path, most=CONFIG_BYTES), str(path))


def weights_file(folder: Path, source: str) -> Path:
    """Where the weights of a timm folder lie; raises KdcError that names `source`."""
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).exists()), None)
    if file is None:
        raise KdcError(f"{source}: {folder / WEIGHT_FILES[0]} does not exist", "weights must be safetensors")
    return file


def config_in(path: Path) -> Any:
    """What a model's JSON file says; raises KdcError for JSON without bounds and for numbers that no network has."""
    values = json_value(read_bytes(path, most=CONFIG_BYTES), str(path))
    for key, number in _numbers(values, ""):
        if number > MOST_LAYERS and DEEP.search(key.lower()):
            raise KdcError(f"{path}: {key} is {number}, and kdc builds networks of up to {MOST_LAYERS} layers")
        if abs(number) > LARGEST_NUMBER and not NO_SIZE.search(key.lower()):
            raise KdcError(f"{path}: {key} is {number}, and kdc builds networks of sizes up to {LARGEST_NUMBER}")
    return values


def _numbers(values: Any, key: str) -> Iterator[tuple[str, int]]:
    """The whole numbers in a configuration, each with its key; its depth is bounded already."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _numbers(value, str(name))
    elif isinstance(values, list):
        for value in values:
            yield from _numbers(value, key)
    elif isinstance(values, int) and not isinstance(values, bool):
        yield key, values


@contextmanager
def described_by(source: str, weights: int | None, hint: str = "") -> Iterator[None]:
    """Build a network from the configuration of `source`, whose weights are so many numbers (None: unknown). Whatever
    goes wrong inside becomes a KdcError that names `source`."""
    most = 3 * weights + SPARE if weights is not None else UNKNOWN
    try:
        with _Bounded(most):
            yield
    except KdcError:
        raise
    except _TooLargeError:
        raise KdcError(
            f"{source} cannot be loaded: its configuration describes a network far larger than its weights", hint
        ) from None
    except Exception as error:  # configurations break libraries wherever they are first used
        if "trust_remote_code" in str(error):
            raise KdcError(
                f"{source} needs code that lies beside its weights (auto_map), and kdc runs none",
                "take a model that its library knows, or export its answers yourself: --teacher outputs:FILE",
            ) from None
        raise KdcError(f"{source} cannot be loaded: {said(error)}", hint) from None


def said(error: Exception) -> str:
    """An error in one line that makes sense alone: some say nothing but the key that was missing, others only in their
    second line what it is."""
    kind, lines = type(error).__name__, str(error).strip().splitlines()
    if len(lines) > 1 and lines[0].endswith(":"):
        return f"{lines[0]} {lines[1].strip()}"[:300]
    return first_line(error)[:300] if len(str(error)) > 25 or kind in str(error) else f"{kind}: {first_line(error)}"


class _TooLargeError(Exception):
    pass


class _Bounded(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Raises _TooLargeError before a tensor is made that is larger than all may be together."""

    def __init__(self, most: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._left, self._most, self._calls = most, most, 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        self._calls += 1
        made = _numbers_made(str(func.overloadpacket).rpartition(".")[2], args)
        if made is not None:
            self._left -= made
        if self._calls > MOST_CALLS or self._left < 0 or (made is None and _numbers_out(args) > self._most):
            raise _TooLargeError
        return func(*args, **(kwargs or {}))


def _numbers_made(name: str, args: tuple[Any, ...]) -> int | None:
    """How many numbers a function that makes a tensor of its own makes; None for any other."""
    numbers = [arg for arg in args if isinstance(arg, (int, float)) and not isinstance(arg, bool)]
    if name == "arange" and numbers:
        start, end, step = (0, numbers[0], 1) if len(numbers) == 1 else (*numbers[:2], *(numbers[2:] or [1]))[:3]
        return math.ceil(abs((end - start) / (step or 1)))
    if name == "linspace" and len(numbers) == 3:
        return int(numbers[2])
    if name in FACTORIES or name.startswith("new_"):
        sizes = next((arg for arg in args if isinstance(arg, (list, tuple, torch.Size))), ())
        repeated = args[0].numel() if name == "repeat" and isinstance(args[0], Tensor) else 1
        return repeated * math.prod(int(size) for size in sizes)
    return None


def _numbers_out(args: tuple[Any, ...]) -> int:
    """How many numbers come out where tensors are combined, at most: of one shape for all, or one beside the other."""
    shapes = [arg.shape for arg in args if isinstance(arg, Tensor)]
    lists = (arg for arg in args if isinstance(arg, (list, tuple)))
    beside = sum(tensor.numel() for tensor in chain.from_iterable(lists) if isinstance(tensor, Tensor))
    try:
        shape: torch.Size = torch.broadcast_shapes(*shapes)  # type: ignore[no-untyped-call]
        together = math.prod(shape) if len(shapes) > 1 else 0
    except RuntimeError:
        together = 0
    return max(together, beside)
