"""A teacher that is a table of answers, in the bundle: what it answers to the test samples, for the report alone."""

from pathlib import Path

import numpy as np

from compressor.data.samples import Dataset
from compressor.models.prediction_table import LoadedTable
from compressor.progress import Progress
from compressor.schema.bundle import TeacherTable

__all__ = ["matched_by_ids_alone", "write_teacher_table"]

ANSWERS = "eval/teacher_answers.npy"


def write_teacher_table(
    table: LoadedTable | str, source: str, data: Dataset, root: Path, progress: Progress
) -> TeacherTable:
    """Write its answers to `data.test` into the bundle in `root`, where it has one for every sample, and say so.

    `table`: see `find_table`; `source`: how the bundle names it, without a path. The folder eval/ must be there.
    """
    record = _told(table, source, data)
    if isinstance(table, str) or record.answers is None:
        why = f"none is measured, so no retention, no speed-up: {record.missing}"
        hint = " (--teacher outputs:FILE says where it lies now)" if isinstance(table, str) else ""
        progress.warn(f"teacher {source} is a table of answers: {why}{hint}")
        return record
    ids = [name for name in table.answers.named(data.test) if name is not None]
    every = record.kind in ("probabilities", "logits")
    np.save(root / record.answers, table.answers.of(ids) if every else table.answers.top1(ids), allow_pickle=False)
    progress.note(
        f"teacher {source} is a table of answers, which holds those to all {len(ids):,} test samples: retention comes "
        "from them; there is no latency, size or memory to measure, so no speed-up"
    )
    return record


def _told(table: LoadedTable | str, source: str, data: Dataset) -> TeacherTable:
    if isinstance(table, str):
        return TeacherTable(missing=table)
    has = sum(name is not None for name in table.answers.named(data.test))
    if has < len(data.test):
        return TeacherTable(missing=f"{source} has {has:,} of {len(data.test):,} test samples")
    return TeacherTable(kind=table.answers.kind, answers=ANSWERS)


def matched_by_ids_alone(table: LoadedTable | str | None, source: str, data: Dataset) -> str:
    """A note where the table says that it answers other data, so that its answers may be to other images."""
    if not isinstance(table, LoadedTable) or table.answers.info is None or table.answers.contents is not None:
        return ""
    if table.answers.info.data == data.info.fingerprint:
        return ""
    return f"{source} was made from other data: its answers are matched with the test samples by their ids alone."
