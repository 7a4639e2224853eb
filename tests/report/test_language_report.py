"""Reports on language models: figures against sums by hand, lines, the choice, what is told."""

import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from huggingface_hub import ModelCard

from compressor import KdcError
from compressor.report import exit_code_for, report_schema
from compressor.report import finish as finish_classifier
from compressor.report.language import check, finish, report_of, to_json, to_junit, to_markdown, to_text
from compressor.report.language.read import read_results
from compressor.schema.language.report import LanguageReport, LanguageRow
from compressor.schema.report import Check
from compressor.stats.language import Costs, bits_ratio, document_costs
from tests.kit import call
from tests.report.language_kit import NATS, SIZES, write_bundle

FP32, INT8 = "onnxruntime-genai-fp32", "onnxruntime-genai-int8"
TWO: dict[str, dict[str, Any]] = {FP32: {}, INT8: {"rate": 250.0, "worse": 0.001, "repeat": 3_000}}


def report(folder: Path, budget: dict[str, Any] | None = None, **changes: Any) -> LanguageReport:
    variants = changes.pop("variants", TWO)
    return report_of(read_results(write_bundle(folder, budget or {}, variants, **changes)))


def row(told: LanguageReport, name: str) -> LanguageRow:
    return next(each for each in told.rows if each.name == name)


def line(told: LanguageReport, name: str, wanted: str) -> Check:
    [found] = [each for each in told.checks if each.variant == name and each.line == wanted]
    return found


def bits(split: str, worse: float = 0.0) -> float:
    return sum(4 * (nats + worse) for nats in NATS[split]) / math.log(2) / sum(SIZES[split])


def test_what_the_text_costs_is_summed_by_document(tmp_path: Path) -> None:
    told = report(tmp_path)
    fp32, int8 = row(told, FP32), row(told, INT8)
    assert fp32.test is not None
    assert fp32.test.bits_per_byte == pytest.approx(bits("test"), rel=1e-6)
    assert (fp32.test.n, fp32.test.tokens, fp32.test.bytes) == (5, 20, 60)
    assert fp32.test.perplexity == pytest.approx(math.exp(12 / 5), rel=1e-6)
    assert told.student_torch.bits_per_byte == pytest.approx(bits("test"), rel=1e-6)
    assert int8.validation is not None
    assert int8.validation.bits_per_byte == pytest.approx(bits("validation", 0.001), rel=1e-6)
    assert int8.loss_share == pytest.approx(3 * 0.001 / 4.5, rel=1e-3)
    assert int8.validation_loss is not None
    assert int8.validation_loss.value == pytest.approx(0.001 * 12 / math.log(2) / 36, rel=1e-3)
    assert int8.parity_max == pytest.approx(0.001, rel=1e-3)
    assert int8.parity_mean == pytest.approx(0.001, rel=1e-3)


def test_retention_is_the_teachers_bits_over_its_own(tmp_path: Path) -> None:
    told = report(tmp_path)
    for name, worse in ((FP32, 0.0), (INT8, 0.001)):
        kept = row(told, name).retention
        assert kept is not None
        assert kept.value == pytest.approx(0.9 * 12 / (12 + 5 * worse), rel=1e-6)
        assert (kept.n, kept.of) == (5, "documents")
    assert told.teacher_difference is not None
    assert told.teacher_difference.value == pytest.approx(0.1 * bits("test"), rel=1e-6)
    alone = report(tmp_path / "alone", {"min_retention": 0.5}, teacher=False)
    assert row(alone, FP32).retention is None
    assert line(alone, FP32, "min_retention").verdict == "unmeasured"
    assert any("teacher could not be run" in note for note in alone.notes)


def test_speed_is_told_of_the_prompt_and_of_the_answer_apart(tmp_path: Path) -> None:
    told = report(tmp_path)
    int8 = row(told, INT8)
    assert int8.tokens_per_s is not None
    assert int8.prompt_tokens_per_s is not None
    assert int8.tokens_per_s.value == pytest.approx(250, rel=0.01)
    assert int8.prompt_tokens_per_s.value == pytest.approx(2500, rel=0.01)
    assert int8.tokens_per_s.low < 250 < int8.tokens_per_s.high
    assert (int8.tokens_per_s.n, int8.answers) == (30, 30)
    assert int8.fp32_ratio is not None
    assert int8.fp32_ratio.value == pytest.approx(2.5, rel=1e-6)
    assert row(told, FP32).fp32_ratio is None
    assert told.session is not None
    assert told.session.aa is not None
    assert told.session.aa.value == pytest.approx(1.0)
    assert int8.load_ms is not None
    assert int8.load_ms.median == 200


