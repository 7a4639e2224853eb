"""Rows in a file, and what becomes of the file."""

import gc
from pathlib import Path

import numpy as np
import pytest

from compressor.errors import KdcError
from compressor.files.rows import RowFile


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_rows_come_in_the_order_asked_for_and_go_where_they_belong(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_bytes(b"head" + bytes(range(12)))
    file = RowFile(path, 3, offset=4, writable=True)
    assert file.read(np.array([3, 0, 3])).tolist() == [[9, 10, 11], [0, 1, 2], [9, 10, 11]]
    file.write(np.array([1]), np.array([[7, 7, 7]], np.uint8))
    assert path.read_bytes() == b"head" + bytes([0, 1, 2, 7, 7, 7, 6, 7, 8, 9, 10, 11])
    with pytest.raises(KdcError, match="rows is damaged: it ends within row 4"):
        file.read(np.array([4]))


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="no /proc here")
def test_a_file_that_nobody_uses_any_more_is_closed(tmp_path: Path) -> None:
    """Decoded images are removed after a training: their space must not be held by a process that goes on."""
    (tmp_path / "rows").write_bytes(b"abc")
    gc.collect()
    before = open_files()
    file = RowFile(tmp_path / "rows", 3)
    assert open_files() == before + 1
    del file
    gc.collect()
    assert open_files() == before
    again = RowFile(tmp_path / "rows", 3)
    again.close()
    assert open_files() == before
