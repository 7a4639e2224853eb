from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.report import build_report, exit_code_for
from compressor.report.gate import holding, verdict_of
from compressor.runtimes import RUNTIMES
from compressor.schema.report import Check, Report, Verdict
from compressor.stats import PARITY

Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
TEACHER = {"role": "teacher", "wrong": 6, "p50": 6.0}
NAMES = ("a", "b")


def line_of(report: Report, line: str, variant: str = "s") -> Check:
    [found] = [check for check in report.checks if (check.variant, check.line) == (variant, line)]
    return found


def judged(make: Make, line: str, student: dict[str, Any], budget: dict[str, Any], **bundle: Any) -> Check:
    return line_of(build_report(make({"s": student, "teacher": TEACHER}, budget, **bundle)), line)


@pytest.mark.parametrize(
    ("line", "limit", "student", "verdict"),
    [
        ("p50_ms", 2.5, {"p50": 2.0}, "pass"),
        ("p50_ms", 1.5, {"p50": 2.0}, "fail"),
        ("p50_ms", 2.0, {"p50": 2.0}, "inconclusive"),
        ("p90_ms", 2.5, {"p50": 2.0}, "pass"),
        ("p90_ms", 1.5, {"p50": 2.0}, "fail"),
        ("p90_ms", 2.05, {"p50": 2.0}, "inconclusive"),
        ("size_mb", 0.1, {}, "pass"),
        ("size_mb", 0.09, {}, "fail"),
        ("size_mb", 0.1, {"unmeasured": True}, "pass"),
        ("peak_rss_mb", 61.25, {}, "pass"),
        ("peak_rss_mb", 61.0, {}, "fail"),
        ("peak_rss_mb", 61.0, {"rss": None}, "unmeasured"),
        ("model_rss_mb", 21.25, {}, "pass"),  # the peak of 61.25 less the 40 before the model
        ("model_rss_mb", 21.0, {}, "fail"),
        ("model_rss_mb", 21.0, {"rss": None}, "unmeasured"),
        ("min_accuracy", 0.9, {"wrong": 6}, "pass"),
        ("min_accuracy", 0.99, {"wrong": 20}, "fail"),
        ("min_accuracy", 0.95, {"wrong": 10}, "inconclusive"),
        ("min_retention", 0.95, {"wrong": 6}, "pass"),
        ("min_retention", 0.95, {"wrong": 60}, "fail"),
        ("min_retention", 0.98, {"wrong": 10}, "inconclusive"),
        *(
            (line, 0.9, {"unmeasured": True}, "unmeasured")
            for line in ("p50_ms", "p90_ms", "min_accuracy", "min_retention")
        ),
        *((line, 0.9, {"error": "boom"}, "unmeasured") for line in ("p50_ms", "peak_rss_mb", "min_accuracy")),
    ],
)
def test_a_budget_line(make_bundle: Make, line: str, limit: float, student: dict[str, Any], verdict: Verdict) -> None:
    check = judged(make_bundle, line, student, {line: limit})
    assert check.verdict == verdict, check
    assert check.reason
    assert f"{limit:g}" in check.limit or f"{100 * limit:g}" in check.limit


def test_lines_that_are_not_given_are_not_judged(make_bundle: Make) -> None:
    report = build_report(make_bundle())
    by_default = ["min_balanced_retention", "min_class_retention"]
    mine = [check.line for check in report.checks if check.variant == "ort-fp32"]
    assert mine == ["runs", "precision", "parity", *by_default]
    assert report.verdict == "pass"
    off = build_report(make_bundle(budget=dict.fromkeys(by_default)))
    assert [check.line for check in off.checks if check.variant == "ort-fp32"] == ["runs", "precision", "parity"]
    assert any("sets no budget" in note for note in report.notes)
    memory = {"peak_rss_mb": 99, "model_rss_mb": 99}
    full = {"p50_ms": 9, "p90_ms": 9, "size_mb": 9, **memory, "min_retention": 0.5, "min_accuracy": 0.5}
    report = build_report(make_bundle(budget=full))
    own = ["runs", "precision", "parity"]
    assert [check.line for check in report.checks if check.variant == "ort-fp32"] == [
        *own,
        "size_mb",
        "p50_ms",
        "p90_ms",
        *memory,
        *("min_accuracy", "min_retention", *by_default),
    ]
    assert report.holds == ("ort-fp32",)
    assert report.notes == ()


