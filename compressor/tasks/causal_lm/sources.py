"""Where documents come from: one row a scheme. Adding a source is one function and one row."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from compressor.data.class_folders import Kind, every_file
from compressor.data.csv_rows import csv_text, rows_of
from compressor.data.hub_data import load_splits, names_of_splits
from compressor.data.labels import listed
from compressor.data.parquet_columns import column_in
from compressor.data.parquet_footer import footer_of, reading
from compressor.data.places import present_path
from compressor.data.samples import Found, Part
from compressor.data.separators import separator_of
from compressor.data.split_words import SPLIT_NAMES, sounds_like
from compressor.data.table_files import files_by_split, split_column
from compressor.data.table_rows import Table, join
from compressor.errors import KdcError, needs
from compressor.files.reading import json_value, open_regular, read_bytes
from compressor.install import install_line
from compressor.progress import Progress
from compressor.references import Reference
from compressor.schema.student import Columns

__all__ = ["FORMS", "find", "form_of"]

FORMS = (("messages",), ("prompt", "completion"), ("text",))
"""The columns that a document is made of, the first that are there; `documents.document_of` makes it."""

MOST_LINE = 64_000_000
MOST_FILE = 2**30
HINT = (
    "columns text, or prompt and completion, or messages; others: --text-column NAME, of a prompt and a completion both"
)

Form: TypeAlias = Mapping[str, str]
"""Name in FORMS -> the table's column."""


def find(reference: str, columns: Columns, progress: Progress) -> Found:
    """What the source that `reference` names holds: of each sample its cells, by their names in FORMS. No classes."""
    if columns.label is not None:
        raise KdcError("--label-column is of classes, and a language model has none", "leave it out")
    named = Reference.parse(reference)
    source = SOURCES.get(named.scheme)
    if source is None or named.rest is None:
        raise KdcError(
            f"data {reference!r} holds no documents that kdc can read",
            f"documents come from {', '.join(f'{scheme}:PATH' for scheme in SOURCES)}",
        )
    listing = source(named.rest, columns, progress)
    return Found((), listing.parts, listing.notes)


def form_of(columns: Sequence[str], asked: Columns, where: object) -> Form:
    """Which of a table's columns make up a document. Raises KdcError where that is not known."""
    if asked.text:
        for name in asked.text:
            if name not in columns:
                raise KdcError(f"{where} has no column {name}; its columns: {listed(columns) or 'none'}", HINT)
        return dict(zip(("text",) if len(asked.text) == 1 else ("prompt", "completion"), asked.text, strict=True))
    plain = {column.strip().lower(): column for column in columns}
    there = [form for form in FORMS if all(name in plain for name in form)]
    if not there:
        raise KdcError(f"{where} has no columns that make a document; its columns: {listed(columns) or 'none'}", HINT)
    if len(there) > 1:
        both = " and ".join(", ".join(form) for form in there)
        raise KdcError(f"{where} has columns for several kinds of documents: {both}", "--text-column NAME says which")
    return {name: plain[name] for name in there[0]}


def _note(form: Form) -> str:
    kinds = {"messages": "chats", "text": "texts", "prompt": "prompts and completions"}
    return f"{kinds[next(iter(form))]} from {' and '.join(form.values())}"


def _table(path: Path, rows: Sequence[Mapping[str, Any]], lines: Sequence[str], form: Form, split: str | None) -> Table:
    """`rows`: column -> cell; `lines`: where each stands."""
    splits = [row.get(split) for row in rows] if split is not None else None

    def content(row: int) -> dict[str, Any]:
        return {name: rows[row].get(column) for name, column in form.items()}

    return Table(path, ("",) * len(rows), None, splits, content, lambda row: lines[row], None, _note(form))


def _find_csv(location: str, columns: Columns, progress: Progress) -> Found:
    def table(path: Path) -> Table:
        with csv_text(path) as file:
            numbered = rows_of(file, path, separator=separator_of(path))
            header = [name.strip() for name in next(numbered, (0, []))[1]]
            if len({*header}) < len(header):
                raise KdcError(f"{path} has several columns of one name", "keep one of them")
            form, split = form_of(header, columns, path), split_column(header, path)
            if "messages" in form:
                raise KdcError(f"{path}: messages do not fit into a table of texts", "jsonl:PATH, a chat a line")
            wanted = {*form.values(), split}
            kept = [
                (line, {name: cell for name, cell in zip(header, row, strict=True) if name in wanted})
                for line, row in numbered
            ]
        lines = [f"{path} line {line}" for line, _ in kept]
        return _table(path, [row for _, row in kept], lines, form, split)

    files, notes = files_by_split(location, "csv")
    return join({split: [table(path) for path in paths] for split, paths in files.items()}, notes, "documents")


def _find_parquet(location: str, columns: Columns, progress: Progress) -> Found:
    needs("pyarrow", install_line("pyarrow"), "parquet: data")

    def table(path: Path) -> Table:
        names = footer_of(path)[0].names
        form, split = form_of(names, columns, path), split_column(names, path)
        wanted = [*form.values(), *([split] if split else [])]
        cells = {name: _values(path, name) for name in wanted}
        rows = [dict(zip(wanted, row, strict=True)) for row in zip(*cells.values(), strict=True)]
        return _table(path, rows, [f"{path} row {row}" for row in range(len(rows))], form, split)

    files, notes = files_by_split(location, "parquet")
    return join({split: [table(path) for path in paths] for split, paths in files.items()}, notes, "documents")


def _values(path: Path, name: str) -> list[Any]:
    values: list[Any] = reading(path, lambda parquet: column_in(parquet, path, name).to_pylist())
    return values


