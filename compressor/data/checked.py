"""What a source lists, once its samples could be read -> classes and splits that are sound. `samples`: what these are
called in messages."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from compressor.data.groups import split_off_groups
from compressor.data.labels import listed
from compressor.data.samples import Found, Part, Sample, Split, contents_of
from compressor.data.splits import WANTED, split_off
from compressor.errors import KdcError

__all__ = ["absent_classes", "class_names_of", "every_class_in_train", "fingerprint_of", "in_three", "split_from"]


def class_names_of(listing: Found, wanted: Sequence[str] | None, sample: str = "image") -> tuple[str, ...]:
    """The class names in the order that counts, once labels and ids are known to be sound."""
    names = listing.class_names
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise KdcError(f"class {twice[0]} is named twice")
    known = set(names)
    first: dict[str, tuple[Part, int]] = {}
    for part, row in listing.samples():
        if part.labels[row] not in known:
            raise KdcError(
                f"{part.where(row)}: label {part.labels[row]} is outside the classes, which are those of train: "
                f"{listed(names)}"
            )
        first_part, first_row = first.setdefault(part.ids[row], (part, row))
        if (first_part, first_row) != (part, row):
            raise KdcError(
                f"{part.where(row)}: the {sample} {part.ids[row]} stands twice in the data, first in "
                f"{first_part.where(first_row)}",
                f"name each {sample} once, in one split",
            )
    if len(names) < 2:
        raise KdcError(f"the data has {listed(names) or 'no classes'} as its only class; two are the least")
    return names if wanted is None else _reordered(names, wanted)


def _reordered(names: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    only_data = [name for name in names if name not in set(wanted)]
    only_wanted = [name for name in wanted if name not in set(names)]
    sides = [f"only in the data: {listed(only_data)}"] if only_data else []
    sides += [f"missing from the data: {listed(only_wanted)}"] if only_wanted else []
    if sides:
        raise KdcError(f"the data has other classes than the model: {'; '.join(sides)}")
    return tuple(wanted)


def every_class_in_train(train: Sequence[Sample], names: Sequence[str], called: str = "images") -> None:
    """Raise KdcError for a class without samples there."""
    seen = {part.labels[row] for part, row, _ in train}
    without = [name for name in names if name not in seen]
    if without:
        raise KdcError(f"train holds no {called} of {listed(without)}", "every class needs some to learn from")


def in_three(
    kept: Mapping[str, list[Sample]], called: str = "images"
) -> tuple[dict[str, list[Sample]], tuple[str, ...]]:
    """The samples by split, those of missing splits taken from train (`split_off`), groups as a whole; and notes."""
    empty = [name for name, samples in kept.items() if not samples]
    if empty:
        raise KdcError(f"{empty[0]} holds no {called}")
    missing = [name for name in ("test", "validation") if name not in kept]
    train = kept["train"]
    digests, labels = [digest for _, _, digest in train], [part.labels[row] for part, row, _ in train]
    if missing and train[0][0].groups:
        groups = [part.groups[row] for part, row, _ in train]
        rows_of, notes = split_off_groups(digests, labels, groups, missing, called)
    else:
        rows_of, notes = split_off(digests, labels, missing, called)
    return dict(kept) | {name: [train[row] for row in rows] for name, rows in rows_of.items()}, notes


def absent_classes(splits: Mapping[str, Sequence[Sample]], names: Sequence[str], called: str = "images") -> list[str]:
    """Classes that a held-out split has no samples of, so that it does not tell how well they are known."""
    remarks = []
    for split in ("validation", "test"):
        seen = {part.labels[row] for part, row, _ in splits[split]}
        absent = [name for name in names if name not in seen]
        if absent:
            remarks.append(f"{split} holds no {called} of {listed(absent)}")
    return remarks


def split_from(name: str, samples: Sequence[Sample], names: Sequence[str], load: Callable[[Part, int], Any]) -> Split:
    """A split of these samples; `load`: one as its task works with it."""
    index = {label: number for number, label in enumerate(names)}
    return Split(
        name=name,
        ids=tuple(part.ids[row] for part, row, _ in samples),
        labels=np.array([index[part.labels[row]] for part, row, _ in samples], np.int64),
        read=lambda number: load(*samples[number][:2]),
        contents=contents_of(digest for _, _, digest in samples),
    )


def fingerprint_of(names: Sequence[str], splits: Mapping[str, Iterable[tuple[str, bytes]]]) -> str:
    """Over the class names, and the split, label and digest of every sample; `splits`: label and digest of each."""
    hasher = hashlib.sha256(json.dumps(list(names)).encode())
    for name in WANTED:
        for label, digest in sorted(splits[name]):
            hasher.update(json.dumps([name, label, digest.hex()]).encode())
    return hasher.hexdigest()
