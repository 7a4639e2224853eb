import json
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.report import build_report, finish, to_json, to_junit, to_markdown, verdict_line
from compressor.report.render.text import (
    confidence_percent,
    estimate,
    megabytes,
    number,
    p_value,
    points,
    relative,
    share,
    spread,
)
from compressor.schema.base import read_json
from compressor.schema.report import Estimate, Report, Spread
from tests.report.conftest import THROUGHPUT

Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
HOSTILE = "cannot | open <script>\n\x1b[31mlib\x00.so `x` *y* [link](http://z) \ud800"


@pytest.fixture
def report(make_bundle: Make) -> Report:
    variants = {
        "ort-fp32": {"wrong": 10},
        "openvino-bf16": {"runtime": "openvino", "precision": "bf16", "executed": "f32", "p50": 1.2, "wrong": 12},
        "teacher": {"role": "teacher", "wrong": 6, "p50": 6.0},
        "baseline-ort-fp32": {"role": "baseline", "wrong": 14, "p50": 1.9, "weights": {"float32": 700_000}},
    }
    budget = {"p50_ms": 2.5, "size_mb": 1, "min_retention": 0.95, "min_speedup": 2, "max_slowdown": 1.1}
    bundle = make_bundle(variants, budget, spread=0.0, aa=1.004)
    return build_report(bundle).model_copy(update={"kdc": "1.2.3"})


def test_the_markdown(report: Report) -> None:
    """After a wanted change, write the new text over report.md and look at it as a pull request shows it."""
    expected = (Path(__file__).parent / "report.md").read_text(encoding="utf-8")
    assert to_markdown(report).splitlines() == expected.splitlines()


def test_the_race(report: Report) -> None:
    """Who came further first; what the neighbours cost; nothing that a name could break."""
    from compressor.schema.race import Contender, Neighbour, Race, Trial

    def share(value: float) -> Estimate:
        return Estimate(value=value, low=value - 0.05, high=value + 0.05, n=1000, of="validation samples")

    def trial(student: str, epochs: int, value: float) -> Trial:
        return Trial(student=student, epochs=epochs, steps=9, accuracy=share(value), seconds=1.0, inputs={})

    p50 = Estimate(value=2.0, low=1.9, high=2.1, n=30, of="blocks")
    larger = Neighbour(student="timm:huge", p50_ms=p50, size_mb=9.0, over=("p50_ms 1.9 > 1.5",))
    a, b, c = "timm:a", "timm:b", "timm:c|d"
    race = Race(
        contenders=(
            Contender(student=a),
            Contender(student=b, variant="onnxruntime-int8", p50_ms=p50, size_mb=1.25, larger=larger),
            Contender(student=c),
        ),
        why="of 9 candidates the budget admits 3",
        share=0.5,
        planned=7,
        rounds=((trial(a, 1, 0.9), trial(b, 1, 0.8)), (trial(b, 3, 0.93), trial(a, 3, 0.91))),
        failed={c: "loss kd is not finite"},
        winner=b,
        lead=share(0.02),
        reason="timm:b has the highest validation accuracy",
    )
    said = to_markdown(report.model_copy(update={"race": race}))
    part = said[said.index("**The race of students") :].split("</details>")[0]
    assert part.splitlines()[2:7] == [
        "| student | ran as | p50 ms | size (MB) | validation % after 1 epoch (n = 1000) | validation % after 3 epochs "
        "(n = 1000) |",
        "| --- | --- | ---: | ---: | ---: | ---: |",
        "| `timm:b` | onnxruntime-int8 | 2.00 [1.90–2.10] | 1.25 | 80.0 [75.0–85.0] | 93.0 [88.0–98.0] |",
        "| `timm:a` | not measured | not measured | not measured | 90.0 [85.0–95.0] | 91.0 [86.0–96.0] |",
        "| `timm:c\\|d` | not measured | not measured | not measured | – | – |",
    ]
    assert "The next larger one: `timm:huge`, p50 2.00 [1.90–2.10] ms, 9.00 MB, which breaks p50_ms 1.9 > 1.5." in part
    assert "`timm:c\\|d` could not learn: loss kd is not finite." in part
    assert "The race of students" not in to_markdown(report)


