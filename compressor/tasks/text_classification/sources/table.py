"""Where texts come from: one row a scheme. Adding a source is one function and one row."""

from collections.abc import Callable
from dataclasses import dataclass

from compressor.data.naming import settled
from compressor.data.samples import Found
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.references import Reference
from compressor.schema.student import Columns
from compressor.tasks.text_classification.sources.folder import find_folder
from compressor.tasks.text_classification.sources.hub import find_hub
from compressor.tasks.text_classification.sources.tables import find_csv, find_parquet

__all__ = ["SOURCES", "Source", "find"]


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


def find(reference: str, columns: Columns, progress: Progress) -> Found:
    """What the source that `reference` names holds, with the names of its classes settled."""
    named = Reference.parse(reference)
    source = SOURCES.get(named.scheme)
    if source is None or named.rest is None:
        known = ", ".join(row.spelling for row in SOURCES.values())
        raise KdcError(f"data {reference!r} holds no texts that kdc can read", f"texts come from {known}")
    return settled(source.find(named.rest, columns, progress), reference, "text")
