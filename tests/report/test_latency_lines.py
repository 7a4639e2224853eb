import json
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import pytest

from compressor.report import build_report, exit_code_for, open_lines, read_unmeasured, results_with
from compressor.report.latency import LatencyFigure, aa_of, figure_at
from compressor.report.read import read_results
from compressor.report.render.text import confidence_percent
from compressor.schema.measurement import Measurement
from compressor.schema.report import Check, Report, Verdict
from compressor.stats import Interval, look_confidence, widen
from tests.report.conftest import profile

Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
TEACHER = {"role": "teacher", "p50": 6.0}
BASELINE = {"role": "baseline", "p50": 2.0}
ELSEWHERE = {"cpu": "AMD EPYC", "cores": 2, "usable_cores": 1}
BUSY = {"busy_cpu_s": 0.7}
LINES = ("p50_ms", "p90_ms", "min_speedup", "max_slowdown")


def line_of(report: Report, line: str, variant: str = "s") -> Check:
    [found] = [check for check in report.checks if (check.variant, check.line) == (variant, line)]
    return found


def judged(make: Make, budget: dict[str, Any], student: dict[str, Any] | None = None, **bundle: Any) -> Report:
    variants = {"s": student or {}, "teacher": TEACHER, "baseline-s": BASELINE}
    return build_report(make(variants, budget, **bundle))


@pytest.mark.parametrize(
    ("line", "limit", "student", "verdict"),
    [
        ("min_speedup", 2.5, {"p50": 2.0}, "pass"),
        ("min_speedup", 3.5, {"p50": 2.0}, "fail"),
        ("min_speedup", 3.0, {"p50": 2.0}, "inconclusive"),
        ("max_slowdown", 1.1, {"p50": 2.0}, "pass"),
        ("max_slowdown", 1.1, {"p50": 2.5}, "fail"),
        ("max_slowdown", 1.1, {"p50": 2.2}, "inconclusive"),
        *((line, 1.1, {"unmeasured": True}, "unmeasured") for line in ("min_speedup", "max_slowdown")),
        *((line, 1.1, {"error": "boom"}, "unmeasured") for line in ("min_speedup", "max_slowdown")),
    ],
)
@pytest.mark.parametrize("machine", [{}, ELSEWHERE])
def test_ratios_are_judged_on_any_machine(
    make_bundle: Make, line: str, limit: float, student: dict[str, Any], verdict: Verdict, machine: dict[str, Any]
) -> None:
    report = judged(make_bundle, {line: limit, "p50_ms": 9}, student, machine=machine)
    assert line_of(report, line).verdict == verdict, line_of(report, line)
    assert f"{limit:g} times" in line_of(report, line).limit
    elsewhere = line_of(report, "p50_ms")
    assert (elsewhere.verdict == "unmeasured") == (bool(machine) or bool({"error", "unmeasured"} & set(student)))


def test_a_ratio_under_other_conditions_than_the_profiles_is_not_judged(make_bundle: Make) -> None:
    for changes in ({"session": {"batch": 8}}, {"student": {"threads": 4}}):
        check = line_of(judged(make_bundle, {"min_speedup": 2}, **changes), "min_speedup")
        assert check.verdict == "unmeasured"
        assert check.reason.startswith("not measured as the profile says: ")


def test_a_ratio_needs_someone_to_compare_with(make_bundle: Make) -> None:
    budget = {"min_speedup": 2, "max_slowdown": 1.1}
    alone = build_report(make_bundle({"s": {}}, budget))
    assert line_of(alone, "min_speedup").reason == "the bundle does not hold the teacher"
    assert line_of(alone, "max_slowdown").reason == (
        "the bundle has no baseline to be held against: give one with --baseline BUNDLE"
    )
    other = {"s": {}, "t": {}, "teacher": {**TEACHER, "error": "boom"}, "baseline-s": {**BASELINE, "unmeasured": True}}
    report = build_report(make_bundle(other, budget))
    assert line_of(report, "min_speedup").reason == "the teacher was not measured: boom"
    assert line_of(report, "max_slowdown").reason == "the same variant of the baseline was not measured"
    assert line_of(report, "max_slowdown", "t").reason == "the bundle does not hold the same variant of the baseline"
    assert {check.verdict for check in (*alone.checks, *report.checks) if check.line in budget} == {"unmeasured"}