def test_throughput_that_nobody_asked_for_is_one_line(make_bundle: Make, edit_json: Edit) -> None:
    def left_out(measurement: dict[str, Any]) -> None:
        measurement["with_throughput"] = False
        for contestant in measurement["contestants"]:
            contestant["throughput"] = []

    bundle = make_bundle(budget={"p50_ms": 9})
    edit_json(bundle / "measurements/measurement.json", left_out)
    said = to_markdown(build_report(bundle))
    assert said.count("Throughput was not measured, on request (`--no-throughput`).") == 1
    assert "images/s" not in said
    assert "full tilt" not in said
    edit_json(bundle / "measurements/measurement.json", lambda found: found.update(with_throughput=True))
    failed = to_markdown(build_report(bundle))
    assert "on request" not in failed
    assert "| variant | images/s |" in failed, "what was tried and failed is no less than not measured"


def test_unmeasured_and_allowed(make_bundle: Make) -> None:
    report = build_report(make_bundle(measured=False, budget={"p50_ms": 2, "size_mb": 1}))
    strict, allowed = to_markdown(report), to_markdown(report, allow_unmeasured=True)
    assert strict.startswith("## kdc: UNMEASURED")
    assert "allow" not in strict
    assert "**Unmeasured lines were allowed**" in allowed
    assert "Every judged line is held by: `ort-fp32`." in allowed
    row = next(line for line in strict.splitlines() if line.startswith("| `ort-fp32` | 0.800"))
    assert row.count("not measured") == 8
    assert "not measured" not in strict[strict.index("**Sizes**") : strict.index("</details>")]
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
    *_, row = [line for line in text.splitlines() if "cannot" in line and line.startswith("|")]
    assert cells(row)[0] == r" `a\|'b'` "
    assert cells(row)[-1] == r" cannot \| open \<script> \\x1b[31mlib\\x00.so \`x\` \*y\* [link\](http://z) \\ud800 "
    assert r"- a \| b c" in text
    text.encode()


def test_what_begins_no_tag_is_read_as_it_is(make_bundle: Make) -> None:
    text = to_markdown(build_report(make_bundle(notes=("n=33 < 1000, and 2<3, <b>",))))
    assert r"- n=33 < 1000, and 2<3, \<b>" in text


def test_the_table_of_a_pull_request_stays_narrow(make_bundle: Make) -> None:
    variants = {"s": {}, "r": {"role": "reference"}, "t": {"role": "teacher"}, "baseline-s": {"role": "baseline"}}
    text = to_markdown(build_report(make_bundle(variants, classes=2)))
    header = next(line for line in text.splitlines() if line.startswith("| variant | size (MB) | p50"))
    assert len(cells(header)) == 12
    assert " p50 / baseline's " in cells(header)
    for name in ("| `s` |", "| `r` (fp32 reference) |", "| `t` (teacher) |", "| `baseline-s` (baseline) |"):
        assert text.count(name) >= 2
    assert "Baseline: `old_net`, measured alongside and not judged" in text
    without = to_markdown(build_report(make_bundle()))
    assert "baseline" not in without.lower()


def test_what_disturbed_a_session_is_said_beside_its_figures(make_bundle: Make) -> None:
    busy = {"wall_s": 0.2, "own_cpu_s": 0.4, "busy_cpu_s": 0.7}
    text = to_markdown(build_report(make_bundle(budget={"p50_ms": 1.5}, played=busy, after={"throttle_count": 2})))
    said = "other processes used 37.5 % of the machine (1.50 of 4 cores over 8.00 s)"
    assert f"**Absolute figures disturbed:** {said}; the CPU throttled 2 times because of its heat." in text
    header = next(line for line in text.splitlines() if line.startswith("| variant | size (MB) | p50"))
    assert header.count("**(disturbed)**") == 3
    assert [cell.strip() for cell in cells(header) if "disturbed" not in cell][3:6] == [
        "times as fast as fp32",
        "accuracy %",
        "balanced %",
    ]
    assert text.startswith("## kdc: INCONCLUSIVE")
    assert "disturbed" not in to_markdown(build_report(make_bundle()))


def test_how_far_the_session_carries(make_bundle: Make) -> None:
    session = {"looks": 3, "device": "ssh", "connections": 2, "lost": "pi@board | gone"}
    text = to_markdown(build_report(make_bundle(session=session, aa=0.985, spread=0.0)))
    assert "Measured 2026-11-24T07:00:00Z over ssh (2 connections) on Intel" in text
    assert "A/A: the same artefact twice differs by −1.5 % [−1.5 to −1.5] (99.917 % interval, n = 40 rounds); " in text
    assert "effects below 1.5 % cannot be told from noise here." in text
    assert "Verdicts on latency after 3 looks, from 99.917 % intervals." in text
    assert "**The session broke off:** pi@board \\| gone. Its samples are kept, and decide nothing on latency." in text
    assert text.startswith("## kdc: INCONCLUSIVE – the budget cannot be told yet")
    assert "A/A: not measured, so ratios of latencies are not judged." in to_markdown(
        build_report(make_bundle(aa=None))
    )


