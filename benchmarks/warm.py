"""kdc run again and again, in children of one process that has imported it already: a run costs what its work costs.

    with closing(Warm()) as warm:
        warm.run(["measure", "BUNDLE"], under=Path("BUNDLE"), at=17)

An audit hook (PEP 578) counts the calls with which a run changes something under one folder: opening for writing,
renaming, linking, item and removing. Right before the `at`-th the run is ended with SIGKILL.
"""

import importlib
import json
import os
import pkgutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["Ended", "Warm"]

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
PATHS = {"os.rename": 2, "os.link": 2, "os.symlink": 2, "os.remove": 1, "os.rmdir": 1, "os.mkdir": 1, "os.truncate": 1,
         "os.chmod": 1, "os.utime": 1}  # fmt: skip
"""The events, and how many of their arguments are paths."""

LIBRARIES = ("timm", "torch.onnx", "torch.export", "onnx", "onnxscript", "safetensors.torch",
             "accelerate")  # fmt: skip
"""Not onnxruntime and pyarrow, which start a thread when they are imported."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code (negative: by that signal); where it was not killed, the calls that it made: the
    name of each, and the folder that it changed; and what it said."""

    code: int
    calls: list[str]
    said: str


class Warm:
    """A process that runs kdc in children. Its environment, folder and umask are those of who asks, each time.
    `command`: what starts it."""

    def __init__(self, command: Sequence[str] = (sys.executable, "-m", "benchmarks.warm")) -> None:
        self._command = command
        self._process: subprocess.Popen[str] | None = None
        self._groups: list[int] = []

    def close(self) -> None:
        self.end_children()
        if self._process is not None:
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
            self._process = None

    def run(self, arguments: Sequence[object], under: Path, at: int = 0) -> Ended:
        """Run `kdc ARGUMENTS`, and kill it right before its `at`-th call that changes something under `under`; 0: not
        at all."""
        if self._process is None:
            self._process = subprocess.Popen(
                self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, encoding="utf-8",
                env={**os.environ, "OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parent.parent,
            )  # fmt: skip
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        umask = os.umask(0)
        os.umask(umask)
        asked = {
            "arguments": [str(one) for one in arguments], "under": os.fspath(under), "at": at, "umask": umask,
            "folder": os.fspath(Path.cwd()), "environment": dict(os.environ),
        }  # fmt: skip
        self._process.stdin.write(json.dumps(asked) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        self._groups.append(told.pop("group"))
        return Ended(**told)

    def end_children(self) -> None:
        """What killed runs have started, and left running."""
        for group in self._groups:
            with suppress(ProcessLookupError):
                os.killpg(group, signal.SIGKILL)
        self._groups.clear()


def _import_everything() -> None:
    import compressor

    names = [found.name for found in pkgutil.walk_packages(compressor.__path__, "compressor.")]
    for name in [*LIBRARIES, *names]:
        if not name.endswith("__main__"):
            with suppress(ImportError):  # an extra that is not installed: no run needs it either
                importlib.import_module(name)


def _hook(under: str, at: int) -> list[str]:
    """Begins to count; returns where the calls are added."""
    calls: list[str] = []

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            paths = arguments[:1] if isinstance(arguments[2], int) and arguments[2] & WRITES else ()
        else:
            paths = arguments[: PATHS.get(event, 0)]
        names = [os.fsdecode(path) for path in paths if not isinstance(path, int)]
        if event == "os.mkdir" and Path(names[0]).is_dir():
            return  # it changes nothing
        # A name without a folder is one that shutil.rmtree removes in a folder that it holds open.
        if any(name.startswith(under) or os.sep not in name for name in names):
            calls.append(f"{event} {names[-1].rpartition(os.sep)[0]}")
            if len(calls) == at:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    return calls


def _child(asked: dict[str, Any], told: Path, said: int) -> None:
    """Runs the command, and never returns."""
    code = 99
    try:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdin, sys.stdout, sys.stderr = (os.fdopen(number, mode) for number, mode in enumerate("rww"))
        os.chdir(asked["folder"])
        os.umask(asked["umask"])
        os.environ.clear()
        os.environ.update(asked["environment"])
        tempfile.tempdir = None
        sys.argv = ["kdc", *asked["arguments"]]
        from compressor.cli.app import run

        calls = _hook(asked["under"], asked["at"])
        code = run()
        sys.stdout.flush()
        sys.stderr.flush()
        told.write_text("\n".join(calls), encoding="utf-8")
    finally:
        os._exit(code)


def serve(asked: Callable[[], str], answer: Callable[[str], object]) -> None:
    _import_everything()
    tasks = Path("/proc/self/task")
    assert not tasks.exists() or len(list(tasks.iterdir())) == 1, "only one thread of several is forked"
    with tempfile.TemporaryDirectory(prefix="kdc-warm-") as folder:
        told, heard = Path(folder) / "calls", Path(folder) / "said"
        while line := asked():
            told.unlink(missing_ok=True)
            with heard.open("wb") as file:
                child = os.fork()
                if child == 0:
                    _child(json.loads(line), told, file.fileno())
            status = os.waitpid(child, 0)[1]
            calls = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
            said = heard.read_text(encoding="utf-8", errors="replace")
            code = os.waitstatus_to_exitcode(status)
            answer(json.dumps({"code": code, "calls": calls, "said": said, "group": child}) + "\n")


if __name__ == "__main__":
    own = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer
    serve(sys.stdin.readline, own.write)
