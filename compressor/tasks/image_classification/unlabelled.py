"""Images without labels that join the training split: every loss but the labels' learns from them."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from compressor.data.samples import Part, Sample
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.schema.preprocess import PixelRange
from compressor.schema.student import UnlabelledInfo
from compressor.tasks.image_classification.decoding import readable
from compressor.tasks.image_classification.depth import Census
from compressor.tasks.image_classification.sources.table import find_unlabelled

__all__ = ["join_unlabelled"]

PREFIX = "unlabelled/"


def join_unlabelled(
    reference: str,
    splits: Mapping[str, Sequence[Sample]],
    *,
    skip_bad: bool,
    progress: Progress,
    pixel_range: PixelRange | None = None,
) -> tuple[list[Sample], UnlabelledInfo, list[str]]:
    """The images that `reference` names and that the data (`splits`) does not hold already, what is kept of them in
    student.json, and notes.

    Exact copies are left out, in whatever file they lie (`decode.digest`): above all those of held-out images, which
    nothing may learn from. Raises KdcError where an image stands twice or cannot be read (and not
    `skip_bad`), or where none is left.
    """
    try:
        part, found_notes = find_unlabelled(reference, progress)
    except KdcError as error:
        raise KdcError(f"--unlabelled: {error.message}", error.hint, error.exit_code) from None
    _refuse_twice(part)
    part = _renamed(
        replace(part, pixel_range=pixel_range),
        {origin.ids[row] for samples in splits.values() for origin, row, _ in samples},
    )
    census = Census()
    samples, skipped = readable([(part, row) for row in range(len(part.ids))], skip_bad, progress, census)
    copied = _copies(samples, splits)
    kept = [sample for sample, names in zip(samples, copied, strict=True) if not names]
    if not kept:
        why = "can be read" if not samples else "is new: the data holds an exact copy of each"
        raise KdcError(f"--unlabelled {reference}: none of its {len(part.ids):,} images {why}")
    info = UnlabelledInfo(
        source=reference,
        count=len(kept),
        fingerprint=_fingerprint(kept),
        left_out_copies=len(samples) - len(kept),
        skipped=skipped,
    )
    notes = [f"unlabelled: {note}" for note in (*found_notes, *census.notes(pixel_range))]
    notes.append(f"unlabelled: {len(kept):,} images join train; every loss but those of labels learns from them")
    if info.left_out_copies:
        counts = {name: sum(name in names for names in copied) for name in splits}
        of = ", ".join(f"{count:,} of {name}" for name, count in counts.items() if count)
        if sum(counts.values()) > info.left_out_copies:
            of += "; some are of several"
        notes.append(f"unlabelled: left out {info.left_out_copies:,} exact copies of images in the data ({of})")
    if skipped:
        notes.append(f"unlabelled: left out {len(skipped)} images that cannot be read, e.g. {skipped[0]}")
    return kept, info, notes


def _refuse_twice(part: Part) -> None:
    first: dict[str, int] = {}
    for row, sample_id in enumerate(part.ids):
        if (before := first.setdefault(sample_id, row)) != row:
            raise KdcError(
                f"--unlabelled: {part.where(row)}: the image {sample_id} stands twice, first in {part.where(before)}",
                "name each image once",
            )


def _renamed(part: Part, taken: set[str]) -> Part:
    """With ids that are not those of the data's samples."""
    prefix = PREFIX
    while any(prefix + sample_id in taken for sample_id in part.ids):
        prefix += PREFIX
    return replace(part, ids=tuple(prefix + sample_id for sample_id in part.ids))


def _copies(samples: Sequence[Sample], splits: Mapping[str, Sequence[Sample]]) -> list[frozenset[str]]:
    """For each sample the splits that hold its image already: the same pixels, in whatever file."""
    holders: dict[bytes, set[str]] = {}
    for name, members in splits.items():
        for _, _, digest in members:
            holders.setdefault(digest, set()).add(name)
    return [frozenset(holders.get(digest, ())) for _, _, digest in samples]


def _fingerprint(samples: Sequence[Sample]) -> str:
    return hashlib.sha256("".join(sorted(digest.hex() for _, _, digest in samples)).encode()).hexdigest()
