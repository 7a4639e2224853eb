"""Names and texts of others as the page shows them: in one line, cut, and with nothing in them that acts."""

from compressor.terminal.printable import one_line

__all__ = ["shown"]


def shown(value: object, most: int = 160) -> str:
    """Anything as one line of at most `most` signs. What it has of markup is text all the same: the template escapes
    what stands in it, and the browser is given names as text."""
    line = one_line(str(value)[: 4 * most])
    return line if len(line) <= most else line[: most - 1] + "…"
