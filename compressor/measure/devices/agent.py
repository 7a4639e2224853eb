"""targets/device_agent.py as seen from here: started through a pipe, then asked for one thing after the other."""

import hashlib
import json
import re
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from compressor.assets import asset_dir
from compressor.errors import EXIT_INCONCLUSIVE, EXIT_MISSING, KdcError
from compressor.files.atomic import write_atomically
from compressor.measure.devices.pipe import LostConnection, Pipe, PipeError, as_object
from compressor.measure.machine import last_line
from compressor.terminal.printable import one_line

__all__ = ["Agent", "Explain", "bootstrap", "payload"]

SOURCES = ("device_parts", "device_agent")  # the second imports the first
MARKER = "kdc-agent"
OLDEST = (3, 9)
HELLO_S = 60.0  # connected, and still no Python: a menu that waits for a key, or a card that fails
GREETING_LINES = 100
CHUNK = 1 << 18
MOST_EMPTY = 1000  # lines in a row
TOKEN = uuid.uuid4().hex  # of this kdc: after a lost connection, the device ends what it had started

# What ended before Python began: exit code and stderr -> what the user can do about it.
Explain = Callable[[int, str], KdcError]

# Python that also 2.7 and 3.4 can parse, on one line, and without a sign that a shell reads inside single quotes.
STARTER = """\
import os, sys, json
os.write(1, (chr(10) + "%(marker)s %%d.%%d.%%d" %% tuple(sys.version_info[:3]) + chr(10)).encode("ascii"))
if tuple(sys.version_info[:2]) < %(oldest)r: sys.exit("kdc needs Python %(needed)s or later on the device")
data = b""
while len(data) < %(size)d:
    chunk = os.read(0, %(size)d - len(data))
    if len(chunk) == 0: sys.exit(1)
    data += chunk
for name, source in json.loads(data.decode("ascii")):
    module = sys.modules[name] = type(sys)(name)
    exec(compile(source, name + ".py", "exec"), module.__dict__)
sys.exit(module.main())
"""


def payload() -> bytes:
    """What the starter reads: the agent's sources."""
    folder = asset_dir("targets")
    return json.dumps([(name, (folder / f"{name}.py").read_text(encoding="utf-8")) for name in SOURCES]).encode("ascii")


def bootstrap(size: int) -> str:
    """The argument of `python3 -c` that reads a payload of `size` bytes from stdin, no byte more, and runs it."""
    values = {"marker": MARKER, "oldest": OLDEST, "needed": ".".join(map(str, OLDEST)), "size": size}
    return f"exec({json.dumps(STARTER % values)})"


