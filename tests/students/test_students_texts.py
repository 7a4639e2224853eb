"""`kdc students` of texts: candidates that are made of a teacher, at the profile's sequence length."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compressor.models import load_model
from compressor.profiles import load_profile
from compressor.students import Wanted
from compressor.students.api import _left_out, entries_of, screened
from compressor.tasks.table import candidates_of
from compressor.tasks.text_classification.tokenization import of_texts
from tests.kit import Ended
from tests.tasks.text_classification.kit import encoder
from tests.tasks.text_classification.test_text_models import VOCABULARY, classifier

Kdc = Callable[..., Ended]
TASK = "text-classification"
TEXTS = candidates_of(TASK)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return encoder(tmp_path_factory.mktemp("model") / "encoder", 3, hidden_size=64, num_attention_heads=2)


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    path = tmp_path / "quick.yaml"
    values = json.loads(load_profile("x86-avx2").model_dump_json()) | {
        "name": "quick", "threads": 1, "sequence_length": 16, "budget": {"size_mb": 3.0},
        "targets": [{"runtime": "onnxruntime", "precisions": ["fp32", "int8"]}],
    }  # fmt: skip
    path.write_text(json.dumps(values))
    return path


def test_candidates_are_what_can_be_made_of_the_teacher(folder: Path) -> None:
    """Two heads: half of the width, and no quarter of it."""
    teacher = load_model(f"hf:{folder}", task=TASK)
    assert TEXTS.catalogue_of(teacher) == {
        "static": ("static:64",),
        "32 wide": ("layers:1,width:32", "layers:2,width:32", "layers:3,width:32"),
        "64 wide": ("layers:1", "layers:2", "layers:3"),
    }
    wanted = Wanted(task=TASK, teacher=f"hf:{folder}")
    device = load_profile("x86-avx2")
    for length, tokens in ((None, 64), (16, 16), (500, 64)):  # the teacher reads 64
        entries = entries_of(wanted, device.model_copy(update={"sequence_length": length}), teacher)
        assert {size for _, size in entries} == {tokens}
        assert len(entries) == 7


def test_what_is_measured_has_the_profiles_length(folder: Path, tmp_path: Path) -> None:
    teacher = load_model(f"hf:{folder}", task=TASK)
    for name in ("layers:2", "layers:2,width:32", "static:8"):
        model = TEXTS.create(name, 5, 16, teacher)
        assert of_texts(model.preprocess).max_length == 16
        assert [spec.name for spec in model.preprocess.inputs] == ["input_ids", "attention_mask"]
        stored = TEXTS.drawn(model.preprocess, 3, tmp_path / f"{name}.npy")
        fed = stored.fed(np.arange(3))
        assert {key: values.shape for key, values in fed.items()} == dict.fromkeys(fed, (3, 16))
        assert fed["attention_mask"].all()
        assert fed["input_ids"].max() < VOCABULARY


def test_figures_hang_on_how_a_teacher_is_built_and_not_on_its_weights(folder: Path, tmp_path: Path) -> None:
    ours = TEXTS.identity(load_model(f"hf:{folder}", task=TASK))
    other = encoder(tmp_path / "other", 3, hidden_size=64, num_attention_heads=2)
    assert TEXTS.identity(load_model(f"hf:{other}", task=TASK)) == ours
    deeper = encoder(tmp_path / "deeper", 4, hidden_size=64, num_attention_heads=2)
    assert TEXTS.identity(load_model(f"hf:{deeper}", task=TASK)) != ours
    named = classifier(tmp_path / "named", 3)  # of other classes, and a narrower teacher
    assert TEXTS.identity(load_model(f"hf:{named}", task=TASK)) != ours


def test_runtimes_that_take_no_texts_are_told() -> None:
    jetson = load_profile("jetson-orin-nano")
    left = _left_out(jetson, [pair for pair in screened(jetson) if pair[0] == "onnxruntime"], ("onnxruntime",))
    assert left["tensorrt-fp32"] == "kdc cannot build these students for it yet"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--student", "layers:2"), "--student layers:2 is made of a teacher, and none is named"),
        (("--teacher", "timm:resnet18"), "only students of texts are made of a teacher"),
        (("--teacher", "TEACHER", "--input-size", "64"), "--input-size is of images, and this is text-classification"),
        (("--teacher", "TEACHER", "--allow-surgery"), "--allow-surgery is of images"),
        (("--teacher", "TEACHER", "--estimate"), "--estimate knows networks of images alone"),
        (("--teacher", "TEACHER", "--student", "timm:resnet18"), "is none that learns from texts"),
        (("--teacher", "TEACHER", "--student", "layers:x"), "is not layers:N"),
        (("--estimate", "--student", "static:8"), "--student static:8 is made of a teacher"),
    ],
)
def test_what_does_not_fit_is_refused(kdc: Kdc, profile: Path, folder: Path, more: tuple[str, ...], said: str) -> None:
    given = [f"hf:{folder}" if part == "TEACHER" else part for part in more]
    ended = kdc("students", "--profile", profile, *given)
    assert ended.code == 2, ended.err
    assert said in " ".join(ended.err.split())
    assert "Traceback" not in ended.err


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_candidates_of_a_teacher_are_measured_and_kept(
    kdc: Kdc, profile: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDC_CACHE", str(tmp_path / "cache"))
    names = ("static:8", "layers:1,width:32", "layers:2")
    given = [part for name in names for part in ("--student", name)]
    asked = ("students", "--profile", profile, "--teacher", f"hf:{folder}", "--classes", 5, *given)
    ended = kdc(*asked, "--json")
    assert ended.code == 0, ended.err
    answer = json.loads(ended.out)
    rows = {(row["figures"]["student"], row["figures"]["precision"]): row["figures"] for row in answer["rows"]}
    assert {*rows} == {(name, precision) for name in names for precision in ("fp32", "int8")}
    assert [row["error"] for row in rows.values()] == [None] * 6
    assert {row["input_size"] for row in rows.values()} == {16}
    assert answer["unit"] == "tokens"
    assert rows["static:8", "fp32"]["parameters"] == VOCABULARY * 8 + 8 * 5 + 5
    assert rows["static:8", "fp32"]["p50_ms"]["value"] < rows["layers:2", "fp32"]["p50_ms"]["value"]
    assert rows["layers:1,width:32", "fp32"]["macs"] < rows["layers:2", "fp32"]["macs"]
    again = kdc(*asked)
    assert again.code == 0, again.err
    assert "6 of 6 rows were kept from an earlier call" in again.out
    assert "tokens" in again.out.splitlines()[0]
