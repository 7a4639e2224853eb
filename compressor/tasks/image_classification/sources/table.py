"""Where data comes from: one row a scheme. Adding a source is one function and one row."""

from collections.abc import Callable
from dataclasses import dataclass

from compressor.data.naming import refuse_ids, settled
from compressor.data.samples import Found, Part
from compressor.errors import KdcError, did_you_mean
from compressor.progress import Progress
from compressor.references import Reference
from compressor.tasks.image_classification.sources.digits import find_digits
from compressor.tasks.image_classification.sources.folder import find_folder, find_images
from compressor.tasks.image_classification.sources.hub import find_hub
from compressor.tasks.image_classification.sources.idx import find_idx
from compressor.tasks.image_classification.sources.parquet import find_parquet
from compressor.tasks.image_classification.sources.tables import find_csv

__all__ = ["SOURCES", "Source", "find", "find_unlabelled"]


@dataclass(frozen=True)
class Source:
    """`find` gets what follows the colon. `spelling` and `example` are for messages."""

    find: Callable[[str, Progress], Found]
    spelling: str
    example: str


SOURCES = {
    "folder": Source(find_folder, "folder:PATH", "folder:data/flowers"),
    "idx": Source(find_idx, "idx:PATH", "idx:data/fashion-mnist"),
    "parquet": Source(find_parquet, "parquet:PATH", "parquet:data/train.parquet"),
    "csv": Source(find_csv, "csv:PATH", "csv:data/labels.csv"),
    "hf": Source(find_hub, "hf:NAME_OR_PATH", "hf:uoft-cs/cifar10 or hf:OWNER/NAME@CONFIG"),
    "digits": Source(find_digits, "digits", "digits"),
}


def find(reference: str, progress: Progress) -> Found:
    """What the source that `reference` names holds, with the names of its classes settled."""
    named = Reference.parse(reference)
    source = SOURCES.get(named.scheme)
    if source is None or (named.rest is not None) != (":" in source.spelling):
        spellings = "; ".join(f"{source.spelling} (e.g. {source.example})" for source in SOURCES.values())
        near = did_you_mean(named.scheme, SOURCES) if source is None else f"; it is spelt {source.spelling}"
        raise KdcError(f"data {reference!r} is not understood{near}", f"known: {spellings}")
    return settled(source.find(named.rest or "", progress), reference)


def find_unlabelled(reference: str, progress: Progress) -> tuple[Part, tuple[str, ...]]:
    """Images to learn from without their labels, and notes: those in a folder at any depth, or the train part of any
    other source, which must be whole (with labels) all the same."""
    named = Reference.parse(reference)
    if named.scheme == "folder" and named.rest is not None:
        listing = find_images(named.rest, progress)
    else:
        listing = find(reference, progress)
    refuse_ids(listing.parts["train"])
    return listing.parts["train"], listing.notes
