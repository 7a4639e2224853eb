"""Programs that are forked are as those that are started: what comes out, how they end, what a signal does."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import pytest

from compressor.assets import asset_dir
from tests.forked import FOLDER, STAND_IN, interpreter, python
from tests.targets.tiny_bundle import BATCH, MEAN, STD, make_tiny

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
    "no place for what it prints": [
        "-c", "import os, sys; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); print(); sys.exit(3)",
    ],
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


@pytest.mark.parametrize(
    ("script", "model", "precision"), [("run_ort.py", "model.onnx", "fp32"), ("run_ov.py", "f16.xml", "f16")]
)
def test_a_runner_answers_as_a_started_one(tmp_path: Path, script: str, model: str, precision: str) -> None:
    make_tiny(tmp_path)
    images = {"batch": BATCH, "mean": MEAN, "std": STD}
    answers = []
    for name, program in (("started", sys.executable), ("forked", str(interpreter()))):
        requests = (
            {"op": "info"}, {"op": "load", "model": model, "precision": precision, "threads": 2, "streams": 1},
            {"op": "executed"}, {"op": "predict", "inputs": "images.npy", "out": f"{name}.npy", **images},
        )  # fmt: skip
        done = subprocess.run(
            [program, asset_dir("targets") / script], cwd=tmp_path, capture_output=True, text=True, check=True,
            input="".join(f"{json.dumps(request)}\n" for request in requests),
        )  # fmt: skip
        info, _, executed, predicted = map(json.loads, done.stdout.splitlines())
        assert executed["ok"]
        told = {key: info[key] for key in ("ok", "runtime", "version", "precisions")}
        answers.append((told, executed, predicted, (tmp_path / f"{name}.npy").read_bytes()))
    assert answers[0] == answers[1]


def test_what_it_starts_is_forked_too_but_for_options_of_the_interpreter() -> None:
    child = "import sys; print('torch' in sys.modules)"
    parent = f"for more in ([], ['-I']): subprocess.run([sys.executable, *more, '-c', {child!r}])"
    parent = f"import subprocess, sys\n{parent}"
    done = subprocess.run([*python(), "-c", parent], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "False"]


def test_the_servers_end_with_the_last_who_needs_them() -> None:
    folder = Path(os.environ[FOLDER]) / "again"  # a socket's path is short
    folder.mkdir()
    code = "import sys; from tests import forked; forked.LIBRARIES = dict.fromkeys(forked.LIBRARIES, ('json',)); "
    code += "print(forked.served(), flush=True); sys.stdin.read()"
    own = {**os.environ, FOLDER: str(folder)}
    root = Path(__file__).resolve().parent.parent
    begin = partial(
        subprocess.Popen, [sys.executable, "-c", code], cwd=root, env=own, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with begin() as first:
        assert first.stdout is not None
        first.stdout.readline()
        with begin() as second:
            assert second.stdout is not None
            second.stdout.readline()
            first.communicate()
            ask = [sys.executable, "-I", "-S", str(STAND_IN), str(folder), "-c", "print('here')"]
            assert subprocess.run(ask, capture_output=True, text=True, check=True).stdout == "here\n"
    limit = time.monotonic() + 30
    while is_served(folder / "kdc") or is_served(folder / "runtimes"):
        assert time.monotonic() < limit, "they go on"
        time.sleep(0.01)


def is_served(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as link:
        return link.connect_ex(str(place)) == 0
