"""A folder to try things in: gone afterwards, after a kill too, and nobody else's is touched."""

import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from compressor.files.locks import LOCK, locked
from compressor.files.scratch import scratch


@pytest.fixture(autouse=True)
def shelf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary files lie."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def test_it_is_there_and_gone(shelf: Path) -> None:
    with scratch("plan", "kdc distill --plan") as folder:
        assert folder.parent == shelf
        assert folder.name.startswith("kdc-plan-")
        (folder / "image").write_text("x")
    with pytest.raises(ZeroDivisionError), scratch("plan", "kdc distill --plan"):
        1 / 0  # noqa: B018
    assert list(shelf.iterdir()) == []


def test_only_what_a_dead_process_left_is_removed(shelf: Path) -> None:
    for name in ("kdc-plan-dead", "kdc-plan-strange", "kdc-other-dead", "elsewhere"):
        (shelf / name).mkdir()
        (shelf / name / "image").write_text("x")
    for name in ("kdc-plan-dead", "kdc-other-dead", "elsewhere"):
        (shelf / name / LOCK).write_text("")
    (shelf / "kdc-plan-link").symlink_to(shelf / "elsewhere")
    (shelf / "kdc-plan-file").write_text("x")
    with scratch("plan", "kdc distill --plan") as alive, scratch("plan", "kdc distill --plan") as other:
        assert alive.is_dir()
        assert other.is_dir()
        assert not (shelf / "kdc-plan-dead").exists()
        left = {path.name for path in shelf.iterdir()} - {alive.name, other.name}
    assert left == {"kdc-plan-strange", "kdc-other-dead", "elsewhere", "kdc-plan-link", "kdc-plan-file"}
    assert (shelf / "elsewhere" / "image").read_text() == "x"


def test_where_locks_cannot_be_told_nothing_is_removed(shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def refused(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    (shelf / "kdc-plan-alive").mkdir()
    (shelf / "kdc-plan-alive" / LOCK).write_text("")
    monkeypatch.setattr(fcntl, "flock", refused)
    with scratch("plan", "kdc distill --plan"):
        assert (shelf / "kdc-plan-alive").is_dir()


@pytest.mark.slow
def test_after_a_kill_the_next_one_clears_up(shelf: Path) -> None:
    code = (
        "import sys, time\nfrom compressor.files.scratch import scratch\n"
        "with scratch('plan', 'kdc distill --plan') as folder:\n"
        "    (folder / 'image').write_text('x')\n    print(folder, flush=True)\n    time.sleep(600)\n"
    )
    command = [sys.executable, "-c", code]  # a fork would be killed by another process, some time later
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "TMPDIR": str(shelf)}
    ) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().strip())
        with scratch("plan", "kdc distill --plan"):
            assert (folder / "image").is_file()
        process.send_signal(signal.SIGKILL)
    assert (folder / "image").is_file()
    with scratch("plan", "kdc distill --plan"):
        assert not folder.exists()
    assert list(shelf.iterdir()) == []


def test_a_folder_that_is_locked_by_this_process_stays(shelf: Path) -> None:
    (shelf / "kdc-plan-mine").mkdir()
    with locked(shelf / "kdc-plan-mine", "kdc"), scratch("plan", "kdc"):
        assert (shelf / "kdc-plan-mine").is_dir()
