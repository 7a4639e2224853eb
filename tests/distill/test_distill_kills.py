"""Whole processes that are killed, and go on. benchmarks/kills.py does the same more often."""

import random
import subprocess
import time
from pathlib import Path

import pytest

from benchmarks import kills
from benchmarks.kills import command, kill_while_filling, killed_until_done
from tests.forked import python
from tests.kit import call

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def ended(line: list[str]) -> None:
    """The command line runs to its end, in this process: on one thread, like the killed ones."""
    start = kills.kdc()
    assert line[: len(start)] == start
    assert call(*line[len(start) :]) == 0


def test_a_killed_run_ends_as_one_that_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(kills, "kdc", lambda *arguments: [*python(), "-m", "compressor", *map(str, arguments)])
    common = ["--data", "digits", "--input-size", "16", "--quiet", "--set", "crop_pct=1.0"]
    teach = ("teach", "--teacher", "timm:test_resnet", "--teacher-init", "random", "--epochs", 4, *common)
    ended(kills.kdc(*teach, "--out", tmp_path / "teacher"))
    begin = time.monotonic()
    ended(command(tmp_path, "whole", tmp_path / "cache"))
    whole_s = time.monotonic() - begin
    expected = (tmp_path / "whole" / "student.safetensors").read_bytes()
    chance = random.Random(1)
    line = command(tmp_path, "killed", tmp_path / "other")
    assert killed_until_done(line, tmp_path / "killed", whole_s, chance) > 0  # the first time after a fifth of it
    assert (tmp_path / "killed" / "student.safetensors").read_bytes() == expected
    line = command(tmp_path, "filling", tmp_path / "third")
    kill_while_filling(line, tmp_path / "third", chance)
    resume = ["--resume"] if (tmp_path / "filling" / "run.json").exists() else []
    # Forked after the killed one is gone, with its lock (tests/forked.py).
    subprocess.run([*line, *resume], check=True, stdout=subprocess.DEVNULL)
    assert (tmp_path / "filling" / "student.safetensors").read_bytes() == expected