def test_without_an_aa_no_ratio_is_judged(make_bundle: Make) -> None:
    for changes, said in (
        ({"aa": None}, "no A/A: the session ran no second copy of the reference"),
        ({"rounds": 9}, "too few rounds for a 99.5 % interval: needs at least 10 in which both ran, found 9"),
    ):
        report = judged(make_bundle, {"min_speedup": 2, "max_slowdown": 1.1, "p90_ms": 9}, **changes)
        for line in ("min_speedup", "max_slowdown"):
            check = line_of(report, line)
            assert (check.verdict, said in check.reason or "no A/A" in check.reason) == ("unmeasured", True), check
    assert report.verdict == "unmeasured"


def test_the_aa_widens_a_ratio(make_bundle: Make) -> None:
    """Without noise the speed-up is 3 to the last digit; where the same artefact twice differs by 1.5 %, it is not."""
    budget = {"min_speedup": 2.98, "max_slowdown": 1.01}
    quiet = judged(make_bundle, budget, spread=0.0)
    noisy = judged(make_bundle, budget, spread=0.0, aa=1.015)
    for line in budget:
        assert line_of(quiet, line).verdict == "pass"
        assert line_of(noisy, line).verdict == "inconclusive"
        assert "widened by the A/A" in line_of(noisy, line).reason
        assert line_of(noisy, line).value == line_of(quiet, line).value
    assert noisy.session is not None
    assert noisy.session.disturbed == ()
    wide = widen(Interval(3.0, 3.0, 3.0, 40), Interval(1.015, 1.015, 1.015, 40))
    assert f"[{wide.low:.3f}–{wide.high:.3f}]" in line_of(noisy, "min_speedup").reason


@pytest.mark.parametrize(
    ("line", "figure"),
    [("p50_ms", "p50_ms"), ("p90_ms", "p90_ms"), ("min_speedup", "p50_ratio"), ("max_slowdown", "slowdown")],
)
def test_more_looks_ask_for_more_confidence(
    make_bundle: Make, edit_json: Edit, line: str, figure: LatencyFigure
) -> None:
    """A limit between the ends of the two intervals is held after one look, and open after six of the same samples."""
    variants = {"s": {}, "teacher": TEACHER, "baseline-s": BASELINE}
    bundle = make_bundle(variants, spread=0.2)
    once, often = (verdict_interval(bundle, figure, look) for look in (1, 6))
    ends = (once.low, often.low) if line == "min_speedup" else (once.high, often.high)
    assert abs(ends[1] - often.value) > abs(ends[0] - once.value)
    edit_json(bundle / "bundle.json", lambda found: found["profile"].update(budget={line: sum(ends) / 2}))
    for look, verdict in ((1, "pass"), (6, "inconclusive")):

        def looked(found: dict[str, Any], look: int = look) -> None:
            found["looks"] = look

        edit_json(bundle / "measurements/measurement.json", looked)
        check = line_of(build_report(bundle), line)
        assert check.verdict == verdict, check
        assert f"{confidence_percent(look_confidence(look))} % interval" in check.reason


def verdict_interval(bundle: Path, figure: LatencyFigure, look: int) -> Interval:
    """The interval that a verdict on "s" rests on after so many looks."""
    results, confidence = read_results(bundle), look_confidence(look)
    assert results.measurement is not None
    found, aa = figure_at(figure, results, "s", confidence), aa_of(results.measurement, confidence)
    assert found is not None
    assert aa is not None
    return found if figure in ("p50_ms", "p90_ms") else widen(found, aa)


