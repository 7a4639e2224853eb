"""open_data: from a reference to checked splits."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from compressor.data.checked import (
    absent_classes,
    class_names_of,
    every_class_in_train,
    fingerprint_of,
    in_three,
    split_from,
)
from compressor.data.copies import copies_told
from compressor.data.samples import UNLABELLED, Dataset, Found, Sample, Split, contents_of
from compressor.data.splits import WANTED
from compressor.progress import Progress, Silent, note_once
from compressor.schema.preprocess import PixelRange
from compressor.schema.student import DataInfo
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
    names = class_names_of(listing, class_names)
    census = Census()
    kept, skipped = _checked(listing, skip_bad, progress, census)
    of_pixels = census.notes(pixel_range)
    for note in of_pixels:  # at once: it may be why the images look alike
        note_once(progress, note)
    every_class_in_train(kept["train"], names)
    splits, split_notes = in_three(kept)
    notes = [*listing.notes, *of_pixels, *split_notes, *absent_classes(splits, names), *copies_told(splits)]
    if skipped:
        notes.append(f"left out {len(skipped)} images that cannot be read, e.g. {skipped[0]}")
    made = {name: split_from(name, splits[name], names, load) for name in WANTED}
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
    return fingerprint_of(
        names, {name: [(part.labels[row], digest) for part, row, digest in splits[name]] for name in WANTED}
    )