class Agent:
    """One session on a device. After an error in the middle of a transfer only hanging up is left: see `in_step`."""

    def __init__(self, pipe: Pipe, where: str) -> None:
        self.where = where
        self.in_step = False
        self._pipe = pipe

    def start(self, source: bytes, python: str, explain: Explain) -> None:
        """Wait for the device's Python, and hand it the agent; raises KdcError where that does not come about."""
        watchdog = threading.Timer(HELLO_S, self._pipe.process.kill)
        watchdog.daemon = True
        watchdog.start()
        greeting: list[str] = []
        try:
            version = self._version(greeting)
            if greeting:
                raise self._greeted(greeting)
            if version < OLDEST:
                raise KdcError(
                    f"{python} on {self.where} is Python {'.'.join(map(str, version))}; kdc needs 3.9 or later",
                    "name a newer one: --device-python python3.11",
                    EXIT_MISSING,
                )
            self._pipe.write(source)
        except PipeError as ended:
            if not watchdog.is_alive() and ended.code < 0:
                raise KdcError(
                    f"{self.where} was reached, but {python} did not start within {HELLO_S:g} s: nothing was measured",
                    "is there a menu or a prompt that waits for somebody? try it by hand",
                    EXIT_INCONCLUSIVE,
                ) from None
            if greeting:
                raise self._greeted(greeting) from None
            raise explain(ended.code, ended.said) from None
        finally:
            watchdog.cancel()
        self.in_step = True

    def _version(self, greeting: list[str]) -> tuple[int, ...]:
        """The version of the device's Python; what came before it is put into `greeting`."""
        while len(greeting) < GREETING_LINES:
            text = self._pipe.line().decode("utf-8", "replace").strip()
            match = re.fullmatch(rf"{MARKER} (\d+)\.(\d+)\.(\d+)", text)
            if match:
                return tuple(int(number) for number in match.groups())
            if text:
                greeting.append(text)
        return OLDEST

    def _greeted(self, greeting: list[str]) -> KdcError:
        said = one_line(greeting[0])[:80]
        return KdcError(
            f"the login shell of {self.where} writes to stdout, where only kdc's agent may: {said!r}",
            "let it greet in interactive shells only; at the top of ~/.bashrc: case $- in *i*) ;; *) return;; esac",
        )

    def open(self, folder: str | None) -> int:
        """Make the session's folder; how many bytes are free there."""
        return self.number(self._ask("open", folder=folder, token=TOKEN), "free_bytes")

    def put(self, path: str, source: Path, size: int, sha256: str, sent: Callable[[int], None]) -> None:
        """Send a file; `sent` is told of every bit of it. The device checks its sha256."""
        self._send("put", path=path, bytes=size, sha256=sha256)
        left = size
        with source.open("rb") as file:
            while left:
                data = file.read(min(left, CHUNK))
                if not data:
                    raise KdcError(f"{source} was cut short while it was sent")
                self._write(data)
                left -= len(data)
                sent(len(data))
        self._reply()

    def probe(self, runners: Sequence[str]) -> dict[str, Any]:
        return self._ask("probe", runners=list(runners))

    def bench(self, arguments: Sequence[str]) -> Iterator[dict[str, Any]]:
        """The events of bench.py, and at last the agent's reply, which has the key "ok"."""
        self._send("bench", args=list(arguments))
        noise: bytes | None = None
        while True:
            line = self._line()
            event = as_object(line)
            if event is not None and "ok" in event:
                yield self._judged(event)
                return
            if noise is not None:
                raise self._no_event(noise)
            if event is None:  # half a line, where bench.py was killed: then the agent's reply is next
                noise = line
            else:
                yield event

    def say(self, line: str) -> None:
        """A line for bench.py, which has the pipe for itself."""
        assert not self.in_step, "nobody listens: bench.py is not running"
        self._write(line.encode() + b"\n")

    def get(self, path: str, to: Path, most: int) -> None:
        """Fetch a file of at most `most` bytes: all of it, as its sha256 says, or nothing."""
        self._send("get", path=path)
        reply = self._reply()
        self.in_step = False  # until the last byte has come
        digest, left = hashlib.sha256(), self.number(reply, "bytes", most=most)
        with write_atomically(to) as temporary:
            with temporary.open("wb") as file:
                while left:
                    data = self._guarded(partial(self._pipe.read, min(left, CHUNK)))
                    left -= len(data)
                    digest.update(data)
                    file.write(data)
            self.in_step = True
            if digest.hexdigest() != reply.get("sha256"):
                raise KdcError(f"{to.name} arrived damaged from {self.where}", "measure again", EXIT_INCONCLUSIVE)

    def number(self, reply: dict[str, Any], key: str, *, least: int = 0, most: int | None = None) -> int:
        """An integer of a reply; raises KdcError where there is none, or one that cannot be."""
        value = reply.get(key)
        if type(value) is not int or value < least or (most is not None and value > most):
            raise KdcError(f"{self.where} answers {key} with {one_line(value)[:40]}, which cannot be")
        return value

    def close(self) -> None:
        """Let the device tidy up and say so. Where it cannot be asked any more, the end of the pipe tells it."""
        if self.in_step:
            self._ask("close")
            self.in_step = False

    def _ask(self, op: str, **fields: object) -> dict[str, Any]:
        self._send(op, **fields)
        return self._reply()

    def _send(self, op: str, **fields: object) -> None:
        assert self.in_step, f"{op} in the middle of something else"
        self.in_step = False
        self._write(json.dumps({"op": op, **fields}).encode() + b"\n")

    def _reply(self) -> dict[str, Any]:
        line = self._line()
        reply = as_object(line)
        if reply is None:
            raise self._no_event(line)
        return self._judged(reply)

    def _judged(self, reply: dict[str, Any]) -> dict[str, Any]:
        """A reply; raises KdcError where it is a refusal."""
        self.in_step = True
        if reply.get("ok") is True:
            return reply
        message = one_line(reply.get("message") or "it gave no reason")
        if reply.get("kind") == "disk":
            raise KdcError(
                f"no space left on the disk of {self.where} ({message})",
                "free some space there, or name a folder on another disk of it: --device …/FOLDER",
            )
        raise KdcError(f"{self.where} refuses: {message}")

    def _line(self) -> bytes:
        """The next line that is not empty."""
        for _ in range(MOST_EMPTY):
            line: bytes = self._guarded(self._pipe.line)
            if line.strip():
                return line
        raise KdcError(f"{self.where} sends empty lines without end")

    def _no_event(self, line: bytes) -> KdcError:
        return KdcError(f"{self.where} said what is no event: {line.decode('utf-8', 'replace').strip()[:100]!r}")

    def _write(self, data: bytes) -> None:
        self._guarded(partial(self._pipe.write, data))

    def _guarded(self, step: Callable[[], Any]) -> Any:
        try:
            return step()
        except PipeError as ended:
            self.in_step = False
            said = f": {last_line(ended.said)}" if ended.said.strip() else ""
            raise LostConnection(
                f"the connection to {self.where} was lost (exit code {ended.code}{said})",
                "check its network, its power and its memory",
            ) from None
