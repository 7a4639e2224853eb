"""A device behind the real OpenSSH, client and server, on this machine. Its bench.py measures nothing (see sshd.py)."""

import getpass
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from compressor.errors import EXIT_INCONCLUSIVE, EXIT_MISSING, EXIT_USAGE, KdcError
from compressor.measure.devices import (
    DeviceUrl,
    Link,
    LostConnection,
    diagnose_device,
    doctor,
    open_link,
    parse_device,
    remote,
    ssh,
)
from compressor.progress import Silent
from compressor.runtimes import RUNTIMES
from tests.kit import MACHINE
from tests.measure.sshd import Board, alive, scripts_in, until, wrap, write_bundle

pytestmark = pytest.mark.usefixtures("ssh_client", "speaking")
HIDDEN = {"eval/labels.npy", "eval/reference.npy"}


class Telling(Silent):
    """Keeps what is shown."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, int, int]] = []

    def at(self, doing: str, done: int, total: int) -> None:
        self.shown.append((doing, done, total))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where on the device the session's folder is made."""
    return tmp_path / "device"


@contextmanager
def linked(url: str | DeviceUrl, bundle: Path, *, python: str = sys.executable) -> Iterator[Link]:
    device = url if isinstance(url, DeviceUrl) else parse_device(url)
    with open_link(device, bundle, write_bundle(bundle), python=python, progress=Silent()) as link:
        yield link


def refusal(url: str | DeviceUrl, bundle: Path, python: str = sys.executable) -> KdcError:
    with pytest.raises(KdcError) as caught, linked(url, bundle, python=python):
        pass
    assert not isinstance(caught.value, LostConnection)
    return caught.value


def hang(link: Link) -> tuple[Iterator[dict[str, Any]], set[int]]:
    """A bench.py that goes on for ever, in its rounds; the ids of its processes."""
    events = link.bench(["--hang"])
    processes = {next(events)["state"]["pid"] for _ in range(2)}
    assert "round" in next(events)
    return events, processes


def test_a_whole_session(bundle: Path, place: Path) -> None:
    telling = Telling()
    url = parse_device(f"ssh://board{place}")
    with open_link(url, bundle, write_bundle(bundle), python=sys.executable, progress=telling) as link:
        assert link.kind == "ssh"
        events = []
        for event in link.bench(["--ask", "--variant", "it's $HOME"]):
            events.append(event)
            if "look" in event:
                link.say("more 1" if event["look"] < 3 else "enough")
        link.fetch("student.npy", bundle / "measurements" / "student.npy", 2_000_000)
        again = [event for event in link.bench(["--fail", "0"]) if "state" in event]
    first, *_, last = events
    assert first["state"]["arguments"] == [".", "--json", "--out", "out", "--ask", "--variant", "it's $HOME"]
    session = Path(first["state"]["cwd"])
    assert session.parent == place
    assert session.name.startswith("kdc-session-")
    assert set(first["state"]["files"]) == {
        ".owner", "bundle.json", "model.onnx", "eval/inputs.npy", "runners/bench.py", "runners/run_ort.py",
    }  # fmt: skip
    assert [event["look"] for event in events if "look" in event] == [2, 3]
    assert last == {"state": {"rounds": 3}}
    assert (bundle / "measurements" / "student.npy").read_bytes() == bytes(range(256)) * 4000
    assert len(again) == 1
    assert list(place.iterdir()) == []
    assert not alive(first["state"]["pid"])
    assert telling.shown[-1] == ("sending", 1, 1)


def test_a_full_address(board: Board, bundle: Path, place: Path) -> None:
    url = f"ssh://{getpass.getuser()}@127.0.0.1:{board.port}{place}"
    with linked(url, bundle) as link:
        assert list(place.iterdir()) != []
        assert [event["state"]["cwd"] for event in link.bench(["--fail", "0"])] == [str(next(place.iterdir()))]
    assert list(place.iterdir()) == []


