"""Whatever bytes lie where a table or an array is expected: the data, or one clear error."""

import contextlib
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from compressor.data.predictions import read_outputs
from compressor.errors import KdcError
from compressor.progress import Silent
from compressor.tasks.image_classification import open_data
from tests.fuzz.kit import fuzzed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CELLS = st.sampled_from(
    ["id", "a", "b", "label", "class_1", "probability_1", "logit:a", "probability:a", "log_probability:b", "split", "0",
     "1", "0.5", "-1", "nan", "inf", "1e999", "", " ", '"', '"x"', "\x00", "é", "\ufeff", "#kdc {}", "#kdc [", "path",
     "image", "train", "test", "it.png", "../it.png", "/dev/zero", "a\x1b[31m", "'", ";", "\t", "9" * 400]
)  # fmt: skip
ROWS = st.lists(st.lists(CELLS, max_size=5).map(",".join), max_size=6).map("\n".join).map(str.encode)
FLIPS = st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 255)), max_size=6)


def with_flips(data: bytes, flips: list[tuple[int, int]]) -> bytes:
    changed = bytearray(data)
    for place, value in flips:
        changed[place % len(changed)] = value
    return bytes(changed)


def refused_or_open(reference: str) -> None:
    with contextlib.suppress(KdcError):
        open_data(reference, skip_bad=False, progress=Silent())


def test_tables_of_answers(tmp_path: Path) -> None:
    path = tmp_path / "it.csv"

    @fuzzed
    @given(ROWS | st.binary(max_size=80))
    def holds(data: bytes) -> None:
        path.write_bytes(data)
        with contextlib.suppress(KdcError):
            read_outputs(path, ("a", "b"))

    holds()


def test_tables_of_answers_in_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "it.parquet"
    columns = {"id": ["x", "y"], "a": [0.5, 1.0], "b": [0.5, 0.0]}
    parquet.write_table(pyarrow.table(columns).replace_schema_metadata({"kdc": "{}"}), path)
    valid = path.read_bytes()

    @fuzzed
    @given(FLIPS)
    def holds(flips: list[tuple[int, int]]) -> None:
        path.write_bytes(with_flips(valid, flips))
        with contextlib.suppress(KdcError):
            read_outputs(path, ("a", "b"))

    holds()


def test_tables_of_images(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / "it.png")

    @fuzzed
    @given(ROWS | st.binary(max_size=80))
    def holds(data: bytes) -> None:
        (tmp_path / "it.csv").write_bytes(data)
        refused_or_open(f"csv:{tmp_path / 'it.csv'}")

    holds()


def test_idx(tmp_path: Path) -> None:
    pixels = struct.pack(">HBB3I", 0, 8, 3, 6, 4, 4) + bytes(range(96))
    labels = struct.pack(">HBBI", 0, 8, 1, 6) + bytes([0, 1, 0, 1, 0, 1])

    @fuzzed
    @given(FLIPS, FLIPS, st.binary(max_size=12))
    def holds(first: list[tuple[int, int]], second: list[tuple[int, int]], names: bytes) -> None:
        (tmp_path / "train-images-idx3-ubyte").write_bytes(with_flips(pixels, first))
        (tmp_path / "train-labels-idx1-ubyte").write_bytes(with_flips(labels, second))
        (tmp_path / "labels.txt").write_bytes(names)
        refused_or_open(f"idx:{tmp_path}")

    holds()
