"""A runner as a process: what it is asked, what it refuses, and that none can hang an export."""

import os
import signal
import time
from pathlib import Path

import pytest

from compressor.errors import EXIT_USAGE
from compressor.processes import runner as module
from compressor.processes.runner import RunnerDiedError, RunnerError, open_runner

ANSWERS = """
import json, os, sys, time
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "sleep":
        time.sleep(60)
    elif request["op"] == "die":
        print("last words", file=sys.stderr, flush=True)
        os.kill(os.getpid(), int(request["number"]))
    elif request["op"] == "end":
        sys.exit("out of words")
    print(json.dumps({"ok": request["op"] != "refuse", "pid": os.getpid(), "message": "no", **request}), flush=True)
"""


@pytest.fixture(autouse=True)
def script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "run_ort.py").write_text(ANSWERS)
    monkeypatch.setattr(module, "asset_dir", lambda name: tmp_path)


def runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_one_that_hangs_is_ended_and_named(monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    with open_runner("onnxruntime") as runner:
        pid = runner.ask("anything")["pid"]
        monkeypatch.setattr(module, "ANSWER_S", 0.5)
        with pytest.raises(
            RunnerError, match=r"^onnxruntime: run_ort\.py did not answer sleep within 0\.5 s$"
        ) as raised:
            runner.ask("sleep")
        with pytest.raises(RunnerError, match="its runner ended"):
            runner.ask("anything")
    assert raised.value.exit_code == EXIT_USAGE
    assert time.monotonic() - began < 30
    assert not runs(pid)


def test_the_limit_grows_with_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.0)
    monkeypatch.setattr(module, "PIXEL_S", 0.01)
    with open_runner("onnxruntime") as runner:
        assert runner.ask("predict", 6000, out="x")["out"] == "x"  # a minute, and the number is no field of the request
        with pytest.raises(RunnerError, match=r"did not answer sleep within 0\.5 s"):
            runner.ask("sleep", 50)


def test_refusals_and_ends_are_told_in_a_line() -> None:
    with open_runner("onnxruntime") as runner:
        with pytest.raises(RunnerError, match=r"^onnxruntime: no$"):
            runner.ask("refuse")
        with pytest.raises(RunnerError, match=r"^onnxruntime: its runner ended: out of words$"):
            runner.ask("end")


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL])
def test_one_that_dies_is_told_from_one_that_ends(number: signal.Signals) -> None:
    """And one that is ended here, because it does not answer, did not die."""
    with open_runner("onnxruntime") as runner:
        said = rf"^onnxruntime: its process died \(signal {number.value}\): last words$"
        with pytest.raises(RunnerDiedError, match=said) as raised:
            runner.ask("die", number=number.value)
    assert raised.value.exit_code == EXIT_USAGE


def test_one_that_is_ended_here_did_not_die(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_S", 0.3)
    with open_runner("onnxruntime") as runner:
        for op in ("sleep", "anything"):
            with pytest.raises(RunnerError) as raised:
                runner.ask(op)
            assert not isinstance(raised.value, RunnerDiedError)