def test_the_default_folder_is_the_devices_own(bundle: Path) -> None:
    with linked("ssh://board", bundle) as link:
        (event,) = link.bench(["--fail", "0"])
        assert Path(event["state"]["cwd"]).is_dir()
    assert not Path(event["state"]["cwd"]).exists()


@pytest.mark.parametrize("code", [EXIT_USAGE, EXIT_INCONCLUSIVE, EXIT_MISSING])
def test_bench_refuses(bundle: Path, place: Path, code: int) -> None:
    with linked(f"ssh://board{place}", bundle) as link:
        with pytest.raises(KdcError) as caught:
            list(link.bench(["--fail", str(code)]))
        assert caught.value.exit_code == code
        assert caught.value.message == "board: pip install numpy (cannot import numpy)"
        assert len(list(link.bench(["--fail", "0"]))) == 1  # the link goes on
    assert list(place.iterdir()) == []


def test_bench_dies_or_is_interrupted(bundle: Path, place: Path) -> None:
    with linked(f"ssh://board{place}", bundle) as link:
        with pytest.raises(KdcError, match=r"^board: bench.py was ended by signal 9; the system kills") as caught:
            list(link.bench(["--die"]))
        assert caught.value.exit_code == EXIT_INCONCLUSIVE
        with pytest.raises(LostConnection, match="was interrupted, and not by kdc"):
            list(link.bench(["--fail", "130"]))
        with pytest.raises(KdcError, match=r"bench.py failed \(exit code 1\): pip install numpy"):
            list(link.bench(["--fail", "1"]))
        with pytest.raises(KdcError, match=r"board refuses: No such file or directory: .*student.npy"):
            link.fetch("student.npy", bundle / "student.npy", 2_000_000)
    assert not (bundle / "student.npy").exists()


def test_the_cable_is_pulled(board: Board, bundle: Path, place: Path) -> None:
    with linked(f"ssh://board{place}", bundle) as link:
        events, processes = hang(link)
        assert board.pull_the_cable() > 0
        with pytest.raises(LostConnection, match="the connection to board was lost") as caught:
            list(events)
        assert caught.value.exit_code == EXIT_INCONCLUSIVE
        with pytest.raises(LostConnection):
            link.say("enough")
    assert until(lambda: not any(map(alive, processes)))
    assert until(lambda: list(place.iterdir()) == [])


def test_the_cable_is_pulled_at_a_look(board: Board, bundle: Path, place: Path) -> None:
    with linked(f"ssh://board{place}", bundle) as link:
        events = link.bench(["--ask"])
        assert any("look" in event for event in events)
        board.pull_the_cable()
        time.sleep(0.1)
        with suppress(LostConnection):  # or it still goes into the pipe, and into the void
            link.say("enough")
        with pytest.raises(LostConnection):
            list(events)
    assert until(lambda: list(place.iterdir()) == [])


def test_an_interruption_tidies_up_there(bundle: Path, place: Path) -> None:
    processes: set[int] = set()

    def interrupted() -> None:
        with linked(f"ssh://board{place}", bundle) as link:
            events, ids = hang(link)
            processes.update(ids)
            for _ in events:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(place.iterdir()) == []
    assert len(processes) == 2
    assert not any(map(alive, processes))


