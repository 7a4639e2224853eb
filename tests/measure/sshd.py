"""A device for the tests: a real sshd on this machine, and a bench.py that speaks and measures nothing."""

import hashlib
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from compressor.measure.devices import local, remote
from compressor.schema.bundle import Bundle, FileEntry, Variant

__all__ = ["BENCH", "Board", "alive", "install_runners", "run_sshd", "scripts_in", "until", "wrap", "write_bundle"]

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
SEPARATION = Path("/run/sshd")

# Speaks as the real one does. --hang: goes on for ever and never looks at its stdin, and neither does its child.
BENCH = """
import json, os, subprocess, sys, time

def say(**event):
    print(json.dumps(event), flush=True)

arguments = sys.argv[1:]
bundle, out = arguments[0], arguments[arguments.index("--out") + 1]
files = sorted(os.path.relpath(os.path.join(at, name), bundle) for at, _, names in os.walk(bundle) for name in names)
say(state={"arguments": arguments, "cwd": os.getcwd(), "files": files, "pid": os.getpid()})
if "--fail" in arguments:
    print("something else\\nbench.py: pip install numpy (cannot import numpy)", file=sys.stderr)
    sys.exit(int(arguments[arguments.index("--fail") + 1]))
if "--die" in arguments:
    print('{"progress": 1, "tot', end="", flush=True)
    os.kill(os.getpid(), 9)
number = 0
if "--hang" in arguments:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    say(state={"pid": child.pid})
    while True:
        say(round={"number": number}, blocks=[])
        time.sleep(0.02)
rounds = 2
while rounds:
    for _ in range(rounds):
        say(round={"number": number}, blocks=[])
        number += 1
    say(look=number)
    answer = sys.stdin.readline().split() or sys.exit(130)
    rounds = int(answer[1]) if answer[0] == "more" else 0
with open(os.path.join(out, "student.npy"), "wb") as file:
    file.write(bytes(range(256)) * 4000)
say(state={"rounds": number})
"""


def scripts_in(folder: Path) -> Callable[[], dict[str, Path]]:
    """In the place of `assets.runner_scripts`: those in `folder`."""
    return lambda: {path.name: path for path in sorted(folder.iterdir())}


def install_runners(folder: Path, patch: pytest.MonkeyPatch, bench: str = BENCH) -> None:
    """Make `bench`, in `folder`, the bench.py that this kdc was installed with."""
    folder.mkdir(exist_ok=True)
    (folder / "bench.py").write_text(bench, encoding="utf-8")
    (folder / "run_ort.py").write_text("", encoding="utf-8")
    for module in (local, remote):
        patch.setattr(module, "runner_scripts", scripts_in(folder))


def write_bundle(folder: Path) -> Bundle:
    """A bundle on disk, and as much of its manifest as devices look at. Nothing may run the scripts that lie in it."""
    files = {
        "bundle.json": b"{}",
        "model.onnx": bytes(300_000),
        "eval/inputs.npy": b"images",
        "eval/labels.npy": b"secret",
        "eval/reference.npy": b"secret",
        "runners/bench.py": b"raise SystemExit('a script of the bundle ran')",
        "runners/run_ort.py": b"raise SystemExit('a script of the bundle ran')",
    }
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)
    entries = {
        path: FileEntry(path=path, sha256=hashlib.sha256(content).hexdigest(), bytes=len(content))
        for path, content in files.items()
    }
    variant = Variant.model_construct(
        name="student", inputs="eval/inputs.npy", reference_logits="eval/reference.npy", files=(entries["model.onnx"],)
    )
    support = tuple(entry for path, entry in entries.items() if path.startswith(("eval/", "runners/")))
    return Bundle.model_construct(variants=(variant,), support=support)


