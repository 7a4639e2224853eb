"""What the contract tests hold in their hands: a runner, a bench.py, and a runner without a runtime."""

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from compressor.schema.base import parse
from compressor.schema.measurement import Measurement

# A runner without a runtime, that answers at once. A model called "OP!" makes it refuse that request, "OP!!" die of it,
# "OP?" say that there is no profiler.
STUB = """
import json, os, sys

pid = os.getpid()
answers = {
    "info": {},
    "load": {"load_ms": 2.0, "runtime_version": "0", "idle_rss_mb": 1.0},
    "inputs": {"distinct": 5},
    "executed": {"executed_precision": "fp32"},
    "first": {"first_ms": 1.0},
    "memory": {"peak_rss_mb": 2.0},
    "throughput": {"seconds": 0.5, "calls": 100, "joules": None},
    "predict": {"n": 7},
    "profile": {"profiler": "a stub", "each": 1, "calls_ms": [1.0], "nodes": [{"name": "a", "op": "b", "us": [900.0]}]},
}
model = ""
for line in sys.stdin:
    request = json.loads(line)
    op, model = request["op"], request.get("model", model)
    if model == op + "!!":
        print("too big", file=sys.stderr, flush=True)
        os.abort()
    if op == "block":
        answers["block"] = {"wall_ms": [float(n) for n in range(request["n"])], "cpu_ms": [0.5] * request["n"]}
    if op == "predict":
        open(request["out"], "wb").write(b"logits")
    ok = model != op + "!"
    kind = "no-profiler" if model == op + "?" else "failed"
    ok = ok and kind == "failed"
    print(json.dumps({"ok": ok, **(answers[op] if ok else {"kind": kind, "message": "no " + op})}), flush=True)
"""


class Session:
    """A bench.py that runs, with --json: its events, one after the other, and the answers to its looks."""

    def __init__(self, command: list[str], cwd: Path, environment: dict[str, str]) -> None:
        # Where pytest itself runs in a shell's background, SIGINT is ignored, and a child would inherit that.
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        self.process = subprocess.Popen(
            command,
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        signal.signal(signal.SIGINT, before)
        self.events: list[dict[str, Any]] = []

    def until(self, key: str) -> Any:
        """Read events until one has `key`; its value there."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if key in self.events[-1]:
                return self.events[-1][key]
        raise AssertionError(f"no event {key}; the last ones: {self.events[-3:]}")

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def runners(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return [int(child) for child in children.split()]

    def end(self) -> tuple[int, str]:
        """Close its stdin, read the rest; exit code and what it said on stderr."""
        rest, errors = self.process.communicate(timeout=60)
        self.events += [json.loads(line) for line in rest.splitlines()]
        return self.process.returncode, errors


def assembled(events: list[dict[str, Any]]) -> Measurement:
    """What the events tell, put together as README.md says: the last state, all rounds and blocks."""
    state = [event["state"] for event in events if "state" in event][-1]
    rounds = [event["round"] for event in events if "round" in event]
    failed = {one["variant"] for one in state["contestants"] if one.get("error")}
    blocks = [block for event in events for block in event.get("blocks", ()) if block["variant"] not in failed]
    return parse(Measurement, {**state, "rounds": rounds, "blocks": blocks}, "the events")


def gone(pid: int, seconds: float = 10) -> bool:
    """Whether a process ends within `seconds`; a zombie, which nobody here may wait for, has ended."""
    deadline = time.monotonic() + seconds
    while Path(f"/proc/{pid}/exe").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    return not Path(f"/proc/{pid}/exe").exists()


class Runner:
    """A runner process, as bench.py holds one. `ask` returns the reply to one request."""

    def __init__(self, script: Path, cwd: Path, environment: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(script)],
            cwd=cwd,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def send(self, line: str) -> dict[str, Any]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        reply: dict[str, Any] = json.loads(self.process.stdout.readline())
        return reply

    def ask(self, op: str, **fields: object) -> dict[str, Any]:
        return self.send(json.dumps({"op": op, **fields}))

    def cpu_ticks_in(self, seconds: float) -> int:
        """CPU time, in clock ticks of all its threads, that it uses in the next `seconds`."""
        before = self._ticks()
        time.sleep(seconds)
        return self._ticks() - before

    def _ticks(self) -> int:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return int(fields[11]) + int(fields[12])

    def close(self) -> str:
        """End it by end-of-file; whatever it still had to say on stdout."""
        rest, _ = self.process.communicate(timeout=30)
        return rest


Bench = Callable[..., subprocess.CompletedProcess[str]]
StartBench = Callable[..., Session]
LoadScript = Callable[[str], ModuleType]
StartRunner = Callable[..., Runner]
Environment = Callable[..., dict[str, str]]
