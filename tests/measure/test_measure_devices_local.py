"""This machine as a device, and what ended it; bench.py measures nothing here (see sshd.py)."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compressor.errors import EXIT_INCONCLUSIVE, EXIT_MISSING, EXIT_USAGE, KdcError
from compressor.files.atomic import is_temporary
from compressor.measure.devices import DeviceUrl, Link, LostConnection, open_link
from compressor.progress import Silent
from tests.measure.sshd import alive, install_runners, until, write_bundle

pytestmark = pytest.mark.usefixtures("speaking")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


@contextmanager
def linked(bundle: Path, python: str | None = None) -> Iterator[Link]:
    with open_link(DeviceUrl("local"), bundle, write_bundle(bundle), python=python, progress=Silent()) as link:
        yield link


def left(bundle: Path) -> list[str]:
    return sorted(path.name for path in (bundle / "measurements").iterdir())


def test_a_whole_session(bundle: Path) -> None:
    with linked(bundle) as link:
        assert link.kind == "local"
        events = []
        for event in link.bench(["--ask"]):
            events.append(event)
            if "look" in event:
                link.say("more 1" if event["look"] < 3 else "enough")
        link.fetch("student.npy", bundle / "measurements" / "student.npy", 2_000_000)
    arguments = events[0]["state"]["arguments"]
    assert arguments[:3] == [str(bundle), "--json", "--out"]
    assert Path(arguments[3]).parent == bundle / "measurements"
    assert is_temporary(Path(arguments[3]).name)
    assert arguments[4:] == ["--ask"]
    assert events[-1] == {"state": {"rounds": 3}}
    assert left(bundle) == ["student.npy"]
    assert (bundle / "measurements" / "student.npy").read_bytes() == bytes(range(256)) * 4000


def test_how_bench_ends(bundle: Path) -> None:
    with linked(bundle) as link:
        for code in (EXIT_USAGE, EXIT_INCONCLUSIVE, EXIT_MISSING):
            with pytest.raises(KdcError, match=r"^pip install numpy \(cannot import numpy\)$") as caught:
                list(link.bench(["--fail", str(code)]))
            assert caught.value.exit_code == code
        with pytest.raises(LostConnection, match="interrupted, and not by kdc"):
            list(link.bench(["--fail", "130"]))
        with pytest.raises(KdcError, match="ended by signal 9") as caught:
            list(link.bench(["--die"]))
        assert caught.value.exit_code == EXIT_INCONCLUSIVE
    assert left(bundle) == []


def test_an_interruption_ends_bench(bundle: Path) -> None:
    processes: list[int] = []

    def interrupted() -> None:
        with linked(bundle) as link:
            for event in link.bench(["--hang"]):
                processes.extend([event["state"]["pid"]] if "state" in event else [])
                if "round" in event:
                    raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as caught:
        interrupted()
    assert caught.traceback  # it keeps the loop's generator alive, which therefore ends nothing by itself
    assert len(processes) == 2
    assert until(lambda: not any(map(alive, processes)))
    assert left(bundle) == []


def test_another_interpreter(bundle: Path) -> None:
    with linked(bundle, sys.executable) as link:
        assert len(list(link.bench(["--fail", "0"]))) == 1
    with (
        linked(bundle, "/nowhere/python3") as link,
        pytest.raises(KdcError, match=r"starting bench.py with /nowhere/python3"),
    ):
        list(link.bench([]))


def test_noise_is_no_event(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_runners(tmp_path / "installed", monkeypatch, "print('hello')")
    manifest = write_bundle(tmp_path / "noisy")
    wrong = pytest.raises(KdcError, match=r"^bench.py said what is no event: 'hello'$")
    with open_link(DeviceUrl("local"), tmp_path / "noisy", manifest, python=None, progress=Silent()) as link, wrong:
        list(link.bench([]))
