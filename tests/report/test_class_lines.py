"""A class that is lost: seen by lines that every profile has, whoever teaches, and by nothing else."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from compressor.errors import KdcError
from compressor.profiles import load_profile, profile_names
from compressor.report import build_report, check, exit_code_for, finish, to_markdown
from compressor.schema.report import Check, Report
from tests.kit import by_classes, score_of

Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
# 900 against 30 images, a fifth of each in test.
COMMON, RARE = 180, 6
LABELS = np.repeat([0, 1], [COMMON, RARE])
DEFAULTS = ("min_balanced_retention", "min_class_retention")


def logits(rare: int, labels: NDArray[np.int64] = LABELS) -> NDArray[np.float32]:
    """Logits for two classes that are right on the common one and on the first `rare` samples of the other."""
    taken = labels.copy()
    taken[np.flatnonzero(labels == 1)[rare:]] = 0
    return (5 * np.eye(2)[taken] + np.linspace(0, 0.1, 2)).astype(np.float32)


def variant(rare: int, labels: NDArray[np.int64] = LABELS, **more: Any) -> dict[str, Any]:
    answers = logits(rare, labels)
    return {"logits": answers, "reference": answers, **more}


def teacher(rare: int = RARE, labels: NDArray[np.int64] = LABELS, **more: Any) -> dict[str, Any]:
    return variant(rare, labels, role="teacher", p50=6.0, **more)


def judged(make: Make, rare: int, budget: dict[str, Any] | None = None, taught: int = RARE) -> Report:
    return build_report(make({"s": variant(rare), "t": teacher(taught)}, budget, classes=2, labels=LABELS))


def line(report: Report, name: str, of: str = "s") -> Check:
    [found] = [check for check in report.checks if (check.variant, check.line) == (of, name)]
    return found


@pytest.mark.parametrize("budget", [{}, {"min_retention": 0.9}, {"min_retention": 0.95, "p50_ms": 9}])
def test_a_student_that_never_answers_the_rare_class_fails(make_bundle: Make, budget: dict[str, Any]) -> None:
    """Its retention, 96.8 %, passes."""
    report = judged(make_bundle, 0, budget)
    assert report.rows[0].retention is not None
    assert report.rows[0].retention.value == pytest.approx(180 / 186)
    if budget.get("min_retention") == 0.9:
        assert line(report, "min_retention").verdict == "pass"
    lost = line(report, "min_class_retention")
    assert (lost.verdict, report.verdict, exit_code_for(report)) == ("fail", "fail", 1)
    assert "lost: class class 1: 0 of 6 test samples right, the teacher 6" in lost.reason
    assert line(report, "min_balanced_retention").verdict != "pass"
    [note] = [note for note in report.notes if "default was judged" in note]
    assert "min_class_retention" in note
    text = to_markdown(report)
    assert "| balanced retention % |" in text
    assert "class 1: 0.0 [0.0–" in text


@pytest.mark.parametrize("name", profile_names())
def test_no_built_in_profile_passes_a_student_that_lost_a_class(make_bundle: Make, name: str) -> None:
    """30 of 3,030 test samples: accuracy and retention are 99 %."""
    labels, budget = np.repeat([0, 1], [3000, 30]), load_profile(name).budget.model_dump()
    for taught in ({}, {"t": teacher(labels=labels, rare=30)}):
        report = build_report(make_bundle({"s": variant(0, labels), **taught}, budget, classes=2, labels=labels))
        lost = line(report, "min_class_retention" if taught else "min_class_recall")
        assert (lost.verdict, report.verdict, exit_code_for(report, allow_unmeasured=True)) == ("fail", "fail", 1)
        if taught:
            assert line(report, "min_retention").verdict == "pass"


def test_what_a_sound_student_does_on_six_samples_passes(make_bundle: Make) -> None:
    for rare in (6, 5, 4):
        report = judged(make_bundle, rare, {"min_retention": 0.9})
        assert line(report, "min_class_retention").reason == "none of 2 classes looks lost"
        assert (report.verdict, exit_code_for(report)) == ("pass", 0)
        assert not any("default was judged" in note for note in report.notes)


@pytest.mark.parametrize(("rare", "right"), [(1, 1), (2, 2), (2, 1), (3, 3), (3, 2)])
def test_a_default_demands_no_proof_and_what_was_asked_for_does(make_bundle: Make, rare: int, right: int) -> None:
    labels = np.repeat([0, 1], [COMMON, rare])
    variants = {"s": variant(right, labels), "t": variant(rare, labels, role="teacher")}
    report = build_report(make_bundle(variants, classes=2, labels=labels))
    assert (line(report, "min_balanced_retention").verdict, exit_code_for(report)) == ("pass", 0)
    asked = {"min_balanced_retention": 0.8}
    report = build_report(make_bundle(variants, asked, classes=2, labels=labels))
    assert line(report, "min_balanced_retention").verdict == "inconclusive"


def test_what_few_samples_leave_open_is_no_pass(make_bundle: Make) -> None:
    report = judged(make_bundle, 1)
    assert line(report, "min_class_retention").verdict == "inconclusive"
    assert "in doubt" in line(report, "min_class_retention").reason
    assert exit_code_for(report) == 3


@pytest.mark.parametrize(
    ("rare", "right", "verdict", "code"),
    [(60, 0, "fail", 1), (6, 0, "inconclusive", 3), (6, 3, "pass", 0), (1, 0, "pass", 0)],
)
def test_a_class_that_neither_the_teacher_nor_the_student_knows_is_no_pass(
    make_bundle: Make, rare: int, right: int, verdict: str, code: int
) -> None:
    """There is no teacher to hold it against, so it is judged as where there is none at all."""
    labels = np.repeat([0, 1], [COMMON, rare])
    variants = {"s": variant(right, labels), "t": teacher(0, labels)}
    report = build_report(make_bundle(variants, classes=2, labels=labels))
    found = line(report, "min_class_recall")
    assert (found.verdict, exit_code_for(report)) == (verdict, code)
    assert found.reason.startswith("1 class of which the teacher is right on no sample: ")
    if verdict == "fail":
        assert found.reason.endswith("lost: class class 1: 0 of 60 test samples right")
        assert found.value == "lowest: class 1 0.0 % (n = 60 of the class)"
    off = build_report(make_bundle(variants, {"min_class_recall": None}, classes=2, labels=labels))
    assert not any(check.line == "min_class_recall" for check in off.checks)
    assert exit_code_for(off) == 0


def test_a_class_that_the_teacher_does_not_know_is_not_held_against_it(make_bundle: Make) -> None:
    report = judged(make_bundle, 0, taught=0)
    assert line(report, "min_class_retention").verdict == "pass"
    reason = "the only class that can be judged does not look lost"
    unknown = "not judged, since the teacher is right on no sample of it: class 1"
    assert line(report, "min_class_retention").reason == f"{reason}; {unknown}"
    assert "not judged" not in line(judged(make_bundle, 6, {"min_class_recall": 0.1}), "min_class_recall").reason


def test_lines_are_switched_off_by_null_and_stay_off(make_bundle: Make) -> None:
    off = dict.fromkeys(DEFAULTS)
    report = judged(make_bundle, 0, off)
    assert not {check.line for check in report.checks} & set(DEFAULTS)
    assert exit_code_for(report) == 0
    bundle = make_bundle({"s": variant(0), "t": teacher()}, off, classes=2, labels=LABELS)
    finish(bundle)
    assert exit_code_for(check(bundle)) == 0
    stricter = judged(make_bundle, 4, {"min_class_retention": 0.9})
    assert line(stricter, "min_class_retention").limit == "each class ≥ 90 % of the teacher's recall"
    assert line(stricter, "min_class_retention").verdict == "inconclusive"


def test_samples_too_few_for_an_interval_are_said(make_bundle: Make) -> None:
    """Three classes of one sample, and a teacher that has one of them right: its mean recall may be 0."""
    labels = np.arange(3)
    one = (5 * np.eye(3)[[0, 0, 0]] + np.linspace(0, 0.1, 3)).astype(np.float32)
    variants = {"s": {"logits": one, "reference": one}, "t": {"logits": one, "reference": one, "role": "teacher"}}
    found = line(build_report(make_bundle(variants, labels=labels)), "min_balanced_retention")
    assert (found.verdict, found.reason) == ("unmeasured", "3 test samples are too few for an interval")


def test_what_the_verdict_rests_on_without_a_budget(make_bundle: Make) -> None:
    def note(budget: dict[str, Any]) -> list[str]:
        return [one for one in judged(make_bundle, 6, budget).notes if "sets no budget" in one]

    assert note({}) == [
        "The profile sets no budget: the verdict rests on kdc's own lines, and on its defaults for classes."
    ]
    assert note(dict.fromkeys(DEFAULTS)) == ["The profile sets no budget: the verdict rests on kdc's own lines."]
    assert note({"min_class_retention": 0.6}) == []


def test_a_table_teaches_as_one_that_ran(make_bundle: Make) -> None:
    for answers in (("labels", LABELS), ("logits", logits(RARE))):
        for rare, verdict in ((0, "fail"), (6, "pass")):
            report = build_report(make_bundle({"s": variant(rare)}, classes=2, labels=LABELS, table=answers))
            assert line(report, "min_class_retention").verdict == verdict
            assert not any(check.line == "min_class_recall" for check in report.checks)


@pytest.mark.parametrize(
    ("rare", "right", "verdict", "code"),
    [(60, 0, "fail", 1), (6, 0, "inconclusive", 3), (6, 3, "pass", 0), (60, 20, "pass", 0)],
)
@pytest.mark.parametrize("table", [None, "outputs:t.csv has 12 of 186 test samples"])
def test_without_a_teachers_answers_a_class_is_held_to_its_recall(
    make_bundle: Make, rare: int, right: int, verdict: str, code: int, table: str | None
) -> None:
    """The student and its peers were the only ones, or the teacher's table has no answers to test: by default only
    the absolute line is judged, and what was asked for against the teacher is unmeasured."""
    labels = np.repeat([0, 1], [COMMON, rare])
    made = {"s": variant(right, labels)}
    report = build_report(make_bundle(made, classes=2, labels=labels, table=table))
    assert line(report, "min_class_recall").verdict == verdict
    assert not {check.line for check in report.checks} & set(DEFAULTS)
    assert exit_code_for(report) == code
    asked = build_report(make_bundle(made, {"min_class_retention": 0.6}, classes=2, labels=labels, table=table))
    assert line(asked, "min_class_retention").verdict == "unmeasured"


def test_a_teacher_that_did_not_run_leaves_the_lines_unmeasured(make_bundle: Make) -> None:
    variants = {"s": variant(0), "t": {**teacher(), "error": "out of memory"}}
    report = build_report(make_bundle(variants, classes=2, labels=LABELS))
    for name in DEFAULTS:
        assert line(report, name).verdict == "unmeasured"
        assert "the teacher was not measured: out of memory" in line(report, name).reason


def score(rare: int) -> dict[str, Any]:
    """On validation: fp32 has 176 of 180 and 6 of 6; this one gains in the common class what it loses in the rare."""
    rows = ((COMMON, 176, 176 + 4 * (rare < RARE)), (RARE, RARE, rare))
    right = sum(row[2] for row in rows)
    return score_of(COMMON + RARE, right, 182, by_class=by_classes(*rows)).model_dump()


def int8(rare: int, scored: int, p50: float = 1.0) -> dict[str, Any]:
    return variant(rare, precision="int8", executed="int8", p50=p50, score=score(scored))


def test_int8_that_loses_a_class_is_not_shipped(make_bundle: Make) -> None:
    """It loses one sample in all, which any may."""
    variants = {"fp32": variant(6, score=score(6)), "q": int8(0, 1), "t": teacher()}
    report = build_report(make_bundle(variants, {"min_retention": 0.9}, classes=2, labels=LABELS))
    drop = line(report, "max_drop", "q")
    assert drop.verdict == "fail"
    assert drop.value == "+0.54 points, balanced +40.56 (n = 186 validation samples)"
    assert "lost: class class 1: 1 of 6 samples right, in fp32 6" in drop.reason
    assert (report.winner, report.verdict) == ("fp32", "pass")


def test_the_choice_does_not_look_at_test_labels(make_bundle: Make) -> None:
    """On validation it keeps the class: it is chosen, and fails afterwards."""
    variants = {"fp32": variant(6, score=score(6)), "q": int8(0, 6), "t": teacher()}
    report = build_report(make_bundle(variants, classes=2, labels=LABELS))
    assert line(report, "min_class_retention", "q").verdict == "fail"
    assert (report.winner, report.verdict, report.holds) == ("q", "fail", ("fp32",))


def test_a_score_by_other_classes_is_refused(make_bundle: Make, edit_json: Edit) -> None:
    made = {"fp32": variant(6, score=score(6)), "t": teacher()}
    bundle = make_bundle(made, classes=2, labels=LABELS)

    def third(found: dict[str, Any]) -> None:
        for part in found["variants"][0]["score"]["by_class"].values():
            part.append(0)

    edit_json(bundle / "bundle.json", third)
    with pytest.raises(KdcError, match="has a score of fp32 by other classes"):
        build_report(bundle)
    bundle = make_bundle(made, classes=2, labels=LABELS)
    edit_json(bundle / "bundle.json", lambda found: found["variants"][0]["score"].update(correct=185))
    with pytest.raises(KdcError, match="by_class does not add up"):
        build_report(bundle)


def test_few_validation_samples_are_said(make_bundle: Make) -> None:
    few = score_of(6, 6, 6, by_class=by_classes((3, 3, 3), (3, 3, 3))).model_dump()
    made = {"q": variant(6, precision="int8", executed="int8", score=few), "t": teacher()}
    reason = line(build_report(make_bundle(made, classes=2, labels=LABELS)), "max_drop", "q").reason
    assert "one sample is 16.7 points: so few cannot show a loss of 0.5" in reason


@pytest.mark.parametrize(("cosine", "sqnr", "same"), [(-0.74, 12.0, 6), (0.9, 3.0, 6), (0.9, 12.0, 3)])
def test_what_was_not_torchs_on_validation_fails(make_bundle: Make, cosine: float, sqnr: float, same: int) -> None:
    """Six of six right, and its logits are torch's mirrored: on the test inputs it happens to look sound."""
    bad = score_of(6, 6, 6, by_class=by_classes((3, 3, 3), (3, 3, 3)), cosine=cosine, sqnr_db=sqnr, same=same)
    made = {
        "fp32": variant(6, score=score(6)),
        "q": variant(6, precision="int8", executed="int8", p50=0.5, score=bad.model_dump()),
        "t": teacher(),
    }
    report = build_report(make_bundle(made, classes=2, labels=LABELS))
    parity = line(report, "parity", "q")
    assert (parity.verdict, report.verdict, report.winner) == ("fail", "fail", "fp32")
    assert "on the 6 validation samples of the export" in parity.reason
