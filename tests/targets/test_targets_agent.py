"""The contract of device_agent.py, spoken to as kdc does: JSON lines and raw bytes through one pipe."""

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from compressor.measure.devices.agent import bootstrap, payload

TARGETS = Path(__file__).resolve().parents[2] / "targets"

ECHO = """
import json, sys
print(json.dumps({"arguments": sys.argv[1:]}), flush=True)
for line in sys.stdin:
    print(json.dumps({"heard": line.strip()}), flush=True)
    if line.startswith("end"):
        print("last words", file=sys.stderr)
        sys.exit(7)
"""
# Two processes that take no notice of their pipes; the first one also not of SIGTERM, when it is told so.
STUBBORN = """
import json, signal, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
if "--deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print(json.dumps({"child": child.pid}), flush=True)
time.sleep(600)
"""


class Device:
    """An agent, and the pipe to it."""

    def __init__(self, command: list[str], source: bytes = b"") -> None:
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.write(source)

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def read(self, size: int) -> bytes:
        assert self.process.stdout is not None
        return self.process.stdout.read(size)

    def line(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        while not (line := self.process.stdout.readline()).strip():
            assert line, "the agent has ended"
        value: dict[str, Any] = json.loads(line)
        return value

    def send(self, op: str, data: bytes = b"", **fields: object) -> None:
        self.write(json.dumps({"op": op, **fields}).encode() + b"\n" + data)

    def ask(self, op: str, data: bytes = b"", **fields: object) -> dict[str, Any]:
        self.send(op, data, **fields)
        return self.line()

    def put(self, path: object, data: bytes, **fields: object) -> dict[str, Any]:
        given = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        return self.ask("put", data, path=path, **(given | fields))

    def end(self) -> int:
        """Hang up, and wait for it."""
        self.process.communicate(timeout=30)
        return self.process.returncode


Start = Callable[[], Device]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    return tmp_path / "on the device"


@pytest.fixture
def start() -> Iterator[Start]:
    devices: list[Device] = []

    def begin() -> Device:
        devices.append(Device([sys.executable, str(TARGETS / "device_agent.py")]))
        return devices[-1]

    yield begin
    for device in devices:
        device.process.kill()
        device.process.communicate()


@pytest.fixture
def device(start: Start, place: Path) -> Device:
    """With a session's folder."""
    found = start()
    assert found.ask("open", folder=str(place), token="mine")["ok"]
    return found


def session(place: Path) -> Path:
    (folder,) = place.iterdir()
    return folder


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(what: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not what() and time.monotonic() < deadline:
        time.sleep(0.02)
    return what()


def test_the_starter_is_one_line_that_every_shell_and_old_pythons_take() -> None:
    text = bootstrap(12345)
    assert not set(text) & set("'!`$\n")
    assert "\\\\" not in text  # fish reads that in single quotes
    compile(text, "starter", "exec")
    inner = json.loads(text.removeprefix("exec(").removesuffix(")"))
    assert 'f"' not in inner
    assert ":=" not in inner
    assert inner.count("12345") == 2


@pytest.mark.parametrize("version", ["(3, 8, 18)", "(2, 7, 18)"])
def test_an_old_python_is_refused_in_one_line(version: str) -> None:
    script = f"import sys; sys.version_info = {version}\n{bootstrap(5)}"
    done = subprocess.run([sys.executable, "-c", script], input=b"", capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr == b"kdc needs Python 3.9 or later on the device\n"
    assert done.stdout == f"\nkdc-agent {'.'.join(version.strip('()').split(', '))}\n".encode()


def test_the_source_comes_through_the_pipe_and_not_a_byte_more(tmp_path: Path) -> None:
    source = payload()
    device = Device([sys.executable, "-I", "-c", bootstrap(len(source))], source)
    assert device.read(1) == b"\n"
    assert device.read(len("kdc-agent ")) == b"kdc-agent "
    assert device.process.stdout is not None
    device.process.stdout.readline()
    assert device.ask("open", folder=str(tmp_path))["ok"]
    assert device.ask("close") == {"ok": True}
    assert device.end() == 0


def test_a_source_that_is_cut_short_is_not_run() -> None:
    source = payload()
    device = Device([sys.executable, "-I", "-c", bootstrap(len(source))], source[:-5])
    assert device.end() == 1


def test_a_session_from_open_to_close(start: Start, place: Path) -> None:
    device = start()
    opened = device.ask("open", folder=str(place))
    assert opened["python"] == ".".join(map(str, sys.version_info[:3]))
    assert opened["free_bytes"] > 0
    folder = session(place)
    assert folder.name.startswith("kdc-session-")
    assert folder.stat().st_mode & 0o777 == 0o700
    data = os.urandom(1_000_000)
    assert device.put("a/b.bin", data) == {"ok": True}
    assert (folder / "a" / "b.bin").read_bytes() == data
    assert [path.name for path in (folder / "a").iterdir()] == ["b.bin"]
    reply = device.ask("get", path="a/b.bin")
    assert reply == {"ok": True, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    assert device.read(len(data)) == data
    assert device.ask("open", folder=str(place))["kind"] == "bad-request"
    assert device.ask("close") == {"ok": True}
    assert device.end() == 0
    assert list(place.iterdir()) == []


def test_the_default_folder(start: Start) -> None:
    device = start()
    assert device.ask("open", folder=None)["ok"]
    assert device.put("x", b"1")["ok"]
    assert device.ask("close")["ok"]


def test_a_folder_in_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    device = start()
    assert device.ask("open", folder="~/kdc")["ok"]
    assert len(list((tmp_path / "kdc").iterdir())) == 1


@pytest.mark.parametrize("path", ["/etc/x", "../x", "a/../x", "a//x", "./x", "", "a/", "nul\0", 7, None])
def test_paths_stay_inside(device: Device, place: Path, path: object) -> None:
    assert device.put(path, b"data")["kind"] == "bad-request"
    assert device.ask("get", path=path)["kind"] == "bad-request"
    assert device.put("x", b"data")["ok"]  # the pipe is in step
    assert sorted(entry.name for entry in session(place).iterdir()) == [".owner", "x"]


def test_links_are_not_followed(device: Device, place: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (session(place) / "out").symlink_to(tmp_path)
    (session(place) / "link").symlink_to(tmp_path / "secret")
    assert device.put("out/x", b"data")["kind"] == "bad-request"
    assert device.ask("get", path="link")["kind"] == "failed"
    assert device.ask("get", path="out")["kind"] in ("bad-request", "failed")
    assert device.put("link", b"data")["ok"]  # replaces the link itself
    assert (tmp_path / "secret").read_text() == "secret"
    assert not (tmp_path / "x").exists()


def test_a_file_that_is_damaged_on_the_way(device: Device, place: Path) -> None:
    refused = device.put("x", b"data", sha256="0" * 64)
    assert (refused["ok"], refused["kind"]) == (False, "failed")
    assert "x arrived damaged" in refused["message"]
    assert [entry.name for entry in session(place).iterdir()] == [".owner"]


def test_a_refused_file_does_not_become_requests(device: Device) -> None:
    inner = b'{"op": "close"}\n' * 100_000
    assert device.put("a/../b", inner)["kind"] == "bad-request"
    assert device.put("dir/x", b"1")["ok"]
    assert device.put("dir", inner)["kind"] == "failed"
    assert device.ask("get", path="nothing")["kind"] == "failed"


@pytest.mark.parametrize("line", [b"no json\n", b"[1]\n", b'{"op": "rm"}\n', b'{"op": "remove"}\n', b'{"op": 1}\n'])
def test_what_is_no_request(device: Device, line: bytes) -> None:
    device.write(line)
    assert device.line()["ok"] is False
    assert device.put("x", b"data")["ok"]


@pytest.mark.parametrize("op", ["get", "bench", "probe"])
def test_nothing_comes_before_open(start: Start, op: str) -> None:
    device = start()
    assert device.ask(op, path="x", args=[])["kind"] == "bad-request"


def test_bench_has_the_pipe_for_itself(device: Device, place: Path) -> None:
    device.put("runners/bench.py", ECHO.encode())
    device.send("bench", args=["--out", "it's $HOME"])
    assert device.line() == {"arguments": ["--out", "it's $HOME"]}
    device.write(b"more 3\n")
    assert device.line() == {"heard": "more 3"}
    device.write(b"end\n")
    assert device.line() == {"heard": "end"}
    assert device.line() == {"ok": True, "rc": 7, "stderr": "last words\n"}
    assert (session(place) / "out").is_dir()
    assert not list(session(place).rglob("__pycache__"))
    assert device.ask("bench", args="no list")["kind"] == "bad-request"
    assert device.put("x", b"data")["ok"]


def hang(device: Device, *arguments: str) -> int:
    assert device.put("runners/bench.py", STUBBORN.encode())["ok"]
    child: int = device.ask("bench", args=list(arguments))["child"]
    assert alive(child)
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_end_everything(device: Device, place: Path, number: int) -> None:
    child = hang(device)
    device.process.send_signal(number)
    device.process.wait(20)
    assert list(place.iterdir()) == []
    assert until(lambda: not alive(child))


def test_the_end_of_the_pipe_ends_everything(device: Device, place: Path) -> None:
    child = hang(device)
    device.end()
    assert list(place.iterdir()) == []
    assert until(lambda: not alive(child))


def test_the_end_of_the_pipe_between_requests_and_in_a_file(start: Start, place: Path) -> None:
    for rest in (b"", b'{"op": "put", "path": "x", "bytes": 100, "sha256": ""}\nhalf'):
        device = start()
        assert device.ask("open", folder=str(place))["ok"]
        device.write(rest)
        device.end()
        assert list(place.iterdir()) == []


def test_a_second_signal_does_not_stop_the_tidying_up(device: Device, place: Path) -> None:
    child = hang(device, "--deaf")
    device.process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert device.process.poll() is None
    device.process.send_signal(signal.SIGTERM)
    time.sleep(0.2)
    assert device.process.poll() is None  # it waits for bench.py to end in order
    os.kill(int(bench_of(device)), signal.SIGKILL)
    device.process.wait(20)
    assert list(place.iterdir()) == []
    assert until(lambda: not alive(child))


def bench_of(device: Device) -> str:
    return Path(f"/proc/{device.process.pid}/task/{device.process.pid}/children").read_text().split()[0]


def test_what_a_killed_agent_left_is_removed(device: Device, start: Start, place: Path, tmp_path: Path) -> None:
    left = session(place)
    device.process.kill()
    device.process.communicate()
    assert left.is_dir()
    new, old = place / "kdc-session-new", place / "kdc-session-old"
    for path in (new, old, place / "mine", tmp_path / "elsewhere"):
        path.mkdir()
    os.utime(old, (0, 0))
    (place / "kdc-session-link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / ".owner").write_text("")
    again = start()
    assert again.ask("open", folder=str(place), token="other")["ok"]
    assert not left.exists()
    assert not old.exists()  # and "new" may be somebody's who has only just begun
    assert {path.name for path in place.iterdir()} >= {"kdc-session-new", "mine", "kdc-session-link"}
    assert (tmp_path / "elsewhere" / ".owner").exists()


def test_a_living_session_is_left_alone_but_ones_own_before_is_ended(device: Device, start: Start, place: Path) -> None:
    """A kdc whose connection was lost comes again, while its first agent has not noticed the loss yet."""
    child = hang(device)
    first = session(place)
    other = start()
    assert other.ask("open", folder=str(place), token="theirs")["ok"]
    assert first.exists()
    assert alive(child)
    again = start()
    assert again.ask("open", folder=str(place), token="mine")["ok"]
    assert not first.exists()
    assert device.process.wait(20) == 1
    assert until(lambda: not alive(child))
    assert other.put("x", b"data")["ok"]


def test_the_lock_says_who_lives(device: Device, place: Path) -> None:
    owner = session(place) / ".owner"
    assert json.loads(owner.read_text()) == {"pid": device.process.pid, "token": "mine"}
    with owner.open() as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_disk_that_is_full(start: Start, place: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("a small disk can only be mounted as root")
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=100k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("a small disk cannot be mounted here")
    try:
        device = start()
        assert device.ask("open", folder=str(place))["free_bytes"] < 100 * 1024
        refused = device.put("model.onnx", bytes(1_000_000))
        assert (refused["kind"], refused["message"]) == ("disk", "No space left on device")
        assert [entry.name for entry in session(place).iterdir()] == [".owner"]
        assert device.put("small", b"data")["ok"]
        assert device.ask("close")["ok"]
        assert list(place.iterdir()) == []
        device.end()
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_probe(device: Device) -> None:
    device.put("runners/bench.py", b'print(\'{"cpu": "x"}\')')
    device.put("runners/run_good.py", b"import sys\nprint(sys.stdin.readline().replace('op', 'ok'))")
    device.put("runners/run_bad.py", b"print('hello')\nraise RuntimeError('no driver')")
    device.put("runners/run_killed.py", b"import os\nos.kill(os.getpid(), 9)")
    found = device.ask("probe", runners=["run_good.py", "run_bad.py", "run_killed.py", "run_none.py"])
    assert found["machine"] == {"cpu": "x"}
    assert found["numpy"][0].isdigit()
    assert found["runners"]["run_good.py"] == {"ok": "info"}
    assert found["runners"]["run_bad.py"] == {"ok": False, "kind": "failed", "message": "RuntimeError: no driver"}
    assert found["runners"]["run_killed.py"]["message"] == "it said nothing"
    assert "No such file" in found["runners"]["run_none.py"]["message"]
    assert isinstance(found["externally_managed"], bool)
