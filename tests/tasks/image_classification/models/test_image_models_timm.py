"""timm teachers: local folders and checkpoints, whole, damaged and malicious."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor

from compressor.errors import KdcError
from compressor.models import LoadedModel, load_model
from compressor.tasks.image_classification.models.timm_models import preprocess_of
from compressor.tasks.image_classification.preprocessing import of_images

NAMES = ["cat", "dog", "sea lion"]


@pytest.fixture
def state() -> dict[str, Tensor]:
    torch.manual_seed(0)
    found: dict[str, Tensor] = timm.create_model("test_resnet", num_classes=3).state_dict()
    return found


def same_weights(model: LoadedModel, state: dict[str, Tensor]) -> bool:
    loaded = model.network.state_dict()
    return loaded.keys() == state.keys() and all(torch.equal(loaded[name], state[name]) for name in state)


def test_a_folder_with_names(timm_folder: Callable[..., Path]) -> None:
    model = load_model(f"timm:local-dir:{timm_folder('test_resnet', 3, label_names=NAMES)}")
    assert model.class_names == (("cat",), ("dog",), ("sea lion",))
    assert model.weights.licence == "unknown"
    assert not model.network.training


def test_a_name_that_is_not_one_line_is_refused(timm_folder: Callable[..., Path]) -> None:
    folder = timm_folder("test_resnet", 3, label_names=["cat", "dog\nwolf", "sea lion"])
    with pytest.raises(KdcError) as caught:
        load_model(f"timm:local-dir:{folder}")
    assert r"the name of its class 1, 'dog\nwolf', holds a line break (U+000A)" in caught.value.message
    assert "label_names" in caught.value.hint


def test_a_folder_without_names_has_none(timm_folder: Callable[..., Path]) -> None:
    assert load_model(f"timm:local-dir:{timm_folder('test_resnet', 3)}").class_names is None


def test_more_names_than_outputs_are_refused(timm_folder: Callable[..., Path]) -> None:
    folder = timm_folder("test_resnet", 4, label_names=NAMES)
    with pytest.raises(KdcError, match="answers 4 classes, but its configuration names 3"):
        load_model(f"timm:local-dir:{folder}")


def test_a_folder_whose_network_fixes_the_size_loads_at_another(timm_folder: Callable[..., Path]) -> None:
    folder = timm_folder("test_vit", 3, label_names=NAMES)
    model = load_model(f"timm:local-dir:{folder}", 64)
    assert of_images(model.preprocess).input_size == (64, 64)
    with torch.no_grad():
        assert model.network(torch.zeros(2, 3, 64, 64)).shape == (2, 3)


def spoilt(folder: Path, how: str) -> None:
    config, weights = folder / "config.json", folder / "model.safetensors"
    actions: dict[str, Callable[[], object]] = {
        "no config": config.unlink,
        "config no json": lambda: config.write_text("{"),
        "config no utf-8": lambda: config.write_bytes(b"\xff\xfe{"),
        "config a list": lambda: config.write_text("[]"),
        "config without architecture": lambda: config.write_text("{}"),
        "unknown architecture": lambda: config.write_text('{"architecture": "test_resnat"}'),
        "no weights": weights.unlink,
        "empty weights": lambda: weights.write_bytes(b""),
        "truncated weights": lambda: weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2]),
        "other weights": lambda: save_file({"w": torch.zeros(1)}, weights),
    }
    actions[how]()


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no config", "config.json does not exist"),
        ("config no json", "config.json is damaged: not JSON"),
        ("config no utf-8", "config.json is damaged: not JSON"),
        ("config a list", "is no timm configuration"),
        ("config without architecture", "is no timm configuration"),
        ("unknown architecture", "timm has no model test_resnat; did you mean test_resnet?"),
        ("no weights", "model.safetensors does not exist"),
        ("empty weights", "cannot be loaded: "),
        ("truncated weights", "cannot be loaded: "),
        ("other weights", "cannot be loaded: "),
    ],
)
def test_a_damaged_folder_is_refused(timm_folder: Callable[..., Path], how: str, message: str) -> None:
    folder = timm_folder("test_resnet", 3)
    spoilt(folder, how)
    with pytest.raises(KdcError) as caught:
        load_model(f"timm:local-dir:{folder}")
    assert message in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize("wrap", [None, "state_dict", "model", "state_dict_ema", "module.", "state_dict+module."])
def test_a_pth_checkpoint_however_wrapped(tmp_path: Path, state: dict[str, Tensor], wrap: str | None) -> None:
    saved: dict[str, Any] = dict(state)
    if wrap is not None and wrap.endswith("module."):
        saved = {f"module.{name}": value for name, value in state.items()}
    if wrap is not None and wrap != "module.":
        saved = {wrap.removesuffix("+module."): saved, "epoch": 3, "lr": [0.1]}
    torch.save(saved, tmp_path / "best.pth")
    model = load_model(f"timm:test_resnet@{tmp_path / 'best.pth'}", 64)
    assert same_weights(model, state)
    assert model.class_names is None
    assert of_images(model.preprocess).input_size == (64, 64)


@pytest.mark.parametrize("prefix", ["", "module."])
def test_a_safetensors_checkpoint(tmp_path: Path, state: dict[str, Tensor], prefix: str) -> None:
    save_file({prefix + name: value for name, value in state.items()}, tmp_path / "best.safetensors")
    assert same_weights(load_model(f"timm:test_resnet@{tmp_path / 'best.safetensors'}"), state)


def test_averaged_weights_come_first(tmp_path: Path, state: dict[str, Tensor]) -> None:
    other = {name: torch.zeros_like(value) for name, value in state.items()}
    torch.save({"state_dict": other, "state_dict_ema": state}, tmp_path / "best.pth")
    assert same_weights(load_model(f"timm:test_resnet@{tmp_path / 'best.pth'}"), state)


def test_the_licence_of_timm_is_not_claimed_for_a_users_checkpoint(tmp_path: Path, state: dict[str, Tensor]) -> None:
    assert timm.get_pretrained_cfg("test_resnet").license
    torch.save(state, tmp_path / "best.pth")
    assert load_model(f"timm:test_resnet@{tmp_path / 'best.pth'}").weights.licence == "unknown"


def test_a_checkpoint_of_a_thousand_classes_is_taken_for_imagenets(tmp_path: Path) -> None:
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "best.pth")
    names = load_model(f"timm:test_resnet@{tmp_path / 'best.pth'}").class_names
    assert names is not None
    assert names[281][0] == "tabby"


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path: Path, state: dict[str, Tensor]) -> None:
    torch.save(state, tmp_path / "best.pth")
    with pytest.raises(KdcError, match=r"best.pth does not fit test_efficientnet: it has no "):
        load_model(f"timm:test_efficientnet@{tmp_path / 'best.pth'}")
    with pytest.raises(KdcError, match=r"best.pth does not fit resnet10t: "):
        load_model(f"timm:resnet10t@{tmp_path / 'best.pth'}")


class Malicious:
    """A pickle of it runs a command when it is loaded naively."""

    def __init__(self, evidence: Path) -> None:
        self.evidence = evidence

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.evidence),)


@pytest.mark.parametrize("form", ["torch.save", "plain pickle"])
def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(
    tmp_path: Path, state: dict[str, Tensor], form: str
) -> None:
    evidence, file = tmp_path / "it-ran", tmp_path / "best.pth"
    content = {"state_dict": state, "extra": Malicious(evidence)}
    if form == "torch.save":
        torch.save(content, file)
    else:
        file.write_bytes(pickle.dumps(content))
    with pytest.raises(KdcError, match=r"best.pth holds more than tensors .* and was not loaded") as caught:
        load_model(f"timm:test_resnet@{file}")
    assert "save it as .safetensors" in caught.value.hint
    assert not evidence.exists()
    torch.load(file, weights_only=False) if form == "torch.save" else pickle.loads(file.read_bytes())
    assert evidence.exists(), "the trap itself must work, or this test proves nothing"


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99])
def test_a_truncated_checkpoint_is_refused(tmp_path: Path, state: dict[str, Tensor], suffix: str, share: float) -> None:
    file = tmp_path / f"best.{suffix}"
    torch.save(state, file) if suffix == "pth" else save_file(state, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(KdcError, match=r"is damaged, or no checkpoint: .|cannot be read: .") as caught:
        load_model(f"timm:test_resnet@{file}")
    assert str(file) in caught.value.message


@pytest.mark.parametrize("content", [{"w": 1}, [1, 2], {"state_dict": {"w": "text"}}])
def test_what_is_no_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "best.pth")
    with pytest.raises(KdcError, match="is no state dict"):
        load_model(f"timm:test_resnet@{tmp_path / 'best.pth'}")


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match=r"checkpoint .*none.pth does not exist"):
        load_model(f"timm:test_resnet@{tmp_path / 'none.pth'}")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("resnet50", "teacher 'resnet50' is not one of timm:NAME, timm:NAME@CHECKPOINT"),
        ("tim:resnet50", "did you mean timm?"),
        ("timm:", "is not one of"),
        ("timm:resnet5O", "timm has no model resnet5O; did you mean resnet50?"),
        ("timm:resnet5O@x.pth", "timm has no model resnet5O"),
    ],
)
def test_references_that_cannot_be_understood(reference: str, message: str) -> None:
    with pytest.raises(KdcError) as caught:
        load_model(reference)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("changes", "size", "resize"),
    [
        ({}, (64, 64), (73, 73)),
        ({"crop_pct": 1.0}, (64, 64), (64, 64)),
        ({"crop_mode": "squash"}, (64, 64), (73, 73)),
        ({"test_input_size": (3, 96, 96), "test_crop_pct": 1.0}, (64, 64), (73, 73)),
    ],
)
def test_preprocessing_is_read_from_timms_configuration(
    changes: dict[str, Any], size: tuple[int, int], resize: tuple[int, int]
) -> None:
    cfg = {
        "input_size": (3, 64, 64),
        "crop_pct": 0.875,
        "interpolation": "bicubic",
        "mean": (0, 0, 0),
        "std": (1, 1, 1),
    }
    how = preprocess_of({**cfg, **changes})
    assert (how.input_size, how.resize) == (size, resize)
    assert how.resize_mode == ("squash" if changes.get("crop_mode") == "squash" else "shorter")
    assert preprocess_of({**cfg, **changes}, 32, 1.0).resize == (32, 32)


def test_a_crop_mode_that_kdc_does_not_know_is_refused() -> None:
    with pytest.raises(KdcError, match="crop mode border"):
        preprocess_of({"input_size": (3, 64, 64), "crop_mode": "border"})
