"""open_data: from a reference to checked splits of texts."""

from collections.abc import Mapping, Sequence

from compressor.data.checked import (
    absent_classes,
    class_names_of,
    every_class_in_train,
    fingerprint_of,
    in_three,
    split_from,
)
from compressor.data.copies import copies_told
from compressor.data.samples import Dataset, Found, Part, Sample
from compressor.data.splits import WANTED
from compressor.data.texts import digest_of, gaps_told, is_seen, normalised, require_text
from compressor.errors import KdcError
from compressor.progress import Progress, Silent, note_once
from compressor.schema.student import Columns, DataInfo
from compressor.tasks.text_classification.sources.table import find

__all__ = ["Texts", "checked", "open_data"]

Texts = tuple[str, ...]
"""Of a sample: one, or the two of a pair."""

SILENT = Silent()


def open_data(
    reference: str,
    *,
    skip_bad: bool = False,
    progress: Progress = SILENT,
    class_names: Sequence[str] | None = None,
    columns: Columns | None = None,
) -> Dataset:
    """The texts that `reference` names (see `sources.SOURCES`), checked and in three splits.

    A text that is missing, empty or no text in Unicode, or that has no label, raises KdcError, or with `skip_bad` is
    left out and listed in `info.skipped`. Splits that are missing are taken from train, the same way every time
    (`split_off`). With `class_names`, the data must have exactly these classes, and labels follow their order.

    Copies are found, and splits are made, by the text as people read it (`normalised`): without case, and with blanks
    of any kind and number as one. `info.fingerprint` is over the texts as they stand.
    """
    listing, unlabelled = find(reference, columns or Columns(), skip_bad, progress)
    names = class_names_of(listing, class_names, "text")
    kept, texts, unusable = checked(listing, skip_bad, progress)
    skipped = (*unlabelled, *unusable)
    every_class_in_train(kept["train"], names, "texts")
    splits, split_notes = in_three(kept, "texts")
    notes = [*listing.notes, *split_notes, *absent_classes(splits, names, "texts")]
    notes += copies_told(splits, "text", "texts")
    notes += gaps_told([texts[id(part)][row] for samples in kept.values() for part, row, _ in samples])
    if skipped:
        notes.append(f"left out {len(skipped)} texts that cannot be used, e.g. {skipped[0]}")
    for note in notes:
        note_once(progress, note)

    def load(part: Part, row: int) -> Texts:
        return texts[id(part)][row]

    made = {name: split_from(name, splits[name], names, load) for name in WANTED}
    exact = {
        name: [(part.labels[row], digest_of(texts[id(part)][row])) for part, row, _ in splits[name]] for name in WANTED
    }
    info = DataInfo(
        source=reference,
        fingerprint=fingerprint_of(names, exact),
        class_names=names,
        counts={name: len(split) for name, split in made.items()},
        notes=tuple(notes),
        skipped=skipped,
    )
    return Dataset(info, made["train"], made["validation"], made["test"], "texts")


def checked(
    listing: Found, skip_bad: bool, progress: Progress
) -> tuple[dict[str, list[Sample]], Mapping[int, Mapping[int, Texts]], tuple[str, ...]]:
    """The samples that can be used, by split; their texts, by the part's id and row; and the ids of all others."""
    kept: dict[str, list[Sample]] = {name: [] for name in listing.parts}
    texts: dict[int, dict[int, Texts]] = {id(part): {} for part in listing.parts.values()}
    split_of = {id(part): name for name, part in listing.parts.items()}
    errors: list[KdcError] = []
    skipped = []
    first: tuple[int, str] | None = None
    for part, row in listing.samples():
        try:
            sample = _usable(part, row)
        except KdcError as error:
            errors.append(error)
            skipped.append(part.ids[row])
            continue
        first = first or (len(sample), part.where(row))
        if len(sample) != first[0]:
            kinds = ("a single text", "a pair of texts")
            raise KdcError(
                f"{part.where(row)} is {kinds[len(sample) - 1]}, and {first[1]} is {kinds[first[0] - 1]}",
                "give all files the same columns, or state them: --text-column NAME, twice for a pair",
            )
        texts[id(part)][row] = sample
        kept[split_of[id(part)]].append((part, row, digest_of(tuple(map(normalised, sample)))))
    if errors and not skip_bad:
        suffix = f" (and {len(errors) - 1} more texts)" if len(errors) > 1 else ""
        raise KdcError(f"{errors[0].message}{suffix}", f"{errors[0].hint}; --skip-bad leaves them out".lstrip("; "))
    for fault in errors:
        progress.warn(f"left out: {fault.message}")
    return kept, texts, tuple(skipped)


def _usable(part: Part, row: int) -> Texts:
    """The texts of a sample; raises KdcError where they are none."""
    cells = tuple(require_text(cell, part.where(row)) for cell in part.content(row))
    if not any(map(is_seen, cells)):
        raise KdcError(f"{part.where(row)}: the text is empty")
    return cells
