"""`kdc measure` on several devices: two real sshd on this machine, real bench.py, real runtime, real exit codes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from benchmarks.chain_bundle import NAME, write_chain_bundle
from compressor.files.bundle_folder import files_of
from compressor.measure import devices, session
from compressor.measure.machine import this_machine
from compressor.report import check_each, seal
from compressor.schema.base import read_json
from compressor.schema.device import Device
from compressor.schema.devices import Devices
from compressor.schema.measurement import Measurement
from compressor.schema.profile import Budget
from tests.kit import Ended
from tests.measure.sshd import Board, alive, run_sshd, until, wrap

Kdc = Callable[..., Ended]
QUICK = ("--rounds", 11, "--no-throughput", "--device-python", sys.executable)


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Board]:
    """A second device, with an sshd of its own."""
    with run_sshd(tmp_path_factory.mktemp("sshd2")) as running:
        yield running


@pytest.fixture(autouse=True)
def _client(board: Board, far: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A configuration that knows both: `board` and `far`."""
    of_far = far.config.read_text(encoding="utf-8").partition("\nHost ")[0].replace("Host board", "Host far")
    both = tmp_path / "ssh_config"
    both.write_text(f"{of_far}\n{board.config.read_text(encoding='utf-8')}", encoding="utf-8")
    wrap(tmp_path / "bin", "ssh", f'exec "{shutil.which("ssh")}" -F "{both}" "$@"', monkeypatch)


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    place = tmp_path / "bundle"
    write_chain_bundle(place, 2, 1, Budget(p50_ms=1000, size_mb=10), this_machine())
    seal(place)
    return place


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if they were machines of their own: they are asked at a time. bench.py's lock is the machine's, so that one
    waits there for the other."""
    monkeypatch.setattr(devices, "same_machines", lambda urls: [[], *([number] for number in range(len(urls)))])


def url(tmp_path: Path, host: str) -> str:
    return f"ssh://{host}{tmp_path}/disk-of-{host}"


def both(tmp_path: Path) -> tuple[str, ...]:
    return ("--device", url(tmp_path, "board"), "--device", url(tmp_path, "far"))


def measured(bundle: Path, name: str) -> Measurement:
    return read_json(bundle / "devices" / name / "measurements" / "measurement.json", Measurement)


def running_there(tmp_path: Path) -> list[str]:
    """The processes that work in a folder of a device, as they were started."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if str((process / "cwd").readlink()).startswith(f"{tmp_path}/disk-of-") and alive(int(process.name)):
                found.append((process / "cmdline").read_text(encoding="utf-8", errors="replace"))
    return found


def left_there(tmp_path: Path) -> list[str]:
    """What lies or runs on the devices."""
    return [
        *running_there(tmp_path),
        *(str(path) for folder in tmp_path.glob("disk-of-*") for path in folder.iterdir()),
    ]


def test_two_devices_one_verdict(kdc: Kdc, bundle: Path, tmp_path: Path) -> None:
    done = kdc("measure", bundle, *both(tmp_path), *QUICK)
    assert done.code == 0, done.err
    assert "board, far are this machine: they are measured one after the other" in done.err
    assert done.out.startswith("PASS  the budget holds on all 2 devices\n")
    for name in ("board", "far"):
        told = measured(bundle, name)
        assert (told.device, told.connections, told.lost, len(told.rounds) >= 11) == ("ssh", 1, None, True)
        assert {one.variant for one in told.contestants} == {NAME, f"{NAME}-again"}
        assert read_json(bundle / "devices" / name / "device.json", Device).url == url(tmp_path, name)
    first, second = measured(bundle, "board"), measured(bundle, "far")
    assert first.finished <= second.started, "one after the other"
    assert first.blocks != second.blocks
    assert {each.name: each.report.winner for each in check_each(bundle)} == {"board": NAME, "far": NAME}
    assert kdc("check", bundle).code == 0
    assert left_there(tmp_path) == []


class Axe:
    """Cuts one device's connections as soon as it has run some rounds: of each connection once."""

    def __init__(self, device: Board, folder: str, patch: pytest.MonkeyPatch) -> None:
        self.device, self.folder = device, folder
        self.cut: list[object] = []
        self.take_in = session._take_in
        patch.setattr(session, "_take_in", self)
        self.rounds: dict[int, int] = {}

    def __call__(self, event: dict[str, object], link: object, samples: session.Samples, *rest: object) -> None:
        if "round" in event and link not in self.cut and self._of_device(link):
            self.cut.append(link)
            threading.Thread(target=self.device.pull_the_cable).start()
        self.take_in(event, link, samples, *rest)  # type: ignore[arg-type]

    def _of_device(self, link: object) -> bool:
        return bool(link._agent.where == self.folder)  # type: ignore[attr-defined]


