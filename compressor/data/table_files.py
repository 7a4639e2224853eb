"""Tables that are data: which files stand for which split, and which of their columns counts."""

import re
from collections import defaultdict
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from compressor.data.csv_rows import csv_text, rows_of
from compressor.data.labels import listed
from compressor.data.parquet_footer import footer_of, reading
from compressor.data.places import entries, present_path
from compressor.data.separators import separator_of
from compressor.data.split_words import SPLIT_NAMES, sounds_like
from compressor.errors import KdcError, needs
from compressor.install import install_line

__all__ = ["files_by_split", "first_cells", "header_of", "pick", "split_column"]

SPLIT_COLUMNS = ("split",)
LOOKED_AT = 20
"""Rows."""
LONGEST = 4096


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


def split_column(columns: Sequence[str], where: object) -> str | None:
    """The column that says which split a row is of, if there is one."""
    named = any(name.strip().lower() in SPLIT_COLUMNS for name in columns)
    return pick(columns, SPLIT_COLUMNS, "splits", where) if named else None


def header_of(location: str, suffix: str) -> list[str]:
    """The columns of the training table of `csv:` or `parquet:`. Raises KdcError."""
    files, _ = files_by_split(location, suffix)
    path = files.get("train", files.get(None, []))[0]
    if suffix == "parquet":
        needs("pyarrow", install_line("pyarrow"), "parquet: data")
        return list(footer_of(path)[0].names)
    with csv_text(path) as file:
        return [name.strip() for name in next(rows_of(file, path, separator=separator_of(path)), (0, []))[1]]


def first_cells(location: str, suffix: str) -> list[str]:
    """The texts in the first rows of the training table of `csv:` or `parquet:`, but for long ones. Raises KdcError."""
    files, _ = files_by_split(location, suffix)
    path = files.get("train", files.get(None, []))[0]
    if suffix == "parquet":
        needs("pyarrow", install_line("pyarrow"), "parquet: data")
        texts: list[str] = reading(path, lambda parquet: _first_texts(parquet, path))
        return texts
    with csv_text(path) as file:
        rows = islice(rows_of(file, path, separator=separator_of(path)), 1, 1 + LOOKED_AT)
        return [cell.strip() for _, row in rows for cell in row if len(cell) <= LONGEST]


def _first_texts(parquet: Any, path: Path) -> list[str]:
    with parquet.ParquetFile(path) as file:
        texts = [field.name for field in file.schema_arrow if str(field.type) in ("string", "large_string")]
        for batch in islice(file.iter_batches(batch_size=LOOKED_AT, columns=texts), 1 if texts else 0):
            cells = [cell for name in texts for cell in batch[name].to_pylist()]
            return [cell for cell in cells if cell is not None and len(cell) <= LONGEST]
    return []
