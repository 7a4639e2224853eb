"""A signal ends a command in one way, at any moment."""

import importlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from compressor.errors import EXIT_INTERRUPTED
from compressor.processes import interruption
from compressor.processes.interruption import STOPS, catch, uninterrupted
from tests.kit import Ended

Kdc = Callable[..., Ended]


@pytest.fixture
def caught() -> Iterator[None]:
    """Signals are interruptions, as in a command; SIGINT too where pytest itself runs in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    put_back = catch()
    yield
    put_back()
    signal.signal(signal.SIGINT, before)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOPS)
def test_a_signal_is_an_interruption(caught: None, number: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        send(number)
    assert interruption.asked()


@pytest.mark.parametrize("second", STOPS)
def test_a_second_signal_does_not_break_off_the_cleaning_up(caught: None, second: int) -> None:
    done = []

    def work() -> None:
        try:
            send(signal.SIGTERM)
        finally:
            send(second)
            send(signal.SIGTERM)
            done.append("cleaned up")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["cleaned up"]


def test_a_third_ctrl_c_does(caught: None) -> None:
    done = []

    def work() -> None:
        try:
            send(signal.SIGINT)
        finally:
            send(signal.SIGINT)
            done.append("second")
            send(signal.SIGINT)
            done.append("third")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert done == ["second"]


@pytest.mark.parametrize("number", STOPS)
def test_what_must_not_be_half_done_is_done(caught: None, number: int) -> None:
    done = []

    def work() -> None:
        send(number)
        with uninterrupted():
            send(number)
        done.append("whole")

    with pytest.raises(KeyboardInterrupt), uninterrupted():
        work()
    assert done == ["whole"]
    with uninterrupted():
        pass


def test_signals_are_afterwards_what_they_were() -> None:
    before = [signal.getsignal(number) for number in STOPS]
    put_back = catch()
    with uninterrupted():
        pass
    put_back()
    assert [signal.getsignal(number) for number in STOPS] == before


def test_what_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        put_back = catch()
        with uninterrupted():
            send(signal.SIGHUP)
        send(signal.SIGHUP)
        put_back()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def module(folder: Path, name: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(folder))


def test_an_import_that_swallows_it_is_interrupted_all_the_same(
    caught: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "import os, signal\ntry: os.kill(os.getpid(), signal.SIGTERM)\nexcept BaseException: swallowed = True\n"
    module(tmp_path, "swallowing_module", text, monkeypatch)

    def work() -> None:
        assert importlib.import_module("swallowing_module").swallowed
        time.sleep(30)

    with pytest.raises(KeyboardInterrupt):
        work()


def test_an_error_that_a_library_makes_of_it_is_an_interruption(kdc: Kdc, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        try:
            send(signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("connection closed by peer") from None

    monkeypatch.setattr("compressor.profiles.list_profiles", broken)
    ended = kdc("profiles", "list")
    assert (ended.code, ended.err) == (130, "kdc: error: interrupted\n")


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("can't start new thread"), OSError(24, "Too many")])
def test_a_limit_is_no_bug(kdc: Kdc, monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def limited() -> None:
        raise error

    monkeypatch.setattr("compressor.profiles.list_profiles", limited)
    ended = kdc("profiles", "list")
    assert ended.code == 2
    assert "ulimit" in ended.err
    assert "bug" not in ended.err


COMMANDS = {
    "teach": ("--teacher", "timm:test_resnet", "--data", "digits", "--out", "out"),
    "distill": ("--teacher", "run:none", "--data", "digits", "--out", "out"),
    "specialists": ("--teacher", "run:none", "--data", "digits", "--count", "2", "--out", "out"),
    "predict": ("--teacher", "run:none", "--data", "digits", "--out", "out.csv"),
    "export": ("run", "--profile", "x86-avx2", "--out", "out"),
    "demo": ("--out", "out"),
}


def begun(folder: Path, *arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "compressor", *map(str, arguments)]
    # A shell's background, as which the tests may run, has inherited that SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    try:
        return subprocess.Popen(
            command, cwd=folder, env=environment,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)


def has_begun(process: "subprocess.Popen[str]") -> bool:
    """Whether its handlers are there: Python itself takes a moment, in which nothing is ours."""
    masks = Path(f"/proc/{process.pid}/status").read_text()
    taken = next(int(line.split()[1], 16) for line in masks.splitlines() if line.startswith("SigCgt"))
    return bool(taken >> (signal.SIGTERM - 1) & 1)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells when it has begun")
@pytest.mark.parametrize("command", COMMANDS)
def test_a_signal_before_anything_has_begun(tmp_path: Path, command: str) -> None:
    """Among the first imports and amid the heavy ones: at once, in one line, and nothing is left."""
    for after, number in ((0.0, signal.SIGTERM), (0.2, signal.SIGHUP), (1.0, signal.SIGINT)):
        with begun(tmp_path, command, *COMMANDS[command]) as process:
            while not has_begun(process):
                assert process.poll() is None
            time.sleep(after)
            if process.poll() is not None:  # a machine so fast that it has refused by now
                continue
            process.send_signal(number)
            errors = process.communicate(timeout=60)[1]
        assert process.returncode == 130, errors
        assert errors.endswith("kdc: error: interrupted\n")
        assert "Traceback" not in errors
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["catch", "steady_streams"])
def test_a_signal_before_there_is_a_command_to_end(tmp_path: Path, moment: str) -> None:
    """While signals begin to be caught, and while the streams are made ready."""
    program = tmp_path / "program.py"
    program.write_text(f"""
import signal, sys
before = signal.signal

def caught(number, handler):
    was = before(number, handler)
    if number == signal.SIGTERM and "{moment}" == "catch":
        signal.raise_signal(number)
    return was

signal.signal, sys.argv = caught, ["kdc", "profiles", "list"]
import compressor.terminal.console as console
from compressor.__main__ import main
if "{moment}" != "catch":
    console.steady_streams = lambda: signal.raise_signal(signal.SIGTERM)
main()
""")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    ended = subprocess.run([sys.executable, program], env=environment, capture_output=True, text=True, timeout=120)
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "kdc: error: interrupted\n")


@pytest.mark.slow
def test_a_signal_while_torch_calls_python_from_its_own_code(tmp_path: Path) -> None:
    """torch's C++ ends the process where what it calls raises: so the signal waits until torch is there."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text(
        "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\nhere = 1\n"
    )
    code = (
        "import sys\nfrom compressor.processes.interruption import catch\ncatch()\n"
        "sys.path.insert(0, sys.argv[1])\nimport torch\nprint(torch.here, flush=True)\n"
        "try:\n    import time\n    time.sleep(30)\nexcept KeyboardInterrupt:\n    print('then', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stdout == "1\nthen\n", done.stderr


def test_the_program_catches_signals_before_it_imports_the_command_line() -> None:
    """Not even typer comes before that: it takes longer than all that Python itself does."""
    code = "import sys, compressor.__main__; sys.exit(str({'typer', 'json', 'compressor.errors'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr == "set()\n"
    assert EXIT_INTERRUPTED == 130, "interruption.py says it by itself"
