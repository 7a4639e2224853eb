"""Whose answers a table holds: what it says of itself, or its columns `model`, `licence` and `terms`."""

import contextlib
from collections.abc import Sequence
from pathlib import Path

from compressor.data.completion_files import ENDING, ancestors_of, read_completions
from compressor.data.prediction_files import RawTable, read_table
from compressor.schema.provenance import UNKNOWN, Ancestor
from compressor.terminal.printable import one_line

__all__ = ["PROVENANCE", "ancestors_in", "table_ancestors"]

PROVENANCE = ("model", "licence", "terms")
"""Columns of a table that was made by hand, each of which may be left out. In such a table they may be classes, too:
then they hold numbers."""
LONGEST = 2000


def table_ancestors(path: Path, source: str) -> tuple[Ancestor, ...]:
    """Of a table of either kind; `source`: how it is referred to. Raises KdcError where it cannot be read."""
    if path.suffix.lower() == ENDING:
        return ancestors_of(read_completions(path).rows, source)
    return ancestors_in(read_table(path), source)


def ancestors_in(table: RawTable, source: str) -> tuple[Ancestor, ...]:
    """Each model with its licence and terms, once; what is not said is unknown."""
    columns = [name for name in PROVENANCE if name in table.columns]
    if table.info is not None:
        return table.info.teacher.provenance
    told = {name: texts for name in columns if not _are_numbers(texts := table.texts(name))}
    if not told:
        return (Ancestor(source=source),)
    rows = dict.fromkeys(zip(*(told.get(name, [UNKNOWN] * table.rows) for name in PROVENANCE), strict=True))
    return tuple(
        Ancestor(source=source, **dict(zip(PROVENANCE, (one_line(text)[:LONGEST] for text in row), strict=True)))
        for row in sorted(rows)
    )


def _are_numbers(texts: Sequence[str]) -> bool:
    with contextlib.suppress(ValueError):
        return all(float(text) is not None for text in texts)
    return False
