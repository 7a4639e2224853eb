"""What the page decides when a limit is moved is what `kdc check` decides of a bundle with that budget."""

import json
import random
import shutil
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compressor
from compressor.report import build_report, exit_code_for, finish
from compressor.report.build import report_of
from compressor.report.html.instrument import LINES, instrument, raw_blocks
from compressor.report.latency import figure_at
from compressor.report.read import read_results
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from tests.report.conftest import N, logits_for

pytestmark = pytest.mark.slow
Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "compressor" / "report" / "html" / "judge.js"
DRAGS = 50


def in_node(code: str, given: object) -> Any:
    """What `code`, an expression of `given`, is with judge.js before it."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node, which runs the page's script without a browser")
    program = (
        f"{SCRIPT.read_text(encoding='utf-8')}\n"
        "const given = JSON.parse(require('fs').readFileSync(0, 'utf8'));\n"
        f"process.stdout.write(JSON.stringify({code}));"
    )
    done = subprocess.run([node, "-e", program], input=json.dumps(given), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def weak_class(labels: np.ndarray[Any, Any], wrong: int) -> np.ndarray[Any, Any]:
    """Logits that miss `wrong` samples of the last class."""
    logits = logits_for(labels, 3, 0)
    of_class = np.flatnonzero(labels == 2)[:wrong]
    logits[of_class, 0] = 9
    return logits


VARIANTS: dict[str, dict[str, Any]] = {
    "ort-fp32": {"wrong": 10, "p50": 2.0},
    "ort-int8": {"precision": "int8", "executed": "int8", "wrong": 14, "p50": 1.1, "repeat": 40_000, "rss": 55.0},
    "openvino-f32": {"runtime": "openvino", "precision": "f32", "executed": "f32", "p50": 1.9, "wrong": 12},
    "openvino-f16": {"runtime": "openvino", "precision": "f16", "executed": "f32", "p50": 1.2, "wrong": 10},
    "broken": {"runtime": "openvino", "precision": "bf16", "executed": "bf16", "error": "it does not load"},
    "teacher": {"role": "teacher", "wrong": 6, "p50": 6.0},
    "baseline-ort-fp32": {"role": "baseline", "wrong": 14, "p50": 1.9},
}


def sound() -> dict[str, dict[str, Any]]:
    return {name: changes for name, changes in VARIANTS.items() if name != "broken"}


def alone() -> dict[str, dict[str, Any]]:
    return {name: VARIANTS[name] for name in ("ort-fp32", "ort-int8")}


def rare() -> dict[str, dict[str, Any]]:
    labels = np.arange(N) % 3
    weak = weak_class(labels, 30)
    return {**sound(), "ort-int8": {**VARIANTS["ort-int8"], "logits": weak, "reference": weak}}


def unknown() -> dict[str, dict[str, Any]]:
    weak = weak_class(np.arange(N) % 3, N)
    return {**rare(), "teacher": {"role": "teacher", "p50": 6.0, "logits": weak, "reference": weak}}


def forgotten() -> dict[str, dict[str, Any]]:
    weak = weak_class(np.arange(N) % 3, 50)
    return {**sound(), "ort-fp32": {"p50": 2.0, "logits": weak, "reference": weak}}


STATES: dict[str, dict[str, Any]] = {
    "sound": {"variants": sound()},
    "broken": {"variants": VARIANTS},
    "a weak class": {"variants": rare()},
    "a teacher that is a table": {"variants": alone(), "table": ("logits", logits_for(np.arange(N) % 3, 3, 6))},
    "a class that the teacher does not know": {"variants": unknown()},
    "a class lost against the baseline": {"variants": forgotten()},
    "no teacher": {"variants": alone()},
    "disturbed": {"variants": sound(), "played": {"busy_cpu_s": 0.7}},
    "disturbed, and perhaps faster": {"variants": sound(), "after": {"governor": "powersave"}},
    "elsewhere": {"variants": sound(), "machine": {"cpu": "another"}},
    "broke off": {"variants": sound(), "session": {"lost": "the connection was lost"}},
    "unmeasured": {"variants": sound(), "measured": False},
    "few rounds": {"variants": sound(), "rounds": 12},
    "without A/A": {"variants": sound(), "aa": None},
    "wide": {"variants": sound(), "spread": 0.3},
}


def limits(rng: random.Random) -> dict[str, float | None]:
    """Some lines, each at a limit near what is measured."""
    near = {
        "size_mb": (0.2, 1.2), "p50_ms": (0.9, 2.4), "p90_ms": (1.0, 3.0), "min_speedup": (2, 6),
        "max_slowdown": (0.9, 1.2), "peak_rss_mb": (50, 70), "model_rss_mb": (10, 25), "min_accuracy": (0.85, 1.0),
        "min_retention": (0.9, 1.05), "min_balanced_retention": (0.85, 1.05), "min_class_retention": (0.3, 1.0),
        "min_class_recall": (0.3, 1.0), "min_balanced_accuracy": (0.85, 1.0), "max_growth": (0.3, 1.2),
        "max_accuracy_loss": (0.0, 0.05), "max_negative_flips": (0.001, 0.05),
    }  # fmt: skip
    named = rng.sample(sorted(near), rng.randint(0, 5))
    optional = ("min_balanced_retention", "min_class_retention", "min_class_recall", "max_accuracy_loss")
    off = {name: None for name in optional if rng.random() < 0.2}
    return {**off, **{name: rng.uniform(*near[name]) for name in named}}


def give(bundle: dict[str, Any], budget: dict[str, float | None]) -> None:
    bundle["profile"]["budget"] = budget


@pytest.mark.parametrize("state", STATES)
def test_fifty_drags(state: str, make_bundle: Make, edit_json: Edit) -> None:
    rng = random.Random(state)
    bundle = make_bundle(budget={"p50_ms": 1.5}, **STATES[state])
    results = read_results(bundle)
    data = instrument(report_of(results), results, allow_unmeasured=False)
    drags = [limits(rng) for _ in range(DRAGS)]
    decided = in_node("given.drags.map((budget) => judgeAll(given.data, budget))", {"data": data, "drags": drags})
    outcomes = set()
    for budget, page in zip(drags, decided, strict=True):
        edit_json(bundle / "bundle.json", partial(give, budget=budget))
        report = build_report(bundle)
        names = [row.name for row in report.rows if row.role == "student"]
        for number, name in enumerate(names):
            told = {check.line: check.verdict for check in report.checks if check.variant == name}
            assert {line["line"]: line["verdict"] for line in page["checks"][number]} == told, (name, budget)
        assert page["verdict"] == report.verdict, budget
        assert [names[number] for number in page["holds"]] == list(report.holds), budget
        assert (None if page["winner"] is None else names[page["winner"]]) == report.winner, budget
        assert page["why"] == report.why, budget
        assert page["exit_code"] == exit_code_for(report), budget
        outcomes.add(report.verdict)
    assert len(outcomes) > 1 or state in ("broken", "broke off", "unmeasured"), "the drags decide nothing"


def test_as_it_is(make_bundle: Make) -> None:
    """With the profile's own budget the page says what the report says; unmeasured lines may be let through."""
    budget = {"p50_ms": 1.5, "min_retention": 0.9, "min_class_retention": None}
    results = read_results(make_bundle(sound(), budget, machine={"cpu": "another"}))
    report = report_of(results)
    assert read_json(results_dir(results), Bundle).profile.budget.p50_ms == 1.5
    for allowed in (False, True):
        data = instrument(report, results, allow_unmeasured=allowed)
        assert data["budget"] == budget
        page = in_node("judgeAll(given, given.budget)", data)
        assert (page["verdict"], page["exit_code"]) == (report.verdict, exit_code_for(report, allowed))
    assert exit_code_for(report) != exit_code_for(report, True)