def test_details_say_what_was_not_measured(make_bundle: Make, edit_json: Edit) -> None:
    bundle = make_bundle({"s": {"throughput": THROUGHPUT[:1], "weights": {"int8": 2_000_000, "float32": 64}}})

    def forget(found: dict[str, Any]) -> None:
        found["contestants"][0].update(starts=[], idle_rss_mb=None)

    edit_json(bundle / "measurements/measurement.json", forget)
    text = to_markdown(build_report(bundle))
    rows = [[cell.strip() for cell in cells(line)][1:] for line in text.splitlines() if line.startswith("| `s` |")]
    assert ["small_net", "1.53", "56.5", "0.100", "int8 2.00, float32 < 0.001", "0.500"] in rows
    assert ["465 [450–480], n = 2", "1 stream × 4 threads", "not measured"] in rows
    starting = next(row for row in rows if row[0] == "onnxruntime 1.22.0")
    assert starting[1:4] == ["not measured"] * 3
    assert starting[5] == "not measured → 61.2"
    accuracy = next(row for row in rows if row[-1].startswith("class 0: 100.0"))
    assert accuracy[:4] == ["not measured"] * 4


def test_two_classes_show_their_auc(make_bundle: Make) -> None:
    report = build_report(make_bundle(classes=2))
    area, said = report.rows[0].auc, to_markdown(report)
    assert area is not None
    assert "| balanced %; AUC | retention % |" in said
    assert f"; {estimate(area)} | " in said
    assert "accuracy, balanced, AUC, retention: n = 200 test samples" in said
    assert "AUC" not in to_markdown(build_report(make_bundle()))


ADVANTAGE = {"split": "test", "n": 1000, "only_student": 40, "only_control": 21}
"""19 points in a thousand; with one more of each, (41 - 22) / 1002 ± 1.96 sqrt((63 / 1002 - 0.018962^2) / 1002)."""


def test_what_distillation_gained_is_told_from_the_counts(make_bundle: Make, edit_json: Edit) -> None:
    def tell(bundle: dict[str, Any]) -> None:
        student = bundle["student"]
        figures = {"difference": 0.5, "low": 0.4, "high": 0.6}  # what is written there is not taken on trust
        student["gain"] = {
            "test": {**ADVANTAGE, **figures},
            "validation": {**ADVANTAGE, **figures, "split": "validation", "n": 145, "only_student": 2},
            "control_validation": student["validation"],
            "control_test": {**student["test"], "n": 1000, "correct": 844},
            "control_sha256": "0" * 64,
            "steps": 4680,
            "samples": 1300,
        }

    bundle = make_bundle()
    assert build_report(bundle).gain is None
    assert "Gain" not in to_markdown(build_report(bundle))
    edit_json(bundle / "bundle.json", tell)
    report = build_report(bundle)
    assert report.gain is not None
    found = report.gain.test
    assert (found.value, found.low, found.high) == pytest.approx((0.019, 0.0034809, 0.0344433), abs=2e-7)
    assert (found.n, found.of, report.gain.control_accuracy.value) == (1000, "test samples, paired", 0.844)
    said = to_markdown(report)
    assert "**Gain:** distillation gained +1.9 points [+0.3, +3.4] over labels alone, n=1,000 test samples; " in said
    assert "distillation lost: −13.1 points [" in said
    assert "on the labels of 1,300 samples alone for as many steps (4,680), has 84.4 [82.0–86.5] % of the test" in said
    assert json.loads(to_json(report))["gain"]["test"]["n"] == 1000


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
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("22", "2", "2")
    assert {(case.get("classname"), case.get("name")) for case in cases if case.find("failure") is not None} == {
        ("openvino-bf16", "precision"),
        ("openvino-bf16", "size_mb"),
    }
    skipped = [case for case in cases if case.find("skipped") is not None]
    assert [case.get("name") for case in skipped] == ["max_slowdown", "min_retention"]
    hostile = report.model_copy(update={"checks": (report.checks[0].model_copy(update={"reason": HOSTILE}),)})
    parsed = ET.fromstring(to_junit(hostile).encode())
    assert r"cannot | open <script>\n\x1b[31mlib\x00.so `x`" in "".join(parsed.itertext())


