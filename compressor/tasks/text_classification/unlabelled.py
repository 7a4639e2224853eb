"""Texts without labels: those that join the training split, and those that a stage of a training learns from."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from compressor.data.samples import UNLABELLED, Dataset, Found, Part, Split, contents_of
from compressor.data.texts import digest_of
from compressor.errors import KdcError
from compressor.progress import Progress, note_once
from compressor.schema.student import Columns, UnlabelledInfo
from compressor.tasks.text_classification.lengths import is_pair
from compressor.tasks.text_classification.opening import Texts, checked
from compressor.tasks.text_classification.sources.table import find_unlabelled

__all__ = ["open_unlabelled", "with_unlabelled"]

PREFIX = "unlabelled/"


def with_unlabelled(data: Dataset, reference: str, *, columns: Columns, skip_bad: bool, progress: Progress) -> Dataset:
    """`data` with the texts that `reference` names at the end of train, with the label UNLABELLED: all that it does not
    hold already."""
    splits = (data.train, data.validation, data.test)
    more, info, notes = open_unlabelled(
        reference, data, splits, columns=columns, skip_bad=skip_bad, progress=progress, said="--unlabelled"
    )
    notes.insert(-1 if info.left_out_copies else len(notes), _joining(info))
    for note in notes:
        note_once(progress, note)
    changes = {"unlabelled": info, "notes": (*data.info.notes, *notes)}
    return replace(data, info=data.info.model_copy(update=changes), train=_joined(data.train, more))


def open_unlabelled(
    reference: str, data: Dataset, without: Sequence[Split], *, columns: Columns, skip_bad: bool, progress: Progress,
    said: str,
) -> tuple[Split, UnlabelledInfo, list[str]]:  # fmt: skip
    """The texts that `reference` names as a split, what is kept of them in student.json, and notes.

    Those that a split of `without` holds are left out, by what they say to people who read them (`texts.normalised`):
    above all those of held-out texts, which nothing may learn from. Raises KdcError where a text cannot be used (and
    not `skip_bad`), where pairs meet single texts, or where none is left. `said`: what asked for them.
    """
    try:
        part, found_notes = find_unlabelled(reference, columns, progress)
        kept, texts, skipped = checked(Found((), {"train": part}), skip_bad, progress)
    except KdcError as error:
        raise KdcError(f"{said}: {error.message}", error.hint, error.exit_code) from None
    samples, words = kept["train"], texts[id(part)]
    _require_alike([words[row] for _, row, _ in samples[:1]], data, f"{said} {reference}")
    contents = contents_of(digest for _, _, digest in samples)
    copied = {split.name: np.isin(contents, split.contents) for split in without}
    new = ~np.any([*copied.values()], axis=0) if len(samples) else np.zeros(0, np.bool_)
    if not new.any():
        why = "can be used" if not samples else "is new: the data holds a copy of each"
        raise KdcError(f"{said} {reference}: none of its {len(part.ids):,} texts {why}")
    rows = [samples[number][1] for number in np.flatnonzero(new)]
    info = UnlabelledInfo(
        source=reference,
        count=len(rows),
        fingerprint=_fingerprint([words[row] for row in rows]),
        left_out_copies=int((~new).sum()),
        skipped=skipped,
    )
    label = said.removeprefix("--")
    notes = [f"{label}: {note}" for note in found_notes]
    if info.left_out_copies:
        of = ", ".join(f"{count:,} of {name}" for name, known in copied.items() if (count := int(known.sum())))
        notes.append(f"{label}: left out {info.left_out_copies:,} copies of texts in the data ({of})")
    if skipped:
        notes.append(f"{label}: left out {len(skipped)} texts that cannot be used, e.g. {skipped[0]}")
    return _split(part, rows, [words[row] for row in rows], contents[new], data), info, notes


def _joining(info: UnlabelledInfo) -> str:
    return f"unlabelled: {info.count:,} texts join train; every loss but those of labels learns from them"


def _require_alike(first: Sequence[Texts], data: Dataset, what: str) -> None:
    for texts in first:
        if (len(texts) > 1) != is_pair(data.train):
            kinds = ("single texts", "pairs of texts")
            raise KdcError(
                f"{what} holds {kinds[len(texts) > 1]}, and the data {kinds[len(texts) < 2]}",
                "name texts of one kind; of tables --text-column NAME, twice for a pair",
            )


def _split(part: Part, rows: Sequence[int], texts: Sequence[Texts], contents: "np.typing.NDArray[np.uint64]",
           data: Dataset) -> Split:  # fmt: skip
    """With ids that are not those of the data's samples."""
    taken = {*data.train.ids, *data.validation.ids, *data.test.ids}
    prefix = PREFIX
    while any(prefix + part.ids[row] in taken for row in rows):
        prefix += PREFIX
    return Split(
        name="train",
        ids=tuple(prefix + part.ids[row] for row in rows),
        labels=np.full(len(rows), UNLABELLED, np.int64),
        read=lambda number: texts[number],
        contents=contents,
    )


def _joined(train: Split, more: Split) -> Split:
    count = len(train)
    return Split(
        name=train.name,
        ids=train.ids + more.ids,
        labels=np.concatenate([train.labels, more.labels]),
        read=lambda number: train.read(number) if number < count else more.read(number - count),
        contents=np.concatenate([train.contents, more.contents]),
    )


def _fingerprint(texts: Sequence[Texts]) -> str:
    return hashlib.sha256("".join(sorted(digest_of(sample).hex() for sample in texts)).encode()).hexdigest()
