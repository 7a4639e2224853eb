"""Samples of several named inputs, as a runner feeds them to a model: tokens and their mask, for example.

Standard library and numpy only; runs on Python 3.9 and later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.runner_requests import RequestError
else:
    from runner_requests import RequestError

Named = "dict[str, np.ndarray[Any, Any]]"
Port = "tuple[str, list[int | str | None], str]"  # of a model: an input's name, shape and type


class Records:
    """[N] records in a .npy file, a field an input: what a model takes. Read as they are asked for.

    Without `mask` as they are. `mask`: the field that is 1 where a token counts, from the first on, and 0 where it
    fills up: then a batch is only as long as its longest sample, as in an application, where the model takes that.
    `length`: every sample is cut, or its tokens are repeated, until it has that many, to time the model on."""

    def __init__(self, path: str, mask: str = "", length: int = 0) -> None:
        self._rows = np.load(path, mmap_mode="r", allow_pickle=False)
        if self._rows.ndim != 1 or not len(self._rows):
            raise RequestError("failed", f"{path}: expected records [N], found {self._rows.shape}")
        self.n = len(self._rows)
        self._mask, self._length = mask, length
        if mask and mask not in (self._rows.dtype.names or ()):
            raise RequestError("failed", f"{path}: there is no field {mask}")
        if length and not mask:
            raise RequestError("bad-request", "length needs mask, which says how long a sample is")
        self._tokens = self._rows[mask].sum(axis=1) if mask else np.zeros(self.n, np.int64)
        if mask and self._tokens.min() < 1:
            raise RequestError("failed", f"{path}: the mask {mask} leaves nothing of a sample")

    def new_batch(self, size: int, ports: Sequence[Any]) -> dict[str, Any]:
        """A batch to fill; refused where the model takes other inputs."""
        batch = {}
        for name in self._rows.dtype.names or ():
            kind, shape = self._rows.dtype[name].subdtype or (self._rows.dtype[name], ())
            batch[name] = np.zeros((size, *((self._length, *shape[1:]) if self._length else shape)), kind)
        wanted = {name: (shape, kind) for name, shape, kind in ports}
        if set(wanted) != set(batch):
            raise RequestError("failed", f"the model takes {sorted(wanted)}, the samples have {sorted(batch)}")
        for name, values in batch.items():
            shape, kind = wanted[name]
            fixed = [size if isinstance(size, int) else values.shape[axis] for axis, size in enumerate(shape)]
            if fixed != list(values.shape) or kind != values.dtype.name:
                made = f"{values.dtype.name} {list(values.shape)}"
                raise RequestError("failed", f"the model's {name} is {kind} {shape}, the samples make {made}")
        if any(isinstance(shape[1], int) for shape, _ in wanted.values() if len(shape) > 1):
            self._mask = ""  # it takes one length alone
        return batch

    def fill(self, batch: dict[str, Any], rows: Iterable[int]) -> dict[str, Any]:
        """The records `rows` in `batch`, made by `new_batch`, or where they need another length, in a new one."""
        chosen = list(rows)
        if not self._mask:
            for slot, row in enumerate(chosen):
                for name, values in batch.items():
                    values[slot] = self._rows[row][name]
            return batch
        longest = self._length or int(self._tokens[chosen].max())
        if batch[self._mask].shape[1] != longest:
            batch = {
                name: np.zeros((len(values), longest, *values.shape[2:]), values.dtype)
                for name, values in batch.items()
            }
        for slot, row in enumerate(chosen):
            for name, values in batch.items():
                values[slot] = self._of(row, name)[:longest]
        return batch

    def _of(self, row: int, name: str) -> Any:
        """What a record has for an input, of the length asked for where one is."""
        values = self._rows[row][name]
        if not self._length:
            return values
        repeats = -(-self._length // int(self._tokens[row]))
        return np.concatenate([values[: self._tokens[row]]] * repeats)

    def tokens(self, batch: dict[str, Any]) -> int | None:
        """How many tokens of `batch`, filled before, count; None where nothing says so."""
        return int(batch[self._mask].sum()) if self._mask else None

    def close(self) -> None:
        del self._rows
