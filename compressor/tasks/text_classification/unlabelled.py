"""Texts without labels: those that join the training split, and those that a stage of a training learns from."""

import hashlib
from collections.abc import Sequence

from compressor.data.samples import Dataset, Found, Split
from compressor.data.unlabelled import join, new_to
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.schema.student import Columns, UnlabelledInfo
from compressor.tasks.text_classification.lengths import is_pair
from compressor.tasks.text_classification.opening import Texts, checked, digest_of
from compressor.tasks.text_classification.sources.table import find_unlabelled

__all__ = ["open_unlabelled", "with_unlabelled"]


def with_unlabelled(data: Dataset, reference: str, *, columns: Columns, skip_bad: bool, progress: Progress) -> Dataset:
    """`data` with the texts that `reference` names at the end of train, with the label UNLABELLED: all that it does not
    hold already."""
    splits = (data.train, data.validation, data.test)
    more, info, notes = open_unlabelled(
        reference, data, splits, columns=columns, skip_bad=skip_bad, progress=progress, said="--unlabelled"
    )
    return join(data, more, info, notes, progress)


def open_unlabelled(
    reference: str, data: Dataset, without: Sequence[Split], *, columns: Columns, skip_bad: bool, progress: Progress,
    said: str,
) -> tuple[Split, UnlabelledInfo, list[str]]:  # fmt: skip
    """The texts that `reference` names as a split, what is kept of them in student.json, and notes.

    Those that a split of `without` holds are left out, by what they say to people who read them (`opening.normalised`):
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
    new = new_to(without, samples, len(part.ids), f"{said} {reference}", "texts")
    info = UnlabelledInfo(
        source=reference,
        count=len(new.rows),
        fingerprint=_fingerprint([words[row] for row in new.rows]),
        left_out_copies=len(samples) - len(new.rows),
        skipped=skipped,
    )
    told = [*found_notes, *new.note(info.left_out_copies, "texts")]
    if skipped:
        told.append(f"left out {len(skipped)} texts that cannot be used, e.g. {skipped[0]}")
    label = said.removeprefix("--")
    return new.split(part, data, words.__getitem__), info, [f"{label}: {note}" for note in told]


def _require_alike(first: Sequence[Texts], data: Dataset, what: str) -> None:
    for texts in first:
        if (len(texts) > 1) != is_pair(data.train):
            kinds = ("single texts", "pairs of texts")
            raise KdcError(
                f"{what} holds {kinds[len(texts) > 1]}, and the data {kinds[len(texts) < 2]}",
                "name texts of one kind; of tables --text-column NAME, twice for a pair",
            )


def _fingerprint(texts: Sequence[Texts]) -> str:
    return hashlib.sha256("".join(sorted(digest_of(sample).hex() for sample in texts)).encode()).hexdigest()
