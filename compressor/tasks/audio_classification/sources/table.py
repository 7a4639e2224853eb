"""Where sounds come from: one row a scheme. Adding a source is one function and one row."""

from collections.abc import Callable
from dataclasses import dataclass

from compressor.data.naming import refuse_ids, settled
from compressor.data.samples import Found, Part
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.references import Reference
from compressor.tasks.audio_classification.sources.folder import find_folder, find_sounds
from compressor.tasks.audio_classification.sources.hub import find_hub
from compressor.tasks.audio_classification.sources.tables import find_csv, find_parquet

__all__ = ["SOURCES", "Source", "find", "find_unlabelled"]


@dataclass(frozen=True)
class Source:
    """`find` gets what follows the colon. `spelling` is for messages."""

    find: Callable[[str, Progress], Found]
    spelling: str


SOURCES = {
    "folder": Source(find_folder, "folder:PATH"),
    "csv": Source(find_csv, "csv:PATH"),
    "parquet": Source(find_parquet, "parquet:PATH"),
    "hf": Source(find_hub, "hf:NAME_OR_PATH"),
}


def find(reference: str, progress: Progress) -> Found:
    """What the source that `reference` names holds, with the names of its classes settled."""
    named = Reference.parse(reference)
    source = SOURCES.get(named.scheme)
    if source is None or named.rest is None:
        known = ", ".join(row.spelling for row in SOURCES.values())
        raise KdcError(f"data {reference!r} holds no sounds that kdc can read", f"sounds come from {known}")
    return settled(source.find(named.rest, progress), reference, "sound")


def find_unlabelled(reference: str, progress: Progress) -> tuple[Part, tuple[str, ...]]:
    """Sounds to learn from without labels, and notes: those in a folder at any depth, or the train part of any other
    source, whose labels are not read."""
    named = Reference.parse(reference)
    without: dict[str, Callable[[str], Found]] = {
        "folder": find_sounds,
        "csv": lambda rest: find_csv(rest, progress, labelled=False),
        "parquet": lambda rest: find_parquet(rest, progress, labelled=False),
        "hf": lambda rest: find_hub(rest, progress, labelled=False),
    }
    if named.scheme not in without or named.rest is None:
        known = ", ".join(row.spelling for row in SOURCES.values())
        raise KdcError(f"{reference!r} names no sounds that kdc can read", f"sounds come from {known}")
    listing = without[named.scheme](named.rest)
    refuse_ids(listing.parts["train"], "sound")
    return listing.parts["train"], listing.notes