LINES: dict[str, tuple[dict[str, Any], dict[str, Any], str, str]] = {
    "fast": ({"min_tokens_per_s": 90}, {}, "min_tokens_per_s", "pass"),
    "slow": ({"min_tokens_per_s": 120}, {}, "min_tokens_per_s", "fail"),
    "near": ({"min_tokens_per_s": 100}, {}, "min_tokens_per_s", "inconclusive"),
    "reads": ({"min_prompt_tokens_per_s": 900}, {}, "min_prompt_tokens_per_s", "pass"),
    "reads slowly": ({"min_prompt_tokens_per_s": 1100}, {}, "min_prompt_tokens_per_s", "fail"),
    "few answers": ({"min_tokens_per_s": 90}, {"rounds": 5}, "min_tokens_per_s", "unmeasured"),
    "small": ({"size_mb": 0.3}, {}, "size_mb", "pass"),
    "large": ({"size_mb": 0.2}, {}, "size_mb", "fail"),
    "memory": ({"peak_rss_mb": 99}, {}, "peak_rss_mb", "fail"),
    "memory of the model": ({"model_rss_mb": 60}, {}, "model_rss_mb", "pass"),
    "keeps": ({"min_retention": 0.89}, {}, "min_retention", "pass"),
    "loses": ({"min_retention": 0.91}, {}, "min_retention", "fail"),
    "parity": ({}, {}, "parity", "pass"),
    "no parity": ({}, {"worse": 0.02}, "parity", "fail"),
    "no parity in the mean": ({}, {"worse": 0.005}, "parity", "fail"),
    "not finite": ({}, {"nan": True}, "parity", "fail"),
    "other precision": ({}, {"executed": "int8"}, "precision", "fail"),
    "broken": ({}, {"error": "out of memory"}, "runs", "fail"),
}


@pytest.mark.parametrize(("budget", "changes", "wanted", "verdict"), LINES.values(), ids=LINES.keys())
def test_each_line(tmp_path: Path, budget: dict[str, Any], changes: dict[str, Any], wanted: str, verdict: str) -> None:
    told = report(tmp_path, budget, variants={FP32: changes})
    assert line(told, FP32, wanted).verdict == verdict
    expected = {"fail": "fail", "inconclusive": "inconclusive", "unmeasured": "unmeasured", "pass": "pass"}[verdict]
    assert told.verdict == expected
    assert exit_code_for(told) == {"pass": 0, "fail": 1, "inconclusive": 3, "unmeasured": 3}[verdict]


def test_weights_that_lose_more_than_may_be_lost_on_validation_do_not_ship(tmp_path: Path) -> None:
    kept = report(tmp_path / "kept")
    assert kept.winner == INT8
    assert line(kept, INT8, "max_drop").verdict == "pass"
    lost = report(tmp_path / "lost", variants={FP32: {}, INT8: {"rate": 250.0, "worse": 0.1}})
    assert line(lost, INT8, "max_drop").verdict == "fail"
    assert (lost.winner, lost.verdict) == (FP32, "pass")
    assert "fails max_drop" in lost.why
    wider = report(tmp_path / "wider", variants={FP32: {}, INT8: {"rate": 250.0, "worse": 0.1}}, max_drop=0.1)
    assert wider.winner == INT8


def test_nothing_on_test_chooses(tmp_path: Path) -> None:
    """The faster one ships though it is worse on test, and then fails there."""
    worse = {FP32: {}, INT8: {"rate": 250.0, "worse": 0.001, "test_worse": 2.0}}
    told = report(tmp_path, {"min_retention": 0.8}, variants=worse)
    assert told.winner == INT8
    assert line(told, FP32, "min_retention").verdict == "pass"
    assert line(told, INT8, "min_retention").verdict == "fail"
    assert (told.verdict, exit_code_for(told)) == ("fail", 1)


