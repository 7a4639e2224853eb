"""A teacher that is a table of answers: held against as one that ran would be, and nothing said that it cannot tell."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_PASS, KdcError
from compressor.report import build_report, exit_code_for, finish, to_markdown, verify
from compressor.report.render.tables import rows_table
from compressor.schema.report import Check, Report
from compressor.stats import auc
from tests.report.conftest import N, logits_for

Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
COMPARED = ("retention", "balanced_retention", "difference", "agreement", "mcnemar_p", "worst_retention")
OWN = ("accuracy", "balanced_accuracy", "auc", "worst_class")


def answers(wrong: int, classes: int = 3) -> np.ndarray:
    """As those of a teacher that gets the first samples wrong."""
    return logits_for(np.arange(N) % classes, classes, wrong)


def line(report: Report, name: str, variant: str = "s") -> Check:
    [found] = [check for check in report.checks if (check.variant, check.line) == (variant, name)]
    return found


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("kind", ["probabilities", "logits", "top-k", "labels"])
def test_every_figure_is_that_of_a_teacher_that_ran(make_bundle: Make, kind: str, classes: int) -> None:
    """It is wrong on samples 0-5, the student on 0-9, the baseline on 0-13."""
    variants = {"s": {"wrong": 10}, "baseline-s": {"role": "baseline", "wrong": 14}}
    ran = build_report(make_bundle({**variants, "t": {"role": "teacher", "wrong": 6}}, classes=classes))
    given = answers(6, classes)
    if kind in ("top-k", "labels"):
        given = given.argmax(axis=1)
    read = build_report(make_bundle(variants, classes=classes, table=(kind, given)))
    for one, other in zip(read.rows, ran.rows, strict=False):
        assert [getattr(one, field) for field in (*COMPARED, *OWN)] == [
            getattr(other, field) for field in (*COMPARED, *OWN)
        ]
    assert read.rows[0].retention is not None
    assert read.rows[0].retention.value == pytest.approx(190 / 194)
    assert (ran.teacher_table, read.rows[0].p50_ratio, len(read.rows)) == (None, None, 2)
    table, teacher = read.teacher_table, ran.rows[2]
    assert table is not None
    assert (table.source, table.kind) == ("timm:big", kind)
    told = OWN if kind in ("probabilities", "logits") else ("accuracy", "balanced_accuracy", "worst_class")
    assert [getattr(table, field) for field in told] == [getattr(teacher, field) for field in told]
    if classes == 2:
        assert teacher.auc is not None
        assert (table.auc is None) == (kind in ("top-k", "labels")), "the probabilities of others are not known"


def test_the_area_is_of_the_probabilities_that_the_table_tells(make_bundle: Make) -> None:
    labels = np.arange(N) % 2
    logs = np.stack([np.zeros(N), labels + np.linspace(-1, 1, N)], axis=1).astype(np.float32)
    table = build_report(make_bundle({"s": {}}, classes=2, table=("probabilities", logs))).teacher_table
    assert table is not None
    assert table.auc is not None
    assert table.auc.value == auc(logs[:, 1].astype(float), labels == 1).value < 1


@pytest.mark.parametrize(
    ("wrong", "verdict", "code"),
    [(6, "pass", EXIT_PASS), (60, "fail", EXIT_GATE_FAILED), (12, "inconclusive", EXIT_INCONCLUSIVE)],
)
def test_the_budget_is_held_to_it(make_bundle: Make, wrong: int, verdict: str, code: int) -> None:
    made = make_bundle({"s": {"wrong": wrong}}, {"min_retention": 0.95}, table=("labels", answers(6).argmax(axis=1)))
    report = build_report(made)
    assert (line(report, "min_retention").verdict, exit_code_for(report)) == (verdict, code)


def test_what_a_table_cannot_tell_is_not_measured(make_bundle: Make) -> None:
    budget = {"min_speedup": 1, "min_retention": 0.9}
    report = build_report(make_bundle({"s": {}}, budget, table=("top-k", answers(6).argmax(axis=1))))
    assert line(report, "min_retention").verdict == "pass"
    speedup = line(report, "min_speedup")
    assert (speedup.verdict, speedup.value) == ("unmeasured", "not measured")
    assert speedup.reason == "the teacher is a table of answers, which has no latency"
    assert exit_code_for(report) == EXIT_INCONCLUSIVE
    [note] = [note for note in report.notes if "table" in note]
    assert note.startswith("The teacher is a table (top-k) that answers all 200 test samples: retention and agreement")
    assert "no latency, size or memory" in note


def test_it_stands_in_the_tables_beside_the_others(make_bundle: Make) -> None:
    variants = {"s": {"wrong": 10}, "baseline-s": {"role": "baseline", "wrong": 14}}
    text = to_markdown(build_report(make_bundle(variants, classes=2, table=("logits", answers(6, 2)))))
    first, second = (
        [cell.strip() for cell in row.split("|")[2:-1]] for row in text.splitlines() if row.startswith("| `timm:big`")
    )
    share = "97.0 [93.6–98.6]"
    unknown = ["not measured"] * 4
    assert first[:8] == [*unknown, "–", "–", "not measured", share]
    assert first[8].startswith(f"{share}; ")
    assert first[8].partition("; ")[2][0].isdigit(), "the AUC"
    assert first[9:] == ["100", "a table: logits"]
    assert second[:5] == ["–"] * 5
    assert second[5].startswith("class 0: 97.0")
    assert second[6] == "–"
    bare = to_markdown(build_report(make_bundle({"s": {}}, table=("labels", np.zeros(N, np.int64)))))
    assert "| a table: labels |" in bare
    assert not any("a table" in block for block in rows_table(build_report(make_bundle())))


def test_a_table_that_does_not_answer_the_test_says_why(make_bundle: Make) -> None:
    why = "outputs:t.csv has 12 of 200 test samples"
    report = build_report(make_bundle({"s": {}}, {"min_retention": 0.5, "min_speedup": 1}, table=why))
    row, judged = report.rows[0], line(report, "min_retention")
    assert (row.retention, row.agreement, report.teacher_table) == (None, None, None)
    assert (judged.verdict, judged.value) == ("unmeasured", "not measured")
    assert judged.reason == f"the teacher is a table of answers: {why}"
    assert line(report, "min_speedup").verdict == "unmeasured"
    assert f"The teacher is a table of answers, so the speed-up cannot be told, nor retention: {why}." in report.notes


def test_a_table_that_is_never_right_retains_nothing(make_bundle: Make) -> None:
    wrong = (np.arange(N) + 1) % 3
    report = build_report(make_bundle({"s": {}}, {"min_retention": 0.5}, table=("labels", wrong)))
    assert line(report, "min_retention").reason == "the teacher is right on no test sample"
    assert line(report, "min_retention").verdict == "unmeasured"
    assert "The teacher is right on no test sample, so retention cannot be told." in report.notes


def test_its_accuracy_needs_no_measurement(make_bundle: Make) -> None:
    made = make_bundle({"s": {}}, {"min_retention": 0.5}, measured=False, table=("labels", answers(6).argmax(axis=1)))
    report = build_report(made)
    assert report.teacher_table is not None
    assert report.teacher_table.accuracy is not None
    assert report.teacher_table.accuracy.value == 0.97
    assert line(report, "min_retention").reason == "the bundle holds no measurement of it"


@pytest.mark.parametrize(
    ("kind", "array", "said"),
    [
        ("labels", np.full(N, 3), r"labels must lie in 0\.\.2, found 3\.\.3"),
        ("labels", np.zeros(N), "expected 200 integer labels"),
        ("top-k", np.zeros(N - 1, np.int64), "expected 200 integer labels"),
        ("logits", np.zeros((N, 2), np.float32), r"expected float logits of shape \[200, 3\]"),
        ("probabilities", np.zeros(N, np.int64), r"expected float logits of shape \[200, 3\]"),
    ],
)
def test_damaged_answers_are_refused(make_bundle: Make, kind: str, array: np.ndarray, said: str) -> None:
    with pytest.raises(KdcError, match=rf"table\.npy.*{said}"):
        build_report(make_bundle({"s": {}}, table=(kind, array)))


def test_the_answers_are_sealed_and_listed(make_bundle: Make, edit_json: Edit) -> None:
    bundle = make_bundle({"s": {}}, table=("labels", answers(6).argmax(axis=1)))
    finish(bundle)
    verify(bundle)
    content = (bundle / "eval/table.npy").read_bytes()
    np.save(bundle / "eval/table.npy", answers(0).argmax(axis=1))
    with pytest.raises(KdcError, match=r"eval/table\.npy was changed after it was made"):
        verify(bundle)
    (bundle / "eval/table.npy").write_bytes(content)

    def unlist(found: dict[str, Any]) -> None:
        found["support"] = [entry for entry in found["support"] if entry["path"] != "eval/table.npy"]

    edit_json(bundle / "bundle.json", unlist)
    finish(bundle)
    with pytest.raises(KdcError, match=r"bundle\.json uses eval/table\.npy, but lists it nowhere"):
        verify(bundle)
