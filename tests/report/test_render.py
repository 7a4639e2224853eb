import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.report import build_report, finish, to_json, to_junit, to_markdown, verdict_line
from compressor.report.text import megabytes, number, share
from compressor.spec.base import read_json
from compressor.spec.report import Report

Make = Callable[..., Path]
HOSTILE = "cannot | open <script>\n\x1b[31mlib\x00.so `x` *y* [link](http://z) \ud800"


@pytest.fixture
def report(make_bundle: Make) -> Report:
    variants = {
        "ort-fp32": {"wrong": 10},
        "openvino-bf16": {"runtime": "openvino", "precision": "bf16", "executed": "f32", "p50": 1.2, "wrong": 12},
        "teacher": {"role": "teacher", "wrong": 6, "p50": 6.0},
    }
    bundle = make_bundle(variants, {"p50_ms": 2.5, "size_mb": 1, "min_retention": 0.95}, spread=0.0)
    return build_report(bundle).model_copy(update={"kdc": "1.2.3"})


def test_the_markdown(report: Report) -> None:
    """After a wanted change, write the new text over report.md and look at it as a pull request shows it."""
    expected = (Path(__file__).parent / "report.md").read_text(encoding="utf-8")
    assert to_markdown(report).splitlines() == expected.splitlines()


def test_unmeasured_and_allowed(make_bundle: Make) -> None:
    report = build_report(make_bundle(measured=False, budget={"p50_ms": 2, "size_mb": 1}))
    strict, allowed = to_markdown(report), to_markdown(report, allow_unmeasured=True)
    assert strict.startswith("## kdc: UNMEASURED")
    assert "allow" not in strict
    assert "**Unmeasured lines were allowed**" in allowed
    assert "Every judged line is held by: `ort-fp32`." in allowed
    row = next(line for line in strict.splitlines() if line.startswith("| `ort-fp32` | 1.53"))
    assert row.count("not measured") == 7
    nothing = build_report(make_bundle(measured=False))
    assert "No line at all was judged" in to_markdown(nothing, allow_unmeasured=True)
    measured = build_report(make_bundle(budget={"p50_ms": 9}))
    assert "allowed" not in to_markdown(measured, allow_unmeasured=True)


def test_another_machine_is_said_in_the_head(make_bundle: Make) -> None:
    text = to_markdown(build_report(make_bundle(budget={"p50_ms": 9}, machine={"cpu": "EPYC", "cores": 2})))
    assert "**not the device of profile `mini-pc`**" in text
    assert "cpu is EPYC, the profile's n100; cores are 2, the profile's 4" in text


def cells(row: str) -> list[str]:
    return re.split(r"(?<!\\)\|", row)[1:-1]


def test_no_text_breaks_out_of_its_cell(make_bundle: Make) -> None:
    made = make_bundle({"s": {"error": "placeholder"}, "teacher": {"role": "teacher"}}, notes=("a | b\nc",))
    report = build_report(made)
    broken = report.checks[0].model_copy(update={"reason": HOSTILE, "variant": "a|`b`"})
    text = to_markdown(report.model_copy(update={"checks": (broken,)}))
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        assert len({len(cells(row)) for row in table.splitlines()}) == 1
    [row] = [line for line in text.splitlines() if "cannot" in line and line.startswith("|")]
    assert cells(row)[0] == r" `a\|'b'` "
    assert cells(row)[-1] == r" cannot \| open \<script> [31mlib .so \`x\` \*y\* [link\](http://z) "
    assert r"- a \| b c" in text
    text.encode()


def test_two_classes_show_their_auc(make_bundle: Make) -> None:
    assert "| AUC |" in to_markdown(build_report(make_bundle(classes=2)))
    assert "AUC" not in to_markdown(build_report(make_bundle()))


def test_every_n_is_said_where_they_differ(make_bundle: Make) -> None:
    report = build_report(make_bundle())
    student, teacher = report.rows
    assert student.p50_ms is not None
    fewer = student.model_copy(update={"p50_ms": student.p50_ms.model_copy(update={"n": 12})})
    text = to_markdown(report.model_copy(update={"rows": (fewer, teacher)}))
    assert "`ort-fp32` n = 12 blocks of 6 calls, `teacher` n = 40 blocks of 6 calls" in text


def test_junit(report: Report) -> None:
    root = ET.fromstring(to_junit(report))
    [suite] = root
    cases = list(suite)
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("12", "2", "1")
    assert {(case.get("classname"), case.get("name")) for case in cases if case.find("failure") is not None} == {
        ("openvino-bf16", "precision"),
        ("openvino-bf16", "size_mb"),
    }
    [skipped] = [case for case in cases if case.find("skipped") is not None]
    assert skipped.get("name") == "min_retention"
    hostile = report.model_copy(update={"checks": (report.checks[0].model_copy(update={"reason": HOSTILE}),)})
    parsed = ET.fromstring(to_junit(hostile).encode())
    assert "cannot | open <script>\n\ufffd[31mlib\ufffd.so `x`" in "".join(parsed.itertext())


def test_the_verdict_in_one_line(make_bundle: Make, report: Report) -> None:
    assert verdict_line(report) == "FAIL on mini-pc: openvino-bf16 fails precision (asked bf16, executed f32)"
    one = build_report(make_bundle({"ort-fp32": {}, "teacher": {"role": "teacher"}}, {"p50_ms": 9}))
    assert verdict_line(one) == "PASS on mini-pc: ort-fp32 holds every line"
    both = one.model_copy(update={"holds": ("a", "b")})
    assert verdict_line(both) == "PASS on mini-pc: a, b hold every line"
    broken = build_report(make_bundle({"s": {"error": "boom"}, "t": {}}, {"p50_ms": 2, "min_retention": 0.9}))
    assert verdict_line(broken) == "FAIL on mini-pc: s fails runs (boom)"
    open_lines = build_report(make_bundle({"s": {"p50": 99}, "t": {}}, {"p50_ms": 2, "min_retention": 0.9}))
    assert verdict_line(open_lines) == (
        "INCONCLUSIVE on mini-pc: s (fail p50_ms; unmeasured min_retention); "
        "t (inconclusive p50_ms; unmeasured min_retention)"
    )
    allowed = build_report(make_bundle(measured=False))
    assert verdict_line(allowed, allow_unmeasured=True) == (
        "UNMEASURED on mini-pc: unmeasured lines are allowed and not judged; ort-fp32: nothing else is missing"
    )
    none = build_report(make_bundle({"teacher": {"role": "teacher"}}))
    assert verdict_line(none) == "UNMEASURED on mini-pc: the bundle has no student variant"


def test_the_files(make_bundle: Make) -> None:
    bundle = make_bundle()
    report = finish(bundle)
    assert read_json(bundle / "report.json", Report) == report
    assert (bundle / "report.json").read_text() == to_json(report)
    assert (bundle / "report.md").read_text() == to_markdown(report)
    assert not [path for path in bundle.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.001234, "0.00123"), (1.234, "1.23"), (12.34, "12.3"), (1234.5, "1234"), (99.99, "100.0")],
)
def test_numbers(value: float, text: str) -> None:
    assert number(value) == text


def test_shares_never_round_up_to_all() -> None:
    assert [share(value) for value in (1.0, 0.9997, 0.97, 0.0, 1.0009)] == ["100.0", "99.97", "97.0", "0.0", "100.1"]
    assert megabytes(1_500_000) == 1.5