@pytest.mark.parametrize(
    ("machine", "said"),
    [
        ({"arch": "aarch64"}, "arch is aarch64, the profile's amd64"),
        ({"cpu": "AMD EPYC"}, "cpu is AMD EPYC, the profile's n100"),
        ({"isa": ["sse4_2"]}, "isa lacks avx2"),
        ({"cores": 2}, "cores are 2, the profile's 4"),
        ({"usable_cores": 1}, "usable cores are 1, fewer than the profile's 2 threads"),
    ],
)
def test_elsewhere_latency_and_memory_are_unmeasured(make_bundle: Make, machine: dict[str, Any], said: str) -> None:
    budget = {"p50_ms": 9, "p90_ms": 0.1, "peak_rss_mb": 1, "model_rss_mb": 1, "min_accuracy": 0.5, "size_mb": 9}
    report = build_report(make_bundle(budget=budget, machine=machine))
    assert not report.matches
    assert report.differences == (said,)
    for line in ("p50_ms", "p90_ms", "peak_rss_mb", "model_rss_mb"):
        check = line_of(report, line, "ort-fp32")
        assert check.verdict == "unmeasured"
        assert said in check.reason
        assert check.value != "not measured"
    assert line_of(report, "min_accuracy", "ort-fp32").verdict == "pass"
    assert (report.verdict, exit_code_for(report), exit_code_for(report, allow_unmeasured=True)) == ("unmeasured", 3, 0)


@pytest.mark.parametrize("machine", [{"arch": "AMD64"}, {"arch": "x86_64", "isa": ["AVX2", "avx512f"]}])
def test_other_spellings_of_the_same_machine_match(make_bundle: Make, machine: dict[str, Any]) -> None:
    report = build_report(make_bundle(budget={"p50_ms": 9}, machine=machine))
    assert (report.matches, report.differences, report.verdict) == (True, (), "pass")


def test_other_conditions_than_the_profiles_do_not_gate_latency(make_bundle: Make) -> None:
    batch = judged(make_bundle, "p50_ms", {}, {"p50_ms": 9}, session={"batch": 8})
    assert (batch.verdict, "batch is 8, the profile's 1" in batch.reason) == ("unmeasured", True)
    threads = judged(make_bundle, "p50_ms", {"threads": 4}, {"p50_ms": 9})
    assert (threads.verdict, "threads are 4, the profile's 2" in threads.reason) == ("unmeasured", True)


def test_a_machine_that_changed_meanwhile(make_bundle: Make, edit_json: Edit) -> None:
    bundle = make_bundle(budget={"p50_ms": 9})
    edit_json(bundle / "measurements/measurement.json", lambda found: found["machine_after"].update(cores=2))
    check = line_of(build_report(bundle), "p50_ms", "ort-fp32")
    assert (check.verdict, "the machine changed while it measured" in check.reason) == ("unmeasured", True)


def test_too_few_calls_for_a_p90(make_bundle: Make) -> None:
    check = judged(make_bundle, "p90_ms", {}, {"p90_ms": 9}, rounds=10)
    assert check.verdict == "unmeasured"
    assert "needs 64 timed calls in at least 10 blocks, found 60 calls" in check.reason
    assert judged(make_bundle, "p50_ms", {}, {"p50_ms": 9}, rounds=10).verdict == "pass"
    assert judged(make_bundle, "p50_ms", {}, {"p50_ms": 9}, rounds=9).verdict == "unmeasured"


def test_a_runtime_that_cannot_load_the_model_fails(make_bundle: Make) -> None:
    report = build_report(make_bundle({"s": {"error": "cannot load"}, "teacher": TEACHER}, {"p50_ms": 9}))
    assert [(check.line, check.verdict) for check in report.checks if check.variant == "s"] == [
        ("runs", "fail"),
        ("precision", "unmeasured"),
        ("parity", "unmeasured"),
        ("p50_ms", "unmeasured"),
        ("min_balanced_retention", "unmeasured"),
        ("min_class_retention", "unmeasured"),
    ]
    assert "cannot load" in line_of(report, "runs").reason
    assert (report.verdict, exit_code_for(report), exit_code_for(report, allow_unmeasured=True)) == ("fail", 1, 1)


