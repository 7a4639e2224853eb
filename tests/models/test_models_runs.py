"""Runs on disk: what is saved comes back bit for bit, or not at all."""

import errno
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from compressor.errors import KdcError
from compressor.models import LoadedModel, load_model, load_run, save_run
from compressor.schema.recipe import LossTerm, Recipe
from compressor.schema.student import Accuracy, DataInfo, Environment, Student
from compressor.tasks.image_classification.models.students import create_student, create_trainee
from compressor.tasks.image_classification.preprocessing import of_images

NAMES = ["cat", "dog", "sea lion"]


def record(model: LoadedModel) -> Student:
    """What `kdc teach` would write of it."""
    score = Accuracy(split="test", n=9, correct=9, accuracy=1.0, low=0.7, high=1.0, balanced=1.0)
    return Student(
        task="image-classification",
        made_by="teach",
        family=model.family,
        architecture=model.weights.architecture,
        init="random",
        weights=model.weights,
        class_names=tuple(NAMES),
        preprocess=model.preprocess,
        teacher=None,
        data=DataInfo(source="digits", fingerprint="0" * 64, class_names=tuple(NAMES), counts={"train": 9}),
        recipe=Recipe(losses=(LossTerm(name="cross_entropy"),)),
        kept_epoch=1,
        kept_rule="last",
        validation=score,
        test=score,
        teacher_validation=None,
        environment=Environment(kdc="0", python="3", packages={}, platform="x", cpu="x", device="cpu"),
    )


def saved(folder: Path, architecture: str = "mobilenetv3_small_050", size: int = 32) -> LoadedModel:
    torch.manual_seed(0)
    model = create_student(f"timm:{architecture}", "random", NAMES, size, None)
    save_run(folder, model, record(model))
    return model


def equal(one: LoadedModel, other: LoadedModel) -> bool:
    height, width = of_images(one.preprocess).input_size
    images = torch.randn(4, 3, height, width, generator=torch.Generator().manual_seed(0))
    states = one.network.state_dict(), other.network.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    with torch.no_grad():
        return torch.equal(one.network.eval()(images), other.network.eval()(images))


@pytest.mark.parametrize(("architecture", "size"), [("mobilenetv3_small_050", 32), ("test_vit", 64)])
def test_a_timm_model_comes_back_bit_for_bit(tmp_path: Path, architecture: str, size: int) -> None:
    model = saved(tmp_path, architecture, size)
    loaded, student = load_run(tmp_path)
    assert equal(model, loaded)
    assert not loaded.network.training
    assert loaded.preprocess == model.preprocess
    assert loaded.class_names == tuple((name,) for name in NAMES)
    assert loaded.weights.source == f"run:{tmp_path}"
    assert loaded.weights.sha256 == student.weights.sha256
    assert load_model(f"run:{tmp_path}").weights == loaded.weights


@pytest.mark.parametrize("kind", ["vit", "timm wrapper"])
def test_a_hugging_face_model_comes_back_bit_for_bit(
    tmp_path: Path, vit_folder: Callable[..., Path], lite0: Path, kind: str
) -> None:
    backbone = load_model(f"hf:{vit_folder(['a', 'b'])}") if kind == "vit" else load_model(f"hf:{lite0}", 64)
    model, run = create_trainee(backbone, NAMES, None), tmp_path / "run"
    save_run(run, model, record(model))
    loaded, _ = load_run(run)
    assert equal(model, loaded)
    assert (loaded.family, loaded.preprocess) == ("hf", model.preprocess)
    assert str(tmp_path) not in (run / "hf" / "config.json").read_text()
    # … and it can be fine-tuned again, on other classes.
    again = create_trainee(loaded, ["one", "two"], None)
    assert again.class_names == (("one",), ("two",))


def test_weights_that_were_changed_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    weights = tmp_path / "student.safetensors"
    state = load_file(weights)
    state["classifier.bias"][0] += 1e-3
    save_file(state, weights)
    with pytest.raises(KdcError, match=r"student.safetensors was changed: its weights are not those of student.json"):
        load_run(tmp_path)


def test_weights_that_were_truncated_are_refused(tmp_path: Path) -> None:
    saved(tmp_path)
    weights = tmp_path / "student.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    with pytest.raises(KdcError, match=r"student.safetensors cannot be read: "):
        load_run(tmp_path)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("architecture", "resnet10t", "the weights do not fit resnet10t"),
        ("architecture", "resnet1O", "timm has no model resnet1O"),
        ("class_names", ["cat", "dog"], "the weights do not fit mobilenetv3_small_050"),
        ("kept_epochs", 3, "unknown key kept_epochs; did you mean kept_epoch?"),
    ],
)
def test_a_record_that_was_changed_is_refused(tmp_path: Path, key: str, value: object, message: str) -> None:
    saved(tmp_path)
    file = tmp_path / "student.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), key: value}))
    with pytest.raises(KdcError) as caught:
        load_run(tmp_path)
    assert message in caught.value.message


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="holds no trained model") as caught:
        load_model(f"run:{tmp_path}")
    assert "kdc distill" in caught.value.hint
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(KdcError, match="holds no trained model") as caught:
        load_run(tmp_path)
    assert "not finished: run the same command with --resume" in caught.value.hint


def test_a_run_keeps_its_input_size(tmp_path: Path) -> None:
    saved(tmp_path)
    size = load_model(f"run:{tmp_path}").preprocess.size
    assert size is not None
    load_model(f"run:{tmp_path}", size)
    with pytest.raises(KdcError, match=f"keeps the input size that it was trained at: images of {size}×{size}"):
        load_model(f"run:{tmp_path}", size + 32)


def test_a_full_disk_leaves_no_half_written_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        path.touch()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(KdcError, match=r"no space left on the device while writing .*student.safetensors"):
        saved(tmp_path)
    assert list(tmp_path.iterdir()) == []
