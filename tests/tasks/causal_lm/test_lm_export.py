"""A language model goes to a device: kdc export, measure, report, check, with the runtimes that generate text."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compressor
from compressor.assets import asset_dir
from compressor.export.bundle import language as exporting
from compressor.schema.accuracy import Score
from compressor.schema.base import read_json
from compressor.schema.language.bundle import LanguageBundle
from compressor.schema.language.report import LanguageReport
from compressor.schema.student import Student
from tests.kit import Ended, call
from tests.shared import made_once
from tests.tasks.causal_lm.kit import SPEED, documents, write_jsonl, write_llama

pytestmark = pytest.mark.slow

Kdc = Callable[..., Ended]
QUICK = (
    "--rounds", 11, "--seconds", 1, "--set", "threads=1", "--set", "generation.prompt_tokens=12",
    "--set", "generation.new_tokens=6",
)  # fmt: skip
ALL = "generation.precisions=[fp32, int8, int4]"
VARIANTS = (
    "onnxruntime-genai-fp32", "onnxruntime-genai-int8", "onnxruntime-genai-int4",
    "openvino-genai-f32", "openvino-genai-int8", "openvino-genai-int4",
)  # fmt: skip
ONE = ("--profile", "x86-avx2", "--target", "onnxruntime-fp32", "--set", "budget.min_retention=0.1", *QUICK)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """data.jsonl, a teacher/, the run/ of a student of half its layers. Never change them."""

    def make(folder: Path) -> None:
        write_jsonl(folder / "data.jsonl", [{"text": text} for text in documents(120)])
        write_llama(folder / "llama", hidden_size=64, intermediate_size=96)
        data = ("--data", f"jsonl:{folder / 'data.jsonl'}", *SPEED)
        assert call(
            "teach", "--teacher", f"hf:{folder / 'llama'}", *data, "--out", folder / "teacher", "--epochs", 6,
            "--max-length", 32,
        ) == 0  # fmt: skip
        assert call(
            "distill", "--teacher", f"run:{folder / 'teacher'}", *data, "--student", "layers:2", "--epochs", 2,
            "--out", folder / "run",
        ) == 0  # fmt: skip

    return made_once(tmp_path_factory, "to_a_device", make)


@pytest.fixture(scope="module")
def whole(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of every variant, measured. Never change it."""

    def make(folder: Path) -> None:
        code = call(
            "export", made / "run", "--profile", "x86-avx2", "--set", ALL, "--set", "budget.min_retention=0.1",
            "--out", folder / "bundle", *QUICK,
        )  # fmt: skip
        assert code == 0

    return made_once(tmp_path_factory, "language_bundle", make) / "bundle"


