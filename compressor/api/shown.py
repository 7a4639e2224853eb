"""What all results share: a line, a dict, and how a notebook shows them."""

import html
from collections.abc import Iterable, Sequence

__all__ = ["Shown", "html_of", "html_table"]


class Shown:
    """What they share. `summary`: one line; `to_dict`: what the command prints with --json."""

    @property
    def summary(self) -> str:
        raise NotImplementedError

    def __repr__(self) -> str:
        from compressor.terminal.printable import printable

        return f"<{type(self).__name__} {printable(self.summary)}>"

    def _repr_html_(self) -> str:
        return f"<p>{html_of(self.summary)}</p>"


def html_of(value: object) -> str:
    """Text that no name of a class, a file or a model can make into markup."""
    from compressor.terminal.printable import printable

    return html.escape(printable(value))


def html_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """`rows` as an HTML table; without a `header`, the first cell of each row is one."""
    lines = ["".join(f"<th>{html_of(cell)}</th>" for cell in header)] if header else []
    for row in rows:
        first, *cells = map(html_of, row)
        lines.append(
            f"<{'td' if header else 'th'}>{first}</{'td' if header else 'th'}>"
            + "".join(f"<td>{cell}</td>" for cell in cells)
        )
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"
