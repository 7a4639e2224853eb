"""`kdc measure` and `kdc doctor` on a device behind a real sshd: real bench.py, real runtime, real exit codes."""

import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.chain_bundle import NAME, write_chain_bundle
from compressor.measure import session
from compressor.measure.machine import this_machine
from compressor.report import check, seal
from compressor.schema.base import read_json
from compressor.schema.measurement import Measurement
from compressor.schema.profile import Budget
from tests.kit import Ended
from tests.measure.sshd import Board, until

Kdc = Callable[..., Ended]
QUICK = ("--rounds", 11, "--no-throughput", "--device-python", sys.executable)
pytestmark = pytest.mark.usefixtures("ssh_client")
BARE_PYTHON = "/usr/bin/python3"

without_numpy = pytest.mark.skipif(
    not Path(BARE_PYTHON).exists()
    or subprocess.run([BARE_PYTHON, "-c", "import numpy"], capture_output=True, check=False).returncode == 0,
    reason="needs a system Python without numpy",
)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """A sealed bundle that was never measured, of a model that needs a tenth of a millisecond."""
    place = tmp_path / "bundle"
    write_chain_bundle(place, 2, 1, Budget(p50_ms=1000, size_mb=10), this_machine())
    seal(place)
    return place


@pytest.fixture
def there(tmp_path: Path) -> Path:
    """The folder on the device."""
    return tmp_path / "on the device's disk"


def url(there: Path, host: str = "board") -> str:
    return f"ssh://{host}{there}"


def measured(bundle: Path) -> Measurement:
    return read_json(bundle / "measurements" / "measurement.json", Measurement)


def runners_in(there: Path) -> list[str]:
    """The processes that still work in a folder on the device."""
    told = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in told.splitlines() if str(there) in line and "ps -eo" not in line]


def test_a_whole_measurement(kdc: Kdc, bundle: Path, there: Path) -> None:
    done = kdc("measure", bundle, "--device", url(there), *QUICK)
    assert done.code == 0, done.err
    assert "on another machine" not in done.out
    told = measured(bundle)
    assert (told.device, told.connections, told.lost) == ("ssh", 1, None)
    assert {one.variant for one in told.contestants} == {NAME, f"{NAME}-again"}
    assert check(bundle).verdict == "pass"
    assert "over ssh" in done.out
    assert not list(there.iterdir())
    assert not runners_in(there)


def test_a_baseline_races_along_there_too(kdc: Kdc, bundle: Path, there: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(bundle, tmp_path / "old"))
    done = kdc("measure", bundle, "--device", url(there), "--baseline", old, *QUICK)
    assert done.code == 0, done.err
    row = next(row for row in check(bundle).rows if row.name == NAME)
    assert row.slowdown is not None
    assert 0.5 < row.slowdown.value < 2
    assert not list(there.iterdir())


class Cable:
    """Pulls the cable as soon as some rounds were run, as often as it is told to, and of each connection once."""

    def __init__(self, board: Board, patch: pytest.MonkeyPatch, times: int) -> None:
        self.board, self.left = board, times
        self.pulled: object = None
        self.take_in = session._take_in
        patch.setattr(session, "_take_in", self)

    def __call__(self, event: dict[str, object], link: object, *rest: object) -> None:
        if "round" in event and self.left and link is not self.pulled:
            self.left, self.pulled = self.left - 1, link
            threading.Thread(target=self.board.pull_the_cable).start()
        self.take_in(event, link, *rest)  # type: ignore[arg-type]


def test_a_pulled_cable_is_plugged_in_again(
    kdc: Kdc, bundle: Path, there: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "RETRY_AFTER_S", (0.2, 0.2, 0.2))
    Cable(board, monkeypatch, times=1)
    done = kdc("measure", bundle, "--device", url(there), *QUICK, "--rounds", 60)
    assert done.code == 0, done.err
    assert "trying again in 0.2 s" in done.err
    told = measured(bundle)
    assert told.connections == 2
    assert [one.number for one in told.rounds] == list(range(60))
    assert until(lambda: not list(there.iterdir()) and not runners_in(there))


def test_a_device_that_is_gone_leaves_its_samples_and_no_verdict(
    kdc: Kdc, bundle: Path, there: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "RETRY_AFTER_S", (0.1,))
    Cable(board, monkeypatch, times=2)
    done = kdc("measure", bundle, "--device", url(there), *QUICK, "--rounds", 200)
    assert done.code == 3
    assert "rounds are kept" in done.err
    assert "the session broke off" in done.out
    told = measured(bundle)
    assert told.lost
    assert len(told.rounds) == len(told.blocks) / 2 > 0
    assert kdc("check", bundle).code == 3
    assert until(lambda: not list(there.iterdir()) and not runners_in(there))


@pytest.mark.parametrize(
    ("host", "code", "words"),
    [
        ("unknown", 2, "host key"),
        ("changed", 2, "host key"),
        ("wrongkey", 2, "ssh-copy-id"),
        ("gone", 3, "nothing was measured"),
        ("-oProxyCommand=touch%20owned", 2, "host"),
    ],
)
def test_a_device_that_cannot_be_reached(
    kdc: Kdc,
    bundle: Path,
    there: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    code: int,
    words: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    done = kdc("measure", bundle, "--device", url(there, host), *QUICK)
    assert done.code == code
    assert words in done.err
    assert "Traceback" not in done.err
    assert not (tmp_path / "owned").exists()
    assert not (bundle / "measurements" / "measurement.json").exists()


@without_numpy
def test_a_device_without_numpy(kdc: Kdc, bundle: Path, there: Path) -> None:
    done = kdc("measure", bundle, "--device", url(there), *QUICK[:-1], BARE_PYTHON)
    assert done.code == 4
    assert "pip install numpy" in done.err
    assert not list(there.iterdir())


def test_a_device_without_the_runtime(kdc: Kdc, bundle: Path, there: Path, tmp_path: Path) -> None:
    # The device's interpreter: this one, to which onnxruntime is hidden.
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "onnxruntime.py").write_text("raise ModuleNotFoundError(\"No module named 'onnxruntime'\")\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}/hide" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    done = kdc("measure", bundle, "--device", url(there), *QUICK[:-1], python)
    assert done.code == 4
    assert "pip install onnxruntime" in done.err
    assert not (bundle / "measurements" / "measurement.json").exists()


def test_doctor_says_what_a_device_lacks(kdc: Kdc, there: Path) -> None:
    done = kdc("doctor", "--device", url(there), "--device-python", sys.executable, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert {row["name"] for row in told["runtimes"] if row["works"]} >= {"onnxruntime", "openvino"}
    assert not list(there.iterdir())


@without_numpy
def test_doctor_fails_where_the_device_lacks_what_a_profile_needs(kdc: Kdc, there: Path) -> None:
    done = kdc("doctor", "--device", url(there), "--device-python", BARE_PYTHON, "--profile", "raspberry-pi-5")
    assert done.code == 4
    assert "pip install numpy" in done.err


def test_a_mistyped_device_is_known_before_anything_is_done(kdc: Kdc, tmp_path: Path) -> None:
    done = kdc("export", tmp_path / "none", "--profile", "x86-avx2", "--out", tmp_path / "out", "--device", "shh://pi")
    assert done.code == 2
    assert "shh" in done.err
    assert "ssh://" in done.err