def test_another_precision_than_asked_fails(make_bundle: Make) -> None:
    bf16 = {"runtime": "openvino", "precision": "bf16", "executed": "f32"}
    check = judged(make_bundle, "precision", bf16, {})
    assert (check.verdict, check.reason) == ("fail", "asked bf16, executed f32")
    elsewhere = judged(make_bundle, "precision", bf16, {}, machine={"cores": 2})
    assert elsewhere.verdict == "unmeasured"  # the device may well have what this machine lacks
    assert "not the profile's device" in elsewhere.reason
    stored = {"runtime": "openvino", "precision": "f16", "executed": "f32"}
    assert judged(make_bundle, "precision", stored, {}).verdict == "pass"
    assert judged(make_bundle, "precision", {"executed": None}, {}).verdict == "unmeasured"
    assert judged(make_bundle, "precision", {"runtime": "ncnn"}, {}).verdict == "unmeasured"
    assert judged(make_bundle, "parity", {"precision": "int4"}, {}).verdict == "unmeasured"


def test_every_precision_of_every_runtime_has_its_parity() -> None:
    """Of those that run classifiers: what a language model may differ by is told by its bits a byte."""
    rows = [runtime for runtime in RUNTIMES.values() if not runtime.generates]
    assert {name for runtime in rows for name in runtime.precisions} <= set(PARITY)


def disagreeing(count: int, n: int = 2000) -> dict[str, Any]:
    """Torch's logits are near ties for all; the runtime's, nearly the same, fall the other way for `count`."""
    reference = np.tile(np.array([5.0, 4.999, 0.0], np.float32), (n, 1))
    logits = reference.copy()
    logits[:count, 0] = 4.998
    return {"reference": reference, "logits": logits}


@pytest.mark.parametrize(
    ("count", "n", "verdict"),
    [(0, 2000, "pass"), (2, 2000, "pass"), (3, 2000, "fail"), (1, 50, "pass"), (2, 50, "fail"), (1, 2, "pass")],
)
def test_parity_lets_one_near_tie_through(make_bundle: Make, count: int, n: int, verdict: Verdict) -> None:
    bundle = make_bundle({"s": disagreeing(count, n)}, labels=np.arange(n) % 3)
    check = line_of(build_report(bundle), "parity")
    assert check.verdict == verdict
    assert f"{count} of {n} samples get another top-1" in check.reason


def test_parity_by_cosine(make_bundle: Make) -> None:
    reference = np.tile(np.array([3.0, 0.0, 0.0], np.float32), (200, 1))
    for precision, angle, verdict in (
        ("fp32", 0.01, "pass"),
        ("fp32", 0.02, "fail"),
        ("bf16", 0.02, "pass"),
        ("bf16", 0.2, "fail"),
    ):
        logits = reference.copy()
        logits[7] = [3 * np.cos(angle), 3 * np.sin(angle), 0]
        student = {"reference": reference, "logits": logits, "precision": precision, "runtime": "openvino"}
        report = build_report(make_bundle({"s": student}))
        assert report.rows[0].parity_cosine == pytest.approx(np.cos(angle), abs=1e-6)
        assert line_of(report, "parity").verdict == verdict


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_fail_parity(make_bundle: Make, bad: float) -> None:
    logits = np.eye(3, dtype=np.float32)[np.arange(200) % 3]
    logits[3:6, 1] = bad
    report = build_report(make_bundle({"s": {"logits": logits, "reference": np.abs(np.nan_to_num(logits))}}))
    check = line_of(report, "parity")
    assert (check.verdict, "3 samples have logits that are not finite" in check.reason) == ("fail", True)
    assert report.rows[0].accuracy is not None
    assert report.rows[0].accuracy.value == 197 / 200
    assert any("not finite" in note for note in report.notes)
    every = build_report(make_bundle({"s": {"logits": np.full((200, 3), bad, np.float32)}}))
    assert line_of(every, "parity").verdict == "fail"
    assert every.rows[0].parity_cosine is None


