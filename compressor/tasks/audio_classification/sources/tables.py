"""`csv:PATH` and `parquet:PATH`: tables of paths of sound files, or with the files inside; whole, or parts of them."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.data.csv_columns import csv_columns
from compressor.data.labels import label_texts
from compressor.data.parquet_cells import Cells, encoded_in, may_hold_files
from compressor.data.parquet_columns import column_in, hugging_face_names, refuse_split_columns
from compressor.data.parquet_footer import footer_of, reading
from compressor.data.samples import Found
from compressor.data.table_files import files_by_split, split_column
from compressor.data.table_rows import Table, join
from compressor.errors import KdcError, needs
from compressor.install import install_line
from compressor.progress import Progress
from compressor.tasks.audio_classification.reading import Cut, Recording
from compressor.tasks.audio_classification.sources.columns import Chosen, choose, times_of
from compressor.tasks.audio_classification.sources.folder import read_sound, recording_at

__all__ = ["cuts_of", "find_csv", "find_parquet", "grouped"]


def find_csv(location: str, progress: Progress, *, labelled: bool = True) -> Found:
    """CSV with a header, in UTF-8. Paths of sounds are relative to the file."""
    files, notes = files_by_split(location, "csv")
    tables = {split: [_read_csv(path, labelled) for path in paths] for split, paths in files.items()}
    return join(tables, notes, "sounds")


def find_parquet(location: str, progress: Progress, *, labelled: bool = True) -> Found:
    """Sounds as bytes, as Hugging Face's {bytes, path}, or as paths relative to the file. Integer labels get the names
    that Hugging Face keeps in the file's metadata, where it has them."""
    needs("pyarrow", install_line("pyarrow"), "parquet: data")
    files, notes = files_by_split(location, "parquet")
    tables = {split: [_read_parquet(path, labelled) for path in paths] for split, paths in files.items()}
    return join(tables, notes, "sounds")


@dataclass(frozen=True, eq=False)
class _Read:
    """A table of which everything but the sounds was read. `column`: its values by the name; None without one. `names`,
    `splits`: see `Table`. `note`: the rest of one to people."""

    file: Path
    chosen: Chosen
    column: Callable[[str | None], list[Any] | None]
    where: Callable[[int], str]
    splits: Sequence[object] | None
    names: tuple[str, ...] | None = None
    note: str = ""


def _read_csv(path: Path, labelled: bool) -> Table:
    chosen: list[Chosen] = []

    def choose_in(header: Sequence[str]) -> tuple[str, ...]:
        chosen.append(choose(header, path, labelled=labelled))
        return chosen[0].names

    read = csv_columns(path, choose_in)

    def column(name: str | None) -> list[str] | None:
        return None if name is None else [value.strip() for value in read.column(chosen[0].names.index(name))]

    return _of_paths(_Read(path, chosen[0], column, read.where, read.splits, None, read.note))


def _read_parquet(path: Path, labelled: bool) -> Table:
    pa = needs("pyarrow", install_line("pyarrow"), "parquet: data")
    schema, metadata = footer_of(path)
    chosen, split = choose(schema.names, path, labelled=labelled), split_column(schema.names, path)

    def column(name: str | None) -> list[Any] | None:
        if name is None:
            return None
        values: list[Any] = reading(path, lambda parquet: column_in(parquet, path, name).to_pylist())
        return values

    def where(row: int) -> str:
        return f"{path} row {row}"

    if split is None:
        refuse_split_columns(pa, schema, path, chosen.names)
    names = hugging_face_names(schema, chosen.label, path) if chosen.label is not None else None
    kind = schema.field(chosen.audio).type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    read = _Read(path, chosen, column, where, column(split), names)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return _of_paths(read)
    if not may_hold_files(pa, kind):
        raise KdcError(
            f"{path}: column {chosen.audio} holds {kind}; expected bytes, {{bytes, path}} or the path of a sound"
        )
    cells, count = Cells(path, chosen.audio, metadata), metadata.num_rows

    def recording(row: int) -> Recording:
        def content() -> bytes:
            return encoded_in(cells.at(row), where(row), lambda text: read_sound(path.parent / text), "sound")

        return Recording(content, where(row))

    return _table(read, [recording(row) for row in range(count)], None)


def _of_paths(read: _Read) -> Table:
    """A table whose sounds are files: one recording a file, however many rows are cut from it."""
    paths: list[str] = []
    recordings: dict[str, Recording] = {}
    for row, text in enumerate(read.column(read.chosen.audio) or ()):
        if not text:
            raise KdcError(f"{read.where(row)}: the path of the sound is missing")
        path = str(text)
        paths.append(path)
        if path not in recordings:  # thousands of rows may be cut from one
            recordings[path] = recording_at(read.file.parent / path)
    return _table(read, [recordings[path] for path in paths], paths)


def _table(read: _Read, recordings: list[Recording], paths: list[str] | None) -> Table:
    chosen, where = read.chosen, read.where
    cuts, names = cuts_of(recordings, read.column(chosen.start), read.column(chosen.end), where, paths)
    ids = paths
    if paths is not None and names is not None:
        ids = [f"{path}[{cut.begin:.10g}-{cut.end:.10g}]" for path, cut in zip(paths, cuts, strict=True)]
    groups, said = grouped(read.column(chosen.group), names, where)
    stated = read.column(chosen.label)
    labels = ("",) * len(cuts) if stated is None else label_texts(stated, where, read.names)
    note = f"{chosen.note}{read.note}{said}"
    return Table(read.file, labels, ids, read.splits, cuts.__getitem__, where, read.names, note, groups)


def cuts_of(
    recordings: Sequence[Recording], starts: Sequence[object] | None, ends: Sequence[object] | None,
    where: Callable[[int], str], paths: Sequence[str] | None = None,
) -> tuple[list[Cut], Sequence[str] | None]:  # fmt: skip
    """What each row is of its recording, and what each recording is called, where rows are parts of them: by its path,
    or where there are none, by the first row that holds that file."""
    if starts is None or ends is None:
        return [Cut(recording) for recording in recordings], None
    if paths is None:
        recordings = _same_files(recordings)
        paths = [recording.where for recording in recordings]
    times = [times_of(start, end, where(row)) for row, (start, end) in enumerate(zip(starts, ends, strict=True))]
    return [Cut(recording, *time) for recording, time in zip(recordings, times, strict=True)], paths


def _same_files(recordings: Sequence[Recording]) -> list[Recording]:
    """For each the first that is the same file: parts of one recording may each come with all of it. Such as cannot be
    read stay as they are."""
    first: dict[bytes, Recording] = {}

    def same(recording: Recording) -> Recording:
        try:
            return first.setdefault(hashlib.sha256(recording.content()).digest(), recording)
        except KdcError:  # said when it is decoded
            return recording

    return [same(recording) for recording in recordings]


def grouped(
    column: Sequence[object] | None, recordings: Sequence[str] | None, where: Callable[[int], str]
) -> tuple[tuple[str, ...], str]:
    """Which samples belong together, and the rest of a note: as a column says, else by the recording that samples are
    cut from; empty where neither is there."""
    if column is not None:
        for row, value in enumerate(column):
            if value is None or not str(value).strip():
                raise KdcError(f"{where(row)}: the group is missing", "name one for every sample, or leave the column")
        return tuple(str(value).strip() for value in column), ""
    if recordings is not None:
        return tuple(recordings), "; what is cut from one recording stays in one split"
    return (), ""
