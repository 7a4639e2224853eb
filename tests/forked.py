"""Programs in Python, started as forks of one process that has imported their libraries already: most of what a small
kdc command takes is importing torch, timm and onnx, again and again.

    subprocess.run([*python(), "-m", "compressor", "losses"])

in place of `sys.executable`. The process that this starts is a small one: it hands what it was given (arguments,
environment, folder, umask, standard streams, signals that are ignored) to a server, which forks the program, and then
stands for it: signals sent to it reach the program, and its end is the program's. Where it is killed, the program is
soon after, and in any case before another is forked.
kdc itself is not imported beforehand: a copy of the checkout runs its own.

A program that is to be really started stays with `sys.executable`: where it is about starting (what is imported, and
when), process groups or limits, and once for each command.
"""

import atexit
import functools
import gc
import importlib
import io
import json
import os
import runpy
import selectors
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

__all__ = ["interpreter", "python"]

LIBRARIES = (
    "accelerate", "numpy", "onnx", "onnxscript", "PIL.Image", "pydantic", "rich.console", "safetensors.torch",
    "scipy.stats", "timm", "torch.distributed.run", "torch.export", "torch.onnx", "torchvision", "typer", "yaml",
)  # fmt: skip
"""Not onnxruntime, OpenVINO and pyarrow, which start a thread when they are imported: only one thread is forked. Not
pytest and its plugins, which it rewrites."""
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
STREAMS = (("stdin", "r", "strict"), ("stdout", "w", "strict"), ("stderr", "w", "backslashreplace"))
LENGTH = struct.Struct("!I")


