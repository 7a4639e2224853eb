"""Which sample stands in which split, where the data does not say so itself."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence

from compressor.errors import KdcError

__all__ = ["WANTED", "split_off"]

WANTED = ("train", "validation", "test")
PERCENT = {"test": 20, "validation": 10}


def split_off(
    ids: Sequence[str], labels: Sequence[str], missing: Sequence[str]
) -> tuple[dict[str, list[int]], tuple[str, ...]]:
    """Splits the samples of train into what stays there and the splits that are `missing`: `{split: rows}`, and notes.

    A teacher and a student that are trained with different seeds must see the same split, or test samples leak into
    the student through its teacher. So the split knows neither a seed nor the order of files, nor other classes:
    within a class, samples are ordered by the sha256 of their id, and the first share is taken.
    """
    by_class: dict[str, list[int]] = defaultdict(list)
    for row, label in enumerate(labels):
        by_class[label].append(row)
    owner = ["train"] * len(ids)
    for label, rows in by_class.items():
        if len(rows) <= len(missing):
            raise _too_few(label, len(rows), missing)
        ordered = sorted(rows, key=lambda row: hashlib.sha256(ids[row].encode()).digest())
        for name in missing:
            count = max(1, (len(ordered) * PERCENT[name] + 50) // 100)
            for row in ordered[:count]:
                owner[row] = name
            ordered = ordered[count:]
    rows_of: dict[str, list[int]] = {name: [] for name in ("train", *missing)}
    for row, name in enumerate(owner):
        rows_of[name].append(row)
    return rows_of, _notes(rows_of, missing, len(ids))


def _notes(rows_of: dict[str, list[int]], missing: Sequence[str], total: int) -> tuple[str, ...]:
    notes = []
    for name in missing:
        count = len(rows_of[name])
        notes.append(f"{name}: {PERCENT[name]} % of train split off, stratified by class ({count:,} of {total:,})")
        total -= count
    return tuple(notes)


def _too_few(label: str, count: int, missing: Sequence[str]) -> KdcError:
    splits = " and ".join(missing)
    return KdcError(
        f"class {label} has {count} picture{'' if count == 1 else 's'} in train; splitting {splits} off takes at least "
        f"{len(missing) + 1} of each class",
        f"add pictures of {label}, or give the data its own {splits}",
    )
