"""Where texts come from: one row a scheme. Adding a source is one function and one row."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from compressor.data.labels import missing_label
from compressor.data.naming import refuse_ids, settled
from compressor.data.samples import Found, Part
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.references import Reference
from compressor.schema.student import Columns
from compressor.tasks.text_classification.sources.folder import find_folder, find_lines, find_texts
from compressor.tasks.text_classification.sources.hub import find_hub
from compressor.tasks.text_classification.sources.tables import find_csv, find_parquet

__all__ = ["SOURCES", "Source", "find", "find_unlabelled"]


@dataclass(frozen=True)
class Source:
    """`find` gets what follows the colon, and the columns that were stated. `spelling` is for messages."""

    find: Callable[[str, Columns, Progress], Found]
    spelling: str


SOURCES = {
    "csv": Source(find_csv, "csv:PATH"),
    "parquet": Source(find_parquet, "parquet:PATH"),
    "hf": Source(find_hub, "hf:NAME_OR_PATH"),
    "folder": Source(find_folder, "folder:PATH"),
}


def find(reference: str, columns: Columns, skip_bad: bool, progress: Progress) -> tuple[Found, tuple[str, ...]]:
    """What the source that `reference` names holds, with the names of its classes settled; and the ids of texts without
    a label. These raise KdcError, or with `skip_bad` are left out, and said."""
    named = Reference.parse(reference)
    source = SOURCES.get(named.scheme)
    if source is None or named.rest is None:
        known = ", ".join(row.spelling for row in SOURCES.values())
        raise KdcError(f"data {reference!r} holds no texts that kdc can read", f"texts come from {known}")
    listing, unlabelled = _labelled(source.find(named.rest, columns, progress), skip_bad, progress)
    return settled(listing, reference, "text"), unlabelled


def _labelled(listing: Found, skip_bad: bool, progress: Progress) -> tuple[Found, tuple[str, ...]]:
    without = [(part, row) for part, row in listing.samples() if not part.labels[row]]
    if not without:
        return listing, ()
    errors = [missing_label(part.where(row)) for part, row in without]
    if not skip_bad:
        suffix = f" (and {len(errors) - 1} more labels)" if len(errors) > 1 else ""
        raise KdcError(f"{errors[0].message}{suffix}", f"{errors[0].hint}; --skip-bad leaves it out")
    for error in errors:
        progress.warn(f"left out: {error.message}")
    parts = {name: _rows(part, [row for row, label in enumerate(part.labels) if label])
             for name, part in listing.parts.items()}  # fmt: skip
    return replace(listing, parts=parts), tuple(part.ids[row] for part, row in without)


def _rows(part: Part, rows: list[int]) -> Part:
    """Some rows of it."""
    return replace(
        part,
        ids=tuple(part.ids[row] for row in rows),
        labels=tuple(part.labels[row] for row in rows),
        content=lambda row: part.content(rows[row]),
        where=lambda row: part.where(rows[row]),
    )


def find_unlabelled(reference: str, columns: Columns, progress: Progress) -> tuple[Part, tuple[str, ...]]:
    """Texts to learn from without labels, and notes: the lines of a file, those in a folder at any depth, or the train
    part of any other source, whose labels are not read."""
    named = Reference.parse(reference)
    without: dict[str, Callable[[str], Found]] = {
        "text": find_lines,
        "folder": find_texts,
        "csv": lambda rest: find_csv(rest, columns, progress, labelled=False),
        "parquet": lambda rest: find_parquet(rest, columns, progress, labelled=False),
        "hf": lambda rest: find_hub(rest, columns, progress, labelled=False),
    }
    if named.scheme not in without or named.rest is None:
        known = ", ".join(["text:FILE (one text a line)", *(row.spelling for row in SOURCES.values())])
        raise KdcError(f"{reference!r} names no texts that kdc can read", f"texts come from {known}")
    listing = without[named.scheme](named.rest)
    refuse_ids(listing.parts["train"], "text")
    return listing.parts["train"], listing.notes
