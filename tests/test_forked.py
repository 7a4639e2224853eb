"""Programs that are forked are as those that are started: what comes out, how they end, what a signal does."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.forked import python

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="nothing is forked here")]

PROGRAMS = {
    "arguments": ["-c", "import sys; print(sys.argv, sys.stdin.read(), __name__)", "a", "ü"],
    "module": ["-m", "json.tool", "--compact"],
    "first in the path": ["-c", "import sys; print(sys.path[0], sys.path[1])"],
    "exit code": ["-c", "import sys; sys.exit(3)"],
    "exit with a text": ["-c", "import sys; sys.exit('no')"],
    "an error": ["-c", "1 / 0"],
    "interrupted": ["-c", "raise KeyboardInterrupt"],
    "killed": ["-c", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"],
    "at exit": ["-c", "import atexit; atexit.register(print, 'bye'); print('so long')"],
    "a thread that goes on": [
        "-c", "import threading, time; threading.Thread(target=lambda: (time.sleep(0.2), print('done'))).start()",
    ],
    "folder and mask": ["-c", "import os; print(os.getcwd(), os.environ['MINE'], os.umask(0))"],
}  # fmt: skip


def ended(begin: Sequence[str], program: Sequence[str], folder: Path) -> tuple[int, str, list[str]]:
    """Its code, what it printed, and the last line that it said."""
    environment = {**os.environ, "MINE": "of this program", "PYTHONPATH": str(folder / "first")}
    done = subprocess.run(
        [*begin, *program], input="[1, 2]", capture_output=True, text=True, cwd=folder, env=environment, check=False
    )
    return done.returncode, done.stdout, done.stderr.splitlines()[-1:]


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_it_ends_as_a_started_one(program: list[str], tmp_path: Path) -> None:
    assert ended(python(), program, tmp_path) == ended([sys.executable], program, tmp_path)


def test_a_script_is_one(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("WORD = 'found'\n")
    (tmp_path / "script.py").write_text("import sys, beside; print(sys.argv, beside.WORD, __file__)\n")
    program = [str(tmp_path / "script.py"), "--option"]
    assert ended(python(), program, tmp_path) == ended([sys.executable], program, tmp_path)


def test_a_closed_stream_is_closed() -> None:
    code = 'exec "$@" -c "import sys; sys.stderr.write(str(sys.stdout))" >&-'
    said = [
        subprocess.run(["sh", "-c", code, "sh", *begin], capture_output=True, text=True, check=True).stderr
        for begin in ([sys.executable], python())
    ]
    assert said == ["None", "None"]


SLEEPS = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_reaches_it(number: signal.Signals) -> None:
    with subprocess.Popen([*python(), "-c", SLEEPS], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        program = int(process.stdout.readline())
        assert program != process.pid
        process.send_signal(number)
        assert process.wait(timeout=30) == -number
    limit = time.monotonic() + 30
    while Path(f"/proc/{program}").exists():
        assert time.monotonic() < limit, "it goes on"
        time.sleep(0.01)


HOLDS = """
import fcntl, sys, time
file = open(sys.argv[1])
fcntl.flock(file, fcntl.LOCK_EX)
print(flush=True)
time.sleep(60)
"""
TAKES = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"


def test_who_is_killed_is_gone_before_another_is_forked(tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    for _ in range(5):
        with subprocess.Popen([*python(), "-c", HOLDS, lock], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            process.kill()
        subprocess.run([*python(), "-c", TAKES, lock], check=True)