def test_what_the_budget_rules_out_does_not_ship(tmp_path: Path) -> None:
    told = report(tmp_path, {"min_tokens_per_s": 150})
    assert told.winner == INT8
    slow = report(tmp_path / "slow", {"size_mb": 0.1}, variants={FP32: {}, INT8: {"rate": 50.0, "repeat": 3_000}})
    assert slow.winner == INT8
    none = report(tmp_path / "none", {"size_mb": 0.01})
    assert (none.winner, none.verdict) == (None, "fail")


def test_lines_that_are_not_for_language_models_are_named_and_not_judged(tmp_path: Path) -> None:
    told = report(tmp_path, {"p50_ms": 1, "min_accuracy": 0.99, "min_class_recall": 0.9, "size_mb": 1})
    assert told.not_judged == ("min_accuracy", "min_class_recall", "p50_ms")
    assert {each.line for each in told.checks} == {"runs", "precision", "parity", "max_drop", "size_mb"}
    assert told.verdict == "pass"
    for text in (to_markdown(told), to_text(told, "bundle")):
        assert "p50_ms" in text


def test_elsewhere_speed_and_memory_are_not_judged(tmp_path: Path) -> None:
    told = report(tmp_path, {"min_tokens_per_s": 1, "peak_rss_mb": 1000, "size_mb": 1}, threads=4)
    assert told.differences == ("threads are 2, the profile's 4",)
    assert line(told, FP32, "min_tokens_per_s").verdict == "unmeasured"
    assert line(told, FP32, "peak_rss_mb").verdict == "unmeasured"
    assert line(told, FP32, "size_mb").verdict == "pass"
    assert exit_code_for(told) == 3
    assert exit_code_for(told, allow_unmeasured=True) == 0


def test_a_licence_that_the_profile_forbids_fails_the_gate(tmp_path: Path) -> None:
    told = report(tmp_path, licence={"forbid": ["MIT"]})
    assert line(told, FP32, "licence").verdict == "fail"
    assert (told.winner, exit_code_for(told)) == (None, 1)
    fine = report(tmp_path / "fine", licence={"require": ["MIT"]})
    assert line(fine, FP32, "licence").verdict == "pass"


def test_what_was_not_measured_is_no_pass(tmp_path: Path) -> None:
    told = report(tmp_path, {"size_mb": 1}, measured=False)
    assert (told.verdict, told.winner, exit_code_for(told)) == ("unmeasured", None, 3)
    assert told.student_torch.n == 5
    assert "not measured" in to_markdown(told)


def test_the_head_of_the_page_is_short_and_the_terminals_lines_too(tmp_path: Path) -> None:
    budget = {"p50_ms": 1, "min_tokens_per_s": 500, "min_retention": 0.99, "size_mb": 0.01, "peak_rss_mb": 1}
    fits = {name: limit for name, limit in budget.items() if name != "size_mb"}
    worst = report(tmp_path / "c", fits, threads=4, variants={FP32: {"peak": None}, INT8: {"rate": 250.0}})
    assert worst.differences
    assert worst.winner == INT8
    assert len([check for check in worst.checks if check.verdict != "pass"]) > 4
    for number, told in enumerate([report(tmp_path / "a"), report(tmp_path / "b", budget), worst]):
        number = min(number, 1)
        for allow in (False, True):
            head = to_markdown(told, allow).split("<details>")[0].rstrip()
            assert head.count("\n") + 1 <= 25
        assert head.startswith(("## kdc: PASS", "## kdc: FAIL")[number])
        text = to_text(told, "bundle")
        assert max(map(len, text.splitlines())) <= 80
        assert "Retention" in text or told.winner is None


def test_the_formats_say_the_same(tmp_path: Path) -> None:
    told = report(tmp_path, {"min_tokens_per_s": 120})
    assert LanguageReport.model_validate_json(to_json(told)) == told
    junit = to_junit(told)
    assert 'failures="1"' in junit
    assert f'classname="{FP32}" name="min_tokens_per_s"' in junit