def wrap(folder: Path, name: str, script: str, patch: pytest.MonkeyPatch) -> None:
    """Put a shell script called `name` in front of everything on PATH."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    (folder / name).chmod(0o755)
    patch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def alive(process: int) -> bool:
    """Whether a process runs; one that only waits to be collected does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(what: "object", seconds: float = 10.0) -> bool:
    """Whether the callable `what` becomes true within `seconds`."""
    assert callable(what)
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@dataclass(frozen=True)
class Board:
    """The device. `config`: of the client; it has the hosts board, noisy, closed, wrongkey, unknown, changed, gone."""

    process: "subprocess.Popen[bytes]"
    config: Path
    port: int

    def pull_the_cable(self) -> int:
        """Kill the sshd processes that serve connections, and nothing that runs under them; how many there were."""
        family = {self.process.pid}
        parents = {int(path.name): _parent(path) for path in Path("/proc").iterdir() if path.name.isdigit()}
        for _ in range(3):
            family |= {one for one, (parent, name) in parents.items() if parent in family and name.startswith("sshd")}
        served = family - {self.process.pid}
        for one in sorted(served):
            os.kill(one, 9)
        return len(served)


def _parent(path: Path) -> tuple[int, str]:
    try:
        before, _, after = (path / "stat").read_text().rpartition(")")
    except OSError:
        return 0, ""
    return int(after.split()[1]), before.partition("(")[2]


def _key(path: Path) -> str:
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text(encoding="utf-8").strip()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def run_sshd(folder: Path) -> Iterator[Board]:
    """An sshd with keys, users' keys and known hosts of its own, all in `folder`."""
    if SSHD is None or shutil.which("ssh") is None:
        pytest.skip("OpenSSH's client and server are needed: apt install openssh-client openssh-server")
    if os.getuid() == 0:
        # It stays: another worker's sshd may need it, and every sshd that the system starts makes it.
        SEPARATION.mkdir(mode=0o755, exist_ok=True)
    port = _free_port()
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(_server(folder, port))], stderr=log)
    try:
        assert until(lambda: _listens(port)), (folder / "sshd.log").read_text()
        yield Board(process, _client(folder, port), port)
    finally:
        process.terminate()
        process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def _server(folder: Path, port: int) -> Path:
    _key(folder / "host")
    noisy = 'command="echo Welcome to the board; eval \\"$SSH_ORIGINAL_COMMAND\\""'
    closed = 'command="echo This account is not available.; exit 1"'
    keys = [_key(folder / "user"), f"{noisy} {_key(folder / 'noisy')}", f"{closed} {_key(folder / 'closed')}"]
    (folder / "authorized_keys").write_text("\n".join(keys) + "\n", encoding="utf-8")
    _key(folder / "stranger")
    lines = (
        f"Port {port}",
        "ListenAddress 127.0.0.1",
        f"HostKey {folder / 'host'}",
        f"AuthorizedKeysFile {folder / 'authorized_keys'}",
        "PermitRootLogin yes",
        "PasswordAuthentication no",
        "KbdInteractiveAuthentication no",
        "StrictModes no",
        "UsePAM no",
        "PidFile none",
        "LogLevel ERROR",
    )
    (folder / "sshd_config").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "sshd_config"


def _client(folder: Path, port: int) -> Path:
    host = (folder / "host.pub").read_text(encoding="utf-8")
    (folder / "known").write_text(f"[127.0.0.1]:{port} {host}", encoding="utf-8")
    other = (folder / "stranger.pub").read_text(encoding="utf-8")
    (folder / "known_other").write_text(f"[127.0.0.1]:{port} {other}", encoding="utf-8")
    (folder / "known_none").write_text("", encoding="utf-8")
    keys = {"noisy": "noisy", "closed": "closed", "wrongkey": "stranger"}
    known = {"unknown": "known_none", "changed": "known_other"}
    lines = []
    for name in ("board", "noisy", "closed", "wrongkey", "unknown", "changed", "gone"):
        lines += [
            f"Host {name}",
            "  HostName 127.0.0.1",
            f"  Port {_free_port() if name == 'gone' else port}",
            f"  IdentityFile {folder / keys.get(name, 'user')}",
            f"  UserKnownHostsFile {folder / known.get(name, 'known')}",
        ]
    lines += ["Host 127.0.0.1", f"  IdentityFile {folder / 'user'}", f"  UserKnownHostsFile {folder / 'known'}"]
    lines += [
        "Host *",
        "  IdentitiesOnly yes",
        "  IdentityAgent none",
        "  GlobalKnownHostsFile none",
        "  LogLevel INFO",
    ]
    (folder / "ssh_config").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "ssh_config"
