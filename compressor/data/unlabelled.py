"""Samples without labels: what of them is new to the data, and how they join its training split."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.data.samples import UNLABELLED, Dataset, Part, Sample, Split, contents_of
from compressor.errors import KdcError
from compressor.progress import Progress, note_once
from compressor.schema.student import UnlabelledInfo

__all__ = ["New", "join", "new_to"]

PREFIX = "unlabelled/"


@dataclass(frozen=True, eq=False)
class New:
    """`rows`: of the part, those whose content no split holds. `copies`: split -> how many it holds of the others."""

    rows: Sequence[int]
    contents: NDArray[np.uint64]
    copies: Mapping[str, int]

    def split(self, part: Part, data: Dataset, read: Callable[[int], Any]) -> Split:
        """They as a training split without labels; its ids are not those of the data's samples. `read`: row of the
        part -> the sample."""
        taken = {*data.train.ids, *data.validation.ids, *data.test.ids}
        prefix = PREFIX
        while any(prefix + part.ids[row] in taken for row in self.rows):
            prefix += PREFIX
        return Split(
            name="train",
            ids=tuple(prefix + part.ids[row] for row in self.rows),
            labels=np.full(len(self.rows), UNLABELLED, np.int64),
            read=lambda number: read(self.rows[number]),
            contents=self.contents,
        )

    def note(self, left_out: int, samples: str) -> list[str]:
        """How many copies were left out, where some were."""
        if not left_out:
            return []
        of = ", ".join(f"{count:,} of {name}" for name, count in self.copies.items() if count)
        return [f"left out {left_out:,} copies of {samples} in the data ({of})"]


def new_to(without: Sequence[Split], usable: Sequence[Sample], listed: int, said: str, samples: str) -> New:
    """Which of the `usable` samples no split of `without` holds: above all none of held-out ones, which nothing may
    learn from. Raises KdcError where none is left of those that were `listed`. `said`: what asked for them."""
    contents = contents_of(digest for _, _, digest in usable)
    copied = {split.name: np.isin(contents, split.contents) for split in without}
    new = ~np.any([*copied.values()], axis=0) if len(usable) else np.zeros(0, np.bool_)
    if not new.any():
        why = "can be used" if not usable else "is new: the data holds a copy of each"
        raise KdcError(f"{said}: none of its {listed:,} {samples} {why}")
    rows = [usable[number][1] for number in np.flatnonzero(new).tolist()]
    return New(rows, contents[new], {name: int(known.sum()) for name, known in copied.items()})


def join(data: Dataset, more: Split, info: UnlabelledInfo, notes: list[str], progress: Progress) -> Dataset:
    """`data` with the samples of `more` at the end of train; said."""
    joining = f"unlabelled: {info.count:,} {data.samples} join train; every loss but those of labels learns from them"
    notes.insert(-1 if info.left_out_copies else len(notes), joining)
    for note in notes:
        note_once(progress, note)
    changes = {"unlabelled": info, "notes": (*data.info.notes, *notes)}
    return replace(data, info=data.info.model_copy(update=changes), train=_joined(data.train, more))


def _joined(train: Split, more: Split) -> Split:
    count = len(train)
    return Split(
        name=train.name,
        ids=train.ids + more.ids,
        labels=np.concatenate([train.labels, more.labels]),
        read=lambda number: train.read(number) if number < count else more.read(number - count),
        contents=np.concatenate([train.contents, more.contents]),
    )
