"""Two measurements on one machine: the second one waits, or says why it does not."""

import fcntl
import json
import os
import shutil
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.targets.harness import Bench, Environment, LoadScript, StartBench, assembled
    from tests.targets.tiny_bundle import stub, write_bundle
else:
    from harness import assembled
    from tiny_bundle import stub, write_bundle

LATENCY = ("--no-predict", "--no-throughput")
LOCK = "kdc-bench.lock"


@pytest.fixture
def two(bundle: Path) -> tuple[str, str]:
    """Two bundles: it is the machine that is locked."""
    write_bundle(bundle, (stub("a"),))
    shutil.copytree(bundle, bundle.with_name("other"))
    return "bundle", "other"


def test_the_second_waits_and_says_so(begin: "StartBench", two: tuple[str, str]) -> None:
    first = begin(two[0], "--ask", "--rounds", "1", *LATENCY)
    first.until("look")
    second = begin(two[1], "--rounds", "1", *LATENCY)
    note = second.until("note")
    assert note == f"another measurement runs on this machine (process {first.process.pid}); waiting up to 600 s"
    assert second.process.poll() is None
    first.say("enough")
    assert first.end() == (0, "")
    assert second.end() == (0, "")
    assert assembled(first.events).waited_s == 0
    assert assembled(second.events).waited_s > 0
    assert second.events[0] == {"note": note}


def test_the_second_gives_up(begin: "StartBench", bench: "Bench", bundle: Path, two: tuple[str, str]) -> None:
    first = begin(two[0], "--ask", "--rounds", "1", *LATENCY)
    first.until("look")
    done = bench(two[1], "--wait", "0")
    assert done.returncode == 3
    who = f"another measurement runs on this machine (process {first.process.pid})"
    assert done.stderr.startswith(f"bench.py: {who} and did not end within 0 s")
    assert done.stderr.count("\n") == 1
    again = bench(two[1], "--wait", "0.3")
    assert (again.returncode, again.stderr.count("note: ")) == (3, 1)
    assert not (bundle.with_name("other") / "measurements").exists()


def test_the_lock_ends_with_its_process(begin: "StartBench", bench: "Bench", two: tuple[str, str]) -> None:
    first = begin(two[0], "--ask", "--rounds", "1", *LATENCY)
    first.until("look")
    first.process.kill()
    first.process.wait()
    done = bench(two[1], "--rounds", "1", "--wait", "0", "--json", *LATENCY)
    assert done.returncode == 0
    assert assembled([json.loads(line) for line in done.stdout.splitlines()]).waited_s == 0


def test_others_may_read_the_lock(bench: "Bench", bare: "Environment", two: tuple[str, str]) -> None:
    lock = Path(bare()["TMPDIR"]) / LOCK
    lock.unlink(missing_ok=True)
    before = os.umask(0o077)
    try:
        assert bench(two[0], "--rounds", "1", *LATENCY).returncode == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(lock.stat().st_mode) == 0o644


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_lock_is_not_used(
    bench: "Bench", bare: "Environment", tmp_path: Path, two: tuple[str, str], kind: str
) -> None:
    lock = Path(bare()["TMPDIR"]) / LOCK
    lock.unlink(missing_ok=True)
    victim = tmp_path / "victim"
    victim.write_text("of another user")
    if kind == "link":
        lock.symlink_to(victim)
    elif kind == "pipe":
        os.mkfifo(lock)
    else:
        lock.mkdir()
    try:
        done = bench(two[0], "--rounds", "1", *LATENCY)
    finally:
        lock.rmdir() if kind == "folder" else lock.unlink()
    assert done.returncode == 0
    assert done.stderr.startswith(f"note: {LOCK} cannot be used (")
    assert done.stderr.endswith("two measurements at once on this machine would not notice each other\n")
    assert victim.read_text() == "of another user"


def test_a_lock_that_another_user_made_is_opened_to_read(
    load: "LoadScript", monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lock = load("bench_lock")
    (tmp_path / LOCK).touch()
    monkeypatch.setattr(lock.tempfile, "tempdir", str(tmp_path))
    handle = lock._descriptor(tmp_path / LOCK)
    assert fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY
    os.close(handle)
    notes: list[str] = []
    with lock.machine_lock(0, notes.append) as hold:
        assert (hold.alone, hold.waited_s, notes) == (True, 0, [])
        with pytest.raises(lock.BusyError, match="another measurement"), lock.machine_lock(0, notes.append):
            pass
    with lock.machine_lock(0, notes.append) as hold:
        assert hold.alone


def test_where_there_are_no_locks_a_note_says_so(load: "LoadScript", monkeypatch: pytest.MonkeyPatch) -> None:
    lock = load("bench_lock")
    monkeypatch.setattr(lock, "fcntl", None)
    notes: list[str] = []
    with lock.machine_lock(0, notes.append) as hold:
        assert (hold.alone, hold.waited_s) == (False, 0)
    assert notes == [
        "there are no file locks here: two measurements at once on this machine would not notice each other"
    ]
