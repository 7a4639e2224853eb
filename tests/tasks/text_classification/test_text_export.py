"""kdc export of a text classifier: what is in the bundle, and that it answers as torch does."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.export.bundle.macs import count_macs
from compressor.models import load_run
from tests.kit import Ended, call
from tests.shared import made_once
from tests.tasks.text_classification.kit import SPEED, made_texts

pytestmark = pytest.mark.slow

Kdc = Callable[..., Ended]
FAST = ("--rounds", 12, "--seconds", 2, "--no-throughput")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of the teacher's four layers. Never change it."""
    made = made_texts(tmp_path_factory)

    def make(folder: Path) -> None:
        code = call(
            "distill", "--teacher", f"run:{made / 'teacher'}", "--data", f"csv:{made / 'data.csv'}", "--student",
            "layers:2", "--epochs", 4, "--out", folder / "run", *SPEED,
        )  # fmt: skip
        assert code == 0

    return made_once(tmp_path_factory, "text-student", make) / "run"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory, run: Path, here: Path) -> Path:
    """In float, measured. Never change it."""

    def make(folder: Path) -> None:
        assert call("export", run, "--profile", here, "--out", folder / "bundle", *FAST) == 0

    return made_once(tmp_path_factory, "text-bundle", make) / "bundle"


def manifest(bundle: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((bundle / "bundle.json").read_text())
    return values


def test_a_student_is_exported_measured_and_judged(bundle: Path, kdc: Kdc) -> None:
    rows = {row["name"]: row for row in json.loads((bundle / "report.json").read_text())["rows"]}
    reference = np.load(bundle / "eval" / "student_reference.npy")
    for name in ("onnxruntime-fp32", "openvino-f32"):
        assert rows[name]["accuracy"]["value"] > 0.85, name
        assert np.abs(np.load(bundle / "measurements" / f"{name}.npy") - reference).max() < 1e-4, name
    assert kdc("check", bundle).code == 0


def test_the_tokenizer_travels_and_is_sealed(bundle: Path, run: Path, kdc: Kdc, tmp_path: Path) -> None:
    import shutil

    from compressor.tasks.text_classification.tokenization import read_tokenizer

    told = json.loads((bundle / "best" / "preprocess.json").read_text())
    assert told["tokenizer"] == read_tokenizer(bundle / "best", "best").sha256
    assert (told["max_length"], told["pair"], told["pad_id"]) == (32, False, 0)
    assert (bundle / "tokenizer.json").read_bytes() == (run / "hf" / "tokenizer.json").read_bytes()
    for path in ("tokenizer.json", "best/tokenizer.json"):
        changed = Path(shutil.copytree(bundle, tmp_path / path.replace("/", "-")))
        (changed / path).write_text((changed / path).read_text().replace("goal", "gaol"))
        ended = kdc("check", changed)
        assert (ended.code, path in ended.err) == (2, True), ended.err


def test_what_is_timed_and_counted_has_the_length_that_both_models_read(bundle: Path, run: Path) -> None:
    """Width 32, 48 in between, two layers of it: the products of each layer, and those of attention."""
    assert manifest(bundle)["sequence_length"] == 32
    model = load_run(run)[0]
    for length in (8, 32):
        each = 4 * 32 * 32 * length + 2 * length * length * 32 + 2 * 32 * 48 * length
        wanted = 2 * each + 32 * 32 + 32 * 3
        assert count_macs(model.network, model.preprocess.inputs, length) == wanted
    student = next(each for each in manifest(bundle)["variants"] if each["name"] == "onnxruntime-fp32")
    assert student["macs"] == wanted


def test_runtimes_that_take_no_texts_yet_are_refused(run: Path, kdc: Kdc, tmp_path: Path) -> None:
    ended = kdc("export", run, "--profile", "jetson-orin-nano", "--out", tmp_path / "bundle")
    assert (ended.code, "cannot build text-classification for tensorrt yet" in " ".join(ended.err.split())) == (2, True)
    assert not (tmp_path / "bundle").exists()
