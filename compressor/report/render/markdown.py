"""Names, texts and tables as GitHub markdown from which nothing can break out."""

import re
from collections.abc import Iterable

from compressor.terminal.printable import one_line

__all__ = ["code", "table", "text"]

LONGEST_CELL = 240


def text(value: object) -> str:
    """Anything as one line of markdown that cannot break out of its table cell."""
    line = one_line(value)
    line = line if len(line) <= LONGEST_CELL else line[: LONGEST_CELL - 1] + "…"
    # No tag begins with "< " or "<1": "n=33 < 1000" stays as it is for who reads it in a terminal.
    return re.sub(r"([\\`*|]|<(?![ 0-9])|\](?=[(\[:]))", r"\\\1", line)


def code(value: object) -> str:
    """A name in code style; within it only the bar needs escaping, and only in tables."""
    return "`" + one_line(value).replace("`", "'").replace("|", "\\|") + "`"


def table(header: list[str], rows: Iterable[list[str]], figures: int = 0) -> str:
    """A markdown table; its last `figures` columns are aligned to the right."""
    rule = ["---"] * (len(header) - figures) + ["---:"] * figures
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))
