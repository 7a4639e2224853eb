"""One command at a time writes a folder."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compressor.errors import KdcError
from compressor.files.locks import LOCK, locked

HOLD = "import sys, pathlib, compressor.files.locks as l\nwith l.locked(pathlib.Path(sys.argv[1]), 'kdc distill'):\n"


@contextmanager
def holder(place: Path, then: str = "import time; time.sleep(60)") -> Iterator["subprocess.Popen[str]"]:
    code = HOLD + "    print('held', flush=True)\n" + f"    {then}\n"
    process = subprocess.Popen([sys.executable, "-c", code, str(place)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_the_second_is_told_who_holds_it(tmp_path: Path) -> None:
    with holder(tmp_path / "run") as process:
        told = rf"run is being written by kdc distill \(process {process.pid} on "
        with pytest.raises(KdcError, match=told), locked(tmp_path / "run", "kdc teach"):
            pass
    with locked(tmp_path / "run", "kdc teach"):  # a kill leaves the file, which locks nothing
        assert (tmp_path / "run" / LOCK).is_file()
    assert not (tmp_path / "run" / LOCK).exists()


@pytest.mark.parametrize(
    "text",
    ["[" * 4096, '{"command": "x", "pid": [[1]]}', "9" * 4096, "null", "\\xff", '{"command": "\\ud800'],
    ids=range(6),
)
def test_whatever_the_lock_file_holds(tmp_path: Path, text: str) -> None:
    """4,096 brackets ended in a RecursionError."""
    lock = tmp_path / "run" / LOCK
    with holder(tmp_path / "run"):
        lock.write_text(text, encoding="utf-8")
        with (
            pytest.raises(KdcError, match="is being written by another command of kdc"),
            locked(tmp_path / "run", "kdc teach"),
        ):
            pass


def test_who_waits_gets_it(tmp_path: Path) -> None:
    began = time.monotonic()
    with holder(tmp_path / "run", "import time; time.sleep(0.5)"), locked(tmp_path / "run", "kdc report", wait_s=60):
        assert 0.05 < time.monotonic() - began < 50


def test_a_link_and_its_folder_are_one_place(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "link").symlink_to("run")
    with (
        holder(tmp_path / "link"),
        pytest.raises(KdcError, match="is being written by"),
        locked(tmp_path / "run", "kdc teach"),
    ):
        pass


def test_a_folder_that_was_made_for_the_lock_goes_where_nothing_was_written(tmp_path: Path) -> None:
    with locked(tmp_path / "a" / "b", "kdc teach"), locked(tmp_path / "a" / "b", "kdc teach"):
        pass
    assert list(tmp_path.iterdir()) == []
    with locked(tmp_path / "a" / "b", "kdc teach"):
        (tmp_path / "a" / "b" / "file").touch()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_a_file_is_locked_beside_it(tmp_path: Path) -> None:
    with locked(tmp_path / "table.csv", "kdc predict", file=True):
        assert [path.name for path in tmp_path.iterdir()] == [f".table.csv{LOCK}"]
    assert list(tmp_path.iterdir()) == []
