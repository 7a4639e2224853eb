"""Names, texts and tables as GitHub markdown from which nothing can break out."""

import re
from collections.abc import Iterable

from compressor.terminal.printable import one_line

__all__ = ["code", "command", "fold", "table", "text"]

LONGEST_CELL = 240
LONGEST_NAME = 120

_MARKUP = re.compile(r"([\\`*|]|<(?![ 0-9])|\](?=[(\[:])|~(?=~)|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|^(?:[#>+-](?= )))")
_MENTION = re.compile(r"(?<!\w)@(?=\w)")


def text(value: object) -> str:
    """Anything as one line of markdown that cannot break out of its table cell, and calls nobody (`@name`)."""
    line = _short(one_line(value), LONGEST_CELL)
    # No tag begins with "< " or "<1": "n=33 < 1000" stays as it is for who reads it in a terminal.
    return _MENTION.sub("@\u2060", _MARKUP.sub(r"\\\1", line))


def code(value: object) -> str:
    """A name in code style; within it only the bar needs escaping, and only in tables."""
    line = _short(one_line(value), LONGEST_NAME).replace("`", "'").replace("|", "\\|")
    return f"`{line or ' '}`"


def command(value: str) -> str:
    """A command in code style, never cut and as it is typed; not for tables, whose cells end at a bar."""
    line = one_line(value)
    fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
    edge = " " if len(fence) > 1 else ""
    return f"{fence}{edge}{line}{edge}{fence}"


def table(header: list[str], rows: Iterable[list[str]], figures: int = 0) -> str:
    """A markdown table; its last `figures` columns are aligned to the right."""
    rule = ["---"] * (len(header) - figures) + ["---:"] * figures
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def fold(title: str, blocks: Iterable[str]) -> str:
    """Blocks of markdown under a title that opens them. `title` is HTML: ours, without names of others in it."""
    return "\n\n".join([f"<details><summary>{title}</summary>", *blocks, "</details>"])


def _short(line: str, most: int) -> str:
    return line if len(line) <= most else line[: most - 1] + "…"
