"""Sounds without labels: those that join the training split, and those that a stage of a training learns from."""

import hashlib
from collections.abc import Sequence

from compressor.data.samples import Dataset, Found, Split
from compressor.data.unlabelled import join, new_to
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.schema.student import UnlabelledInfo
from compressor.tasks.audio_classification.opening import checked
from compressor.tasks.audio_classification.sources.table import find_unlabelled

__all__ = ["open_unlabelled", "with_unlabelled"]


def with_unlabelled(data: Dataset, reference: str, *, skip_bad: bool, progress: Progress) -> Dataset:
    """`data` with the sounds that `reference` names at the end of train, with the label UNLABELLED: all that it does
    not hold already."""
    splits = (data.train, data.validation, data.test)
    more, info, notes = open_unlabelled(
        reference, data, splits, skip_bad=skip_bad, progress=progress, said="--unlabelled"
    )
    return join(data, more, info, notes, progress)


def open_unlabelled(
    reference: str, data: Dataset, without: Sequence[Split], *, skip_bad: bool, progress: Progress, said: str
) -> tuple[Split, UnlabelledInfo, list[str]]:
    """The sounds that `reference` names as a split, what is kept of them in student.json, and notes.

    Those that a split of `without` holds are left out, by their values (`reading.digest`). Raises KdcError where a
    sound cannot be used (and not `skip_bad`), or where none is left. `said`: what asked for them.
    """
    try:
        part, found_notes = find_unlabelled(reference, progress)
        checks = checked(Found((), {"train": part}), skip_bad, progress)
    except KdcError as error:
        raise KdcError(f"{said}: {error.message}", error.hint, error.exit_code) from None
    usable = checks.kept["train"]
    new = new_to(without, usable, len(part.ids), f"{said} {reference}", "sounds")
    digest_of = {row: digest for _, row, digest in usable}
    info = UnlabelledInfo(
        source=reference,
        count=len(new.rows),
        fingerprint=hashlib.sha256("".join(sorted(digest_of[row].hex() for row in new.rows)).encode()).hexdigest(),
        left_out_copies=len(usable) - len(new.rows),
        skipped=checks.skipped,
    )
    label = said.removeprefix("--")
    told = [*found_notes, *checks.notes, *new.note(info.left_out_copies, "sounds")]
    if checks.skipped:
        told.append(f"left out {len(checks.skipped)} sounds that cannot be used, e.g. {checks.skipped[0]}")
    split = new.split(part, data, lambda row: checks.load(part, row))
    return split, info, [f"{label}: {note}" for note in told]
