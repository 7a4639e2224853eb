"""Programs in Python, started as forks of a process that has imported their libraries already: most of what a small
kdc command takes is importing torch, timm and onnx, and most of what a runner takes is importing its runtime, again and
again.

    subprocess.run([*python(), "-m", "compressor", "losses"])

in place of `sys.executable`. The process that this starts is a small one (stand_in.py): it hands what it was given
(arguments, environment, folder, umask, standard streams, signals that are ignored) to a server, which forks the
program, and then stands for it: signals sent to it reach the program, and its end is the program's. Where it is killed,
the program is soon after, and in any case before another is forked. Its `sys.executable` is, but for pytest,
`interpreter()`, so that what it starts in turn is forked too.
There are two servers, one with all that kdc imports and one with the runtimes alone, for all processes of a test run.
A copy of the checkout runs its own kdc, which is imported anew. What is exported to ONNX is kept (kept_graphs.py).

A program that is to be really started stays with `sys.executable`: where it is about starting (what is imported, and
when), process groups, memory or limits, and once for each command.
"""

import atexit
import fcntl
import functools
import gc
import importlib
import io
import marshal
import os
import pkgutil
import runpy
import select
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["FOLDER", "begun", "interpreter", "python"]

FOLDER = "KDC_TESTS_FORKED"
"""The environment variable with the folder of the servers of a test run."""
LIBRARIES = {
    "kdc": (
        "accelerate", "numpy", "onnx", "onnxscript", "PIL.Image", "pydantic", "rich.console", "safetensors.torch",
        "scipy.stats", "timm", "torch.distributed.run", "torch.export", "torch.onnx", "torchvision", "typer", "yaml",
        "compressor",
    ),
    "runtimes": ("numpy", "onnxruntime", "openvino"),
}  # fmt: skip
"""Of each server. Only one thread is forked: not pyarrow, which starts one when it is imported, as onnxruntime and
OpenVINO do where nobody tells them not to, for what they report to their makers. Not pytest and its plugins, which it
rewrites."""
QUIET = {"OMP_NUM_THREADS": "1", "ORT_DISABLE_TELEMETRY": "1"}
STREAMS = (("stdin", "r", "strict"), ("stdout", "w", "strict"), ("stderr", "w", "backslashreplace"))
ROOT = Path(__file__).resolve().parent.parent
STAND_IN = Path(__file__).with_name("stand_in.py")
LONGEST_S = 600.0
"""Seconds until a server must answer, also where other work shares the cores."""
SIZE = 4
"""Bytes that say how long what is asked is; none for who only wants the server to stay."""


def python() -> list[str]:
    """The command to put before `-m MODULE …`, `-c CODE …` or `SCRIPT …`; where nothing can be forked so, the
    interpreter itself."""
    folder = served()
    return [sys.executable] if folder is None else [REAL, "-I", "-S", str(STAND_IN), str(folder)]


def interpreter() -> Path:
    """The same as an executable file, for what starts a program by the path of its interpreter."""
    folder = served()
    return Path(sys.executable) if folder is None else folder / "python"


REAL = sys.executable


@functools.cache
def served() -> Path | None:
    """The folder of the servers, which end after the last process that asked for it."""
    folder = begun()
    if folder is None:
        return None
    limit = time.monotonic() + LONGEST_S
    for name in LIBRARIES:
        link = socket.socket(socket.AF_UNIX)
        while link.connect_ex(str(folder / name)) != 0:
            if time.monotonic() > limit:
                link.close()
                raise AssertionError((folder / f"{name}.log").read_text())
            time.sleep(0.02)
        link.sendall(bytes(SIZE))
        atexit.register(link.close)
    return folder


