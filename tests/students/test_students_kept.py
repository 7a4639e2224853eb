"""Figures are kept by all that they depend on, and nothing else is taken for them."""

from dataclasses import replace
from pathlib import Path

import pytest

from compressor.profiles import load_profile
from compressor.students.kept import Kept
from tests.kit import MACHINE
from tests.students.test_students_table import figures

FP32 = ("onnxruntime", "fp32")


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    return Kept(tmp_path / "students", MACHINE, load_profile("raspberry-pi-5"), {"onnxruntime": "1.32.0"})


def test_what_was_measured_is_found_again(kept: Kept) -> None:
    kept.add(figures("net"))
    assert kept.find("net", 224, 10, [FP32, ("openvino", "f32")]) == {FP32: figures("net")}


@pytest.mark.parametrize("asked", [("other", 224, 10), ("net", 96, 10), ("net", 224, 100)])
def test_another_candidate_size_or_head_is_another(kept: Kept, asked: tuple[str, int, int]) -> None:
    kept.add(figures("net"))
    assert kept.find(*asked, [FP32]) == {}


def test_another_machine_version_or_setting_is_another(kept: Kept) -> None:
    kept.add(figures("net"))
    others = [
        replace(kept, machine=MACHINE.model_copy(update={"cpu": "Cortex-A53"})),
        replace(kept, machine=MACHINE.model_copy(update={"usable_cores": 2})),
        replace(kept, machine=MACHINE.model_copy(update={"gpus": ("NVIDIA L4",)})),
        replace(kept, machine=MACHINE.model_copy(update={"governor": "powersave"})),
        replace(kept, versions={"onnxruntime": "1.33.0"}),
        replace(kept, profile=kept.profile.model_copy(update={"threads": 1})),
        replace(kept, profile=kept.profile.model_copy(update={"batch": 4})),
    ]
    assert [other.find("net", 224, 10, [FP32]) for other in others] == [{}] * len(others)
    same_otherwise = replace(kept, machine=MACHINE.model_copy(update={"load_1m": 9.0, "memory_available_gb": 1.0}))
    assert same_otherwise.find("net", 224, 10, [FP32]) == {FP32: figures("net")}


def test_failures_and_damage_are_measured_anew(kept: Kept) -> None:
    kept.add(figures("net", None, error="no"))
    assert kept.find("net", 224, 10, [FP32]) == {}
    kept.add(figures("net"))
    (file,) = kept.folder.iterdir()
    file.write_text("{}")
    assert kept.find("net", 224, 10, [FP32]) == {}
