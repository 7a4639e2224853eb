"""A table of completions, `outputs:FILE.jsonl`: a language model's answers to prompts, a JSON object a line.

`prompt` and `completion` must be there; `model`, `licence` and `terms` are "unknown" where they are left out, and so is
how the answer was drawn (schema.completions). A table grows: each answer is appended when it is there, and what a kill
leaves of a line is recognized. Written in UTF-8, as it comes: the order of the rows means nothing.
"""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from compressor.data.json_lines import MOST_LINE, json_lines
from compressor.errors import KdcError, os_error
from compressor.files.locks import locked
from compressor.files.writing import is_stream
from compressor.processes.interruption import uninterrupted
from compressor.schema.base import parse
from compressor.schema.completions import Completion, Key
from compressor.schema.provenance import Ancestor

__all__ = ["ENDING", "CompletionTable", "Growing", "ancestors_of", "growing", "read_completions", "require_jsonl"]

ENDING = ".jsonl"


@dataclass(frozen=True, eq=False)
class CompletionTable:
    """Checked rows, in the order of the file. `sha256`: over what they say, in whatever order. `torn`: the byte at
    which a last line begins that was not written to its end; None where there is none."""

    rows: tuple[Completion, ...]
    sha256: str
    torn: int | None = None


def require_jsonl(path: Path, label: str) -> None:
    """Raise KdcError where the name does not end as that of JSON lines does."""
    if path.suffix.lower() != ENDING:
        raise KdcError(f"{label} {path} is a table of completions, which ends on {ENDING}", f"{path.stem}{ENDING}")


def read_completions(path: Path, *, torn: bool = False) -> CompletionTable:
    """The completions in a file.

    Args:
        path: JSON lines.
        torn: whether a last line that was not written to its end is passed over.

    Raises:
        KdcError: that names the line, where it is damaged, no such row, or the answer to a question that another line
            answers.
    """
    rows: dict[Key, Completion] = {}
    numbers: dict[Key, int] = {}
    begun = None
    for line in json_lines(path):
        if line.values is None:
            if not torn:
                raise KdcError(
                    f"{path} line {line.number} breaks off: whoever wrote it was stopped",
                    "kdc predict … --resume asks for it again",
                )
            begun = line.start
            continue
        row = parse(Completion, line.values, f"{path} line {line.number}")
        if row.key in rows:
            raise KdcError(
                f"{path} line {line.number} answers the same question as line {numbers[row.key]}",
                "several answers to a prompt are numbered: sample 0, 1, …",
            )
        rows[row.key], numbers[row.key] = row, line.number
    return CompletionTable(tuple(rows.values()), _sha256(list(rows.values())), begun)


def ancestors_of(rows: Sequence[Completion], source: str) -> tuple[Ancestor, ...]:
    """Whose answers they are: each model, with its licence and terms, once. `source`: of the table."""
    names = {}
    for row in rows:
        for model in dict.fromkeys([row.model, row.answered_by or row.model]):
            names[model, row.licence, row.terms] = Ancestor(
                source=source, model=model, licence=row.licence, terms=row.terms
            )
    return tuple(names[name] for name in sorted(names))


def _sha256(rows: list[Completion]) -> str:
    lines = sorted(row.model_dump_json() for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


class Growing:
    """A table that is appended to: `rows` that are there, and `append`, a row at a time, each whole on the disk before
    the next one."""

    def __init__(self, path: Path, rows: tuple[Completion, ...]) -> None:
        self.rows = rows
        self._path = path
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)

    def append(self, row: Completion) -> None:
        """Raises KdcError where the disk is full; nothing of the row is left then."""
        line = (row.model_dump_json(exclude_none=True) + "\n").encode()
        if len(line) > MOST_LINE:
            raise KdcError(f"an answer of {len(line):,} bytes is longer than a line that is read", "--max-tokens N")
        with uninterrupted():
            end = os.fstat(self._file).st_size
            try:
                written = 0
                while written < len(line):
                    written += os.write(self._file, line[written:])
                os.fsync(self._file)
            except OSError as error:
                os.ftruncate(self._file, end)
                raise os_error(error, f"writing {self._path}") from error

    def close(self) -> None:
        os.close(self._file)


@contextmanager
def growing(path: Path, *, resume: bool) -> Iterator[Growing]:
    """The table at `path`, which no other command writes meanwhile; a line that breaks off is gone from it. Raises
    KdcError where it is there and is not to be resumed, where it is not and is to be, and where it is no such table."""
    require_jsonl(path, "--out")
    if is_stream(path):
        raise KdcError(f"--out {path} is no regular file, and a table of completions is one", "name a file")
    path = path.resolve()
    with locked(path, "kdc predict", file=True):
        if path.exists() and not resume:
            raise KdcError(f"--out {path} exists", "--resume to go on with it, or another --out")
        if not path.exists() and resume:
            raise KdcError(f"--resume: there is no table {path}", "leave --resume out to start one")
        rows = _mended(path) if path.exists() else ()
        try:
            table = Growing(path, rows)
        except OSError as error:
            raise os_error(error, f"writing {path}") from error
        try:
            yield table
        finally:
            table.close()


def _mended(path: Path) -> tuple[Completion, ...]:
    """The rows of a table, whose last line is then whole and ended."""
    try:
        table = read_completions(path, torn=True)
    except KdcError as error:
        raise KdcError(f"--out {error.message}; so it is left alone", error.hint or "choose another --out") from None
    try:
        with path.open("r+b") as file:
            if table.torn is not None:
                file.truncate(table.torn)
            elif file.seek(0, os.SEEK_END):
                file.seek(-1, os.SEEK_END)
                if file.read(1) != b"\n":
                    file.write(b"\n")
    except OSError as error:
        raise os_error(error, f"writing {path}") from error
    return table.rows