@pytest.mark.parametrize(
    ("teacher", "said"),
    [
        (None, "the teacher was not measured"),
        ({**TEACHER, "unmeasured": True}, "the teacher was not measured"),
        ({**TEACHER, "error": "out of memory"}, "the teacher was not measured: out of memory"),
        ({**TEACHER, "wrong": 200}, "the teacher is right on no test sample"),
        ({**TEACHER, "reference": np.ones((200, 3), np.float32)}, "the teacher's own parity does not hold"),
    ],
)
def test_retention_without_a_teacher_to_trust(make_bundle: Make, teacher: dict[str, Any] | None, said: str) -> None:
    variants = {"s": {}} if teacher is None else {"s": {}, "teacher": teacher}
    report = build_report(make_bundle(variants, {"min_retention": 0.5}))
    check = line_of(report, "min_retention")
    assert check.verdict == "unmeasured"
    assert said in check.reason
    assert any("retention" in note for note in report.notes) or (teacher or {}).get("unmeasured")


def checks(**verdicts: tuple[Verdict, ...]) -> tuple[Check, ...]:
    return tuple(
        Check(variant=name, line=str(index), limit="", value="", verdict=verdict, reason="")
        for name, row in verdicts.items()
        for index, verdict in enumerate(row)
    )


@pytest.mark.parametrize(
    ("a", "b", "verdict", "holds", "strict", "allowed"),
    [
        (["pass", "pass"], ["fail"], "pass", ("a",), 0, 0),
        (["pass"], ["pass"], "pass", ("a", "b"), 0, 0),
        (["fail", "inconclusive"], ["fail", "unmeasured"], "fail", (), 1, 1),
        (["pass", "inconclusive"], ["fail"], "inconclusive", (), 3, 3),
        (["pass", "unmeasured"], ["fail"], "unmeasured", (), 3, 0),
        (["pass", "unmeasured", "inconclusive"], ["fail"], "inconclusive", (), 3, 3),
        (["unmeasured"], ["inconclusive"], "inconclusive", (), 3, 0),
        (["unmeasured"], ["unmeasured"], "unmeasured", (), 3, 0),
    ],
)
def test_the_verdict_over_all_variants(
    make_bundle: Make,
    a: tuple[Verdict, ...],
    b: tuple[Verdict, ...],
    verdict: Verdict,
    holds: tuple[str, ...],
    strict: int,
    allowed: int,
) -> None:
    lines = checks(a=a, b=b)
    assert verdict_of(lines, NAMES, None) == (verdict, holds)
    report = build_report(make_bundle({"a": {}, "b": {}}))
    report = report.model_copy(update={"checks": lines, "verdict": verdict, "holds": holds, "winner": None})
    assert (exit_code_for(report), exit_code_for(report, allow_unmeasured=True)) == (strict, allowed)
    assert holding(report) == holds


def test_a_bundle_without_students_is_unmeasured(make_bundle: Make) -> None:
    report = build_report(make_bundle({"reference": {"role": "reference"}, "teacher": TEACHER}))
    assert (report.verdict, exit_code_for(report)) == ("unmeasured", 3)
    assert {check.line for check in report.checks} == {"precision"}
    assert exit_code_for(report, allow_unmeasured=True) == 3


def test_an_artefact_that_is_not_what_it_says_fails_the_bundle(make_bundle: Make) -> None:
    """A variant that holds the budget makes up for a slower one, but not for one at another precision than asked."""
    other = {"runtime": "openvino", "precision": "bf16", "executed": "f32"}
    report = build_report(make_bundle({"good": {}, "other": other, "teacher": {"role": "teacher"}}))
    assert (report.verdict, report.holds) == ("fail", ("good",))
    assert (exit_code_for(report), exit_code_for(report, allow_unmeasured=True)) == (1, 1)
    slower = {"good": {"p50": 1.0}, "slower": {"p50": 99.0}, "teacher": {"role": "teacher"}}
    assert exit_code_for(build_report(make_bundle(slower, {"p50_ms": 9}))) == 0
