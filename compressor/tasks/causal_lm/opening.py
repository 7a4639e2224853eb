"""open_data: from a reference to checked splits of documents."""

import json
from collections.abc import Mapping, Sequence

import numpy as np

from compressor.data.checked import fingerprint_of, in_three
from compressor.data.copies import copies_told
from compressor.data.naming import refuse_ids
from compressor.data.samples import Dataset, Found, Sample, Split, contents_of
from compressor.data.splits import WANTED
from compressor.data.texts import digest_of, normalised
from compressor.errors import KdcError
from compressor.progress import Progress, note_once
from compressor.schema.student import Columns, DataInfo
from compressor.tasks.causal_lm.documents import Chat, Document, Written, document_of
from compressor.tasks.causal_lm.sources import find

__all__ = ["documents_of", "open_data"]


def open_data(reference: str, *, skip_bad: bool, progress: Progress, columns: Columns | None = None) -> Dataset:
    """The documents that `reference` names (see `sources.SOURCES`), checked and in three splits.

    One that is missing, empty or no text in Unicode, or in which nothing counts, raises KdcError, or with `skip_bad` is
    left out and listed in `info.skipped`. Splits are made by document, the same way every time (`split_off`), and
    copies found, by what people read (`texts.normalised`). `info.fingerprint` is over the documents as they stand.
    """
    listing = find(reference, columns or Columns(), progress)
    for part in listing.parts.values():
        refuse_ids(part, "document")
    kept, documents, skipped = _checked(listing, skip_bad, progress)
    splits, split_notes = in_three(kept, "documents")
    notes = [*listing.notes, *split_notes, *copies_told(splits, "document", "documents"), *_repeated_told(splits)]
    if skipped:
        notes.append(f"left out {len(skipped)} documents that cannot be used, e.g. {skipped[0]}")
    for note in notes:
        note_once(progress, note)
    made = {name: _split(name, splits[name], documents) for name in WANTED}
    exact = {
        name: [("", digest_of(_written(documents[id(part)][row]))) for part, row, _ in splits[name]] for name in WANTED
    }
    info = DataInfo(
        source=reference,
        fingerprint=fingerprint_of((), exact),
        class_names=(),
        counts={name: len(split) for name, split in made.items()},
        notes=tuple(notes),
        skipped=skipped,
    )
    return Dataset(info, made["train"], made["validation"], made["test"], "documents")


def documents_of(split: Split) -> list[Document]:
    """All documents of a split."""
    return [split.read(row) for row in range(len(split))]


def _repeated_told(splits: Mapping[str, Sequence[Sample]]) -> list[str]:
    """A note on documents that stand in a split more than once: of what is measured, they make intervals too narrow."""
    counts = {name: len(splits[name]) - len({digest for _, _, digest in splits[name]}) for name in WANTED}
    told = ", ".join(f"{count:,} of {name}" for name, count in counts.items() if count)
    held_out = counts["validation"] or counts["test"]
    return (
        [
            f"copies of other documents of their split: {told}"
            + (" (intervals take each for a document of its own, and are too narrow)" if held_out else "")
        ]
        if told
        else []
    )


Documents = Mapping[int, Mapping[int, Document]]
"""By the part's id, and the row in it."""


def _checked(
    listing: Found, skip_bad: bool, progress: Progress
) -> tuple[dict[str, list[Sample]], Documents, tuple[str, ...]]:
    """The documents that can be used, by split; and the ids of all others."""
    kept: dict[str, list[Sample]] = {name: [] for name in listing.parts}
    documents: dict[int, dict[int, Document]] = {id(part): {} for part in listing.parts.values()}
    split_of = {id(part): name for name, part in listing.parts.items()}
    errors: list[KdcError] = []
    skipped = []
    for part, row in listing.samples():
        try:
            document = document_of(part.content(row), part.where(row))
        except KdcError as error:
            errors.append(error)
            skipped.append(part.ids[row])
            continue
        documents[id(part)][row] = document
        digest = digest_of([normalised(text) for text in _written(document)])
        kept[split_of[id(part)]].append((part, row, digest))
    if errors and not skip_bad:
        suffix = f" (and {len(errors) - 1} more documents)" if len(errors) > 1 else ""
        raise KdcError(f"{errors[0].message}{suffix}", f"{errors[0].hint}; --skip-bad leaves them out".lstrip("; "))
    for fault in errors:
        progress.warn(f"left out: {fault.message}")
    return kept, documents, tuple(skipped)


def _written(document: Document) -> list[str]:
    """All that a document says, as texts that tell it from every other one."""
    if isinstance(document, Chat):
        return ["messages", *(json.dumps(message) for message in document.messages)]
    assert isinstance(document, Written)
    return ["text", document.text[: document.prompt], document.text[document.prompt :]]


def _split(name: str, samples: list[Sample], documents: Documents) -> Split:
    """A document's label is its own next tokens: 0 says that it has them."""

    def read(number: int) -> Document:
        part, row, _ = samples[number]
        return documents[id(part)][row]

    return Split(
        name=name,
        ids=tuple(part.ids[row] for part, row, _ in samples),
        labels=np.zeros(len(samples), np.int64),
        read=read,
        contents=contents_of(digest for _, _, digest in samples),
    )