@pytest.mark.parametrize("at_a_time", [True, False])
def test_one_is_killed_in_the_middle(
    kdc: Kdc, bundle: Path, tmp_path: Path, far: Board, monkeypatch: pytest.MonkeyPatch, at_a_time: bool
) -> None:
    """The matrix says so, the exit code is 3, and the other's figures are whole."""
    if at_a_time:
        monkeypatch.setattr(devices, "same_machines", lambda urls: [[], *([number] for number in range(len(urls)))])
    monkeypatch.setattr(session, "RETRY_AFTER_S", (0.1,))
    axe = Axe(far, "far", monkeypatch)
    done = kdc("measure", bundle, *both(tmp_path), *QUICK, "--rounds", 60)
    assert done.code == 3, done.err
    assert len(axe.cut) == 2
    assert "far: " in done.err
    assert "rounds are kept" in done.err
    assert done.out.startswith("INCONCLUSIVE  the budget cannot be told yet on 1 of 2 devices\n")
    assert "the session broke off" in done.out
    board, cut = measured(bundle, "board"), measured(bundle, "far")
    assert (board.lost, len(board.rounds)) == (None, 60)
    assert cut.lost
    assert 0 < len(cut.rounds) < 60
    matrix = {device.name: device for device in read_json(bundle / "devices.json", Devices).devices}
    assert (matrix["board"].verdict, matrix["board"].winner) == ("pass", NAME)
    [cell] = matrix["board"].cells
    report = {each.name: each.report for each in check_each(bundle)}["board"]
    assert cell.p50_ms == report.rows[0].p50_ms
    assert cell.p50_ms is not None
    assert cell.p50_ms.n == 60
    assert (bundle / "devices" / "board" / "best" / "manifest.json").is_file()
    assert (matrix["far"].verdict, matrix["far"].lost) == ("inconclusive", cut.lost)
    assert kdc("check", bundle).code == 3
    suites = ET.fromstring(kdc("report", bundle, "--format", "junit").out)
    assert [suite.get("failures") for suite in suites] == ["0", "0"]
    assert until(lambda: left_there(tmp_path) == [])
    again = kdc("measure", bundle, "--device", url(tmp_path, "far"), *QUICK)
    assert len(axe.cut) == 4, "cut again, of two connections more"
    assert again.code == 3


@pytest.mark.parametrize(
    ("host", "why", "alone"),
    [("gone", "cannot be reached", 3), ("unknown", "host key", 2), ("noisy", "login shell", 2)],
)
def test_one_that_cannot_be_reached_leaves_the_other(
    kdc: Kdc, bundle: Path, tmp_path: Path, host: str, why: str, alone: int
) -> None:
    done = kdc("measure", bundle, "--device", url(tmp_path, host), "--device", url(tmp_path, "far"), *QUICK)
    assert done.code == 3
    assert f"{host} was not measured: " in done.err
    assert why in " ".join(done.out.split())
    device = read_json(bundle / "devices" / host / "device.json", Device)
    assert device.exit_code == alone
    assert {each.name: each.report.verdict for each in check_each(bundle)} == {host: "unmeasured", "far": "pass"}
    assert kdc("check", bundle, "--allow-unmeasured").code == 3


def test_the_same_runtime_missing_on_both_is_missing(kdc: Kdc, bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "onnxruntime.py").write_text("raise ModuleNotFoundError(\"No module named 'onnxruntime'\")\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}/hide" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    before = {path: (bundle / path).read_bytes() for path in files_of(bundle)}
    done = kdc("measure", bundle, *both(tmp_path), *QUICK[:-1], python)
    assert done.code == 4
    assert done.err.count("pip install onnxruntime") >= 2
    assert {path: (bundle / path).read_bytes() for path in files_of(bundle)} == before
    assert left_there(tmp_path) == []


@pytest.mark.usefixtures("apart")
def test_at_a_time_on_one_machine_the_device_itself_keeps_them_apart(kdc: Kdc, bundle: Path, tmp_path: Path) -> None:
    """What kdc cannot tell from here, bench.py's lock does: neither measures the other."""
    done = kdc("measure", bundle, *both(tmp_path), *QUICK)
    assert done.code == 0, done.err
    sessions = sorted((measured(bundle, name) for name in ("board", "far")), key=lambda told: told.finished)
    assert sessions[0].waited_s == 0
    assert sessions[1].waited_s > 0
    assert any("another measurement" in line for line in done.err.splitlines())


def test_a_baseline_races_along_on_each(kdc: Kdc, bundle: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(bundle, tmp_path / "old"))
    done = kdc("measure", bundle, *both(tmp_path), "--baseline", old, *QUICK)
    assert done.code == 0, done.err
    for each in check_each(bundle):
        row = next(row for row in each.report.rows if row.name == NAME)
        assert row.slowdown is not None
        assert 0.3 < row.slowdown.value < 3
    newer = kdc("measure", old, *both(tmp_path), "--baseline", bundle, *QUICK)
    assert newer.code == 0, "a bundle of several devices is a baseline, too"


@pytest.mark.usefixtures("apart")
def test_ctrl_c_ends_every_session_and_loses_nothing(bundle: Path, tmp_path: Path) -> None:
    before = {path: (bundle / path).read_bytes() for path in files_of(bundle)}
    arguments = ["measure", bundle, *both(tmp_path), *QUICK, "--rounds", 5000, "--seconds", 600]
    code = (
        "from compressor.measure import devices\n"
        "devices.same_machines = lambda urls: [[], *([number] for number in range(len(urls)))]\n"
        "from compressor.cli.app import main; main()"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ) as process:
        try:
            folders = [tmp_path / f"disk-of-{host}" for host in ("board", "far")]
            assert until(lambda: all(folder.exists() and any(folder.glob("*/*")) for folder in folders), 60)
            assert until(lambda: any("run_ort" in line for line in running_there(tmp_path)), 60)
            both_measure = until(lambda: sum("bench.py" in line for line in running_there(tmp_path)) >= 2, 60)
            assert both_measure, "one waits for the other"
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, err
    assert err.endswith("kdc: error: interrupted\n")
    assert "Traceback" not in err
    assert {path: (bundle / path).read_bytes() for path in files_of(bundle)} == before
    assert [path.name for path in bundle.rglob(".kdc*")] == []
    assert until(lambda: left_there(tmp_path) == [], 30)


def test_progress_names_the_device_in_json_and_quiet_too(kdc: Kdc, bundle: Path, tmp_path: Path) -> None:
    done = kdc("measure", bundle, *both(tmp_path), *QUICK, "--json", "--quiet")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert [device["name"] for device in told["devices"]] == ["board", "far"]
    assert done.err == ""
