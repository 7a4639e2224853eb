"""A licence that is ruled out stops a training before any work, and where it came in by a table, fails the gate."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from compressor.schema.report import Report
from compressor.schema.student import Student
from tests.kit import TRAINING, Ended, call

pytestmark = pytest.mark.slow

Kdc = Callable[..., Ended]
TERMS = "OpenAI Terms of Use: no models that compete"
FORBID = "licence.forbid=[GPL-*, CC-BY-NC-*]"
CLAUSE = "licence.forbid: CC-BY-NC-* (its licence is CC-BY-NC-4.0) rules out"
STUDENT = ("--student", "timm:test_efficientnet", "--student-init", "random", *TRAINING)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory, teacher_run: Path, colours: Path) -> Path:
    """Answers as those of text-davinci-003 in Alpaca are used: CC-BY-NC-4.0, and OpenAI's terms."""
    out = tmp_path_factory.mktemp("table") / "answers.csv"
    code = call(
        "predict", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}", "--out", out, "--licence",
        "CC-BY-NC-4.0", "--terms", TERMS,
    )  # fmt: skip
    assert code == 0
    return out


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory, table: Path, colours: Path) -> Path:
    out = tmp_path_factory.mktemp("student") / "run"
    code = call(
        "distill", "--teacher", f"outputs:{table}", "--data", f"folder:{colours}", "--epochs", 8, "--out", out,
        *STUDENT, "--set", "optimizer.lr=0.01", "--set", "licence.forbid=[GPL-*]",
    )  # fmt: skip
    assert code == 0
    return out


def test_what_is_ruled_out_is_not_trained(
    kdc: Kdc, tmp_path: Path, table: Path, student: Path, teacher_run: Path, here: Path
) -> None:
    start = ("distill", "--data", "folder:nowhere", "--out", tmp_path / "run", *STUDENT)
    for teacher in (
        ["--teacher", f"outputs:{table}"],
        ["--teacher", f"run:{teacher_run}", "--teacher", f"run:{student}"],
    ):
        ended = kdc(*start, *teacher, "--set", FORBID)
        assert ended.code == 2
        assert f"recipe {CLAUSE}" in ended.err, "of a run, what it learned from counts"
        assert not (tmp_path / "run").exists()
    profile = tmp_path / "strict.yaml"
    values = yaml.safe_load(here.read_text()) | {"name": "strict", "licence": {"require": ["Apache-2.0", "MIT"]}}
    profile.write_text(yaml.safe_dump(values))
    ended = kdc(*start, "--teacher", f"outputs:{table}", "--profile", profile)
    assert ended.code == 2
    assert "profile strict licence.require: Apache-2.0, MIT (its licence is CC-BY-NC-4.0) rules out" in ended.err
    for command in ("--plan", "--precompute"):
        ended = kdc(*start, "--teacher", f"outputs:{table}", "--profile", profile, command)
        assert ended.code == 2
        assert "rules out" in ended.err
    assert not (tmp_path / "run").exists()


def test_a_table_by_hand_is_ruled_out_too(kdc: Kdc, tmp_path: Path) -> None:
    table = tmp_path / "hand.csv"
    table.write_text("id,label,model,licence,terms\na,red,text-davinci-003,CC-BY-NC-4.0,no competing models\n")
    start = (
        "distill",
        "--data",
        "folder:nowhere",
        "--out",
        tmp_path / "run",
        "--teacher",
        f"outputs:{table}",
        *STUDENT,
    )
    ended = kdc(*start, "--set", "licence.forbid=[text-davinci-*]")
    assert ended.code == 2
    assert "recipe licence.forbid: text-davinci-* (its model is text-davinci-003)" in ended.err


def test_the_student_says_whose_work_it_is_and_the_gate_asks(
    kdc: Kdc, tmp_path: Path, student: Path, here: Path, table: Path
) -> None:
    record = read_json(student / "student.json", Student)
    assert record.teacher is not None
    assert (record.teacher.licence, record.teacher.terms) == ("CC-BY-NC-4.0", TERMS)
    bundle = tmp_path / "bundle"
    quick = ("--profile", here, "--target", "onnxruntime-fp32", "--rounds", 12, "--no-throughput")
    ended = kdc("export", student, *quick, "--out", bundle, "--set", FORBID)
    assert ended.code == 1, ended.err
    assert kdc("check", bundle).code == 1
    report = read_json(bundle / "report.json", Report)
    lines = {check.verdict: check for check in report.checks if check.line == "licence"}
    assert [*lines] == ["fail"]
    assert f"{CLAUSE} run:" in lines["fail"].reason
    assert lines["fail"].limit == "forbid GPL-*; forbid GPL-*, CC-BY-NC-*"
    assert report.verdict == "fail"
    junit = kdc("report", bundle, "--format", "junit").out
    assert "licence" in junit
    ended = kdc("export", student, *quick, "--out", tmp_path / "permitted")
    assert ended.code == 0, ended.err
    permitted = read_json(tmp_path / "permitted" / "report.json", Report)
    [line] = [check for check in permitted.checks if check.line == "licence"]
    assert line.verdict == "pass"
    names = {ancestor.licence: ancestor for ancestor in permitted.ancestors}
    assert names["CC-BY-NC-4.0"].terms == TERMS
    card = (tmp_path / "permitted" / "README.md").read_text(encoding="utf-8")
    [said] = [line for line in card.splitlines() if line.startswith("- Made from") and "CC-BY-NC-4.0" in line]
    assert "terms: OpenAI Terms of Use" in said
    head = yaml.safe_load(card.split("---")[1])
    assert {"CC-BY-NC-4.0", "none (trained from scratch)"} == {row["license"] for row in head["ancestors"]}
    assert TERMS in (tmp_path / "permitted" / "report.md").read_text(encoding="utf-8").replace("\\", "")
    bom = json.loads((tmp_path / "permitted" / "best" / "sbom.cdx.json").read_text())
    ancestors = bom["metadata"]["component"]["pedigree"]["ancestors"]
    assert {"name": "kdc:terms", "value": TERMS} in [row for model in ancestors for row in model["properties"]]
    told = read_json(tmp_path / "permitted" / "bundle.json", Bundle).student.ancestors
    assert not [ancestor for ancestor in told if str(table.parent) in ancestor.source], "no path of this machine"