def results_dir(results: Any) -> Path:
    first = next(iter(results.references.values()))
    return Path(first.path).parent.parent / "bundle.json"


def test_intervals_from_the_raw_samples(make_bundle: Make) -> None:
    results = read_results(make_bundle(sound(), spread=0.2))
    report = report_of(results)
    raw = raw_blocks(report, results)
    assert raw["kept"] == raw["of"] == 40 * 6 * len(report.rows)
    code = "given.variants.map(({blocks}) => [0.5, 0.9].map((q) => percentile(blocks, q, given.confidence)))"
    for variant, found in zip(raw["variants"], in_node(code, raw), strict=True):
        row = report.rows[variant["row"]]
        for figure, told in zip(("p50_ms", "p90_ms"), found, strict=True):
            expected = figure_at(figure, results, row.name, raw["confidence"])  # type: ignore[arg-type]
            assert expected is not None
            assert told == pytest.approx(vars(expected), rel=1e-9)


def test_too_few_samples_have_no_percentile() -> None:
    assert in_node("percentile(given, 0.5, 0.95)", [[1.0, 2.0]] * 9) is None
    assert in_node("percentile(given, 0.9, 0.95)", [[1.0]] * 40) is None


def test_softening() -> None:
    from compressor.stats import log_softmax

    logits = [9.0, 3.5, -2.0, 0.0]
    for temperature in (1.0, 4.0, 20.0):
        found = in_node(f"softened(given, {temperature})", logits)
        logs = log_softmax(np.array(logits), temperature)
        assert found["shares"] == pytest.approx(np.exp(logs).tolist(), rel=1e-12)
        assert found["entropy"] == pytest.approx(-float((np.exp(logs) * logs).sum()), rel=1e-12)


