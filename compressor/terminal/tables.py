"""Tables as plain text, for a terminal and for a log."""

from collections.abc import Iterable, Sequence

from compressor.terminal.printable import printable

__all__ = ["table"]


def table(rows: Iterable[Sequence[str]], indent: str = "") -> str:
    """Columns that start below each other, a line a row whatever the cells hold, none cut or broken. Widths are those
    that a terminal shows: of some scripts and of emoji a sign takes two cells."""
    from rich.cells import cell_len

    lines = [[printable(cell) for cell in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(*lines, strict=True)]

    def padded(line: Sequence[str]) -> str:
        cells = (cell + " " * (width - cell_len(cell)) for cell, width in zip(line, widths, strict=True))
        return (indent + "  ".join(cells)).rstrip()

    return "\n".join(map(padded, lines))
