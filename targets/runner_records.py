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
    """[N] records in a .npy file, a field an input: what a model takes, as it is. Read as they are asked for."""

    def __init__(self, path: str) -> None:
        self._rows = np.load(path, mmap_mode="r", allow_pickle=False)
        if self._rows.ndim != 1 or not len(self._rows):
            raise RequestError("failed", f"{path}: expected records [N], found {self._rows.shape}")
        self.n = len(self._rows)

    def new_batch(self, size: int, ports: Sequence[Any]) -> dict[str, Any]:
        """A batch to fill; refused where the model takes other inputs."""
        batch = {}
        for name in self._rows.dtype.names or ():
            kind, shape = self._rows.dtype[name].subdtype or (self._rows.dtype[name], ())
            batch[name] = np.zeros((size, *shape), kind)
        wanted = {name: (shape, kind) for name, shape, kind in ports}
        if set(wanted) != set(batch):
            raise RequestError("failed", f"the model takes {sorted(wanted)}, the samples have {sorted(batch)}")
        for name, values in batch.items():
            shape, kind = wanted[name]
            fixed = [size if isinstance(size, int) else values.shape[axis] for axis, size in enumerate(shape)]
            if fixed != list(values.shape) or kind != values.dtype.name:
                made = f"{values.dtype.name} {list(values.shape)}"
                raise RequestError("failed", f"the model's {name} is {kind} {shape}, the samples make {made}")
        return batch

    def fill(self, batch: dict[str, Any], rows: Iterable[int]) -> None:
        """Write the records `rows` into `batch`, made by `new_batch`."""
        for slot, row in enumerate(rows):
            for name, values in batch.items():
                values[slot] = self._rows[row][name]

    def close(self) -> None:
        del self._rows
