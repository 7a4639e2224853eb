"""Which validation and test samples a model has right: RUN/compared.npy, a row a sample, validation first.

It lies in a run that is compared with another one by sample: a student and its control (`distill.methods.control`).
"""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.data.samples import Dataset
from compressor.errors import KdcError
from compressor.files.atomic import write_atomically
from compressor.files.reading import read_bytes
from compressor.schema.accuracy import accuracy_in
from compressor.schema.student import Student

__all__ = ["FILE", "Right", "read_right", "save_right"]

FILE = "compared.npy"
SPLITS = ("validation", "test")
ROW = np.dtype([("content", "<u8"), ("right", "?")])
"""`content`: what the sample shows (`Split.contents`), so that no two different ones are taken for a pair."""
MOST_BYTES = 1 << 31

Bools = NDArray[np.bool_]
Right = dict[str, NDArray[np.void]]
"""By split, the rows of its samples in their order."""


def save_right(folder: Path, data: Dataset, right: Mapping[str, Bools]) -> None:
    """Write the file, all or nothing. `right`: by split, bool [N]."""
    rows = []
    for name in SPLITS:
        rows.append(np.empty(len(right[name]), ROW))
        rows[-1]["content"], rows[-1]["right"] = getattr(data, name).contents, right[name]
    buffer = io.BytesIO()
    np.save(buffer, np.concatenate(rows), allow_pickle=False)
    with write_atomically(folder / FILE) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_right(folder: Path, record: Student) -> Right:
    """The rows of validation and test. Raises KdcError where the file is missing, or says other than `record`."""
    file, hint = folder / FILE, "start again with --overwrite"
    if not file.exists():
        raise KdcError(f"{file} is missing: it says which samples the model has right", hint)
    try:
        rows = np.load(io.BytesIO(read_bytes(file, most=MOST_BYTES)), allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise KdcError(f"{file} is damaged: {error}", hint) from None
    first = record.validation.n
    parts = {"validation": rows[:first], "test": rows[first:]}
    scores = {"validation": accuracy_in(record.validation), "test": accuracy_in(record.test)}
    if rows.dtype != ROW or any(
        (len(parts[name]), int(parts[name]["right"].sum())) != (scores[name].n, scores[name].correct) for name in SPLITS
    ):
        raise KdcError(f"{file} was changed: it is not what student.json says", hint)
    return parts