@functools.cache
def begun() -> Path | None:
    """The same. The first process that asks starts them, and it takes seconds until they answer."""
    if not hasattr(os, "pidfd_open"):
        return None
    folder = Path(os.environ[FOLDER])
    path = folder / "python"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            for name in LIBRARIES:
                start(folder, name)
            forks, starts = shlex.join([REAL, "-I", "-S", str(STAND_IN), str(folder)]), shlex.quote(REAL)
            # What has options of the interpreter's own is started.
            choice = f'case "$1" in -[cm] | [!-]*) exec {forks} "$@" ;; *) exec {starts} "$@" ;; esac'
            path.write_text(f"#!/bin/sh\n{choice}\n", encoding="utf-8")
            path.chmod(0o755)
    return folder


def start(folder: Path, name: str) -> None:
    command = [REAL, __file__, f"{folder}/{name}", *LIBRARIES[name]]
    with (folder / f"{name}.log").open("w") as log:
        server = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=log, stderr=log, env={**os.environ, **QUIET})

    def end() -> None:
        """It goes on while others need it."""
        assert server.stdin is not None
        server.stdin.close()

    atexit.register(end)


def places(environment: Mapping[str, str]) -> list[str]:
    """Of PYTHONPATH."""
    return [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]


def serve(place: str, libraries: Sequence[str]) -> dict[str, Any] | None:
    """Forks what it is asked to, until nobody needs it; returns in each program what was asked, at the end None."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    sys.path.insert(1, str(ROOT))
    for name in libraries:
        importlib.import_module(name)
    if "compressor" in libraries:
        import_all_of("compressor")
        onnx = sys.modules["torch.onnx"]
        graphs = importlib.import_module("kept_graphs")
        graphs.imported_by_exports()
        onnx.export = graphs.kept(onnx.export)  # type: ignore[attr-defined]
    sys.path.remove(str(ROOT))
    gc.freeze()
    gc.set_threshold(50_000)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "only one thread of several is forked"
    programs: dict[int, tuple[socket.socket, int]] = {}
    users: set[Any] = {0}
    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        listening.listen(64)
        selector.register(listening, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)

        def end(program: int) -> None:
            """Of a program that has ended, or is ending."""
            link, ended = programs.pop(program)
            selector.unregister(link)
            selector.unregister(ended)
            os.close(ended)
            status = os.waitpid(program, 0)[1]
            with suppress(OSError), link:
                link.sendall(b"%d\n" % status)

        while True:
            # What comes anew comes last: who was killed before it is gone by then, with the files that it held locked.
            for key, _ in sorted(selector.select(), key=lambda ready: ready[0].fileobj is listening):
                if key.fileobj in users:
                    selector.unregister(key.fileobj)
                    users.remove(key.fileobj)
                elif key.fileobj is listening:
                    link, _ = listening.accept()
                    asked, files = received(link)
                    if asked is None:
                        users.add(link)
                        selector.register(link, selectors.EVENT_READ)
                        continue
                    program = os.fork()
                    if program == 0:
                        others = [other for other, _ in programs.values()]
                        for other in (*others, *(user for user in users if user != 0), link):
                            other.close()
                        here = {"own_paths": places(os.environ), "executable": str(Path(place).with_name("python"))}
                        return {**asked, **here, "given": files}
                    for number in files:
                        os.close(number)
                    with suppress(OSError):  # who stood for it is gone already
                        link.sendall(b"%d\n" % program)
                    programs[program] = link, os.pidfd_open(program)
                    for event in programs[program]:
                        selector.register(event, selectors.EVENT_READ, program)
                elif key.data in programs:
                    if key.fileobj is programs[key.data][0]:  # who stood for it is gone, or it has ended right now
                        os.kill(key.data, signal.SIGKILL)
                    end(key.data)
            # Who has come, but was not heard yet, needs it.
            if not users and not select.select([listening], [], [], 0)[0]:
                for program in programs:
                    os.kill(program, signal.SIGKILL)
                return None


def import_all_of(package: str) -> None:
    for module in pkgutil.walk_packages(sys.modules[package].__path__, f"{package}."):
        if not module.name.endswith("__main__"):
            with suppress(ImportError):  # an extra that is not installed: no program needs it either
                importlib.import_module(module.name)


def forget_another(package: str) -> None:
    """Where the program would find another `package` than the one that was imported beforehand, it shall."""
    specs = (finder.find_spec(package, None) for finder in sys.meta_path)
    spec = next(filter(None, specs), None)
    if package in sys.modules and (spec is None or spec.origin != sys.modules[package].__file__):
        for name in [name for name in sys.modules if name.partition(".")[0] == package]:
            del sys.modules[name]


def received(link: socket.socket) -> tuple[dict[str, Any] | None, list[int]]:
    """What is asked; None: only that the server stays. Who is gone before all was said asks nothing either."""
    head, files, _, _ = socket.recv_fds(link, SIZE, 3)
    left, parts = int.from_bytes(head, "big"), []
    while left and (part := link.recv(min(left, 1 << 16))):
        parts.append(part)
        left -= len(part)
    if left or not parts:
        for number in files:
            os.close(number)
        return None, []
    return marshal.loads(b"".join(parts)), files


def run(asked: dict[str, Any]) -> None:
    """Run the program, and end as Python does; but for what Python takes apart at its end, a second with all that is
    imported here."""
    code: Any = 0
    try:
        become(asked)
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = -signal.SIGINT if isinstance(sys.exc_info()[1], KeyboardInterrupt) else 1
    if not isinstance(code, int | None):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        if sys.stdout is not None and not sys.stdout.closed:
            sys.stdout.flush()
    except OSError as error:
        print(f"Exception ignored in: {sys.stdout!r}\n{type(error).__name__}: {error}", file=sys.stderr)
        code = 120
    with suppress(OSError):
        if sys.stderr is not None and not sys.stderr.closed:
            sys.stderr.flush()
    if code == -signal.SIGINT:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    os._exit((code or 0) & 0xFF)


def become(asked: dict[str, Any]) -> None:
    """Run the program, as Python does that was started with these arguments."""
    os.setsid()
    for number, given in zip(asked["files"], asked["given"], strict=True):
        os.dup2(given, number, inheritable=True)
    for number in asked["given"]:
        os.close(number)
    for number in {0, 1, 2} - set(asked["files"]):
        os.close(number)
    # Its server may ignore them: nohup, a shell's background.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    for number in asked["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    os.umask(asked["umask"])
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    tempfile.tempdir = None
    if asked["arguments"][:2] != ["-m", "pytest"]:  # which forks what is to be forked
        sys.executable = asked["executable"]
    for number, (name, mode, errors) in enumerate(STREAMS):
        setattr(sys, name, stream(number, mode, errors))
        setattr(sys, f"__{name}__", getattr(sys, name))
    first, *arguments = asked["arguments"]
    own, wanted = asked["own_paths"], places(os.environ)
    sys.path[1:] = [*wanted, *(place for place in sys.path[1:] if place not in own)]
    if first == "-m":
        sys.argv[:], sys.path[0] = arguments, asked["folder"]
    elif first == "-c":
        sys.argv[:], sys.path[0] = ["-c", *arguments[1:]], ""
    else:
        sys.argv[:], sys.path[0] = asked["arguments"], str(Path(first).resolve().parent)
    forget_another("compressor")
    if first == "-m":
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(compile(arguments[0], "<string>", "exec"), main.__dict__)
    else:
        runpy.run_path(first, run_name="__main__")


def stream(number: int, mode: str, errors: str) -> Any:
    """None where it is closed, as Python has it."""
    if not is_open(number):
        return None
    encoding, _, given = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED")) and mode == "w"
    # The program's own, to its end.
    buffer: Any = open(number, f"{mode}b", buffering=0 if unbuffered else -1, closefd=False)  # noqa: SIM115
    lines = number == 2 or os.isatty(number)
    return io.TextIOWrapper(
        buffer, encoding=encoding, errors=errors if number == 2 else given or errors, line_buffering=lines,
        write_through=unbuffered,
    )  # fmt: skip


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


if __name__ == "__main__":
    if (asked := serve(sys.argv[1], sys.argv[2:])) is not None:
        run(asked)
    os._exit(0)
