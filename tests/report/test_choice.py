from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.report import build_report, exit_code_for, to_markdown
from compressor.report.checks.artefact import parity_verdict
from compressor.stats import PARITY
from tests.kit import by_classes, score_of
from tests.report.conftest import logits_for

Make = Callable[..., Path]
TEACHER = {"role": "teacher", "wrong": 6, "p50": 6.0}
N = 1000


def score(correct: int, stand_in: str | None = None) -> dict[str, Any]:
    """Of three classes, of which two stay as they were."""
    by_class = by_classes((300, 300, 300), (300, 300, 300), (400, 300, correct - 600))
    return score_of(N, correct, 900, by_class=by_class, stand_in=stand_in).model_dump()


def int8(correct: int, **changes: Any) -> dict[str, Any]:
    return {"precision": "int8", "executed": "mixed fp32+int8", "p50": 1.0, "score": score(correct), **changes}


FP32 = {"p50": 2.0, "score": score(900)}


def test_the_fastest_that_keeps_its_accuracy_ships(make_bundle: Make) -> None:
    report = build_report(make_bundle({"a": FP32, "b": int8(896), "teacher": TEACHER}))
    assert report.winner == "b"
    assert report.why == "the fastest of 2 that may be shipped: p50 1.00 ms, next a 2.00 ms"
    assert (report.verdict, report.holds, exit_code_for(report)) == ("pass", ("a", "b"), 0)
    assert "**To ship:** `b`: the fastest of 2" in to_markdown(report)


def test_what_loses_too_much_on_validation_does_not_ship(make_bundle: Make) -> None:
    report = build_report(make_bundle({"a": FP32, "b": int8(894), "teacher": TEACHER}))
    assert report.winner == "a"
    assert "out: b (fails max_drop)" in report.why
    [line] = [check for check in report.checks if check.line == "max_drop" and check.variant == "b"]
    assert (line.verdict, line.limit, line.value) == (
        "fail",
        "≤ 0.5 points",
        "+0.60 points, balanced +0.50 (n = 1000 validation samples)",
    )
    assert report.verdict == "pass", "fp32 ships in its place"
    alone = build_report(make_bundle({"b": int8(894), "teacher": TEACHER}))
    assert (alone.winner, alone.verdict, exit_code_for(alone)) == (None, "fail", 1)
    assert alone.why == "each fails a line: b max_drop"


def test_int8_that_nothing_could_score_is_unmeasured(make_bundle: Make) -> None:
    values = int8(900)
    del values["score"]
    report = build_report(make_bundle({"b": values, "teacher": TEACHER}))
    [line] = [check for check in report.checks if check.line == "max_drop"]
    assert line.verdict == "unmeasured"
    assert (report.verdict, exit_code_for(report), exit_code_for(report, allow_unmeasured=True)) == ("unmeasured", 3, 0)


def test_a_stand_in_is_named(make_bundle: Make) -> None:
    values = int8(900, score=score(900, "onnxruntime"))
    report = build_report(make_bundle({"b": values, "teacher": TEACHER}))
    [line] = [check for check in report.checks if check.line == "max_drop"]
    assert line.value == "+0.00 points, balanced +0.00 (n = 1000 validation samples, computed by onnxruntime)"


def test_test_labels_judge_the_choice_and_do_not_make_it(make_bundle: Make) -> None:
    """The faster one loses more on the test split: it is chosen all the same, and fails the gate."""
    variants = {"a": {**FP32, "wrong": 6}, "b": int8(900, wrong=60), "teacher": TEACHER}
    report = build_report(make_bundle(variants, {"min_retention": 0.9}))
    assert (report.winner, report.holds) == ("b", ("a",))
    assert (report.verdict, exit_code_for(report)) == ("fail", 1)


def test_size_and_latency_are_part_of_the_choice(make_bundle: Make) -> None:
    big = int8(900, repeat=2_000_000)
    report = build_report(make_bundle({"a": FP32, "b": big, "teacher": TEACHER}, {"size_mb": 1}))
    assert (report.winner, report.verdict) == ("a", "pass")
    slow = {"a": {**FP32, "p50": 20.0}, "teacher": TEACHER}
    assert build_report(make_bundle(slow, {"p50_ms": 9})).winner is None


