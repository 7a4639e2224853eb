"""open_data: from a reference to checked splits."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from compressor.data.labels import listed
from compressor.data.samples import UNLABELLED, Dataset, Found, Part, Sample, Split, contents_of
from compressor.data.splits import WANTED, split_off
from compressor.errors import KdcError
from compressor.progress import Progress, Silent, note_once
from compressor.schema.preprocess import PixelRange
from compressor.schema.student import DataInfo
from compressor.tasks.image_classification.copies import copies_told
from compressor.tasks.image_classification.decoding import readable
from compressor.tasks.image_classification.depth import Census
from compressor.tasks.image_classification.reading import load
from compressor.tasks.image_classification.sources.table import find
from compressor.tasks.image_classification.unlabelled import join_unlabelled

__all__ = ["open_data"]

SILENT = Silent()


def open_data(
    reference: str,
    *,
    skip_bad: bool = False,
    progress: Progress = SILENT,
    class_names: Sequence[str] | None = None,
    unlabelled: str | None = None,
    pixel_range: PixelRange | None = None,
) -> Dataset:
    """The data that `reference` names (see `sources.SOURCES`), checked and in three splits.

    Every encoded image is decoded once, here; those that cannot be raise KdcError, or with `skip_bad` are left out
    and listed in `info.skipped`. Splits that are missing are taken from train, the same way every time (`split_off`).
    With `class_names`, the data must have exactly these classes, and labels follow their order. The images that
    `unlabelled` names (`sources.find_unlabelled`) stand at the end of train, with the label UNLABELLED. `pixel_range`:
    how images of more than 8 bits a channel are read (`Recipe.pixel_range`).

    A sample is known by what its image shows (`decode.digest`), not by where it lies: splits are made by that, and
    copies are found by it, those in another format too. Images that were resized, or compressed anew with loss, are
    not recognised as copies.

    `info.fingerprint` is a sha256 over the class names, and the split, label and digest of every sample. The same
    images under other names, in another order, folder, table or format have the same one; where a file's pixels come
    out otherwise, since another version of a decoder reads it, they have another.
    """
    listing = _read_with(find(reference, progress), pixel_range)
    names = _classes(listing, class_names)
    census = Census()
    kept, skipped = _checked(listing, skip_bad, progress, census)
    of_pixels = census.notes(pixel_range)
    for note in of_pixels:  # at once: it may be why the images look alike
        note_once(progress, note)
    _every_class_in_train(kept["train"], names)
    splits, split_notes = _in_three(kept)
    notes = [*listing.notes, *of_pixels, *split_notes, *_absent(splits, names), *copies_told(splits)]
    if skipped:
        notes.append(f"left out {len(skipped)} images that cannot be read, e.g. {skipped[0]}")
    made = {name: _split(name, splits[name], names) for name in WANTED}
    fingerprint, counts = _fingerprint(names, splits), {name: len(split) for name, split in made.items()}
    joined = None
    if unlabelled is not None:
        unlabelled_samples, joined, more_notes = join_unlabelled(
            unlabelled, splits, skip_bad=skip_bad, progress=progress, pixel_range=pixel_range
        )
        notes += more_notes
        made["train"] = _with_unlabelled(made["train"], unlabelled_samples)
    for note in notes:
        if note not in of_pixels:
            note_once(progress, note)
    info = DataInfo(
        source=reference,
        fingerprint=fingerprint,
        class_names=names,
        counts=counts,
        notes=tuple(notes),
        skipped=skipped,
        unlabelled=joined,
    )
    return Dataset(info, made["train"], made["validation"], made["test"])


def _read_with(listing: Found, pixel_range: PixelRange | None) -> Found:
    return replace(
        listing, parts={name: replace(part, pixel_range=pixel_range) for name, part in listing.parts.items()}
    )


def _classes(listing: Found, wanted: Sequence[str] | None) -> tuple[str, ...]:
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
                f"{part.where(row)}: the image {part.ids[row]} stands twice in the data, first in "
                f"{first_part.where(first_row)}",
                "name each image once, in one split",
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


def _checked(
    listing: Found, skip_bad: bool, progress: Progress, census: Census
) -> tuple[dict[str, list[Sample]], tuple[str, ...]]:
    """The samples that can be read, by split, and the ids of those that cannot."""
    samples, skipped = readable(list(listing.samples()), skip_bad, progress, census)
    kept: dict[str, list[Sample]] = {name: [] for name in listing.parts}
    split_of = {id(part): name for name, part in listing.parts.items()}
    for sample in samples:
        kept[split_of[id(sample[0])]].append(sample)
    return kept, skipped


def _every_class_in_train(train: Sequence[Sample], names: Sequence[str]) -> None:
    seen = {part.labels[row] for part, row, _ in train}
    without = [name for name in names if name not in seen]
    if without:
        raise KdcError(f"train holds no images of {listed(without)}", "every class needs some to learn from")


def _in_three(kept: Mapping[str, list[Sample]]) -> tuple[dict[str, list[Sample]], tuple[str, ...]]:
    empty = [name for name, samples in kept.items() if not samples]
    if empty:
        raise KdcError(f"{empty[0]} holds no images")
    missing = [name for name in ("test", "validation") if name not in kept]
    train = kept["train"]
    rows_of, notes = split_off(
        [digest for _, _, digest in train], [part.labels[row] for part, row, _ in train], missing
    )
    return dict(kept) | {name: [train[row] for row in rows] for name, rows in rows_of.items()}, notes


def _absent(splits: Mapping[str, Sequence[Sample]], names: Sequence[str]) -> list[str]:
    """Classes that a held-out split has no images of, so that it does not tell how well they are known."""
    remarks = []
    for split in ("validation", "test"):
        seen = {part.labels[row] for part, row, _ in splits[split]}
        absent = [name for name in names if name not in seen]
        if absent:
            remarks.append(f"{split} holds no images of {listed(absent)}")
    return remarks


def _split(name: str, samples: Sequence[Sample], names: Sequence[str]) -> Split:
    index = {label: number for number, label in enumerate(names)}
    return Split(
        name=name,
        ids=tuple(part.ids[row] for part, row, _ in samples),
        labels=np.array([index[part.labels[row]] for part, row, _ in samples], np.int64),
        read=lambda number: load(*samples[number][:2]),
        contents=contents_of(digest for _, _, digest in samples),
    )


def _with_unlabelled(train: Split, unlabelled: Sequence[Sample]) -> Split:
    count = len(train)
    return Split(
        name=train.name,
        ids=train.ids + tuple(part.ids[row] for part, row, _ in unlabelled),
        labels=np.concatenate([train.labels, np.full(len(unlabelled), UNLABELLED, np.int64)]),
        read=lambda number: train.read(number) if number < count else load(*unlabelled[number - count][:2]),
        contents=np.concatenate([train.contents, contents_of(digest for _, _, digest in unlabelled)]),
    )


def _fingerprint(names: Sequence[str], splits: Mapping[str, Sequence[Sample]]) -> str:
    hasher = hashlib.sha256(json.dumps(list(names)).encode())
    for name in WANTED:
        for label, digest in sorted((part.labels[row], digest) for part, row, digest in splits[name]):
            hasher.update(json.dumps([name, label, digest.hex()]).encode())
    return hasher.hexdigest()