def test_what_a_disturbed_session_fails_is_open(make_bundle: Make) -> None:
    """The limits, in turn, are failed, straddled and held by far; ratios are judged whatever disturbed the session."""
    said = "disturbed (other processes used 37.5 % of the machine (1.50 of 4 cores over 8.00 s)"
    for limit, verdict in ((1.5, "inconclusive"), (2.0, "inconclusive"), (2.5, "pass")):
        report = judged(make_bundle, {"p50_ms": limit, "p90_ms": limit + 0.05}, played=BUSY)
        for line in ("p50_ms", "p90_ms"):
            check = line_of(report, line)
            assert (check.verdict, said in check.reason) == (verdict, True), check
    failed = judged(make_bundle, {"p50_ms": 1.5, "min_speedup": 3.5, "max_slowdown": 1.1}, played=BUSY)
    assert "breaks the limit, but the session was disturbed" in line_of(failed, "p50_ms").reason
    assert "which makes it slower" in line_of(failed, "p50_ms").reason
    assert line_of(failed, "min_speedup").verdict == "fail"
    assert line_of(failed, "max_slowdown").verdict == "pass"
    assert "disturbed" not in line_of(failed, "min_speedup").reason
    only_absolute = judged(make_bundle, {"p50_ms": 1.5}, played=BUSY)
    assert (only_absolute.verdict, exit_code_for(only_absolute)) == ("inconclusive", 3)
    held = judged(make_bundle, {"p50_ms": 2.5}, played=BUSY)
    assert (held.verdict, exit_code_for(held)) == ("pass", 0)
    assert "keeps to the limit, though the session was disturbed" in line_of(held, "p50_ms").reason


def test_what_may_have_become_faster_passes_nothing(make_bundle: Make) -> None:
    for limit in (1.5, 2.5):
        report = judged(
            make_bundle,
            {"p50_ms": limit, "max_slowdown": 1.1},
            machine={"power_mode": "15W"},
            after={"power_mode": "MAXN"},
        )
        check = line_of(report, "p50_ms")
        assert (check.verdict, "the power mode changed from 15W to MAXN" in check.reason) == ("inconclusive", True)
        assert line_of(report, "max_slowdown").verdict == "pass"
    assert "may have made it faster" in check.reason


def test_another_power_mode_is_another_device(make_bundle: Make) -> None:
    device = {**profile({})["device"], "power_mode": {"value": "25W", "source": "made up"}}
    for mode, verdict in (("25w", "pass"), (None, "pass"), ("MAXN_SUPER", "unmeasured")):
        report = judged(make_bundle, {"p50_ms": 9}, profile_changes={"device": device}, machine={"power_mode": mode})
        check = line_of(report, "p50_ms")
        assert check.verdict == verdict, check
    assert "the power mode is MAXN_SUPER, the profile's 25W" in check.reason


def test_in_a_crowded_session_ratios_compare_the_calls_that_were_not_interrupted(
    make_bundle: Make, edit_json: Edit
) -> None:
    """Every call of the student but two a block takes a time slice longer; the A/A copies run as ever."""

    def interrupted(found: dict[str, Any]) -> None:
        for block in found["blocks"]:
            if block["variant"] == "s":
                block["wall_ms"] = [ms + 4.0 * (turn >= 2) for turn, ms in enumerate(block["wall_ms"])]

    for played, slowdown, verdict, of in (
        ({}, 3.0, "fail", "rounds"),
        (BUSY, 1.0, "pass", "rounds, of each block the fastest 20 % of the calls"),
    ):
        variants = {"first": {}, "s": {}, "teacher": TEACHER, "baseline-s": BASELINE}
        bundle = make_bundle(variants, {"max_slowdown": 1.1}, played=played)
        edit_json(bundle / "measurements" / "measurement.json", interrupted)
        report = build_report(bundle)
        row = next(row for row in report.rows if row.name == "s")
        assert row.slowdown is not None
        assert row.slowdown.value == pytest.approx(slowdown, rel=0.03)
        assert row.slowdown.of == of
        assert line_of(report, "max_slowdown").verdict == verdict


LOST = {"lost": "the connection to pi@board ended"}


def test_a_session_that_broke_off_decides_no_latency(make_bundle: Make) -> None:
    for limits in ((9, 9, 1.1, 9), (0.1, 0.1, 9, 0.1)):
        report = judged(make_bundle, dict(zip(LINES, limits, strict=True)), session=LOST)
        for line in (*LINES, "runs"):
            check = line_of(report, line)
            assert check.verdict == "inconclusive", check
            assert check.reason == "the session broke off: the connection to pi@board ended; samples kept"
        assert line_of(report, "p50_ms").value.startswith("2.0")
        assert line_of(report, "precision").verdict == "pass"
        assert (report.verdict, report.holds) == ("inconclusive", ())
        assert (exit_code_for(report), exit_code_for(report, allow_unmeasured=True)) == (3, 3)


