"""What the report on a text classifier says by length, and of its tokenizer; every figure against the raw samples."""
# ruff: noqa: F811  (fixtures of another module)

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from compressor.report import build_report
from compressor.schema.report import Report
from compressor.stats import paired_ratio, percentile, retention, wilson_interval
from tests.tasks.text_classification.test_text_export import bundle, run  # noqa: F401  (fixtures)

pytestmark = pytest.mark.slow


def manifest(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "bundle.json").read_text())
    return values


def told(folder: Path) -> tuple[Report, dict[str, Any]]:
    return build_report(folder), json.loads((folder / "measurements" / "measurement.json").read_text())


def test_latency_by_length_comes_from_its_blocks(bundle: Path) -> None:
    report, raw = told(bundle)
    assert report.lengths is not None
    length, stated = manifest(bundle)["sequence_length"], manifest(bundle)["lengths"]
    assert set(stated) == {0, 16, 32} - {length}  # of 16, 64, 128, 256: at most 32
    assert {row.length for row in report.lengths.latency} == {*stated, length}
    timed = {row.variant: row for row in report.lengths.latency if row.length == length}
    assert timed["onnxruntime-fp32"].p50_ms == next(row for row in report.rows if row.name == "onnxruntime-fp32").p50_ms

    def blocks(name: str, length: int) -> dict[int, list[float]]:
        rows = [row for row in raw["by_length"] if (row["variant"], row["length"]) == (name, length)]
        return {row["round"]: row["wall_ms"] for row in rows}

    for row in report.lengths.latency:
        if row.length not in stated:
            continue
        ours, theirs = blocks(row.variant, row.length), blocks("teacher-onnxruntime-fp32", row.length)
        assert len(ours) == len(theirs) >= 10
        assert row.p50_ms is not None
        assert row.p50_ms.value == percentile(list(ours.values()), 0.5).value
        if row.variant.startswith("teacher"):
            assert row.p50_ratio is None
        else:
            assert row.p50_ratio is not None
            assert row.p50_ratio.value == pytest.approx(paired_ratio(theirs, ours, share=0.2).value, rel=0.5)


def test_accuracy_by_length_adds_up(bundle: Path) -> None:
    report, _ = told(bundle)
    assert report.lengths is not None
    lengths, labels = np.load(bundle / "eval" / "lengths.npy"), np.load(bundle / "eval" / "labels.npy")
    stored = np.load(bundle / "eval" / "student_inputs.npy")
    np.testing.assert_array_equal(lengths, stored["attention_mask"].sum(1))
    answers = {
        name: np.load(bundle / "measurements" / f"{name}.npy").argmax(1) == labels
        for name in ("onnxruntime-fp32", "openvino-f32", "teacher-onnxruntime-fp32")
    }
    for name, right in answers.items():
        parts = [part for part in report.lengths.accuracy if part.variant == name]
        assert [part.low for part in parts] == [1, *(part.high + 1 for part in parts[:-1])]
        assert parts[-1].high == int(lengths.max())
        assert sum(part.accuracy.n for part in parts) == len(labels)
        for part in parts:
            rows = (lengths >= part.low) & (lengths <= part.high)
            share = wilson_interval(int(right[rows].sum()), int(rows.sum()))
            assert (part.accuracy.value, part.accuracy.low) == (share.value, share.low)
            if name.startswith("teacher"):
                assert part.retention is None
            else:
                kept = retention(right[rows], answers["teacher-onnxruntime-fp32"][rows])
                assert part.retention is not None
                assert (part.retention.value, part.retention.high) == (kept.value, kept.high)


def test_the_three_numbers_stand_side_by_side(bundle: Path) -> None:
    report, _ = told(bundle)
    row = next(row for row in report.rows if row.name == "onnxruntime-fp32")
    teacher = next(row for row in report.rows if row.role == "teacher")
    page, text = (bundle / "report.html").read_text(), (bundle / "report.md").read_text()
    fewer = f"{teacher.parameters / row.parameters:.2f} ({100 * (1 - row.parameters / teacher.parameters):.1f} % less)"
    for said in (page, text):
        assert f"faster, times at {manifest(bundle)['sequence_length']} tokens" in said
        assert fewer in said
        assert "16 tokens" in said
    assert 'class="chart lengths"' in page
    timed = f"batch 1, {manifest(bundle)['sequence_length']} tokens a text"
    assert timed in page
    assert timed in text.partition("<details>")[0]
    card = yaml.safe_load((bundle / "README.md").read_text().split("---")[1])
    [latency] = [each for each in card["model-index"][0]["results"][0]["metrics"] if each["type"] == "latency"]
    assert latency["args"]["sequence_length"] == manifest(bundle)["sequence_length"]
    explored = json.loads(page.partition('id="data">')[2].partition("</script>")[0])["explorer"]["samples"]
    assert {each["name"] for each in explored} <= {
        text for [text] in json.loads((bundle / "eval" / "texts.json").read_text())
    }
    assert "No images" not in page


def test_the_tokenizer_was_tried_and_what_differs_fails(bundle: Path, tmp_path: Path) -> None:
    report, raw = told(bundle)
    assert report.lengths is not None
    assert (report.lengths.tokenized, report.lengths.differ, report.lengths.cut) == (48, 0, 0)
    lines = [check for check in report.checks if check.line == "tokens"]
    students = [row.name for row in report.rows if row.role == "student"]
    assert [(check.variant, check.verdict) for check in lines] == [(name, "pass") for name in students]
    changed = Path(shutil.copytree(bundle, tmp_path / "bundle"))
    raw["preprocessing"][0]["differ"] = 2
    (changed / "measurements" / "measurement.json").write_text(json.dumps(raw))
    report = build_report(changed)
    failed = [check for check in report.checks if (check.line, check.verdict) == ("tokens", "fail")]
    assert [check.value for check in failed] == ["46 of 48 test texts"] * len(students)
    assert report.verdict == "fail"
    raw["preprocessing"][0] = {"inputs": "eval/student_inputs.npy", "error": "pip install tokenizers (…)"}
    first = raw["by_length"].pop()
    raw["by_length"].append({**first, "length": 17})
    (changed / "measurements" / "measurement.json").write_text(json.dumps(raw))
    with pytest.raises(Exception, match="at 17 tokens, at which it is not measured"):
        build_report(changed)
    raw["by_length"][-1] = first
    (changed / "measurements" / "measurement.json").write_text(json.dumps(raw))
    report = build_report(changed)
    assert report.lengths is not None
    assert report.lengths.untried.startswith("pip install tokenizers")
    assert not [check for check in report.checks if check.line == "tokens"]


def test_the_shipped_program_answers_as_measured(bundle: Path) -> None:
    """Text by text, where neither torch nor transformers is asked."""
    import subprocess
    import sys

    manifest = json.loads((bundle / "best" / "manifest.json").read_text())
    assert manifest["install"].endswith(" tokenizers")
    logits = np.load(bundle / "measurements" / f"{manifest['variant']}.npy")
    names = (bundle / "best" / "labels.txt").read_text().split()
    for number, sample in list(enumerate(json.loads((bundle / "eval" / "texts.json").read_text())))[:3]:
        command = [sys.executable, str(bundle / "best" / "classify.py"), *sample, "--top", "1"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert ended.returncode == 0, ended.stderr
        shares = np.exp(logits[number] - logits[number].max())
        expected = f"{shares.max() / shares.sum():7.2%}  {names[int(logits[number].argmax())]}"
        assert ended.stdout.strip() == expected.strip()
    assert "IMAGE" not in (bundle / "best" / "README.md").read_text()
