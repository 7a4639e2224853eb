"""What every runner process is, whatever its models are: the JSON-lines loop on stdin/stdout, and how it refuses.

Standard library and numpy only; runs on Python 3.9 and later. Used by runner_common.py and runner_language.py.
"""

from __future__ import annotations

import errno
import importlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

try:
    import numpy  # noqa: F401
except ImportError as error:  # nothing can be answered: the first request is told so, in the words of the protocol
    reason = " ".join(str(error).split())[:300]
    sys.stdin.readline()
    print(json.dumps({"ok": False, "kind": "missing", "message": f"pip install numpy (cannot import numpy: {reason})"}))
    sys.exit()

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.runner_memory import memory_mb
    from targets.runner_requests import Request, RequestError, take
else:
    from runner_memory import memory_mb
    from runner_requests import Request, RequestError, take

Reply = dict[str, Any]


@dataclass(frozen=True)
class Runtime:
    """How a runner uses its runtime. `precisions`: imported module -> those that really run on this machine.
    `load`: module, model's path, threads, precision, streams -> the model: a `Loaded`, or of a runtime that generates
    text a `LanguageModel` (runner_language.py). `known`: all the precisions that it takes.
    `module`: what Python imports, where that is not its name; `version`: reads the version from the module.
    """

    name: str
    install: str
    known: tuple[str, ...]
    precisions: Callable[[Any], list[str]]
    load: Callable[[Any, str, int, str, int], Any]
    module: str = ""
    version: Callable[[Any], str] = lambda module: str(module.__version__)


def mixed(precisions: Iterable[str]) -> str:
    """One name for the precisions of a model's layers: "f32", or "mixed bf16+f32"."""
    names = sorted(set(precisions))
    return names[0] if len(names) == 1 else "mixed " + "+".join(names) if names else "unknown"


class Process:
    """What every runner process answers, whatever its models are. One method an operation."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def info(self, request: Request) -> Reply:
        module = self._module()
        return {
            "runtime": self.runtime.name,
            "version": self.runtime.version(module),
            "precisions": self.runtime.precisions(module),
            # Not at the top: nothing else needs it, and importing it takes time of every start that is measured.
            "machine": importlib.import_module("machine_info").machine(),
        }

    def memory(self, request: Request) -> Reply:
        return {"rss_mb": memory_mb("VmRSS"), "peak_rss_mb": memory_mb("VmHWM")}

    def quit(self, request: Request) -> Reply:
        self._forget()
        return {}

    def _forget(self) -> None:
        """Let go of the model, if there is one."""

    def _precision(self, request: Request) -> str:
        precision: str = take(request, "precision", str)
        if precision not in self.runtime.known:
            known = ", ".join(self.runtime.known)
            raise RequestError("bad-request", f"{self.runtime.name} has no precision {precision}; known: {known}")
        return precision

    def _module(self) -> Any:
        name, install = self.runtime.module or self.runtime.name, self.runtime.install
        # Both report to their makers over the network where nothing forbids it. bench.py sets the one; here is who is
        # started by hand.
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise RequestError("missing", f"{install} (cannot import {name}: {error})") from error


def operations(kind: type[Process]) -> list[str]:
    """The names of what it answers: its methods."""
    return [name for name in dir(kind) if not name.startswith("_")]


def answer(session: Process, line: bytes) -> tuple[Reply, bool]:
    """The reply to one line, and whether it asked to quit. Never raises for what a request or a runtime can cause."""
    try:
        request = json.loads(line)
        known = operations(type(session))
        if not isinstance(request, dict) or request.get("op") not in known:
            raise RequestError("bad-request", f'expected {{"op": …}}, one of: {", ".join(known)}')
        return {"ok": True, **getattr(session, request["op"])(request)}, request["op"] == "quit"
    except RequestError as error:
        kind, message = error.kind, str(error)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        kind, message = "bad-request", f"not JSON: {error}"
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        kind, message = "disk" if full else "failed", f"{type(error).__name__}: {error}"
    except Exception as error:
        kind, message = "failed", f"{type(error).__name__}: {error}"
    return {"ok": False, "kind": kind, "message": " ".join(message.split())[:500]}, False


def serve_as(session: Process) -> None:
    """Answer requests, a line each, until "quit" or the end of stdin. Only replies reach the real stdout: libraries
    that print, in Python or in C, print to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        for line in sys.stdin.buffer:
            reply, done = answer(session, line)
            print(json.dumps(reply), file=replies, flush=True)
            if done:
                return
