"""`csv:PATH`: a table of paths of images; and what `parquet:PATH` shares with it."""

from collections.abc import Callable, Sequence
from pathlib import Path

from compressor.data.csv_columns import csv_columns
from compressor.data.labels import label_texts
from compressor.data.samples import Found
from compressor.data.table_files import files_by_split, pick
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
    def choose(header: Sequence[str]) -> tuple[str, str]:
        return pick(header, IMAGE_COLUMNS, "images", path), pick(header, LABEL_COLUMNS, "labels", path)

    read = csv_columns(path, choose)
    paths = [value.strip() for value in read.column(0)]
    return path_table(
        path, paths, label_texts(read.column(1), read.where), read.where, read.splits, None,
        f"images from column {read.names[0]}, labels from column {read.names[1]}{read.note}",
    )  # fmt: skip


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
