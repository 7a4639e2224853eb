"""`csv:PATH`: a table of paths of images; and what `parquet:PATH` shares with it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from compressor.data.csv_rows import csv_text, rows_of
from compressor.data.labels import label_texts
from compressor.data.samples import Found
from compressor.data.separators import separated, separator_of
from compressor.data.split_columns import SplitColumns
from compressor.data.table_files import files_by_split, pick, split_column
from compressor.data.table_rows import Table, join
from compressor.errors import KdcError
from compressor.progress import Progress
from compressor.tasks.image_classification.sources.folder import read_image

__all__ = [
    "IMAGE_COLUMNS",
    "LABEL_COLUMNS",
    "find_csv",
    "image_file",
]

# Where several are there, the first of these counts, and a note says so.
IMAGE_COLUMNS = ("image", "img", "image", "image_path", "path", "file", "file_name", "filename")
LABEL_COLUMNS = ("label", "class", "class_name", "label_name", "target", "category")


def find_csv(location: str, progress: Progress) -> Found:
    """CSV with a header, in UTF-8 (`separator_of`). Paths of images are relative to the file."""
    files, notes = files_by_split(location, "csv")
    return join({split: [_read_csv(path) for path in paths] for split, paths in files.items()}, notes)


def image_file(text: str, table: Path) -> Path:
    """The file that a path in a table means: relative to the table's folder."""
    return table.parent / text


def _read_csv(path: Path) -> Table:
    separator = separator_of(path)
    with csv_text(path) as file:
        rows = rows_of(file, path, separator=separator)
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

    note = f"images from column {image}, labels from column {label}{separated(separator)}"
    splits = without_blanks(2) if split else None
    return path_table(path, without_blanks(0), label_texts(column(1), where), where, splits, None, note)


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