@pytest.mark.parametrize(
    ("host", "code", "message", "hint"),
    [
        ("gone", EXIT_INCONCLUSIVE, "gone cannot be reached: nothing was measured .*Connection refused", "ssh gone"),
        (
            "changed",
            EXIT_USAGE,
            "the host key of changed has CHANGED",
            "ssh-keygen -R changed; .* by hand: ssh changed",
        ),
        ("unknown", EXIT_USAGE, "the host key of unknown is unknown here", "by hand .*: ssh unknown"),
        (
            "wrongkey",
            EXIT_USAGE,
            r"wrongkey permits no login with your keys: .*Permission denied",
            "ssh-copy-id wrongkey",
        ),
        ("nowhere.invalid", EXIT_USAGE, "Could not resolve hostname nowhere.invalid", "check the name"),
        ("noisy", EXIT_USAGE, "login shell of noisy writes to stdout, .*'Welcome to the board'", "interactive shells"),
        ("closed", EXIT_USAGE, "login shell of closed writes to stdout, .*'This account is not available.'", "bashrc"),
    ],
)
def test_no_connection(
    host: str, code: int, message: str, hint: str, bundle: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    error = refusal(f"ssh://{host}", bundle)
    assert error.exit_code == code
    assert (
        subprocess.run(["grep", "-Eq", "--", message], input=error.message, text=True, check=False).returncode == 0
    ), error
    assert re.search(message, error.message)
    assert re.search(hint, error.hint)
    assert capfd.readouterr() == ("", "")  # what ssh says is not the user's to sort


def test_no_python_there(bundle: Path) -> None:
    error = refusal("ssh://board", bundle, "/nowhere/python3")
    assert error.exit_code == EXIT_MISSING
    assert error.message.startswith("board has no /nowhere/python3: ")
    assert "--device-python" in error.hint


def test_an_old_python_there(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrap(
        tmp_path / "bin",
        "old",
        f"exec {sys.executable} -c 'import sys; print(\"kdc-agent 3.7.3\"); sys.exit(1)'",
        monkeypatch,
    )
    error = refusal("ssh://board", bundle, str(tmp_path / "bin" / "old"))
    assert error.exit_code == EXIT_MISSING
    assert "is Python 3.7.3; kdc needs 3.9 or later" in error.message


def test_a_python_that_says_nothing(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("compressor.measure.devices.agent"), "HELLO_S", 1.0)
    wrap(tmp_path / "bin", "menu", "exec cat", monkeypatch)
    error = refusal("ssh://board", bundle, str(tmp_path / "bin" / "menu"))
    assert error.exit_code == EXIT_INCONCLUSIVE
    assert "did not start within 1 s" in error.message


def test_no_ssh_here(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    error = refusal("ssh://board", bundle)
    assert (error.exit_code, error.hint) == (EXIT_MISSING, "apt install openssh-client")


def test_a_folder_with_a_hostile_name(bundle: Path, tmp_path: Path) -> None:
    place = tmp_path / f'it\'s "a" `b` $(touch {tmp_path}/owned); touch {tmp_path}/owned; \\ ünï 🍓 !%'
    with linked(f"ssh://board{quote(str(place))}", bundle) as link:
        (event,) = link.bench(["--fail", "0"])
        assert Path(event["state"]["cwd"]).parent == place
    assert list(place.iterdir()) == []
    assert not (tmp_path / "owned").exists()


def test_a_host_that_looks_like_an_option(bundle: Path, tmp_path: Path) -> None:
    """Also where something else than parse_device had let it through."""
    error = refusal(DeviceUrl("ssh", host=f"-oProxyCommand=touch {tmp_path}/owned"), bundle)
    assert error.exit_code in (EXIT_USAGE, EXIT_INCONCLUSIVE)
    error = refusal(DeviceUrl("ssh", user=f"-oProxyCommand=touch {tmp_path}/owned", host="board"), bundle)
    assert error.exit_code in (EXIT_USAGE, EXIT_INCONCLUSIVE)
    error = refusal("ssh://board", bundle, f"python3; touch {tmp_path}/owned")
    assert error.exit_code == EXIT_MISSING
    assert not (tmp_path / "owned").exists()


def test_the_command_is_one_text_behind_the_host() -> None:
    command = ssh.command(
        DeviceUrl("ssh", user="pi", host="fe80::1%eth0", port=2222), ["~/venv/bin/python", "-c", "a b"]
    )
    assert command[-6:] == ["2222", "-l", "pi", "--", "fe80::1%eth0", "venv/bin/python -c 'a b'"]
    assert command[:4] == ["ssh", "-T", "-o", "BatchMode=yes"]


def test_an_interruption_while_it_connects(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C need not wait for a host that does not answer."""
    wrap(tmp_path / "bin", "ssh", "exec sleep 600", monkeypatch)
    # A shell's background job, as which the tests may run, has inherited that SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt), linked("ssh://board", bundle):
            pass
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begin < 5
    timer.join()


def test_doctor_over_ssh(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Python without numpy; bench.py needs it, and the machine is told nevertheless."""
    scripts = tmp_path / "scripts"
    scripts.mkdir()
    (scripts / "bench.py").write_text("import numpy")
    (scripts / "machine_info.py").write_text(f"def machine():\n    return {MACHINE.model_dump()!r}\n")
    for runtime in RUNTIMES.values():
        (scripts / runtime.runner).write_text("import numpy")
    monkeypatch.setattr(doctor, "runner_scripts", scripts_in(scripts))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "bare")], check=True)
    python = str(tmp_path / "bare" / "bin" / "python")
    found = diagnose_device(parse_device(f"ssh://board{place}"), python=python, progress=Silent())
    assert (found.device, found.machine, found.numpy.version) == ("board", MACHINE, None)
    assert found.numpy.install == f"{python} -m pip install numpy"
    assert {check.problem for check in found.runtimes} == {"ModuleNotFoundError: No module named 'numpy'"}
    assert list(place.iterdir()) == []


def test_a_file_that_changed_since_the_export(bundle: Path, place: Path) -> None:
    manifest = write_bundle(bundle)
    (bundle / "model.onnx").write_bytes(b"x" * 300_000)
    url = parse_device(f"ssh://board{place}")
    wrong = pytest.raises(KdcError, match=r"model.onnx is not the file that bundle.json lists")
    with wrong as caught, open_link(url, bundle, manifest, python=sys.executable, progress=Silent()):
        pass
    assert caught.value.exit_code == EXIT_USAGE
    assert not place.exists()


def test_a_file_that_changes_on_the_way(bundle: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = write_bundle(bundle)
    (bundle / "model.onnx").write_bytes(b"x" * 300_000)
    monkeypatch.setattr(remote, "_check", lambda path, entry: None)
    url = parse_device(f"ssh://board{place}")
    wrong = pytest.raises(KdcError, match=r"^board refuses: model.onnx arrived damaged")
    with wrong, open_link(url, bundle, manifest, python=sys.executable, progress=Silent()):
        pass
    assert list(place.iterdir()) == []


@contextmanager
def small_disk(place: Path, options: str) -> Iterator[None]:
    if os.getuid() != 0:
        pytest.skip("a small disk can only be mounted as root")
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted here: {done.stderr!r}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_a_bundle_that_does_not_fit(bundle: Path, place: Path) -> None:
    with small_disk(place, "size=200k"):
        error = refusal(f"ssh://board{place}", bundle)
        assert list(place.iterdir()) == []
    assert error.exit_code == EXIT_USAGE
    assert error.message.startswith("no space left on the disk of board: 0.3 MB are to be sent, 0.2 MB are free in /")
    assert "free some space there" in error.hint


def test_a_disk_that_fills_up_on_the_way(bundle: Path, place: Path) -> None:
    """It has bytes left, and room for no more than five files."""
    with small_disk(place, "size=10m,nr_inodes=6"):
        error = refusal(f"ssh://board{place}", bundle)
        assert list(place.iterdir()) == []
    assert error.exit_code == EXIT_USAGE
    assert error.message.startswith("no space left on the disk of board (No space left on device")


def test_a_folder_that_may_not_be_made(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    error = refusal(f"ssh://board{tmp_path}/file/under", bundle)
    assert error.exit_code == EXIT_USAGE
    assert error.message.startswith("board refuses: Not a directory: ")