def test_what_is_slower_than_fp32_says_so(make_bundle: Make) -> None:
    report = build_report(make_bundle({"a": FP32, "b": int8(900, p50=4.0), "teacher": TEACHER}))
    assert report.winner == "a"
    [row] = [row for row in report.rows if row.name == "b"]
    assert row.fp32_ratio is not None
    assert row.fp32_ratio.value == pytest.approx(0.5, rel=0.05)
    assert "**slower**" in next(line for line in to_markdown(report).splitlines() if line.startswith("| `b`"))
    assert to_markdown(report).count("**slower**") == 1


@pytest.mark.parametrize("aa", [2.5, None])
def test_what_noise_alone_makes_is_not_called_slower(make_bundle: Make, aa: float | None) -> None:
    """The same artefact twice differs by more than these two do; or nobody knows by how much."""
    report = build_report(make_bundle({"a": FP32, "b": int8(900, p50=4.0), "teacher": TEACHER}, aa=aa))
    assert report.session is not None
    assert report.session.smallest_effect is None or report.session.smallest_effect > 1
    assert "0.500" in to_markdown(report)
    assert "**slower**" not in to_markdown(report)


def test_a_choice_elsewhere_is_said_to_be_one(make_bundle: Make) -> None:
    report = build_report(make_bundle({"a": FP32, "teacher": TEACHER}, machine={"arch": "aarch64"}))
    assert report.winner == "a"
    assert report.why.endswith("which is not the profile's device: measure there before you ship")


def test_the_ladder_is_shown_rung_by_rung(make_bundle: Make) -> None:
    rungs = [
        {"rung": "ptq", "how": "minmax", "score": score(800), "seconds": 3.0, "bytes": 500_000, "taken": False},
        {"rung": "qat", "how": "3 epochs", "score": score(901), "seconds": 90.0, "bytes": 500_000, "taken": True},
    ]
    text = to_markdown(build_report(make_bundle({"b": int8(901, rungs=rungs), "teacher": TEACHER})))
    close = "lowest cosine 1.000, SQNR 60.0 dB"
    assert f"| `b` | ptq | minmax |  | 800 of 1000 | +10.00 | +8.33 | {close} | 3 | 0.500 |" in text
    assert f"| `b` | qat | 3 epochs | yes | 901 of 1000 | −0.10 | −0.08 | {close} | 90 | 0.500 |" in text


@pytest.mark.parametrize("executed", ["int8", "mixed f32+int8", "mixed fp32+int8"])
def test_int8_with_float_parts_ran_as_asked(make_bundle: Make, executed: str) -> None:
    report = build_report(make_bundle({"b": int8(900, executed=executed), "teacher": TEACHER}))
    assert {check.verdict for check in report.checks} == {"pass"}


@pytest.mark.parametrize("executed", ["fp32", "mixed bf16+fp32"])
def test_int8_that_ran_in_float_is_a_failure(make_bundle: Make, executed: str) -> None:
    report = build_report(make_bundle({"b": int8(900, executed=executed), "teacher": TEACHER}))
    [line] = [check for check in report.checks if (check.variant, check.line) == ("b", "precision")]
    assert (line.verdict, report.verdict) == ("fail", "fail")


def test_parity_by_signal_to_noise(make_bundle: Make) -> None:
    labels = np.arange(200) % 3
    torchs = logits_for(labels, 3, 0)
    noise = np.random.default_rng(1).normal(size=torchs.shape)

    def judged(db: float) -> Any:
        scale = np.sqrt((torchs**2).sum() / (noise**2).sum() / 10 ** (db / 10))
        values = int8(900, reference=torchs, logits=(torchs + scale * noise).astype(np.float32))
        [row] = [row for row in build_report(make_bundle({"b": values, "teacher": TEACHER})).rows if row.name == "b"]
        return row

    good = judged(PARITY["int8"].sqnr_db + 12)
    assert good.parity_sqnr_db == pytest.approx(PARITY["int8"].sqnr_db + 12, abs=1e-3)
    assert parity_verdict(good)[0] == "pass"
    assert parity_verdict(judged(PARITY["int8"].sqnr_db - 1))[0] == "fail"