def test_no_share_can_be_moved_beyond_what_the_schema_permits() -> None:
    from pydantic import ValidationError

    from compressor.schema.profile import Budget

    kept = [line for line in LINES if line.unit == "%" and not line.at_most]
    found = in_node("given.map((line) => highestShare(line, [0.9, 3]))", [vars(line) for line in kept])
    assert len(kept) == 6
    for line, most in zip(kept, found, strict=True):
        assert getattr(Budget.model_validate({line.name: most}), line.name) == most
        with pytest.raises(ValidationError):
            Budget.model_validate({line.name: most + 0.01})


def test_a_lost_class_is_named_where_the_page_holds_no_names(make_bundle: Make) -> None:
    results = read_results(make_bundle(alone(), {"min_class_recall": 0.9}))
    data = instrument(report_of(results), results, allow_unmeasured=False)
    data["students"][0]["right"][2] = 0
    for names, word in ((data["class_names"], "class 2"), ([], "class 2"), (["a", "b", "c"], "c")):
        checks = in_node("judgeAll(given, given.budget).checks[0]", {**data, "class_names": names})
        [reason] = [check["reason"] for check in checks if check["line"] == "min_class_recall"]
        assert reason == f"lost: {word}"


def test_every_line_of_the_budget_can_be_moved() -> None:
    from compressor.report.language.figures import SPEED
    from compressor.schema.profile import Budget

    assert {line.name for line in LINES} == set(Budget.model_fields) - set(SPEED), "those are of language models"


def test_held_against_another_baseline_the_page_says_what_check_says(make_bundle: Make, tmp_path: Path) -> None:
    """`kdc report B --baseline A --format html`: what ships is settled, and its loss fails."""
    variants: dict[str, Any] = {
        "s": {"p50": 1.1, "wrong": 60},
        "q": {"p50": 2.0, "precision": "int8", "executed": "int8"},
    }
    old = make_bundle(variants={name: {**made, "wrong": 0} for name, made in variants.items()})
    finish(old)
    released = tmp_path / "old.json"
    released.write_text(compressor.report(old, format="release").text, encoding="utf-8")
    bundle = make_bundle(variants=variants)
    finish(bundle)
    checked = compressor.check(bundle, baseline=released)
    assert (checked.exit_code, checked.report.winner) == (1, "s")
    done = compressor.report(bundle, baseline=released, format="html")
    assert isinstance(done, compressor.ReportResult)
    assert done.beside is not None
    given = instrument(done.report, done.beside, False)
    judged = in_node("judgeAll(given, given.budget)", given)
    assert (judged["exit_code"], judged["verdict"]) == (1, "fail")
    assert given["students"][judged["winner"]]["name"] == "s"
    assert judged["why"] == checked.report.why
    assert "max_accuracy_loss" in {check["line"] for check in judged["checks"][0] if check["verdict"] == "fail"}
    embedded = done.text[done.text.index('"judge":') :]
    assert '"chosen":{"winner":' in embedded
    assert '"chosen":null' in compressor.report(bundle, format="html").text