def test_what_a_lost_session_did_not_measure_stays_unmeasured(make_bundle: Make, edit_json: Edit) -> None:
    budget = {"p50_ms": 9, "p90_ms": 9, "min_speedup": 1.1, "max_slowdown": 9, "min_accuracy": 0.5}
    few = judged(make_bundle, budget, session=LOST, rounds=3)
    assert {line_of(few, line).verdict for line in LINES} == {"unmeasured"}
    assert line_of(few, "runs").verdict == "inconclusive"
    elsewhere = judged(make_bundle, budget, session=LOST, machine=ELSEWHERE)
    assert [line_of(elsewhere, line).verdict for line in LINES] == ["unmeasured"] * 2 + ["inconclusive"] * 2

    bundle = make_bundle({"s": {}, "teacher": TEACHER, "baseline-s": BASELINE}, budget, session=LOST)
    edit_json(bundle / "measurements/measurement.json", forget_logits)
    report = build_report(bundle)
    assert line_of(report, "min_accuracy").verdict == "unmeasured"
    assert line_of(report, "min_accuracy").reason.startswith("the session broke off: ")
    assert (report.verdict, exit_code_for(report, allow_unmeasured=True)) == ("inconclusive", 3)


def forget_logits(found: dict[str, Any]) -> None:
    for contestant in found["contestants"]:
        for key in ("logits", "logits_sha256", "throughput", "peak_rss_mb"):
            contestant.pop(key, None)


def test_what_really_failed_fails_a_lost_session_too(make_bundle: Make) -> None:
    too_large = judged(make_bundle, {"size_mb": 0.01}, session=LOST)
    assert (too_large.verdict, exit_code_for(too_large)) == ("fail", 1)
    broken = judged(make_bundle, {"p50_ms": 9}, {"error": "cannot load"}, session=LOST)
    assert (line_of(broken, "runs").verdict, broken.verdict, exit_code_for(broken)) == ("fail", "fail", 1)


def opened(bundle: Path) -> tuple[str, ...]:
    return open_lines(read_results(bundle))


def test_open_lines_are_those_that_more_rounds_would_decide(make_bundle: Make) -> None:
    variants = {
        "a": {"p50": 2.0},
        "b": {"p50": 3.0},
        "c": {"error": "boom"},
        "teacher": TEACHER,
        "baseline-a": {"role": "baseline", "p50": 2.0},
    }
    budget = {"p50_ms": 2.0, "p90_ms": 9, "min_speedup": 2.0, "max_slowdown": 1.0, "min_accuracy": 0.99}
    assert opened(make_bundle(variants, budget)) == ("a p50_ms", "a max_slowdown", "b min_speedup")
    assert opened(make_bundle(variants, budget, machine=ELSEWHERE)) == ("a max_slowdown", "b min_speedup")
    assert opened(make_bundle(variants, budget, aa=None)) == ("a p50_ms",)
    assert opened(make_bundle(variants, budget, session=LOST)) == ()
    assert opened(make_bundle(variants, budget, measured=False)) == ()
    assert opened(make_bundle(variants, {"p50_ms": 1.5}, played=BUSY)) == ()  # disturbed, not short of rounds
    assert opened(make_bundle(variants, {"p50_ms": 2.0}, played=BUSY)) == ("a p50_ms",)
    assert opened(make_bundle(variants)) == ()


def test_open_lines_of_a_session_that_still_goes_on(make_bundle: Make) -> None:
    """The caller has the rounds in memory and no logits yet; the bundle may hold an older measurement or none."""
    variants = {"a": {}, "b": {}, "c": {}, "teacher": TEACHER, "baseline-a": BASELINE}
    budget = {"p50_ms": 2.0, "p90_ms": 2.05, "min_speedup": 3.0, "max_slowdown": 1.0}
    bundle = make_bundle(variants, budget, rounds=240)
    values = json.loads((bundle / "measurements/measurement.json").read_text())
    forget_logits(values)
    measurement = Measurement.model_validate(values)
    before = read_unmeasured(make_bundle(variants, budget, measured=False))
    begin = perf_counter()
    found = open_lines(results_with(before, measurement))
    assert perf_counter() - begin < 5  # a second on a quiet machine
    assert {"a max_slowdown", "a min_speedup"} <= set(found)
    assert before.measurement is None
    assert open_lines(before) == ()
    assert open_lines(results_with(before, measurement.model_copy(update={"blocks": (), "rounds": ()}))) == ()