def test_the_verdict_in_one_line(make_bundle: Make, report: Report) -> None:
    assert verdict_line(report) == "FAIL on profile mini-pc: openvino-bf16 fails precision (asked bf16, executed f32)"
    one = build_report(make_bundle({"ort-fp32": {}, "teacher": {"role": "teacher"}}, {"p50_ms": 9}))
    assert verdict_line(one) == "PASS on profile mini-pc: ship ort-fp32; ort-fp32 holds every line"
    both = one.model_copy(update={"holds": ("a", "b")})
    assert verdict_line(both) == "PASS on profile mini-pc: ship ort-fp32; a, b hold every line"
    broken = build_report(make_bundle({"s": {"error": "boom"}, "t": {}}, {"p50_ms": 2, "min_retention": 0.9}))
    assert verdict_line(broken) == "FAIL on profile mini-pc: s fails runs (boom)"
    open_lines = build_report(make_bundle({"s": {"p50": 99}, "t": {}}, {"p50_ms": 2, "min_retention": 0.9}))
    assert verdict_line(open_lines) == (
        "INCONCLUSIVE on profile mini-pc: t, which ships, is inconclusive on p50_ms and is unmeasured on "
        "min_retention; s (fail p50_ms; unmeasured min_retention)"
    )
    allowed = build_report(make_bundle(measured=False))
    assert verdict_line(allowed, allow_unmeasured=True) == (
        "UNMEASURED on profile mini-pc: unmeasured lines are allowed and not judged; ort-fp32: nothing else is missing"
    )
    none = build_report(make_bundle({"reference": {"role": "reference"}, "teacher": {"role": "teacher"}}))
    assert verdict_line(none) == "UNMEASURED on profile mini-pc: the bundle has no student variant"


def test_the_one_that_ships_comes_first_in_that_line(make_bundle: Make) -> None:
    variants = {
        "s": {"p50": 2.0},
        "q": {"p50": 1.0, "precision": "fp16", "executed": "fp16", "repeat": 200_000},
        "r": {"p50": 9.0},
        "t": {"role": "teacher", "p50": 6.0},
    }
    report = build_report(make_bundle(variants, {"p50_ms": 4, "size_mb": 0.15, "max_slowdown": 1.1}))
    kept = [check for check in report.checks if check.line != "max_slowdown" or check.variant == "q"]
    failed = report.model_copy(update={"verdict": "fail", "winner": "q", "holds": ("s",), "checks": tuple(kept)})
    assert verdict_line(failed) == (
        "FAIL on profile mini-pc: q, which ships, fails size_mb and is unmeasured on max_slowdown; "
        "s holds every line; r (fail p50_ms)"
    )
    none = failed.model_copy(update={"winner": None, "checks": ()})
    assert verdict_line(none).endswith(
        ": s is held against no line; q is held against no line; r is held against no line"
    )


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


def test_small_texts() -> None:
    assert [relative(value) for value in (1.003, 0.98, 1.0, 0.99999)] == ["+0.3", "−2.0", "0.0", "0.0"]
    assert [p_value(value) for value in (None, 0.0004, 0.0312, 1.0)] == ["not measured", "< 0.001", "0.031", "1.0"]
    assert [confidence_percent(value) for value in (0.95, 0.995, 1 - 0.01 / 6)] == ["95", "99.5", "99.833"]
    figure = Estimate(value=-0.01, low=-0.0261, high=0.005, n=200, of="test samples")
    assert (points(figure), points(None)) == ("−1.0 [−2.6 to +0.5]", "not measured")
    assert spread(Spread(median=12.3, lowest=12, highest=13, n=5)) == "12.3 [12.0–13.0], n = 5"
    assert spread(None) == "not measured"


def test_shares_never_round_up_to_all() -> None:
    assert [share(value) for value in (1.0, 0.9997, 0.97, 0.0, 1.0009)] == ["100.0", "99.97", "97.0", "0.0", "100.1"]
    assert megabytes(1_500_000) == 1.5


def test_junit_is_the_same_on_a_stdout_without_utf8(report: Report) -> None:
    """ "≤" became a raw "<=" there, after the XML was escaped."""
    text = to_junit(report)
    assert text.isascii()
    said = "".join(element.text or "" for element in ET.fromstring(text).iter("system-out"))
    assert "≤" in said
