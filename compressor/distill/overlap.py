"""Whether a model has learned from the images that it is to be measured on: said with numbers, also in the report.

A model of kdc knows what it was trained on (`models.trained_on`). What a teacher learned from another teacher's answers
is not followed: it never saw those images.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from compressor.data.samples import Dataset, Split
from compressor.models.lineage import last_part
from compressor.models.prediction_table import LoadedTable
from compressor.models.trained_on import Images, images_of
from compressor.progress import Progress
from compressor.schema.student import Request

__all__ = ["seen_before", "tell_overlap", "tell_table_overlap", "with_notes"]


def seen_before(request: Request, data: Dataset, progress: Progress) -> Dataset:
    """`data` with a note for each model of the request that learned from its validation or test images, or from other
    images: the teachers, and what the trained network starts from. They are said, too.

    Nothing is said of a model whose training images stand in train here, all of them. Raises KdcError for a run that
    keeps no record.
    """
    starts = request.init
    teachers: Sequence[str] = (request.teacher, *request.other_teachers)
    if request.command == "teach":
        starts, teachers = ("" if request.init == "random" else request.teacher), ()
    return with_notes(data, tell_overlap(teachers, data, progress, starts=starts))


def with_notes(data: Dataset, notes: Sequence[str]) -> Dataset:
    """`data` with these notes in its `info`, which the report shows."""
    return replace(data, info=data.info.model_copy(update={"notes": (*data.info.notes, *notes)}))


def tell_overlap(teachers: Sequence[str], data: Dataset, progress: Progress, *, starts: str = "") -> list[str]:
    """A note for each of these references, where there is one to say; they have been said. `starts`: what is trained
    on."""
    notes = []
    for reference in teachers:
        images = images_of(reference)
        if images is None:
            continue
        name = f"teacher {last_part(reference)}"
        if overlap := _overlap(images, data):
            notes.append(
                f"{name} was trained on {overlap}: its accuracy on them says nothing about other {data.samples}"
            )
            progress.warn(notes[-1])
        elif other_data := _other_data(images, data):
            notes.append(f"{name} was trained on other {data.samples} too: {other_data}")
            progress.note(notes[-1])
    images = images_of(starts) if starts else None
    if images is not None and (overlap := _overlap(images, data)):
        notes.append(
            f"the training starts from {last_part(starts)}, which was trained on {overlap}: what comes of it knows "
            f"them, and its accuracy on them says nothing about other {data.samples}"
        )
        progress.warn(notes[-1])
    return notes


def tell_table_overlap(table: LoadedTable, data: Dataset, progress: Progress) -> list[str]:
    """A note where the table says that its teacher was trained on some of the validation or test images."""
    answers = table.answers
    seen = answers.seen
    if seen is None:
        return []
    known = [np.array([name in seen for name in answers.named(split)], np.bool_) for split in _held_out(data)]
    overlap = _counted(known, data)
    if not overlap:
        return []
    note = (
        f"the teacher of {last_part(table.weights.source)} was trained on {overlap}: its accuracy on them says nothing "
        f"about other {data.samples}"
    )
    progress.warn(note)
    return [note]


def _held_out(data: Dataset) -> tuple[Split, Split]:
    return data.validation, data.test


def _overlap(images: Images, data: Dataset) -> str:
    return _counted([np.isin(split.contents, images) for split in _held_out(data)], data)


def _counted(known: Sequence[NDArray[np.bool_]], data: Dataset) -> str:
    """As "84 of the 120 validation images and 3 of the 240 test images"; `known`: which of them, a split each.
    Nothing where all that are known stand in train here as well: then it is the data's own fault, and was said with
    it."""
    both = list(zip(known, _held_out(data), strict=True))
    if not any((seen & ~np.isin(split.contents, data.train.contents)).any() for seen, split in both):
        return ""
    counts = [f"{seen.sum():,} of the {len(split):,} {split.name} {data.samples}" for seen, split in both if seen.any()]
    return " and ".join(counts)


def _other_data(images: Images, data: Dataset) -> str:
    known = int(np.isin(images, data.train.contents).sum())
    if known == len(images):
        return ""
    where = "stand in train here, and none in validation or test alone"
    return f"of its {len(images):,} training {data.samples} {known:,} {where}"
