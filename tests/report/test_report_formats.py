"""What shows a report beside its Markdown tables: the head of report.md, JUnit, JSON Schema, model card, Bencher."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import junitparser
import numpy as np
import pytest
import yaml
from huggingface_hub import EvalResult, ModelCard
from markdown_it import MarkdownIt

from compressor.errors import KdcError
from compressor.report import (
    build_report,
    check,
    finish,
    refresh,
    release_of,
    report_beside,
    report_schema,
    to_bencher,
    to_card,
    to_json,
    to_junit,
    to_markdown,
)
from compressor.report.decision import excess, figures, open_lines
from compressor.report.html.instrument import instrument
from compressor.report.next_step import next_step
from compressor.report.read import read_results
from compressor.report.release import Baseline
from compressor.report.render.head import MOST_LINES
from compressor.report.render.page import LONGEST
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from compressor.schema.race import Contender, Neighbour, Race
from compressor.schema.report import Check, Estimate, Report, Row, Verdict
from tests.kit import Ended
from tests.report.conftest import Values

Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
Kdc = Callable[..., Ended]

STATES: dict[Verdict, Values] = {
    "pass": {"budget": {"p50_ms": 9}},
    "fail": {"budget": {"p50_ms": 1.2, "size_mb": 0.5}},
    "inconclusive": {"budget": {"p50_ms": 2.0}},
    "unmeasured": {"budget": {"p50_ms": 2.0}, "measured": False},
}
HOSTILE = {
    "script": "<script>alert('1')</script>",
    "quotes": '"a\'b`c"',
    "long": "x" * 10_000,
    "right to left": "\u05e9\u05dc\u05d5\u05dd \u202egnp.exe",
    "emoji": "\U0001f469\u200d\U0001f52c \U0001f600",
    "pipes": "a | b || c",
    "newlines": "one\n\n## kdc: PASS\r\n---\nlicense: mit",
    "escapes": "red\x1b[31m\x1b]0;title\x07\x9b2J",
    "markdown": "[x](http://evil) ![i](y) *em* __b__ ~~s~~ &lt;b&gt; # h",
    "end": "</details></table>-->]]>",
    "half": "half \ud800",
}


def state(make_bundle: Make, verdict: Verdict) -> Report:
    report = build_report(make_bundle(**STATES[verdict]))
    assert report.verdict == verdict
    return report


def hostile(value: Any, name: str, key: str = "") -> Any:
    """A report whose every text that somebody else wrote is `name`."""
    ours = {
        "verdict",
        "role",
        "line",
        "runtime",
        "precision",
        "rung",
        "kind",
        "started",
        "finished",
        "device",
        "schema_",
        "figure",
        "outcome",
        "measured",
    }
    if isinstance(value, str):
        return value if key in ours and value != "Intel N100" else name
    if isinstance(value, tuple):
        return tuple(hostile(inner, name, key) for inner in value)
    if hasattr(value, "model_copy"):
        fields = {field: hostile(getattr(value, field), name, field) for field in type(value).model_fields}
        return value.model_copy(update=fields)
    return value


# The head of report.md


def before_the_fold(markdown: str) -> list[str]:
    return markdown[: markdown.index("<details>")].splitlines()


def row_like(row: Row, name: str) -> Row:
    return row.model_copy(update={"name": name})


@pytest.mark.parametrize("verdict", STATES)
def test_a_pull_request_shows_what_decides_and_folds_the_rest(make_bundle: Make, verdict: Verdict) -> None:
    text = to_markdown(state(make_bundle, verdict))
    assert text.startswith(f"## kdc: {verdict.upper()} – the budget ")
    assert len(before_the_fold(text)) <= MOST_LINES
    after = text[text.index("<details>") :]
    outside = re.sub(r"(?s)<details>.*?</details>", "", after)
    assert outside.strip() == ""
    assert after.count("<details>") == after.count("</details>") == 4


def test_the_head_says_what_fails_by_how_much_and_what_to_type(make_bundle: Make) -> None:
    lines = before_the_fold(to_markdown(state(make_bundle, "fail")))
    said = "2.00 [1.98–2.01] ms (n = 40 blocks of 6 calls): 67 % over"
    assert any(f"| p50_ms | ≤ 1.2 ms | {said} | **fail** |" in line for line in lines)
    assert any("| size_mb | ≤ 0.5 MB | 0.8000 MB: 60 % over | **fail** |" in line for line in lines)
    assert lines[-2].startswith("**Next:** `kdc students --profile PROFILE.yaml`")
    passing = before_the_fold(to_markdown(state(make_bundle, "pass")))
    assert not any("| line |" in line or "Next" in line for line in passing), "nothing fails, and nothing is open"


def test_what_ships_stands_beside_budget_and_teacher(make_bundle: Make) -> None:
    report = state(make_bundle, "pass")
    row, teacher = report.rows
    assert row.p50_ms is not None
    assert teacher.p50_ms is not None
    rows = {figure.name: figure for figure in figures(report)}
    assert list(rows) == ["p50", "times as fast as the teacher", "size", "accuracy", "retention"]
    p50 = rows["p50"]
    assert p50.measured.startswith(f"{row.p50_ms.value:.2f} [")
    assert (p50.limit, p50.verdict) == ("≤ 9", "pass")
    assert p50.teacher.startswith(f"{teacher.p50_ms.value:.2f} [")
    assert (rows["accuracy"].limit, rows["accuracy"].verdict) == ("", None)
    assert any(line.startswith("| p50 ms | 2.00 [") for line in before_the_fold(to_markdown(report)))


def test_the_worst_report_stays_within_its_lines_and_a_comment(make_bundle: Make) -> None:
    """Thirty variants, each failing nine lines in its own way, on a disturbed session elsewhere that broke off."""
    report = state(make_bundle, "fail")
    row, session = report.rows[0], report.session
    assert session is not None
    names = [f"variant-{number}" for number in range(30)]
    broken = Check(variant="", line="precision", limit="executed bf16", value="f32", verdict="fail", reason="")
    checks = [
        broken.model_copy(update={"variant": name, "line": line, "reason": f"why {name} {line} " + 300 * "x"})
        for name in names
        for line in ("precision", "parity", "runs", "p50_ms", "p90_ms", "size_mb", "min_accuracy", "min_retention", "x")
    ]
    worst = report.model_copy(
        update={
            "rows": (*(row_like(row, name) for name in names), report.rows[1]),
            "checks": tuple(checks),
            "winner": names[0],
            "why": "because " * 200,
            "matches": False,
            "differences": ("everything " * 100,),
            "session": session.model_copy(update={"disturbed": ("noise " * 100,), "lost": "gone " * 100}),
        }
    )
    text = to_markdown(worst, allow_unmeasured=True)
    lines = before_the_fold(text)
    assert len(lines) <= MOST_LINES
    assert any(re.fullmatch(r"\| \d+ more, below \|.*", line) for line in lines)
    assert max(map(len, lines)) < 1500
    assert "would not fit into a comment" not in to_markdown(report)
    passing = tuple(check.model_copy(update={"verdict": "pass"}) for check in checks)
    fitted = to_markdown(worst.model_copy(update={"checks": passing}))
    assert len(fitted) <= LONGEST < 65_536
    assert "Those that pass, 270, would not fit into a comment" in fitted


def test_the_longest_head_stays_within_its_lines(make_bundle: Make) -> None:
    """Measured elsewhere, disturbed, broken off, beside a baseline, all six figures, and unmeasured lines let through:
    no line is left for a table of what is open."""
    variants = {
        "s": {"wrong": 10},
        "baseline-s": {"role": "baseline", "wrong": 10, "p50": 1.0},
        "teacher": {"role": "teacher", "p50": 6.0},
    }
    budget = {"p50_ms": 0.1, "p90_ms": 0.1, "min_speedup": 3, "min_accuracy": 0.9, "size_mb": 5}
    report = build_report(
        make_bundle(variants, budget, session={"lost": "gone"}, machine={"cpu": "another"}, played={"busy_cpu_s": 0.7})
    )
    assert len(figures(report)) == 6
    lines = before_the_fold(to_markdown(report, allow_unmeasured=True))
    titles = ("To ship", "Not the device", "Absolute figures", "The session broke", "Against the", "Unmeasured lines")
    assert [line[2:].startswith(title) for line, title in zip(lines[2:8], titles, strict=True)] == 6 * [True]
    assert len(lines) <= MOST_LINES
    assert "**inconclusive**: `s` runs; 3 more, below." in lines
    assert lines[-2].startswith("**Next:**")


@pytest.mark.parametrize(
    ("limit", "value", "said"),
    [
        ("≤ 0.1 ms", "0.231 [0.226–0.235] ms (n = 30 blocks)", "2.3 times the limit"),
        ("≤ 2 ms", "2.70 [2.6–2.8] ms", "35 % over"),
        ("≥ 90 %", "86.8 [85.1–88.2] % (n = 10000 test samples)", "3.2 points below"),
        ("≥ 2 times as fast as the teacher", "1.60 [1.54–1.68] × (n = 30 rounds)", "20 % below"),
        ("≤ 0.5 points", "+0.69 points, balanced +0.67", "0.19 points over"),
        ("≤ 1 point, no class lost", "+2.00 [1.5–2.5] points lost (n = 200 test samples)", "1.0 points over"),
        ("executed bf16", "f32", ""),
        ("each class ≥ 50 % of the teacher's recall", "lowest: 8 97.1", ""),
        ("≤ 2 ms", "not measured", ""),
        ("≤ 2 ms", "2.00 [1.99–2.01] ms", ""),
    ],
)
def test_by_how_much_a_line_fails(limit: str, value: str, said: str) -> None:
    assert excess(Check(variant="v", line="l", limit=limit, value=value, verdict="fail", reason="")) == said


def test_lines_that_are_the_same_are_told_once(make_bundle: Make) -> None:
    bundle = make_bundle({"a": {}, "b": {}, "t": {"role": "teacher"}}, {"p50_ms": 2}, measured=False)
    [line] = open_lines(build_report(bundle))
    assert line.variants == ("a", "b")
    assert line.lines[:4] == ("runs", "precision", "parity", "p50_ms")
    assert line.reason == "the bundle holds no measurement of it"


# What to type next


def test_what_to_type_next(make_bundle: Make) -> None:
    def command(**arguments: Any) -> str | None:
        report = build_report(make_bundle(**arguments))
        step = next_step(report, "my bundle")
        return None if step is None else step.command

    assert command(budget={"p50_ms": 9}) is None
    assert command(budget={"p50_ms": 9}, measured=False) == "kdc measure 'my bundle'"
    elsewhere = {"cpu": "EPYC", "cores": 2}
    assert command(budget={"p50_ms": 9}, machine=elsewhere) == "kdc measure 'my bundle' --device ssh://USER@HOST"
    assert command(budget={"p50_ms": 9}, session={"lost": "gone"}) == "kdc measure 'my bundle'"
    assert command(budget={"p50_ms": 2.0}) == "kdc measure 'my bundle' --rounds 80 --seconds 600"
    busy = {"wall_s": 0.2, "own_cpu_s": 0.4, "busy_cpu_s": 0.7}
    assert command(budget={"p50_ms": 1.5}, played=busy) == "kdc measure 'my bundle'"
    assert command(budget={"size_mb": 0.5}) == "kdc students --profile PROFILE.yaml"
    assert command(budget={"min_accuracy": 0.99}) == "kdc distill … --epochs N"
    few = {"ort-fp32": {"wrong": 10}, "teacher": {"role": "teacher", "wrong": 6, "p50": 6.0}}
    assert command(variants=few, budget={"min_accuracy": 0.95}) == "", "more test samples would tell"
    two = {"a": {}, "b": {"precision": "int8", "executed": "fp32"}, "t": {"role": "teacher"}}
    kept = "kdc export RUN --profile PROFILE.yaml --out 'my bundle' --overwrite --target onnxruntime-fp32"
    assert command(variants=two) == kept
    assert command(variants={"b": two["b"], "t": two["t"]}) == "kdc doctor --profile PROFILE.yaml"


def test_what_would_not_help_is_not_advised(make_bundle: Make) -> None:
    def command(budget: Values, **arguments: Any) -> str:
        step = next_step(build_report(make_bundle(budget=budget, **arguments)))
        assert step is not None
        return step.command

    elsewhere: Values = {"cpu": "EPYC", "cores": 2}
    doubtful: Values = {"s": {"wrong": 22}}
    device = "kdc measure BUNDLE --device ssh://USER@HOST"
    assert command({"min_accuracy": 0.9}, variants=doubtful, machine=elsewhere) == "", "accuracy is the same there"
    assert command({"min_accuracy": 0.9, "peak_rss_mb": 99}, variants=doubtful, machine=elsewhere) == device
    assert command({"p90_ms": 9}, machine=elsewhere) == device
    # A ratio of latencies is judged anywhere.
    close: Values = {"s": {}, "t": {"role": "teacher", "p50": 6.0}}
    assert command({"min_speedup": 3.0}, variants=close, machine=elsewhere).endswith("--rounds 80 --seconds 600")
    # No measurement would judge it.
    table = ("labels", np.arange(200) % 3)
    without = "kdc export RUN --profile PROFILE.yaml --out BUNDLE --overwrite --set budget.min_speedup=null"
    assert command({"min_speedup": 2}, variants={"s": {}}, table=table) == without
    assert command({"min_speedup": 2, "p50_ms": 9}, variants={"s": {}}, table=table, machine=elsewhere) == without
    assert command({"max_slowdown": 1.1}) == "kdc measure BUNDLE --baseline EARLIER_BUNDLE"


def test_a_baseline_that_did_not_race_is_to_race(make_bundle: Make, tmp_path: Path) -> None:
    bundle = make_bundle(budget={"max_slowdown": 1.1})
    finish(bundle)
    earlier = Baseline("--baseline old", release_of(bundle), None)
    step = next_step(report_beside(bundle, earlier))
    assert step is not None
    assert step.command == "kdc measure BUNDLE --baseline EARLIER_BUNDLE"
    assert step.why == "the baseline did not race in this session"


def test_a_built_in_profile_is_named_and_another_one_is_a_file(make_bundle: Make) -> None:
    report = state(make_bundle, "fail")
    for name, said in (("x86-avx2", "x86-avx2"), ("mini-pc", "PROFILE.yaml"), ("a b\x1b[2J", "PROFILE.yaml")):
        step = next_step(report.model_copy(update={"profile": name}))
        assert step is not None
        assert step.command == f"kdc students --profile {said}"
    bundle = make_bundle()
    page = instrument(build_report(bundle), read_results(bundle), False)
    assert page["profile"] == "PROFILE.yaml", "of the command that report.html offers"


def test_after_a_race_the_next_student_is_named(make_bundle: Make) -> None:
    p50 = Estimate(value=2.0, low=1.9, high=2.1, n=30, of="blocks")
    smaller = Neighbour(student="timm:small", p50_ms=p50, size_mb=0.4, over=())
    larger = Neighbour(student="timm:large", p50_ms=p50, size_mb=9.0, over=())
    contender = Contender(student="timm:mid", larger=larger, smaller=smaller)
    race = Race(
        contenders=(contender,), why="", share=0.5, planned=1, rounds=(), failed={}, winner="timm:mid", lead=None,
        reason="",
    )  # fmt: skip

    def said(budget: Values, changes: Values) -> str:
        raced = race.model_copy(update={"contenders": (contender.model_copy(update=changes),)})
        step = next_step(build_report(make_bundle(budget=budget)).model_copy(update={"race": raced}))
        assert step is not None
        return step.command

    assert said({"size_mb": 0.5}, {}) == "kdc distill … --student timm:small"
    assert said({"min_accuracy": 0.99}, {}) == "kdc distill … --student timm:large"
    over = larger.model_copy(update={"over": ("p50_ms 3 > 2",)})
    assert said({"min_accuracy": 0.99}, {"larger": over}) == "kdc distill … --epochs N"


# JUnit


@pytest.mark.parametrize("verdict", STATES)
def test_junit_has_a_case_a_line_and_variant(make_bundle: Make, verdict: Verdict) -> None:
    report = state(make_bundle, verdict)
    [suite] = junitparser.JUnitXml.fromstring(to_junit(report).encode())
    cases = {(case.classname, case.name): case for case in suite}
    assert len(cases) == len(report.checks) == suite.tests
    for line in report.checks:
        case = cases[line.variant, line.line]
        kinds = {"pass": [], "fail": [junitparser.Failure]}.get(line.verdict, [junitparser.Skipped])
        assert [type(result) for result in case.result] == kinds
        if case.result:
            assert f"{line.verdict}: {line.value}, limit: {line.limit}. {line.reason}" == case.result[0].message
    assert suite.failures == sum(line.verdict == "fail" for line in report.checks)
    assert suite.skipped == sum(line.verdict in ("inconclusive", "unmeasured") for line in report.checks)
    told = {item.name: item.value for item in suite.properties()}
    assert told["verdict"] == verdict
    assert told["ships"] == (report.winner or "nothing")


# JSON


def strictly(part: Any) -> Any:
    """The schema, that admits no keys which it does not know."""
    if isinstance(part, dict):
        closed = {"additionalProperties": False} if part.get("type") == "object" and "properties" in part else {}
        return {key: strictly(value) for key, value in part.items()} | closed
    return [strictly(inner) for inner in part] if isinstance(part, list) else part


@pytest.mark.parametrize("verdict", STATES)
def test_report_json_of_each_state_validates(make_bundle: Make, verdict: Verdict) -> None:
    schema = json.loads(report_schema())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    values = json.loads(to_json(state(make_bundle, verdict)))
    validator.validate(values)
    jsonschema.validate(values, strictly(schema))
    validator.validate({**values, "added_in_a_later_kdc": 1})
    for wrong in ({**values, "verdict": "maybe"}, {**values, "schema": 3}, {**values, "test_n": "many"}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(wrong)
    added_later = {name for name, field in Report.model_fields.items() if not field.is_required()} - {"schema_"}
    required = set(values) - added_later
    described = schema["$defs"]["Report"]
    assert set(described["required"]) == required, "what was added later may be missing in a report of before"
    for key in required:
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({name: value for name, value in values.items() if name != key})


def test_the_schema_has_a_version_and_needs_no_bundle(kdc: Kdc) -> None:
    ended = kdc("report", "--schema")
    assert ended.code == 0
    assert ended.out == report_schema()
    schema = json.loads(ended.out)
    version = schema["$defs"]["Report"]["properties"]["schema"]["const"]
    assert schema["$id"] == f"urn:kdc:report:{version}"


# Model card


def card_of(bundle_dir: Path) -> tuple[Report, ModelCard]:
    report = build_report(bundle_dir)
    return report, ModelCard(to_card(report, read_json(bundle_dir / "bundle.json", Bundle)))


def test_the_hub_reads_the_card_with_intervals_device_and_licences(make_bundle: Make) -> None:
    report, card = card_of(make_bundle(budget={"p50_ms": 9}))
    row = report.rows[0]
    results: dict[str, EvalResult] = {result.metric_type: result for result in card.data.eval_results or ()}
    assert list(results) == ["accuracy", "balanced_accuracy", "retention", "latency"]
    for kind, figure in (("accuracy", row.accuracy), ("retention", row.retention), ("latency", row.p50_ms)):
        assert figure is not None
        result = results[kind]
        assert result.metric_value == figure.value
        assert result.metric_args is not None
        interval = {"confidence": 0.95, "low": figure.low, "high": figure.high, "n": figure.n, "of": figure.of}
        assert interval.items() <= result.metric_args.items()
        assert (result.task_type, result.dataset_name, result.dataset_split) == (
            "image-classification", "folder:flowers", "test",
        )  # fmt: skip
    assert results["latency"].metric_args is not None
    assert results["latency"].metric_args["device"] == "Intel(R) Processor N100"
    assert results["latency"].metric_args["runtime"] == "onnxruntime 1.22.0"
    values = card.data.to_dict()
    assert (values["license"], values["teacher"]) == ("mit", {"source": "timm:big", "license": "mit"})
    assert (values["pipeline_tag"], values["library_name"]) == ("image-classification", "onnx")
    assert "the budget holds on `mini-pc` (**pass**)" in card.content
    assert "- Teacher: `timm:big`, licence: mit" in card.content


def test_a_licence_that_the_hub_does_not_know_is_named(make_bundle: Make, edit_json: Edit) -> None:
    bundle = make_bundle()
    edit_json(bundle / "bundle.json", lambda found: found["student"]["weights"].update(licence="none (from scratch)"))
    values = card_of(bundle)[1].data.to_dict()
    assert (values["license"], values["license_name"]) == ("other", "none (from scratch)")


def test_a_card_claims_nothing_of_what_was_not_measured(make_bundle: Make) -> None:
    report, card = card_of(make_bundle(**STATES["unmeasured"]))
    assert report.winner is None
    assert not card.data.eval_results
    assert "Nothing ships" in card.content
    assert "(**unmeasured**)" in card.content


# Bencher


def test_bencher_gets_its_own_units_and_our_intervals(make_bundle: Make) -> None:
    report = build_report(make_bundle())
    values = json.loads(to_bencher(report))
    row, teacher = report.rows
    assert list(values) == [row.name, f"{teacher.name} (teacher)"]
    assert row.p50_ms is not None
    assert row.accuracy is not None
    assert row.throughput is not None
    found = values[row.name]
    p50 = {"value": row.p50_ms.value, "lower_value": row.p50_ms.low, "upper_value": row.p50_ms.high}
    assert found["latency"] == pytest.approx({key: 1e6 * value for key, value in p50.items()}), "in ns"
    assert found["file-size"] == {"value": row.size_bytes}
    assert found["accuracy"]["value"] == row.accuracy.value
    assert found["throughput"]["value"] == row.throughput.images_per_s.median
    assert found["peak-memory"] == {"value": 61_250_000}
    assert "retention" not in values[f"{teacher.name} (teacher)"]
    assert all(
        set(metric) <= {"value", "lower_value", "upper_value"} for row in values.values() for metric in row.values()
    )
    nothing = json.loads(to_bencher(build_report(make_bundle(measured=False))))
    assert set(nothing["ort-fp32"]) == {"file-size"}


# In the bundle


@pytest.mark.parametrize("name", ["junit.xml", "README.md", "report.md", "report.json"])
def test_what_shows_the_report_is_sealed_checked_and_made_anew(make_bundle: Make, name: str) -> None:
    bundle = make_bundle(budget={"p50_ms": 9})
    finish(bundle)
    assert f"  {name}\n" in (bundle / "SHA256SUMS").read_text()
    check(bundle)
    whole = (bundle / name).read_bytes()
    (bundle / name).write_bytes(whole + b" ")
    with pytest.raises(KdcError, match=f"{name} was changed after it was made"):
        check(bundle)
    refresh(bundle)
    assert (bundle / name).read_bytes() == whole
    (bundle / name).unlink()
    with pytest.raises(KdcError, match=f"{name} is missing"):
        check(bundle)
    refresh(bundle)
    assert (bundle / name).read_bytes() == whole
    check(bundle)


def test_a_bundle_of_an_earlier_kdc_gets_them(make_bundle: Make) -> None:
    """It had no card and no junit.xml: that is no damage."""
    from compressor.report import seal

    bundle = make_bundle()
    finish(bundle)
    for name in ("README.md", "junit.xml"):
        (bundle / name).unlink()
    seal(bundle)
    check(bundle)
    refresh(bundle)
    assert (bundle / "README.md").is_file()
    check(bundle)


def test_a_readme_of_somebody_elses_is_not_replaced(make_bundle: Make) -> None:
    from compressor.report import seal

    bundle = make_bundle()
    finish(bundle)
    (bundle / "README.md").unlink()
    seal(bundle)
    (bundle / "README.md").write_text("my notes")
    with pytest.raises(KdcError, match=r"README\.md is no file of the bundle, and README\.md is made anew"):
        refresh(bundle)
    assert (bundle / "README.md").read_text() == "my notes"


# Names that are not ours


def parsed(markdown: str) -> list[Any]:
    """Every token that GitHub would see."""
    tokens = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"]).parse(markdown)
    return [inner for token in tokens for inner in (token, *(token.children or ()))]


def acts(markdown: str) -> list[str]:
    """What in it is neither text nor ours."""
    ours = re.compile(r"<details><summary>[^<>&]*</summary>\n?|</details>\n?|<!--.*-->")
    tokens = parsed(markdown)
    html = [token.content for token in tokens if token.type.startswith("html")]
    found = [content for content in html if not ours.fullmatch(content.strip())]
    kinds = ("link_open", "image", "em_open", "s_open", "fence", "code_block", "hr", "blockquote_open")
    return found + [token.type for token in tokens if token.type in kinds]


@pytest.mark.parametrize("name", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("verdict", ["pass", "fail"])
def test_hostile_names_are_text_everywhere(make_bundle: Make, name: str, verdict: Verdict) -> None:
    bundle_dir = make_bundle(**STATES[verdict], notes=("a note",))
    report = hostile(build_report(bundle_dir), name)
    markdown = to_markdown(report)
    assert acts(markdown) == []
    assert len(before_the_fold(markdown)) <= MOST_LINES
    assert [token.content for token in parsed(markdown) if token.type == "heading_open" and token.tag == "h1"] == []
    tables = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    for table in tables:
        assert len({len(re.split(r"(?<!\\)\|", row)) for row in table.splitlines()}) == 1
    shown = "".join(
        token.content for token in parsed(markdown) if token.type in ("text", "code_inline", "text_special")
    )
    if name == HOSTILE["script"]:
        assert "<script>alert" in shown
    [suite] = junitparser.JUnitXml.fromstring(to_junit(report).encode())
    assert suite.tests == len(report.checks)
    nothing_acts(to_junit(report), markdown, to_bencher(report))
    bundle = read_json(bundle_dir / "bundle.json", Bundle)
    weights = bundle.student.weights.model_copy(update={"licence": name})
    card = to_card(
        report, bundle.model_copy(update={"student": bundle.student.model_copy(update={"weights": weights})})
    )
    nothing_acts(card)
    head, _, body = card.removeprefix("---\n").partition("\n---\n")
    metadata = yaml.safe_load(head)
    assert metadata["license"] == "other"
    assert len(metadata["license_name"]) <= 200
    assert acts(body) == []
    assert ModelCard(card).data.to_dict()["license"] == "other"


def nothing_acts(*texts: str) -> None:
    for text in texts:
        assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text)
        text.encode()


def test_nobody_is_called_by_a_class_name(make_bundle: Make) -> None:
    text = to_markdown(hostile(build_report(make_bundle(notes=("x",))), "@octocat"))
    outside_code = re.sub(r"`[^`]*`", "", text)
    assert "@\u2060octocat" in outside_code
    assert "@octocat" not in outside_code
