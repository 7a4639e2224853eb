"""The rows of tables -> the parts of a data set."""

import os
import posixpath
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.data.labels import class_order, listed
from compressor.data.samples import Found, Part
from compressor.data.split_words import SPLIT_NAMES
from compressor.errors import KdcError

__all__ = ["Table", "join"]


@dataclass(frozen=True, eq=False)
class Table:
    """One file's rows. `paths` where samples are files of their own: they serve as ids, which then do not hang on the
    order of rows. `splits`: the split column, if any. `names`: the class names in their order, if the file has them.
    `groups`: see `Part`."""

    file: Path
    labels: tuple[str, ...]
    paths: Sequence[str] | None
    splits: Sequence[object] | None
    content: Callable[[int], Any]
    where: Callable[[int], str]
    names: tuple[str, ...] | None
    note: str
    groups: tuple[str, ...] = ()


def join(tables: dict[str | None, list[Table]], notes: tuple[str, ...], samples: str = "images") -> Found:
    """The parts that the rows of all tables make up. Classes: as the files name them, else by the labels of train."""
    rows: dict[str, list[tuple[Table, int]]] = defaultdict(list)
    ids: dict[str, list[str]] = defaultdict(list)
    for file_split, shards in tables.items():
        before = 0
        for table in shards:
            for row in range(len(table.labels)):
                split = _split_of(table, row, file_split)
                rows[split].append((table, row))
                ids[split].append(_path_id(table, row) if table.paths else f"{split}/{before + row}")
            before += len(table.labels)
    every = [table for shards in tables.values() for table in shards]
    if "train" not in rows:
        raise KdcError(f"{every[0].file} holds no {samples} of train" + (f", only of {listed(rows)}" if rows else ""))
    parts = {split: _part(tuple(ids[split]), members) for split, members in rows.items()}
    names = rows["train"][0][0].names or class_order(filter(None, parts["train"].labels))
    return Found(names, parts, (*notes, *dict.fromkeys(table.note for table in every)))


def _split_of(table: Table, row: int, file_split: str | None) -> str:
    if table.splits is None:
        return file_split or "train"
    value = table.splits[row]
    split = SPLIT_NAMES.get(str(value).strip().lower())
    if split is None:
        raise KdcError(f"{table.where(row)}: split {value!r} is not known", f"known: {', '.join(SPLIT_NAMES)}")
    if file_split is not None and split != file_split:
        raise KdcError(f"{table.where(row)}: split {value!r} stands in a file named after {file_split}")
    return split


def _path_id(table: Table, row: int) -> str:
    assert table.paths is not None
    text = table.paths[row]
    if os.path.isabs(text):  # noqa: PTH117 (a Path of each of a million cells takes seconds)
        # An id must mean the same on another machine.
        text = Path(os.path.relpath(text, table.file.parent)).as_posix()
    return posixpath.normpath(text)


def _part(ids: tuple[str, ...], members: Sequence[tuple[Table, int]]) -> Part:
    def content(number: int) -> Any:
        table, row = members[number]
        return table.content(row)

    def where(number: int) -> str:
        table, row = members[number]
        return table.where(row)

    labels = tuple(table.labels[row] for table, row in members)
    # Of files of which one has groups and another none, the second's samples are each a group of their own.
    grouped = any(table.groups for table, _ in members)
    groups = (table.groups[row] if table.groups else where(n) for n, (table, row) in enumerate(members))
    return Part(ids, labels, content, where, encoded=True, groups=tuple(groups) if grouped else ())
