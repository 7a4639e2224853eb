"""What `csv:PATH` and `parquet:PATH` share: which files, which columns, and rows -> parts. And `csv:` itself."""

import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compressor.data.csv_rows import csv_text, rows_of
from compressor.data.labels import class_order, label_texts, listed
from compressor.data.samples import Content, Found, Part
from compressor.data.split_words import SPLIT_NAMES, sounds_like
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.tasks.image_classification.sources.folder import entries, present_path, read_image
from compressor.tasks.image_classification.sources.split_columns import SplitColumns

__all__ = [
    "IMAGE_COLUMNS",
    "LABEL_COLUMNS",
    "Table",
    "files_by_split",
    "find_csv",
    "image_file",
    "join",
    "pick",
    "split_column",
]

# Where several are there, the first of these counts, and a note says so.
IMAGE_COLUMNS = ("image", "img", "image", "image_path", "path", "file", "file_name", "filename")
LABEL_COLUMNS = ("label", "class", "class_name", "label_name", "target", "category")
SPLIT_COLUMNS = ("split",)


@dataclass(frozen=True, eq=False)
class Table:
    """One file's rows. `paths` where images are files of their own: they serve as ids, which then do not hang on the
    order of rows. `splits`: the split column, if any. `names`: the class names in their order, if the file has them."""

    file: Path
    labels: tuple[str, ...]
    paths: Sequence[str] | None
    splits: Sequence[object] | None
    content: Callable[[int], Content]
    where: Callable[[int], str]
    names: tuple[str, ...] | None
    note: str


def find_csv(location: str, progress: Progress) -> Found:
    """CSV with a header, in UTF-8, with commas. Paths of images are relative to the file."""
    files, notes = files_by_split(location, "csv")
    return join({split: [_read_csv(path) for path in paths] for split, paths in files.items()}, notes)


def files_by_split(location: str, suffix: str) -> tuple[dict[str | None, list[Path]], tuple[str, ...]]:
    """`{None: [file]}` for one file, `{split: shards}` for a folder with files such as train.csv; and notes."""
    path = present_path(location, suffix, folder=False)
    if not path.is_dir():
        return {None: [path]}, ()
    pattern = re.compile(rf"([a-z]+)(?:[-_.]?\d+(?:-of-(\d+))?(?:-[0-9a-f]+)?)?\.{suffix}", re.IGNORECASE)
    files: dict[str | None, list[Path]] = defaultdict(list)
    words: dict[str, set[str]] = defaultdict(set)
    ignored = []
    for file in (entry for entry in entries(path) if entry.suffix.lower() == f".{suffix}"):
        if file.name.startswith("."):  # ._train.csv, which macOS leaves beside train.csv
            continue
        match = pattern.fullmatch(file.name)
        if match is None or match[1].lower() not in SPLIT_NAMES:
            ignored.append(file.name)
            continue
        split = SPLIT_NAMES[match[1].lower()]
        files[split].append(file)
        words[split].add(f"{match[1]} (of {int(match[2])})" if match[2] else match[1])
    for split, spelt in words.items():
        _must_be_whole(path, split, spelt, files[split])
    if "train" not in files:
        names = listed([*(file.name for shards in files.values() for file in shards), *ignored]) or "none"
        raise KdcError(
            f"{path} holds no train.{suffix}; its {suffix} files: {names}",
            f"expected train.{suffix} or train-00000-of-00002.{suffix}, likewise validation and test; or name one file",
        )
    _refuse_missed(path, ignored, {*files}, suffix)
    notes = [f"ignored {listed(ignored)}: not named after a split"] if ignored else []
    notes += [f"{split}: {listed(file.name for file in shards)}" for split, shards in files.items() if len(shards) > 1]
    return dict(files), tuple(notes)


def _refuse_missed(folder: Path, ignored: Sequence[str], splits: set[str | None], suffix: str) -> None:
    """Raise KdcError where a file that would be ignored sounds like a split that would be taken from train instead."""
    for name in ignored:
        sound = sounds_like(re.sub(r"-\d+-of-\d+.*", "", Path(name).stem))
        if sound in ("validation", "test") and sound not in splits:
            raise KdcError(
                f"{folder} holds {name}, which sounds like {sound}, and no {sound}.{suffix}",
                f"call it {sound}.{suffix}, or move it away: {sound} is then split off train",
            )


def _must_be_whole(folder: Path, split: str, spelt: set[str], shards: Sequence[Path]) -> None:
    count = len(shards)
    unnumbered = [file.name for file in shards if file.stem.isalpha()]
    if unnumbered and count > 1 and len(spelt) == 1:
        remaining = [*unnumbered[1:], *(file.name for file in shards if file.name not in unnumbered)]
        raise KdcError(
            f"{folder} holds {unnumbered[0]} and {listed(remaining)}: is {split} one file, or several?",
            f"number all of its files ({split}-1, {split}-2, …), or move away what is not part of it",
        )
    if len(spelt) > 1:
        raise KdcError(f"{folder} holds files named {' and '.join(sorted(spelt))}, which all mean {split}")
    total = re.search(r"\(of (\d+)\)", next(iter(spelt)))
    if total and int(total[1]) != count:
        raise KdcError(f"{folder} holds {count} of {total[1]} files of {split}", "fetch the others")


