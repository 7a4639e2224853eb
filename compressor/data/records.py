"""Samples of several named inputs as records in one .npy file, a field an input: how they travel to a device."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.files.atomic import write_atomically

__all__ = ["StoredRecords", "write_records"]


class StoredRecords:
    """See `tasks.base.Stored`. `rows`: [N] records, which lie in the .npy file `path`."""

    def __init__(self, rows: NDArray[Any], path: Path) -> None:
        self._rows, self._path = rows, path

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def request(self) -> dict[str, object]:
        return {"inputs": str(self._path.resolve())}

    @property
    def cost(self) -> int:
        return len(self) * sum(int(np.prod(self._rows.dtype[name].shape)) for name in self._rows.dtype.names or ())

    def fed(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        chosen = self._rows[rows]
        return {name: np.ascontiguousarray(chosen[name]) for name in chosen.dtype.names or ()}

    def first(self, most: int, folder: Path) -> "StoredRecords":
        if most >= len(self):
            return self
        path = folder / "records.npy"
        np.save(path, self._rows[:most], allow_pickle=False)
        return StoredRecords(self._rows[:most], path)


def write_records(
    samples: Iterable[dict[str, NDArray[Any]]], like: dict[str, NDArray[Any]], path: Path
) -> StoredRecords:
    """Write the inputs of all `samples`, one each, to the new file `path`, all or nothing; each is shaped as `like`."""
    kind = np.dtype([(name, values.dtype, values.shape) for name, values in like.items()])
    rows = np.array([tuple(sample[name] for name in like) for sample in samples], kind)
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
    return StoredRecords(np.load(path, mmap_mode="r", allow_pickle=False), path)
