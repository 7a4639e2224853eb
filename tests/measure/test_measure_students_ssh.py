"""`kdc students` on a device behind a real sshd: candidates are exported here, and measured there."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.profiles import load_profile
from tests.kit import Ended

Kdc = Callable[..., Ended]
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("ssh_client")]


def test_a_candidate_is_measured_over_ssh(kdc: Kdc, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDC_CACHE", str(tmp_path / "cache"))
    profile, there = tmp_path / "board.yaml", tmp_path / "on the device's disk"
    values = json.loads(load_profile("x86-avx2").model_dump_json()) | {
        "name": "board", "input_size": 32, "threads": 1,
        "targets": [{"runtime": "onnxruntime", "precisions": ["fp32"]}],
    }  # fmt: skip
    profile.write_text(json.dumps(values))
    device = ("--device", f"ssh://board{there}", "--device-python", sys.executable)
    asked = ("students", "--profile", profile, "--classes", 5, "--student", "timm:lcnet_035", *device, "--json")
    ended = kdc(*asked)
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    (row,) = answer["rows"]
    assert answer["device"] == "board"
    assert row["figures"]["p50_ms"]["value"] > 0
    assert list(there.iterdir()) == []  # nothing stays there
    again = json.loads(kdc(*asked).out)
    assert again["rows"] == answer["rows"]
    assert "sessions" in again
    assert again["sessions"] == 0  # kept