@pytest.fixture
def one(made: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    """A bundle of one variant, measured, to be changed."""

    def make(folder: Path) -> None:
        assert call("export", made / "run", *ONE, "--out", folder / "bundle") == 0

    shutil.copytree(made_once(tmp_path_factory, "language_bundle_of_one", make) / "bundle", tmp_path / "bundle")
    return tmp_path / "bundle"


def told(bundle: Path) -> LanguageReport:
    return read_json(bundle / "report.json", LanguageReport)


def figures(score: Score) -> dict[str, float]:
    return score.model_dump(exclude={"split"})


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_every_variant_is_built_measured_and_judged(made: Path, whole: Path) -> None:
    report = told(whole)
    assert [row.name for row in report.rows] == [*VARIANTS]
    assert all(row.measured and row.role == "student" for row in report.rows)
    lines = {(check.variant, check.line): check.verdict for check in report.checks}
    assert {lines[name, "precision"] for name in VARIANTS} == {"pass"}
    assert {lines[name, "parity"] for name in VARIANTS if name.endswith("32")} == {"pass"}
    assert {lines[name, "max_drop"] for name in VARIANTS if name.endswith("8")} == {"pass"}
    for row in report.rows:
        assert row.tokens_per_s is not None
        assert row.prompt_tokens_per_s is not None
        assert row.answers == 11
        assert row.load_ms is not None
        assert row.load_ms.n == 3
        assert row.peak_rss_mb is not None
    sizes = {row.name: row.size_bytes for row in report.rows}
    for runtime, full in (("onnxruntime-genai", "fp32"), ("openvino-genai", "f32")):
        assert sizes[f"{runtime}-int4"] < sizes[f"{runtime}-int8"] < sizes[f"{runtime}-{full}"]
    assert report.not_judged == ("p50_ms", "p90_ms")


def test_the_figures_are_those_of_training(made: Path, whole: Path) -> None:
    """Which evaluated the same models in another way: a forward pass of a feed's batches."""
    report = told(whole)
    student, teacher = (read_json(made / run / "student.json", Student) for run in ("run", "teacher"))
    assert figures(report.student_torch) == pytest.approx(figures(student.test), rel=1e-5)
    assert figures(report.student_validation) == pytest.approx(figures(student.validation), rel=1e-5)
    assert report.teacher_test is not None
    assert figures(report.teacher_test) == pytest.approx(figures(teacher.test), rel=1e-5)
    for row in report.rows:
        assert row.test is not None
        near = 1e-4 if row.name.endswith("32") else 0.1
        assert row.test.bits_per_byte == pytest.approx(figures(student.test)["bits_per_byte"], rel=near)
        assert row.retention is not None
        assert row.retention.value == pytest.approx(report.teacher_test.bits_per_byte / row.test.bits_per_byte)


def test_what_ships_writes_with_its_runtime_alone(whole: Path) -> None:
    report, manifest = told(whole), json.loads((whole / "best" / "manifest.json").read_text())
    assert manifest["variant"] == report.winner
    assert report.winner is not None
    (shipped,) = (
        each for each in read_json(whole / "bundle.json", LanguageBundle).variants if each.name == report.winner
    )
    for entry in shipped.files:
        inside = Path(entry.path).relative_to(shipped.model)
        assert (whole / "best" / inside).read_bytes() == (whole / entry.path).read_bytes()
    blocked = (
        "import sys\nfor name in ('torch', 'transformers', 'compressor'): sys.modules[name] = None\n"
        "import runpy; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0].rpartition('/')[0])\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", blocked, str(whole / "best" / "generate.py"), "the farmer saw", "--tokens", "12"],
        capture_output=True, text=True, check=False, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    assert not list((whole / "best").rglob("__pycache__"))


def test_the_gate_and_the_report_come_to_the_same_end(whole: Path, kdc: Kdc) -> None:
    before = contents(whole)
    assert kdc("check", whole).code == 0
    told_in_json = kdc("check", whole, "--json")
    assert json.loads(told_in_json.out) == json.loads((whole / "report.json").read_text())
    assert kdc("report", whole, "--format", "md").out == (whole / "report.md").read_text()
    assert contents(whole) == before
    done: Any = compressor.check(whole)
    assert (done.verdict, done.passed, done.exit_code) == ("pass", True, 0)
    assert "<table>" in done._repr_html_()
    assert max(map(len, done.to_text().splitlines())) <= 80


def test_no_path_of_this_machine_travels(made: Path, whole: Path) -> None:
    home = str(made.parent).encode()
    assert [name for name, content in contents(whole).items() if home in content] == []


def test_a_budget_that_does_not_hold_ends_with_1_and_is_measured_again(one: Path, kdc: Kdc) -> None:
    assert kdc("check", one).code == 0
    again = kdc("measure", one, "--rounds", 11, "--seconds", 1)
    assert again.code == 0, again.err
    assert kdc("check", one).code == 0
    scores = np.load(one / "measurements" / "onnxruntime-genai-fp32.test.npy")
    np.save(one / "measurements" / "onnxruntime-genai-fp32.test.npy", scores - 1)
    ended = kdc("check", one)
    assert ended.code == 2
    assert "onnxruntime-genai-fp32.test.npy was changed" in ended.err


def test_a_limit_that_is_not_kept_fails(made: Path, tmp_path: Path, kdc: Kdc) -> None:
    """And where the full precision was not asked for, it runs along and is not judged."""
    ended = kdc(
        "export", made / "run", "--profile", "x86-avx2", "--target", "onnxruntime", "--set",
        "generation.precisions=[int8]", "--set", "budget.size_mb=0.001", *QUICK, "--out", tmp_path / "bundle",
    )  # fmt: skip
    assert ended.code == 1, ended.err
    report = told(tmp_path / "bundle")
    assert [(row.name, row.role) for row in report.rows] == [
        ("onnxruntime-genai-fp32", "reference"), ("onnxruntime-genai-int8", "student"),
    ]  # fmt: skip
    assert report.winner is None
    assert not (tmp_path / "bundle" / "best").exists()
    assert kdc("check", tmp_path / "bundle").code == 1
    assert report.rows[1].fp32_ratio is not None


def test_a_taught_model_goes_without_a_teacher(made: Path, tmp_path: Path, kdc: Kdc) -> None:
    ended = kdc("export", made / "teacher", *ONE, "--out", tmp_path / "bundle")
    assert ended.code == 3, ended.err
    assert "there is no teacher that can be run: retention cannot be told" in ended.err
    (check,) = (check for check in told(tmp_path / "bundle").checks if check.line == "min_retention")
    assert check.verdict == "unmeasured"
    assert kdc("check", tmp_path / "bundle", "--allow-unmeasured").code == 0
    ended = kdc("export", made / "teacher", *ONE, "--out", tmp_path / "other", "--teacher", f"hf:{made / 'llama'}")
    assert ended.code == 2
    assert "was made by kdc teach, and has no teacher" in ended.err


REFUSED: dict[str, tuple[tuple[object, ...], str]] = {
    "plan": (("--plan",), "--plan: kdc cannot do that for a language model's bundle yet"),
    "vocabulary": (("--trim-vocabulary",), "--trim-vocabulary: kdc cannot do that"),
    "baked": (("--bake-preprocessing",), "--bake-preprocessing: kdc cannot do that"),
    "batch": (("--dynamic-batch",), "--dynamic-batch: kdc cannot do that"),
    "explain": (("--explain",), "--explain: kdc cannot do that"),
    "baseline": (("--baseline", "x"), "--baseline: kdc cannot do that"),
    "device": (("--device", "ssh://x"), "--device ssh://x: kdc measures language models on this machine alone yet"),
    "profiles": (("--profile", "rpi5"), "several --profile: kdc exports a language model for one at a time"),
    "length": ((), "generation asks for 128 + 64 tokens (prompt_tokens, new_tokens), and the model takes 128 at most"),
    "precision": (("--set", "generation.precisions=[int2]"), "generation.precisions"),
}  # fmt: skip


@pytest.mark.parametrize(("more", "said"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_not_done_is_refused_in_one_line(
    made: Path, tmp_path: Path, kdc: Kdc, more: tuple[object, ...], said: str
) -> None:
    ended = kdc("export", made / "run", *ONE[:4], "--out", tmp_path / "bundle", *more)
    assert ended.code == 2
    (line,) = (text for text in ended.err.splitlines() if text.startswith("kdc: error"))
    assert said in line
    assert not (tmp_path / "bundle" / "bundle.json").exists()


def test_a_runtime_that_generates_nothing_is_refused(made: Path, tmp_path: Path, kdc: Kdc) -> None:
    profile = (asset_dir("profiles") / "x86-avx2.yaml").read_text().replace("runtime: openvino", "runtime: litert")
    profile = profile.replace("[f32, f16, int8]", "[int8]").replace("name: x86-avx2", "name: other")
    (tmp_path / "other.yaml").write_text(profile)
    ended = kdc("export", made / "run", "--profile", tmp_path / "other.yaml", "--out", tmp_path / "bundle")
    assert ended.code == 2
    assert "profile other: litert generates no text that kdc could build for" in ended.err


def test_precisions_that_there_are_not_are_named(made: Path) -> None:
    from compressor.profiles import load_profile

    asked, notes = exporting.asked_of(load_profile("x86-avx2"))
    assert [each.name for each in asked] == [
        "onnxruntime-genai-fp32", "onnxruntime-genai-int8", "openvino-genai-f32", "openvino-genai-int8",
    ]  # fmt: skip
    assert notes == ("openvino f16: language models run there in f32, int8, int4: left out",)
    alone, _ = exporting.asked_of(load_profile("x86-avx2", ["generation.precisions=[int4]"]))
    assert [(each.name, each.judged) for each in alone] == [
        ("onnxruntime-genai-fp32", False), ("onnxruntime-genai-int4", True),
        ("openvino-genai-f32", False), ("openvino-genai-int4", True),
    ]  # fmt: skip


def test_an_interrupted_export_leaves_what_was_there(
    made: Path, one: Path, kdc: Kdc, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kdc("export", made / "run", *ONE, "--out", one).code == 2, "without --overwrite it is left alone"
    before = contents(one)

    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(exporting, "build", interrupted)
    assert kdc("export", made / "run", *ONE, "--out", one, "--overwrite").code == 130
    assert {name: content for name, content in contents(one).items() if not name.startswith(".kdc")} == before
    assert kdc("check", one).code == 0


def test_an_export_that_was_not_measured_is_finished_by_measure(
    made: Path, one: Path, kdc: Kdc, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressor.measure import language as measuring

    def interrupted(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    before = told(one).session
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "local_link", interrupted)
        stopped = kdc("export", made / "run", *ONE, "--out", one, "--overwrite")
    assert stopped.code == 130
    assert f"kdc measure {one} finishes it" in stopped.err
    assert kdc("check", one).code == 0, "the bundle before it stays"
    assert told(one).session == before
    assert kdc("measure", one, "--rounds", 11, "--seconds", 1).code == 0
    assert told(one).session != before
    assert kdc("check", one).code == 0


def test_a_session_by_hand_is_taken_up(one: Path, kdc: Kdc, tmp_path: Path) -> None:
    elsewhere = tmp_path / "device"
    shutil.copytree(one, elsewhere)
    before = told(one).session
    done = subprocess.run(
        [sys.executable, str(elsewhere / "runners" / "bench.py"), str(elsewhere), "--rounds", "11", "--seconds", "1"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "tokens/s" in done.stdout
    shutil.rmtree(one / "measurements")
    shutil.copytree(elsewhere / "measurements", one / "measurements")
    assert kdc("check", one).code == 2
    assert kdc("report", one).code == 0
    assert told(one).session != before
    assert kdc("check", one).code == 0
    assert not list(elsewhere.rglob("__pycache__"))
