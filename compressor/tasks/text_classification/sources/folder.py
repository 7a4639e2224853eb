"""`folder:PATH`: one .txt file a sample, one folder a class, directly in PATH or in its splits' folders. Without labels
also `text:FILE`, one text a line."""

from pathlib import Path

from compressor.data.class_folders import Kind, every_file, find_class_folders
from compressor.data.places import present_path
from compressor.data.samples import Found, Part
from compressor.errors import KdcError
from compressor.files.reading import read_bytes
from compressor.progress import Progress
from compressor.schema.student import Columns

__all__ = ["find_folder", "find_lines", "find_texts", "read_text_file"]

TEXT_BYTES = 64_000_000
LINES_BYTES = 2**30


def read_text_file(path: Path, most: int = TEXT_BYTES) -> tuple[str]:
    """The text of a regular file in UTF-8, with or without a byte order mark; or KdcError."""
    data = read_bytes(path, most=most)
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


def find_texts(location: str) -> Found:
    """All texts under a folder at any depth, whatever the folders in it mean; none has a label."""
    return every_file(location, TEXTS)


def find_lines(location: str) -> Found:
    """One text a line; blank lines are passed over."""
    path = present_path(location, "text", folder=False)
    if path.is_dir():
        raise KdcError(f"text:{location} is a folder, and names a file with one text a line", f"folder:{location}")
    lines = read_text_file(path, LINES_BYTES)[0].split("\n")
    held = [(number, line.removesuffix("\r")) for number, line in enumerate(lines, 1) if line.strip()]
    if not held:
        raise KdcError(f"{path} holds no texts", "one text a line, in UTF-8")
    blank = len(lines) - len(held) - (not lines[-1])
    part = Part(
        ids=tuple(f"line {number}" for number, _ in held),
        labels=("",) * len(held),
        content=lambda row: (held[row][1],),
        where=lambda row: f"{path} line {held[row][0]}",
        encoded=True,
    )
    return Found((), {"train": part}, (f"passed over {blank:,} blank lines of {path.name}",) if blank else ())
