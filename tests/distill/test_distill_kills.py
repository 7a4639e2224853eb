"""Whole processes that are killed; what they began ends in this one. benchmarks/kills.py does the same more often."""

import random
from pathlib import Path

import pytest

from benchmarks.kills import command, kdc, kill_while_filling, killed_until_done
from tests.kit import call

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def ended(line: list[str]) -> None:
    """The command line runs to its end, in this process: on one thread, like the killed ones."""
    start = kdc()
    assert line[: len(start)] == start
    assert call(*line[len(start) :]) == 0


def test_a_killed_run_ends_as_one_that_never_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    common = ["--data", "digits", "--input-size", "16", "--quiet", "--set", "crop_pct=1.0"]
    teach = ("teach", "--teacher", "timm:test_resnet", "--teacher-init", "random", "--epochs", 4, *common)
    ended(kdc(*teach, "--out", tmp_path / "teacher"))
    ended(command(tmp_path, "whole", tmp_path / "cache"))
    expected = (tmp_path / "whole" / "student.safetensors").read_bytes()
    chance = random.Random(1)
    kills = killed_until_done(command(tmp_path, "killed", tmp_path / "other"), tmp_path / "killed", 10.0, chance)
    assert kills > 0
    assert (tmp_path / "killed" / "student.safetensors").read_bytes() == expected
    line = command(tmp_path, "filling", tmp_path / "third")
    kill_while_filling(line, tmp_path / "third", chance)
    resume = ["--resume"] if (tmp_path / "filling" / "run.json").exists() else []
    ended([*line, *resume])
    assert (tmp_path / "filling" / "student.safetensors").read_bytes() == expected