@functools.cache
def python() -> list[str]:
    """The command to put before `-m MODULE …`, `-c CODE …` or `SCRIPT …`; the interpreter itself where a process cannot
    be forked so."""
    if not hasattr(os, "pidfd_open"):
        return [sys.executable]
    folder = tempfile.TemporaryDirectory(prefix="kdc-")
    place = Path(folder.name) / "socket"
    server = subprocess.Popen(
        [sys.executable, __file__, "--serve", str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert server.stdin is not None
    assert server.stdout is not None
    told = server.stdout.readline()
    assert told == b"ready\n", told

    def end() -> None:
        server.communicate()  # which closes what it listens to
        folder.cleanup()

    atexit.register(end)
    return [sys.executable, "-I", "-S", __file__, str(place)]


def interpreter(folder: Path) -> Path:
    """The same as an executable file in `folder`, for what starts a program by the path of its interpreter."""
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nexec {shlex.join(python())} "$@"\n', encoding="utf-8")
    path.chmod(0o755)
    return path


def stand_for(place: str, arguments: list[str]) -> None:
    """Have the program forked, and be what it is until it ends."""
    program, waiting = 0, list[int]()

    def forward(number: int, frame: object) -> None:
        if program:
            with suppress(ProcessLookupError):
                os.kill(program, number)
        else:
            waiting.append(number)

    ignored = [number for number in FORWARDED if signal.getsignal(number) == signal.SIG_IGN]
    for wanted in set(FORWARDED) - set(ignored):
        signal.signal(wanted, forward)
    umask = os.umask(0)
    files = [number for number in range(3) if is_open(number)]
    asked = json.dumps({
        "arguments": arguments, "environment": dict(os.environ), "folder": str(Path.cwd()), "umask": umask,
        "files": files, "ignored": ignored,
    }).encode()  # fmt: skip
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(place)
        socket.send_fds(link, [LENGTH.pack(len(asked))], files)
        link.sendall(asked)
        answers = link.makefile("r")
        program = int(answers.readline())
        for came in waiting:
            forward(came, None)
        code = os.waitstatus_to_exitcode(int(answers.readline()))
    if code < 0:
        end_by(-code)
    os._exit(code)


def end_by(number: int) -> None:
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)


def places(environment: Mapping[str, str]) -> list[str]:
    """Of PYTHONPATH."""
    return [place for place in environment.get("PYTHONPATH", "").split(os.pathsep) if place]


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def serve(place: str) -> dict[str, Any] | None:
    """Forks what it is asked to until its stdin ends; returns in each program what was asked, at the end None."""
    for name in LIBRARIES:
        importlib.import_module(name)
    gc.freeze()
    gc.set_threshold(50_000)
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "only one thread of several is forked"
    programs: dict[int, tuple[socket.socket, int]] = {}
    with selectors.DefaultSelector() as selector, socket.socket(socket.AF_UNIX) as listening:
        listening.bind(place)
        listening.listen(64)
        selector.register(listening, selectors.EVENT_READ)
        selector.register(0, selectors.EVENT_READ)
        os.write(1, b"ready\n")

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
                if key.fileobj == 0:
                    for program in programs:
                        os.kill(program, signal.SIGKILL)
                    return None
                if key.fileobj is listening:
                    link, _ = listening.accept()
                    asked, files = received(link)
                    program = os.fork()
                    if program == 0:
                        for other in (*(other for other, _ in programs.values()), link):
                            other.close()
                        return {**asked, "given": files, "own_paths": places(os.environ)}
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


def received(link: socket.socket) -> tuple[dict[str, Any], list[int]]:
    head, files, _, _ = socket.recv_fds(link, LENGTH.size, 3)
    (left,) = LENGTH.unpack(head)
    parts = []
    while left:
        parts.append(link.recv(min(left, 1 << 16)))
        left -= len(parts[-1])
    return json.loads(b"".join(parts)), files


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
    for file in (sys.stdout, sys.stderr):
        try:
            if file is not None and not file.closed:
                file.flush()
        except OSError:
            code = code or 120
    if code == -signal.SIGINT:
        end_by(signal.SIGINT)
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
    for number in asked["ignored"]:
        signal.signal(number, signal.SIG_IGN)
    os.umask(asked["umask"])
    os.chdir(asked["folder"])
    os.environ.clear()
    os.environ.update(asked["environment"])
    tempfile.tempdir = None
    for number, (name, mode, errors) in enumerate(STREAMS):
        setattr(sys, name, stream(number, mode, errors))
        setattr(sys, f"__{name}__", getattr(sys, name))
    first, *arguments = asked["arguments"]
    own, wanted = asked["own_paths"], places(os.environ)
    sys.path[1:] = [*wanted, *(place for place in sys.path[1:] if place not in own)]
    if first == "-m":
        sys.argv[:], sys.path[0] = arguments, asked["folder"]
        runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)
    elif first == "-c":
        sys.argv[:], sys.path[0] = ["-c", *arguments[1:]], ""
        main = type(sys)("__main__")
        sys.modules["__main__"] = main
        exec(compile(arguments[0], "<string>", "exec"), main.__dict__)
    else:
        sys.argv[:], sys.path[0] = asked["arguments"], str(Path(first).resolve().parent)
        runpy.run_path(first, run_name="__main__")


def stream(number: int, mode: str, errors: str) -> Any:
    """None where it is closed, as Python has it."""
    if not is_open(number):
        return None
    encoding, _, given = os.environ.get("PYTHONIOENCODING", "utf-8").partition(":")
    buffer = open(number, f"{mode}b", closefd=False)  # noqa: SIM115  (the program's own, to its end)
    lines = number == 2 or os.isatty(number)
    unbuffered = bool(os.environ.get("PYTHONUNBUFFERED")) and mode == "w"
    return io.TextIOWrapper(
        buffer, encoding=encoding, errors=errors if number == 2 else given or errors, line_buffering=lines,
        write_through=unbuffered,
    )  # fmt: skip


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        if (asked := serve(sys.argv[2])) is not None:
            run(asked)
        os._exit(0)
    else:
        stand_for(sys.argv[1], sys.argv[2:])