def pick(columns: Sequence[str], known: Sequence[str], content: str, where: object) -> str:
    """The column of a table that holds `content`, found by its documented names."""
    by_name: dict[str, list[str]] = {}
    for column in columns:
        by_name.setdefault(column.strip().lower(), []).append(column)
    for name in known:
        same = by_name.get(name, [])
        if len(same) > 1:
            raise KdcError(f"{where} has several columns for the {content}: {listed(same)}", "keep one of them")
        if same:
            return same[0]
    raise KdcError(
        f"{where} has no column for the {content}; its columns: {listed(columns) or 'none'}",
        f"name one of them {' or '.join(known)}",
    )


def image_file(text: str, table: Path) -> Path:
    """The file that a path in a table means: relative to the table's folder."""
    return table.parent / text


def _read_csv(path: Path) -> Table:
    with csv_text(path) as file:
        rows = rows_of(file, path)
        header = [name.strip() for name in next(rows, (0, []))[1]]
        image = pick(header, IMAGE_COLUMNS, "images", path)
        label = pick(header, LABEL_COLUMNS, "labels", path)
        split = split_column(header, path)
        split_columns = SplitColumns(
            {} if split else {at: name for at, name in enumerate(header) if name not in (image, label)}
        )
        # Only what counts is kept: a table may have many more columns.
        columns = [header.index(name) for name in (image, label, split) if name]
        kept = []
        for line, row in rows:
            kept.append((line, [row[index] for index in columns]))
            for index in split_columns.left:
                split_columns.see(index, [row[index]])
    split_columns.require_none(path)

    def column(number: int) -> list[str]:
        return [row[number] for _, row in kept]

    def without_blanks(number: int) -> list[str]:
        return [value.strip() for value in column(number)]

    def where(row: int) -> str:
        return f"{path} line {kept[row][0]}"

    note = f"images from column {image}, labels from column {label}"
    splits = without_blanks(2) if split else None
    return path_table(path, without_blanks(0), label_texts(column(1), where), where, splits, None, note)


def split_column(columns: Sequence[str], where: object) -> str | None:
    """The column that says which split a row is of, if there is one."""
    named = any(name.strip().lower() in SPLIT_COLUMNS for name in columns)
    return pick(columns, SPLIT_COLUMNS, "splits", where) if named else None


def path_table(
    file: Path,
    paths: Sequence[str | None],
    labels: tuple[str, ...],
    where: Callable[[int], str],
    splits: Sequence[object] | None,
    names: tuple[str, ...] | None,
    note: str,
) -> Table:
    """A table whose images are files."""
    named = []
    for row, text in enumerate(paths):
        if not text:
            raise KdcError(f"{where(row)}: the path of the image is missing")
        named.append(text)

    def content(row: int) -> bytes:
        try:
            return read_image(image_file(named[row], file))
        except KdcError as error:
            raise KdcError(f"{where(row)}: {error.message}") from error

    return Table(file, labels, named, splits, content, where, names, note)


def join(tables: dict[str | None, list[Table]], notes: tuple[str, ...]) -> Found:
    """The parts that the rows of all tables make up. Classes: as the files name them, else by the labels of train."""
    rows: dict[str, list[tuple[Table, int]]] = defaultdict(list)
    ids: dict[str, list[str]] = defaultdict(list)
    for file_split, shards in tables.items():
        before = 0
        for table in shards:
            for row in range(len(table.labels)):
                split = _split_of(table, row, file_split)
                rows[split].append((table, row))
                ids[split].append(_path_id(table, row) if table.paths else f"{split}/{before + row}")
            before += len(table.labels)
    every = [table for shards in tables.values() for table in shards]
    if "train" not in rows:
        raise KdcError(f"{every[0].file} holds no images of train" + (f", only of {listed(rows)}" if rows else ""))
    parts = {split: _part(tuple(ids[split]), members) for split, members in rows.items()}
    names = rows["train"][0][0].names or class_order(parts["train"].labels)
    return Found(names, parts, (*notes, *dict.fromkeys(table.note for table in every)))


def _split_of(table: Table, row: int, file_split: str | None) -> str:
    if table.splits is None:
        return file_split or "train"
    value = table.splits[row]
    split = SPLIT_NAMES.get(str(value).strip().lower())
    if split is None:
        raise KdcError(f"{table.where(row)}: split {value!r} is not known", f"known: {', '.join(SPLIT_NAMES)}")
    if file_split is not None and split != file_split:
        raise KdcError(f"{table.where(row)}: split {value!r} stands in a file named after {file_split}")
    return split


def _path_id(table: Table, row: int) -> str:
    assert table.paths is not None
    text = table.paths[row]
    if Path(text).is_absolute():  # an id must mean the same on another machine
        text = Path(os.path.relpath(text, table.file.parent)).as_posix()
    return posixpath.normpath(text)


def _part(ids: tuple[str, ...], members: Sequence[tuple[Table, int]]) -> Part:
    def content(number: int) -> Content:
        table, row = members[number]
        return table.content(row)

    def where(number: int) -> str:
        table, row = members[number]
        return table.where(row)

    labels = tuple(table.labels[row] for table, row in members)
    return Part(ids, labels, content, where, encoded=True)