def _find_jsonl(location: str, columns: Columns, progress: Progress) -> Found:
    """A JSON object a line, in UTF-8; blank lines are passed over."""

    def table(path: Path) -> Table:
        kept = [(number, _object(line, f"{path} line {number}")) for number, line in _lines(path) if line.strip()]
        if not kept:
            raise KdcError(f"{path} holds no documents", "a JSON object a line")
        names = [*dict.fromkeys(name for _, row in kept for name in row)]
        form, split = form_of(names, columns, path), split_column(names, path)
        lines = [f"{path} line {number}" for number, _ in kept]
        return _table(path, [row for _, row in kept], lines, form, split)

    files, notes = files_by_split(location, "jsonl")
    return join({split: [table(path) for path in paths] for split, paths in files.items()}, notes, "documents")


def _object(line: str, where: str) -> dict[str, Any]:
    value = json_value(line, where)
    if not isinstance(value, dict):
        raise KdcError(f"{where} is no JSON object", 'as {"text": "…"}')
    return value


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with open_regular(path) as file:
        for number, line in enumerate(iter(lambda: file.readline(MOST_LINE + 1), b""), 1):
            if len(line) > MOST_LINE:
                raise KdcError(f"{path} line {number} is longer than {MOST_LINE:,} bytes, the most that is read")
            yield number, _decoded(line, f"{path} line {number}")


def _decoded(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise KdcError(f"{where} is not UTF-8 (byte 0x{data[error.start]:02x})", "save it in UTF-8") from None


def _find_hub(location: str, columns: Columns, progress: Progress) -> Found:
    _, splits = load_splits(location, progress)
    names, unknown = names_of_splits(splits, location, "")
    form = form_of(splits[names["train"]].column_names, columns, f"hf:{location}")
    parts = {split: _hub_part(splits[name], form, name, f"hf:{location}") for split, name in names.items()}
    return Found((), parts, (_note(form), *([f"ignored the splits {listed(unknown)}"] if unknown else [])))


def _hub_part(dataset: Any, form: Form, name: str, source: str) -> Part:
    for column in form.values():
        if column not in dataset.column_names:
            raise KdcError(f"{source}: the split {name} has no column {column}; its: {listed(dataset.column_names)}")
    chosen = dataset.select_columns([*form.values()])
    return Part(
        ids=tuple(f"{name}/{row}" for row in range(len(dataset))),
        labels=("",) * len(dataset),
        content=lambda row: {key: chosen[row][column] for key, column in form.items()},
        where=lambda row: f"{source} {name} row {row}",
        encoded=True,
    )


def _text_file(path: Path) -> dict[str, str]:
    return {"text": _decoded(read_bytes(path, most=MOST_FILE), str(path))}


TEXTS = Kind(frozenset({".txt"}), "text", "texts", _text_file)


def _find_folder(location: str, columns: Columns, progress: Progress) -> Found:
    """Every .txt file under a folder is a document; folders train, validation and test in it are the splits."""
    _refuse_columns(columns, "a folder")
    listing = every_file(location, TEXTS)
    whole = listing.parts["train"]
    tops = [sample_id.partition("/")[0].lower() if "/" in sample_id else "" for sample_id in whole.ids]
    if not any(SPLIT_NAMES.get(top) == "train" for top in tops):
        parts = [part for sample_id in whole.ids for part in sample_id.split("/")[:-1]]
        if held_out := next((part for part in parts if sounds_like(part) in ("validation", "test")), None):
            raise KdcError(f"folder:{location} holds {held_out}, which sounds like a split, and no train beside it")
        return listing
    rows: dict[str, list[int]] = {}
    for row, top in enumerate(tops):
        if top not in SPLIT_NAMES:
            raise KdcError(f"{whole.where(row)} lies beside train, in no split", "move it into one")
        rows.setdefault(SPLIT_NAMES[top], []).append(row)
    return Found((), {split: _rows(whole, taken) for split, taken in rows.items()}, ())


def _find_lines(location: str, columns: Columns, progress: Progress) -> Found:
    """Every line of a file is a document; blank ones are passed over."""
    _refuse_columns(columns, "a text")
    path = present_path(location, "text", folder=False)
    if path.is_dir():
        raise KdcError(f"text:{location} is a folder, and names a file with a document a line", f"folder:{location}")
    held = [(number, line.rstrip("\r\n")) for number, line in _lines(path) if line.strip()]
    if not held:
        raise KdcError(f"{path} holds no documents", "one a line, in UTF-8")
    part = Part(
        ids=tuple(f"line {number}" for number, _ in held),
        labels=("",) * len(held),
        content=lambda row: {"text": held[row][1]},
        where=lambda row: f"{path} line {held[row][0]}",
        encoded=True,
    )
    return Found((), {"train": part}, ())


def _refuse_columns(columns: Columns, kind: str) -> None:
    if columns != Columns():
        raise KdcError(f"--text-column is of tables, and {kind} has none", "leave it out")


def _rows(part: Part, rows: list[int]) -> Part:
    return Part(
        ids=tuple(part.ids[row] for row in rows),
        labels=("",) * len(rows),
        content=lambda row: part.content(rows[row]),
        where=lambda row: part.where(rows[row]),
        encoded=True,
    )


SOURCES: dict[str, Callable[[str, Columns, Progress], Found]] = {
    "jsonl": _find_jsonl,
    "csv": _find_csv,
    "parquet": _find_parquet,
    "hf": _find_hub,
    "folder": _find_folder,
    "text": _find_lines,
}
