"""The small process that stands for a forked program (see forked.py): `python -I -S stand_in.py FOLDER ARGUMENT…`.

There are thousands of these in a test run, so that it imports next to nothing: a socket and a signal of the C modules,
and marshal in place of JSON.
"""

import _signal as signal  # type: ignore[import-not-found]
import _socket as socket
import marshal
import os
import sys

FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)
LIGHT = ("bench.py", "run_ort.py", "run_ov.py")
"""Scripts that need the runtimes alone."""


def stand_for(folder: str, arguments: list[str]) -> None:
    """Have the program forked, and be what it is until it ends."""
    program, waiting = 0, list[int]()

    def forward(number: int, frame: object) -> None:
        if program:
            try:  # noqa: SIM105  (contextlib takes longer to import than all the rest)
                os.kill(program, number)
            except ProcessLookupError:
                pass
        else:
            waiting.append(number)

    ignored = [number for number in FORWARDED if signal.getsignal(number) == signal.SIG_IGN]
    for number in FORWARDED:
        if number not in ignored:
            signal.signal(number, forward)
    umask = os.umask(0)
    files = [number for number in range(3) if is_open(number)]
    asked = marshal.dumps({
        "arguments": arguments, "environment": dict(os.environ), "folder": os.getcwd(), "umask": umask,  # noqa: PTH109
        "files": files, "ignored": ignored,
    })  # fmt: skip
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    light = arguments[0].rpartition("/")[2] in LIGHT
    link.connect(f"{folder}/{'runtimes' if light else 'kdc'}")
    given = b"".join(number.to_bytes(4, sys.byteorder) for number in files)
    link.sendmsg([len(asked).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, given)] if files else [])
    link.sendall(asked)
    program = int(answer(link))
    for number in waiting:
        forward(number, None)
    code = os.waitstatus_to_exitcode(int(answer(link)))
    if code < 0:
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


def is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def answer(link: socket.socket) -> bytes:
    """A line of the server's."""
    line = b""
    while not line.endswith(b"\n"):
        byte = link.recv(1)
        assert byte, "the server is gone"
        line += byte
    return line


if __name__ == "__main__":
    stand_for(sys.argv[1], sys.argv[2:])
