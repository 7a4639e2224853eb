"""Samples of several named inputs as records in one .npy file, a field an input: how they travel to a device."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.files.atomic import write_atomically

__all__ = ["StoredRecords", "write_records"]


class StoredRecords:
    """See `tasks.base.Stored`. `rows`: [N] records, which lie in the .npy file `path`. `mask`: the field that says
    which positions count: what is fed is then as long as the longest of its samples, and not as what is stored."""

    def __init__(self, rows: NDArray[Any], path: Path, mask: str | None = None) -> None:
        self._rows, self._path, self._mask = rows, path, mask

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def request(self) -> dict[str, object]:
        return {"inputs": str(self._path.resolve()), **({"mask": self._mask} if self._mask else {})}

    @property
    def lengths(self) -> NDArray[np.int64] | None:
        """How many positions of each sample count, [N]; None where there is no mask."""
        return None if self._mask is None else self._rows[self._mask].sum(axis=1).astype(np.int64)

    @property
    def cost(self) -> int:
        return len(self) * sum(int(np.prod(self._rows.dtype[name].shape)) for name in self._rows.dtype.names or ())

    def fed(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        chosen = self._rows[rows]
        fed = {name: chosen[name] for name in chosen.dtype.names or ()}
        if self._mask is not None:
            shape = fed[self._mask].shape
            counted = np.flatnonzero(fed[self._mask].any(axis=0))
            longest = int(counted[-1]) + 1 if len(counted) else 1
            fed = {name: values[:, :longest] if values.shape == shape else values for name, values in fed.items()}
        return {name: np.ascontiguousarray(values) for name, values in fed.items()}

    def first(self, most: int, folder: Path) -> "StoredRecords":
        if most >= len(self):
            return self
        path = folder / "records.npy"
        np.save(path, self._rows[:most], allow_pickle=False)
        return StoredRecords(self._rows[:most], path, self._mask)


def write_records(
    samples: Iterable[dict[str, NDArray[Any]]], like: dict[str, NDArray[Any]], path: Path, mask: str | None = None
) -> StoredRecords:
    """Write the inputs of all `samples`, one each, to the new file `path`, all or nothing; each is shaped as `like`.
    `mask`: see `StoredRecords`."""
    kind = np.dtype([(name, values.dtype, values.shape) for name, values in like.items()])
    rows = np.array([tuple(sample[name] for name in like) for sample in samples], kind)
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
    return StoredRecords(np.load(path, mmap_mode="r", allow_pickle=False), path, mask)
