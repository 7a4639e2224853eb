"""`folder:PATH`: one .txt file a sample, one folder a class, directly in PATH or in its splits' folders."""

from pathlib import Path

from compressor.data.class_folders import Kind, find_class_folders
from compressor.data.samples import Found
from compressor.errors import KdcError
from compressor.files.reading import read_bytes
from compressor.progress import Progress
from compressor.schema.student import Columns

__all__ = ["find_folder", "read_text_file"]

TEXT_BYTES = 64_000_000


def read_text_file(path: Path) -> tuple[str]:
    """The text of a regular file in UTF-8, with or without a byte order mark; or KdcError."""
    data = read_bytes(path, most=TEXT_BYTES)
    try:
        return (data.decode("utf-8-sig"),)
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise KdcError(
            f"{path} line {line} is not UTF-8 (byte 0x{data[error.start]:02x})",
            f"convert it: iconv -f WINDOWS-1252 -t UTF-8 {path.name}, if that is what it is in",
        ) from None


TEXTS = Kind(frozenset({".txt"}), "text", "texts", read_text_file)


def find_folder(location: str, columns: Columns, progress: Progress) -> Found:
    """Texts by suffix, in folders as `find_class_folders` reads them."""
    if columns != Columns():
        raise KdcError("--text-column and --label-column are of tables, and a folder has none", "leave them out")
    return find_class_folders(location, TEXTS)
