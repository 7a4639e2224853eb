"""Kills in the middle: of the server, which comes back, and of kdc, which goes on. The table is whole, no answer that
is in it is asked for again, and the key stands nowhere."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compressor.data.completion_files import read_completions
from tests.completions import openai_server
from tests.completions.openai_server import KEY

pytestmark = pytest.mark.slow

COUNT = 60
FAULTS = ("none", "429", "none", "500", "malformed", "none", "drop", "none")
Write = Callable[[int], str]


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port: int = listening.getsockname()[1]
        return port


@contextmanager
def serving(port: int, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with subprocess.Popen([sys.executable, openai_server.__file__, str(port), str(log), *FAULTS]) as server:
        try:
            yield server
        finally:
            server.kill()


@contextmanager
def predicting(port: int, data: str, out: Path, *more: str) -> Iterator["subprocess.Popen[str]"]:
    command = [
        sys.executable, "-m", "compressor", "predict", "--teacher", f"api:http://127.0.0.1:{port}/v1#teacher", "--data",
        data, "--out", str(out), "--concurrency", "3", "--licence", "MIT", *more,
    ]  # fmt: skip
    environment = {**os.environ, "OPENAI_API_KEY": KEY}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def rows_in(out: Path, count: int) -> None:
    """Wait until the table has so many."""
    until = time.monotonic() + 60
    while not out.exists() or out.read_bytes().count(b"\n") < count:
        assert time.monotonic() < until
        time.sleep(0.02)


def answers_in(log: Path) -> Counter[str]:
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return Counter(row["prompt"] for row in rows if row["what"] == "answer")


def whole(out: Path) -> None:
    rows = read_completions(out).rows
    assert sorted(row.prompt for row in rows) == sorted(f"question {number}" for number in range(COUNT))
    assert all(row.completion == f"answer to {row.prompt} [None]" for row in rows)


def no_key(folder: Path, *texts: str) -> None:
    assert not [text for text in texts if KEY in text]
    assert not [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_the_server_is_killed_and_comes_back(tmp_path: Path, prompts: Write) -> None:
    port, log, out = free_port(), tmp_path / "log", tmp_path / "c.jsonl"
    with serving(port, log) as first, predicting(port, prompts(COUNT), out) as process:
        rows_in(out, 15)
        shown = Path(f"/proc/{process.pid}/cmdline")
        assert not shown.exists() or KEY.encode() not in shown.read_bytes()
        first.kill()
        first.wait()
        time.sleep(0.5)
        with serving(port, log):
            said, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    whole(out)
    assert answers_in(log) == Counter(f"question {number}" for number in range(COUNT)), "none was asked twice"
    no_key(tmp_path, said, told)


def test_kdc_is_killed_and_goes_on(tmp_path: Path, prompts: Write) -> None:
    port, log, out, data = free_port(), tmp_path / "log", tmp_path / "c.jsonl", prompts(COUNT)
    before = 0
    with serving(port, log):
        for count in (8, 20, 35):
            with predicting(port, data, out, *(["--resume"] if out.exists() else [])) as process:
                rows_in(out, count)
                process.kill()
            there = read_completions(out, torn=True).rows
            assert len(there) >= count > before
            before = len(there)
        with predicting(port, data, out, "--resume") as process:
            said, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    whole(out)
    again = sum((answers_in(log) - Counter(f"question {number}" for number in range(COUNT))).values())
    assert again <= 3 * 3, "only what was on its way at a kill, three at a time"
    no_key(tmp_path, said, told)


def test_an_interruption_keeps_what_was_on_its_way(tmp_path: Path, prompts: Write) -> None:
    port, log, out, data = free_port(), tmp_path / "log", tmp_path / "c.jsonl", prompts(COUNT)
    with serving(port, log):
        with predicting(port, data, out) as process:
            rows_in(out, 10)
            process.send_signal(signal.SIGINT)
            _, told = process.communicate(timeout=60)
        assert process.returncode == 130, told
        assert "answered and are kept; --resume asks for the rest" in told
        assert "Traceback" not in told
        with predicting(port, data, out, "--resume") as process:
            said, told = process.communicate(timeout=120)
    assert process.returncode == 0, told
    whole(out)
    assert answers_in(log) == Counter(f"question {number}" for number in range(COUNT)), "none was asked twice"
    no_key(tmp_path, said, told)
