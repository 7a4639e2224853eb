"""Files that a user names: replaced only when asked to, written through where a name stands for something else."""

import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.errors import KdcError
from compressor.files.atomic import temporary_beside
from compressor.files.locks import locked
from compressor.files.writing import refuse_existing, write_output, written
from compressor.schema.base import Noun, parse
from tests.kit import Ended

Kdc = Callable[..., Ended]


def write(path: Path, text: str = "new", *, overwrite: bool = False) -> None:
    write_output(path, text, "kdc report", overwrite=overwrite)


def test_a_file_is_replaced_only_when_asked_to(tmp_path: Path) -> None:
    out = tmp_path / "notes.md"
    write(out, "first")
    with pytest.raises(KdcError, match=r"--out .*notes.md exists") as caught:
        write(out)
    assert "--overwrite" in caught.value.hint
    assert out.read_text() == "first"
    write(out, overwrite=True)
    assert out.read_text() == "new"
    assert [path.name for path in tmp_path.iterdir()] == ["notes.md"]


def test_a_link_stays_and_what_it_leads_to_is_written(tmp_path: Path) -> None:
    link, target = tmp_path / "latest.md", tmp_path / "kept" / "report.md"
    target.parent.mkdir()
    link.symlink_to(target)
    write(link, "first")
    with pytest.raises(KdcError, match="exists"):
        write(link)
    write(link, overwrite=True)
    assert link.is_symlink()
    assert target.read_text() == "new"
    assert [path.name for path in target.parent.iterdir()] == ["report.md"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_pipe_is_written_through(tmp_path: Path, overwrite: bool) -> None:
    pipe, heard = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: heard.append(pipe.read_text()))
    reader.start()
    write(pipe, "through", overwrite=overwrite)
    reader.join()
    assert heard == ["through"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [path.name for path in tmp_path.iterdir()] == ["pipe"]


def test_a_device_is_written_through(tmp_path: Path) -> None:
    link = tmp_path / "nowhere"
    link.symlink_to("/dev/null")
    before = Path("/dev/null").stat().st_rdev
    write(link)
    write(Path("/dev/null"))
    assert Path("/dev/null").stat().st_rdev == before
    assert link.is_symlink()
    if Path("/dev/full").exists():
        with pytest.raises(KdcError, match="no space left"):
            write(Path("/dev/full"))


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"])
def test_stdout_by_its_name_is_stdout_also_where_that_is_a_file(tmp_path: Path, name: str) -> None:
    if not Path(name).exists():
        pytest.skip("Linux has it")
    code = "import sys, pathlib; from compressor.files.writing import write_output\n"
    code += f"write_output(pathlib.Path({name!r}), 'after', 'kdc report', overwrite=False)"
    kept = tmp_path / "log"
    kept.write_text("before ")
    with kept.open("a") as log:
        subprocess.run([sys.executable, "-c", code], stdout=log, check=True)
    assert kept.read_text() == "before after"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "after"


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="is a folder, not a file"):
        refuse_existing(tmp_path, overwrite=True)


def test_what_a_kill_left_of_a_file_goes_and_nothing_else(tmp_path: Path) -> None:
    out, own = tmp_path / "table.csv", temporary_beside(tmp_path / "table.csv")
    others = [temporary_beside(tmp_path / name) for name in ("table2.csv", "table.parquet", "other.table.csv")]
    for path in (own, *others):
        path.touch()
    with written(out, "kdc predict") as place:
        place.write_text("whole")
        assert not own.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["table.csv", *(path.name for path in others)])


def test_the_umask_is_honoured(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write(tmp_path / "report.md")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "report.md").stat().st_mode) == 0o640


def test_two_reports_into_one_file(tmp_path: Path) -> None:
    """The second finds what the first made, and leaves it."""
    held, ended = threading.Event(), []

    def second() -> None:
        held.wait()
        code = "import sys, pathlib; from compressor.errors import KdcError\n"
        code += "from compressor.files.writing import write_output\n"
        code += "try: write_output(pathlib.Path(sys.argv[1]), 'second', 'kdc report', overwrite=False)\n"
        code += "except KdcError as error: print(error.message)\n"
        done = subprocess.run([sys.executable, "-c", code, tmp_path / "r.md"], capture_output=True, text=True)
        ended.append(done.stdout)

    thread = threading.Thread(target=second)
    thread.start()
    with locked(tmp_path / "r.md", "kdc report", file=True):
        held.set()
        thread.join()
    assert "r.md is being written by kdc report (process" in ended[0]
    assert list(tmp_path.iterdir()) == []


def test_report_out(kdc: Kdc, bundle: Path, tmp_path: Path) -> None:
    """The command, with a bundle."""
    taken = tmp_path / "taken.md"
    taken.write_text("mine")
    ended = kdc("report", bundle, "--out", taken)
    assert ended.code == 2
    assert "taken.md exists" in ended.err
    assert taken.read_text() == "mine"
    assert kdc("report", bundle, "--out", "/dev/null").code == 0
    assert stat.S_ISCHR(Path("/dev/null").stat().st_mode)
    assert kdc("report", bundle, "--out", taken, "--overwrite").code == 0
    assert taken.read_text().startswith("## kdc: ")


@pytest.mark.parametrize("key", ["name", "labels"])
def test_half_a_character_is_no_text(key: str) -> None:
    """JSON may hold one, "\\ud800". It was taken, and ended in a UnicodeEncodeError when it was written again."""

    class Named(Noun):
        name: str
        labels: dict[str, tuple[str, ...]]

    values = {"name": "é数", "labels": {"é": ("数",)}}
    found = parse(Named, values, "here")
    assert json.loads(found.model_dump_json()) == {"name": "é数", "labels": {"é": ["数"]}}
    half = json.loads('{"name": "\\ud800", "labels": {"\\ud800": ["x"]}}')
    with pytest.raises(KdcError, match=f"here: {key}"):
        parse(Named, {**values, key: half[key]}, "here")
