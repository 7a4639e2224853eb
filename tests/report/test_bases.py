"""What students are held against, the teacher and the fp32 reference: judged too, since ratios and retention rest on
them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.report import build_report, exit_code_for, to_markdown, verdict_line
from compressor.schema.report import Check, Report

Make = Callable[..., Path]
TEACHER = {"role": "teacher", "wrong": 6, "p50": 6.0}
BUDGET = {"min_speedup": 2, "min_retention": 0.9}


def line(report: Report, name: str, of: str = "s") -> Check:
    [found] = [check for check in report.checks if (check.variant, check.line) == (of, name)]
    return found


@pytest.mark.parametrize("weights", [{"float16": 500_000, "int64": 64}, {"float32": 400_000, "bfloat16": 200_000}])
def test_a_teacher_stored_in_half_is_no_base(make_bundle: Make, weights: dict[str, int]) -> None:
    """A runtime widens it at each call: called fp32, smaller and slower than fp32, and min_speedup passed."""
    made = {"s": {"wrong": 10}, "teacher": {**TEACHER, "weights": weights}}
    report = build_report(make_bundle(made, BUDGET))
    fault = line(report, "precision", "teacher")
    assert fault.verdict == "fail"
    assert "asked fp32, but " in fault.reason
    assert f"% of the weights' bytes are stored as {'float16' if 'float16' in weights else 'bfloat16'}" in fault.reason
    for name in BUDGET:
        assert line(report, name).verdict == "unmeasured"
        assert "did not run as it should" in line(report, name).reason
    assert (report.verdict, exit_code_for(report), exit_code_for(report, allow_unmeasured=True)) == ("fail", 1, 1)
    assert verdict_line(report).startswith("FAIL on profile mini-pc: teacher fails precision")
    assert "\n| `teacher` | precision | executed fp32 | " in to_markdown(report).partition("<details>")[0]


def test_elsewhere_what_a_file_holds_is_the_same(make_bundle: Make) -> None:
    made = {"s": {"wrong": 10}, "teacher": {**TEACHER, "weights": {"float16": 600_000}}}
    report = build_report(make_bundle(made, BUDGET, machine={"cores": 2}))
    assert (line(report, "precision", "teacher").verdict, exit_code_for(report, allow_unmeasured=True)) == ("fail", 1)
    made["teacher"] = {**TEACHER, "runtime": "openvino", "precision": "bf16", "executed": "f32"}
    report = build_report(make_bundle(made, BUDGET, machine={"cores": 2}))
    assert line(report, "precision", "teacher").verdict == "unmeasured", "the device may have bf16"
    assert line(report, "min_speedup").verdict == "unmeasured"
    assert line(report, "min_retention").verdict == "pass"


@pytest.mark.parametrize(
    ("teacher", "speedup"),
    [({"executed": "fp16"}, "asked fp32, executed fp16"), ({"executed": None}, "did not tell what it executed")],
)
def test_a_teacher_that_ran_in_another_precision(make_bundle: Make, teacher: dict[str, Any], speedup: str) -> None:
    report = build_report(make_bundle({"s": {"wrong": 10}, "teacher": {**TEACHER, **teacher}}, BUDGET))
    assert line(report, "min_speedup").verdict == "unmeasured"
    assert speedup in line(report, "min_speedup").reason
    assert exit_code_for(report) == (1 if teacher["executed"] else 3)


def test_a_teacher_whose_answers_are_not_torchs_is_no_base_for_a_speed_up(make_bundle: Make) -> None:
    other = {**TEACHER, "reference": np.ones((200, 3), np.float32)}
    report = build_report(make_bundle({"s": {"wrong": 10}, "teacher": other}, BUDGET))
    assert line(report, "min_speedup").verdict == "unmeasured"
    assert "the teacher's own parity does not hold" in line(report, "min_speedup").reason


def test_an_fp32_reference_in_half_is_at_fault(make_bundle: Make) -> None:
    half = {"float16": 300_000}
    made = {"s": {"precision": "int8", "executed": "int8"}, "r": {"role": "reference", "weights": half}, "t": TEACHER}
    report = build_report(make_bundle(made))
    assert line(report, "precision", "r").verdict == "fail"
    assert exit_code_for(report) == 1
    student = build_report(make_bundle({"s": {"weights": half}, "t": TEACHER}))
    assert line(student, "precision").verdict == "fail"


def test_a_baseline_in_another_precision_is_no_base_for_a_slowdown(make_bundle: Make) -> None:
    old = {"role": "baseline", "p50": 2.0, "weights": {"float16": 300_000}}
    report = build_report(make_bundle({"s": {}, "baseline-s": old, "t": TEACHER}, {"max_slowdown": 1.5}))
    assert line(report, "max_slowdown").verdict == "unmeasured"
    assert "the same variant of the baseline did not run as it should" in line(report, "max_slowdown").reason


def test_sound_bases_pass_and_a_stray_constant_is_none(make_bundle: Make) -> None:
    stray = {**TEACHER, "weights": {"float32": 600_000, "float16": 64}}
    made = {"s": {"wrong": 10}, "r": {"role": "reference"}, "teacher": stray}
    report = build_report(make_bundle(made, BUDGET))
    assert [line(report, "precision", name).verdict for name in ("s", "r", "teacher")] == ["pass"] * 3
    assert (line(report, "min_speedup").verdict, exit_code_for(report)) == ("pass", 0)
    widened = {**TEACHER, "runtime": "openvino", "precision": "f16", "executed": "f32", "weights": {"float16": 9}}
    report = build_report(make_bundle({"s": {"wrong": 10}, "teacher": widened}, BUDGET))
    assert line(report, "min_speedup").verdict == "pass", "f16 is how OpenVINO stores what was asked for as f16"