@pytest.mark.parametrize("changes", [{}, {"measured": False}, {"teacher": False}], ids=["measured", "not", "alone"])
def test_report_json_validates_by_the_published_schema(tmp_path: Path, changes: dict[str, Any]) -> None:
    values = json.loads(to_json(report(tmp_path, {"min_tokens_per_s": 120}, **changes)))
    validator = jsonschema.Draft202012Validator(json.loads(report_schema()))
    validator.validate(values)
    validator.validate({**values, "added_in_a_later_kdc": 1})
    for wrong in ({**values, "verdict": "maybe"}, {**values, "schema": 2}, {**values, "parameters": "many"}):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate(wrong)
    for key in ("schema", "task", "rows", "student_torch"):
        with pytest.raises(jsonschema.ValidationError):
            validator.validate({name: value for name, value in values.items() if name != key})


def test_the_hub_reads_the_card(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", {"min_tokens_per_s": 120}, TWO)
    told = finish(folder)
    card = ModelCard((folder / "README.md").read_text(encoding="utf-8"))
    values = card.data.to_dict()
    assert (values["license"], values["pipeline_tag"], values["library_name"]) == ("mit", "text-generation", "onnx")
    assert values["teacher"] == {"source": "timm:big", "license": "mit"}
    assert values["tags"][-2:] == ["onnxruntime-genai", "int8"]
    row_shipped = row(told, INT8)
    results = {result.metric_type: result for result in card.data.eval_results or ()}
    assert list(results) == ["bits_per_byte", "perplexity", "retention", "tokens_per_second"]
    score = row_shipped.test
    assert score is not None
    wanted = {
        "bits_per_byte": (score.bits_per_byte, score.low, score.high, 5),
        "perplexity": (score.perplexity, score.perplexity_low, score.perplexity_high, 5),
    }
    for kind, figure in (("retention", row_shipped.retention), ("tokens_per_second", row_shipped.tokens_per_s)):
        assert figure is not None
        wanted[kind] = (figure.value, figure.low, figure.high, figure.n)
    for kind, (value, low, high, n) in wanted.items():
        arguments = results[kind].metric_args
        assert arguments is not None
        assert results[kind].metric_value == value
        assert (arguments["low"], arguments["high"], arguments["n"]) == (low, high, n)
        assert arguments["device"] == "Intel(R) Processor N100"
    assert "What ships lies in `best/`" in card.content


def test_a_card_claims_nothing_of_what_was_not_measured(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", {}, TWO, measured=False)
    finish(folder)
    card = ModelCard((folder / "README.md").read_text(encoding="utf-8"))
    assert card.data.eval_results is None
    assert "library_name" not in card.data.to_dict()


def test_a_bundle_is_finished_sealed_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bundle(tmp_path / "bundle", {"size_mb": 1}, TWO)
    told = finish(folder)
    assert check(folder) == told
    assert {path.name for path in (folder / "best").iterdir()} == {
        "README.md", "generate.py", "generate_text.py", "manifest.json", "model.onnx", "sbom.cdx.json",
    }  # fmt: skip
    assert (folder / "report.html").is_file()
    assert call("check", folder) == 0
    assert f"ship {INT8}" in capsys.readouterr().out
    assert call("report", folder, "--format", "md") == 0
    assert capsys.readouterr().out == (folder / "report.md").read_text()
    assert call("report", folder, "--json") == 0
    assert json.loads(capsys.readouterr().out)["task"] == "causal-lm"
    manifest = json.loads((folder / "best" / "manifest.json").read_text())
    assert (manifest["variant"], manifest["precision"]) == (INT8, "int8")


@pytest.mark.parametrize(
    "path",
    ["eval/test_torch.npy", f"models/{INT8}/model.onnx", f"measurements/{INT8}.test.npy", "best/generate.py",
     "report.md", "bundle.json"],
)  # fmt: skip
def test_what_was_changed_is_named(tmp_path: Path, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_bundle(tmp_path / "bundle", {}, TWO)
    finish(folder)
    content = bytearray((folder / path).read_bytes())
    content[-2] ^= 1
    (folder / path).write_bytes(bytes(content))
    assert call("check", folder) == 2
    assert path in capsys.readouterr().err


def test_what_contradicts_itself_is_refused(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", {}, TWO)
    np.save(folder / "eval/test_documents.npy", np.full(25, 7, np.int32))
    with pytest.raises(KdcError, match="expected integers"):
        read_results(folder)
    write_bundle(tmp_path / "other", {}, TWO)
    np.save(tmp_path / "other" / "eval/test_documents.npy", np.full(25, -1, np.int32))
    with pytest.raises(KdcError, match="no token counts"):
        read_results(tmp_path / "other")


def test_one_document_has_a_figure_and_no_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(NATS, "test", [1.0])
    monkeypatch.setitem(SIZES, "test", [8])
    told = report(tmp_path, {"min_retention": 0.5}, teacher=False)
    test = row(told, FP32).test
    assert test is not None
    assert (test.n, test.low) == (1, None)
    assert row(told, FP32).test_loss is None


def test_the_gate_needs_no_learning_library(tmp_path: Path) -> None:
    folder = write_bundle(tmp_path / "bundle", {}, TWO)
    finish(folder)
    code = (
        "import sys\nfor name in ('torch', 'transformers', 'timm', 'tokenizers', 'onnxruntime_genai', 'openvino'):\n"
        "    sys.modules[name] = None\n"
        f"sys.argv = ['kdc', 'check', {str(folder)!r}]\nfrom compressor.__main__ import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "PASS on profile mini-pc" in done.stdout


REFUSED: dict[str, tuple[str, ...]] = {
    "bencher": ("report", "--format", "bencher"),
    "release": ("report", "--format", "release"),
    "baseline": ("report", "--baseline", "x"),
    "history": ("report", "--history", "x.jsonl"),
    "push": ("report", "--push", "hf:me/model"),
    "check's baseline": ("check", "--baseline", "x"),
    "device": ("measure", "--device", "ssh://somewhere"),
    "devices": ("measure", "--device", "a=local", "--device", "b=ssh://somewhere"),
    "interpreter": ("measure", "--device-python", "python3"),
    "measure's baseline": ("measure", "--baseline", "x"),
    "explain": ("measure", "--explain"),
}


@pytest.mark.parametrize("command", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_for_language_models_yet_is_refused_in_one_line(
    tmp_path: Path, command: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_bundle(tmp_path / "bundle", {}, TWO)
    finish(folder)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert call(command[0], folder, *command[1:]) == 2
    told = [text for text in capsys.readouterr().err.splitlines() if text.startswith("kdc: error")]
    assert len(told) == 1
    assert "language model" in told[0]
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_side_by_side_it_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [write_bundle(tmp_path / name, {}, TWO) for name in ("a", "b")]
    for folder in folders:
        finish(folder)
    assert call("report", *folders) == 2
    assert "it is the bundle of a language model" in capsys.readouterr().err


def test_as_a_baseline_of_a_classifier_it_is_refused(
    tmp_path: Path, make_bundle: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    """And nobody is told to make it anew."""
    finish(write_bundle(tmp_path / "language", {}, TWO))
    classifier = make_bundle()
    finish_classifier(classifier)
    for command in ("check", "report"):
        assert call(command, classifier, "--baseline", tmp_path / "language") == 2
        told = capsys.readouterr().err
        assert "it is the bundle of a language model, which kdc compares with no other yet" in told
        assert "kdc export" not in told


def test_sums_of_documents() -> None:
    costs = document_costs(np.array([0.0, -1.0, -2.0, 0.0, -0.5]), np.array([-1, 0, 0, -1, 1]), np.array([4, 2]))
    assert costs.nats.tolist() == [3.0, 0.5]
    assert costs.tokens.tolist() == [2, 1]
    with pytest.raises(ValueError, match="no finite number"):
        document_costs(np.array([-np.inf]), np.array([0]), np.array([1]))
    document_costs(np.array([np.nan, -1.0]), np.array([-1, 0]), np.array([1]))  # what does not count may be anything


def test_a_ratio_is_one_of_sums_and_paired_by_document() -> None:
    def costs(nats: list[float], sizes: list[int]) -> Costs:
        return Costs(np.array(nats), np.ones(len(nats), np.int64), np.array(sizes))

    ratio = bits_ratio(costs([1.0, 8.0], [1, 4]), costs([2.0, 16.0], [1, 4]))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((0.5, 0.5, 0.5))
    # Drawn: both the first, both the second, or one of each.
    ratio = bits_ratio(costs([1.0, 3.0], [2, 2]), costs([1.0, 1.0], [2, 2]))
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((2.0, 1.0, 3.0))
    with pytest.raises(ValueError, match="not measured on the same documents"):
        bits_ratio(costs([1.0], [1]), costs([1.0, 1.0], [1, 1]))
