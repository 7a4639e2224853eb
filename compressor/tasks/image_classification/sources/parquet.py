"""`parquet:PATH`: a table with the encoded images inside, or with paths of images."""

from pathlib import Path
from typing import Any

from compressor.data.labels import label_texts
from compressor.data.parquet_cells import Cells, encoded_in, may_hold_files
from compressor.data.parquet_columns import column_in, hugging_face_names, refuse_split_columns
from compressor.data.parquet_footer import footer_of, reading
from compressor.data.samples import Found
from compressor.data.table_files import files_by_split, pick, split_column
from compressor.data.table_rows import Table, join
from compressor.errors import KdcError, needs
from compressor.install import install_line
from compressor.progress import Progress
from compressor.tasks.image_classification.sources.folder import read_image
from compressor.tasks.image_classification.sources.tables import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    image_file,
    path_table,
)

__all__ = ["encoded_image", "find_parquet"]


def find_parquet(location: str, progress: Progress) -> Found:
    """Images as bytes, as Hugging Face's {bytes, path}, or as paths relative to the file. Integer labels get the
    names that Hugging Face keeps in the file's metadata, where it has them."""
    needs("pyarrow", install_line("pyarrow"), "parquet: data")
    files, notes = files_by_split(location, "parquet")
    return join({split: [_table(path) for path in paths] for split, paths in files.items()}, notes)


def _table(path: Path) -> Table:
    pa = needs("pyarrow", install_line("pyarrow"), "parquet: data")
    schema, metadata = footer_of(path)
    image = pick(schema.names, IMAGE_COLUMNS, "images", path)
    label = pick(schema.names, LABEL_COLUMNS, "labels", path)
    split = split_column(schema.names, path)

    def column(name: str) -> list[Any]:
        values: list[Any] = reading(path, lambda parquet: column_in(parquet, path, name).to_pylist())
        return values

    def where(row: int) -> str:
        return f"{path} row {row}"

    if split is None:
        refuse_split_columns(pa, schema, path, (image, label))
    names = hugging_face_names(schema, label, path)
    labels = label_texts(column(label), where, names)
    splits = column(split) if split else None
    note = f"images from column {image}, labels from column {label}"
    kind = schema.field(image).type
    if pa.types.is_dictionary(kind):  # a categorical column of pandas
        kind = kind.value_type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return path_table(path, column(image), labels, where, splits, names, note)
    if not may_hold_files(pa, kind):
        raise KdcError(f"{path}: column {image} holds {kind}; expected bytes, {{bytes, path}} or the path of an image")
    cells = Cells(path, image, metadata)

    def content(row: int) -> bytes:
        return encoded_image(cells.at(row), where(row), path)

    return Table(path, labels, None, splits, content, where, names, note)


def encoded_image(value: object, where: str, table: Path | None) -> bytes:
    """The bytes of an image from a cell: bytes, or Hugging Face's {bytes, path}; paths are relative to `table`."""

    def read(path: str) -> bytes:
        return read_image(image_file(path, table) if table else Path(path))

    return encoded_in(value, where, read, "image")
