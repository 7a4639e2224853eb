"""The device's end of `kdc measure --device ssh://…` and `kdc doctor --device …`.

kdc sends this source through the pipe and runs it with the device's own Python, so that nothing has to be installed and
nothing has to lie there. It keeps one folder of its own, `kdc-session-XXXXXX`, and removes it whatever happens: when it
is told to, when the pipe ends, on SIGTERM and SIGHUP. A folder whose process is gone is removed by the next session.

Requests are JSON objects, a line each, on stdin; replies likewise on stdout, always with the key "ok". The request
`put` is followed by the file's bytes, the reply to `get` too. While `bench` runs, the pipe is bench.py's own: that is
why stdin is never read ahead. Standard library only; POSIX; runs on Python 3.9 and later.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import platform
import shutil
import signal
import stat
import sys
import sysconfig
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the other script came through the pipe as well
    from targets import device_parts as parts
    from targets.device_parts import Gone, RequestError
else:
    sys.dont_write_bytecode = True
    import device_parts as parts
    from device_parts import Gone, RequestError

PREFIX = "kdc-session-"
OUT = "out"
PROBE_SECONDS = 120.0  # importing a runtime from a slow card takes tens of seconds
OPERATIONS = ("open", "put", "probe", "bench", "get", "close")

# machine_info.py needs no numpy, bench.py may.
MACHINE = """
import json, sys
sys.path.insert(0, "runners")
import machine_info
print(json.dumps(machine_info.machine()))
"""
NUMPY = "import json, numpy; print(json.dumps(numpy.__version__))"

Request = dict[str, Any]
Reply = dict[str, Any]


class Agent:
    """One session. One method an operation."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        self._lock = -1  # closed by the end of the process: then the folder is anybody's to remove

    def open(self, request: Request) -> Reply:
        """`folder`: where to make the session's, null for the system's; `token`: whose predecessors to end."""
        if self.folder is not None:
            raise RequestError("bad-request", "this session is open already")
        wanted, token = request.get("folder"), str(request.get("token") or "")
        parent = Path(wanted).expanduser() if wanted else Path(tempfile.gettempdir())
        parent.mkdir(parents=True, exist_ok=True)
        for left in parent.glob(PREFIX + "*"):
            with suppress(OSError):
                parts.sweep(left, token)
        for _ in range(3):
            self.folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent)).resolve()
            if self._take(token):
                usage = os.statvfs(self.folder)
                free = usage.f_bavail * usage.f_frsize
                return {"python": platform.python_version(), "executable": sys.executable, "free_bytes": free}
        raise RequestError("failed", f"{parent}: another session takes the new folder away again and again")

    def _take(self, token: str) -> bool:
        assert self.folder is not None
        self._lock = os.open(self.folder / parts.OWNER, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        if not parts.locked(self._lock):
            return False
        os.write(self._lock, json.dumps({"pid": os.getpid(), "token": token}).encode())
        return (self.folder / parts.OWNER).exists()

    def put(self, request: Request) -> Reply:
        left = request.get("bytes")
        if not isinstance(left, int) or left < 0:
            raise parts.leave()  # how much to skip is unknown: the pipe is out of step
        part: Path | None = None
        try:
            target = self._inside(request.get("path"))
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            if target.parent.resolve() != target.parent:
                raise RequestError("bad-request", f"{request['path']} leads through a link")
            part = target.with_name(target.name + ".part")
            digest = hashlib.sha256()
            handle = os.open(part, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
            with os.fdopen(handle, "wb") as file:
                while left:
                    data = parts.take(min(left, parts.CHUNK))
                    left -= len(data)
                    digest.update(data)
                    file.write(data)
            if digest.hexdigest() != request.get("sha256"):
                raise RequestError("failed", f"{request['path']} arrived damaged: its sha256 is {digest.hexdigest()}")
            part.replace(target)
        except Exception:
            while left:  # the rest of the file is not the next request
                left -= len(parts.take(min(left, parts.CHUNK)))
            raise
        finally:
            if part is not None:
                with suppress(OSError):
                    part.unlink()
        return {}

    def probe(self, request: Request) -> Reply:
        """What works here, asked in fresh processes: a broken runtime may crash the one that imports it."""
        numpy, no_numpy = self._ask(["-c", NUMPY])
        machine, no_machine = self._ask(["runners/bench.py", "--info"])
        if machine is None:
            machine, _ = self._ask(["-c", MACHINE])
        runners = {}
        for name in request.get("runners", []):
            answer, problem = self._ask([str(self._inside(f"runners/{name}"))], '{"op": "info"}\n')
            refused = {"ok": False, "kind": "failed", "message": problem}
            runners[name] = answer if isinstance(answer, dict) else refused
        managed = Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists() and sys.prefix == sys.base_prefix
        return {
            "numpy": numpy,
            "numpy_problem": no_numpy,
            "machine": machine,
            "machine_problem": no_machine,
            "runners": runners,
            "externally_managed": managed,
        }

    def bench(self, request: Request) -> Reply:
        """Run bench.py with `args`. The pipe is its own until it ends."""
        folder, args = self._opened(), request.get("args")
        if not isinstance(args, list) or not all(isinstance(argument, str) for argument in args):
            raise RequestError("bad-request", "bench needs args, a list of texts")
        (folder / OUT).mkdir(exist_ok=True)
        code, said = parts.run(self._opened(), ["runners/bench.py", *args], 0, 1, None)
        return {"rc": code, "stderr": said}

    def get(self, request: Request) -> Reply:
        path = self._inside(request.get("path"))
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            info = os.fstat(file.fileno())
            if not stat.S_ISREG(info.st_mode):
                raise RequestError("bad-request", f"{request['path']} is no file")
            digest, left = hashlib.sha256(), info.st_size
            for data in iter(lambda: file.read(parts.CHUNK), b""):
                digest.update(data)
            file.seek(0)
            parts.tell({"ok": True, "bytes": left, "sha256": digest.hexdigest()})
            while left:
                try:
                    data = file.read(min(left, parts.CHUNK))
                except OSError:
                    data = b""
                if not data:
                    raise parts.leave()  # it shrank, or the card is broken: no reply would be understood as one
                left -= len(data)
                parts.send(data)
        return {}

    def close(self, request: Request) -> Reply:
        self.remove()
        return {}

    def remove(self) -> None:
        for _ in range(3):  # a child of a child may be writing its last file
            if self.folder is not None and self.folder.exists():
                shutil.rmtree(self.folder, ignore_errors=True)
                time.sleep(0.1 if self.folder.exists() else 0)
        self.folder = None

    def _opened(self) -> Path:
        if self.folder is None:
            raise RequestError("bad-request", "there is no session yet: ask for open first")
        return self.folder

    def _inside(self, path: object) -> Path:
        """A path of a request, in the session's folder. Links are the concern of whoever opens it."""
        steps = path.split("/") if isinstance(path, str) else [""]
        if any(step in ("", ".", "..") or "\0" in step for step in steps):
            raise RequestError("bad-request", f"{path!r} is no path inside the session's folder")
        return self._opened().joinpath(*steps)

    def _ask(self, arguments: list[str], stdin: str = "") -> tuple[Any, str]:
        """The JSON that a Python process with `arguments` prints; null and why where it does not."""
        with tempfile.TemporaryFile(dir=self._opened()) as question, tempfile.TemporaryFile(dir=self.folder) as answer:
            question.write(stdin.encode())
            question.seek(0)
            try:
                code, said = parts.run(self._opened(), arguments, question.fileno(), answer.fileno(), PROBE_SECONDS)
            except RequestError as refusal:
                return None, str(refusal)
            answer.seek(0)
            value = parts.parse(answer.read().decode("utf-8", "replace"))
        if value is not None:
            return value, ""
        lines = said.strip().splitlines() or ["it said nothing"]
        return None, lines[-1] if code else "it answered no JSON"


def answer(agent: Agent, line: bytes) -> bool:
    """Answer one request; whether it was the last one."""
    try:
        request = json.loads(line)
        if not isinstance(request, dict) or request.get("op") not in OPERATIONS:
            raise RequestError("bad-request", f'expected {{"op": …}}, one of: {", ".join(OPERATIONS)}')
        reply = {"ok": True, **getattr(agent, request["op"])(request)}
        if request["op"] != "get":  # which has replied before the file's bytes
            parts.tell(reply)
        return bool(request["op"] == "close")
    except RequestError as refusal:
        kind, message = refusal.kind, str(refusal)
    except OSError as error:
        kind = "disk" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "failed"
        message = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    except Exception as error:
        kind, message = "failed", f"{type(error).__name__}: {error}"
    parts.tell({"ok": False, "kind": kind, "message": " ".join(message.split())[:500]})
    return False


def main() -> int:
    for number in parts.STOPS:
        signal.signal(number, parts.stop)
    agent = Agent()
    try:
        while not answer(agent, parts.read_line()):
            pass
    except Gone:
        return 1
    finally:
        agent.remove()
    return 0


if __name__ == "__main__":
    sys.exit(main())
