"""Weights stored in half or double precision: loaded as float32 everywhere, said, and the same weights whatever they
were stored as."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from compressor.errors import KdcError
from compressor.models import LoadedModel, load_model, load_run, save_run
from compressor.tasks.image_classification.models.students import create_student, create_trainee
from tests.kit import version_of
from tests.models.test_models_runs import record

NAMES = ["cat", "dog", "sea lion"]
KINDS = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}


def kinds(network: nn.Module) -> set[torch.dtype]:
    return {value.dtype for value in network.state_dict().values() if value.is_floating_point()}


def restored(file: Path, kind: torch.dtype) -> dict[str, torch.Tensor]:
    """Write the file's floating tensors anew as `kind`."""
    state = {n: v.to(kind) if v.is_floating_point() else v for n, v in load_file(file).items()}
    save_file(state, file, {"format": "pt"})
    return state


def in_half(folder: Path, kind: str) -> Path:
    """The weights of an hf: folder in half precision, and its config.json says so, as save_pretrained writes it."""
    restored(folder / "model.safetensors", KINDS[kind])
    config = json.loads((folder / "config.json").read_text())
    config.pop("dtype", None)
    config.pop("torch_dtype", None)
    (folder / "config.json").write_text(json.dumps({**config, "dtype": kind, "torch_dtype": kind}))
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_a_hugging_face_teacher_is_float32_whatever_its_config_says(vit_folder: Callable[..., Path], kind: str) -> None:
    model = load_model(f"hf:{in_half(vit_folder(NAMES), kind)}")
    assert kinds(model.network) == {torch.float32}
    with torch.no_grad():
        assert model.network(torch.zeros(1, 3, 32, 32)).dtype == torch.float32
    assert model.notes == (f"{model.weights.source}: weights stored as {kind} are loaded as float32",)
    assert kinds(create_trainee(model, ["a", "b"], None).network) == {torch.float32}


def test_whose_weights_they_are_does_not_depend_on_how_they_are_stored(vit_folder: Callable[..., Path]) -> None:
    """The values of a half are values of a float, so that the same values are the same weights."""
    half = in_half(vit_folder(NAMES, name="half"), "float16")
    whole = vit_folder(NAMES, name="whole")
    state = {name: value.float() for name, value in load_file(half / "model.safetensors").items()}
    save_file(state, whole / "model.safetensors", {"format": "pt"})
    assert load_model(f"hf:{half}").weights.sha256 == load_model(f"hf:{whole}").weights.sha256


def saved_run(model: LoadedModel, folder: Path) -> Path:
    folder.mkdir()
    save_run(folder, model, record(model))
    return folder


def test_a_run_of_a_half_precision_teacher_is_float32(vit_folder: Callable[..., Path], tmp_path: Path) -> None:
    """Also one whose hf/config.json says otherwise: the network would be built in half, and its weights rounded."""
    trainee = create_trainee(load_model(f"hf:{in_half(vit_folder(NAMES), 'float16')}"), NAMES, None)
    run = saved_run(trainee, tmp_path / "run")
    config = json.loads((run / "hf" / "config.json").read_text())
    assert config.get("dtype", config.get("torch_dtype", "float32")) == "float32"
    (run / "hf" / "config.json").write_text(json.dumps({**config, "dtype": "float16", "torch_dtype": "float16"}))
    again = load_run(run)[0].network
    assert kinds(again) == {torch.float32}
    weight = trainee.network.state_dict()["model.classifier.weight"]
    assert torch.equal(again.state_dict()["model.classifier.weight"], weight)


@pytest.mark.parametrize("kind", KINDS)
def test_a_timm_folder(timm_folder: Callable[..., Path], kind: str) -> None:
    folder = timm_folder("test_resnet", 3, label_names=NAMES)
    state = restored(folder / "model.safetensors", KINDS[kind])
    model = load_model(f"timm:local-dir:{folder}")
    assert kinds(model.network) == {torch.float32}
    assert torch.equal(model.network.state_dict()["fc.weight"], state["fc.weight"].float())
    assert model.notes == (f"weights stored as {kind} are loaded as float32",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_checkpoint(timm_folder: Callable[..., Path], kind: str, tmp_path: Path) -> None:
    folder = timm_folder("test_resnet", 3)
    state = restored(folder / "model.safetensors", KINDS[kind])
    torch.save({"state_dict": state}, tmp_path / "a.pth")
    model = load_model(f"timm:test_resnet@{tmp_path / 'a.pth'}")
    student = create_student("timm:test_resnet", str(tmp_path / "a.pth"), NAMES, 32, None)
    for one in (model, student):
        assert kinds(one.network) == {torch.float32}
        assert f"a.pth: weights stored as {kind} are loaded as float32" in one.notes


def test_float32_is_not_talked_about(vit_folder: Callable[..., Path], timm_folder: Callable[..., Path]) -> None:
    assert load_model(f"hf:{vit_folder(NAMES)}").notes == ()
    assert load_model(f"timm:local-dir:{timm_folder('test_resnet', 3)}").notes == ()


WRONG: dict[str, Any] = {
    "int8": lambda value: value.to(torch.int8),
    "uint8": lambda value: value.to(torch.uint8),
    "float8": lambda value: value.to(torch.float8_e4m3fn),
    "complex": lambda value: value.to(torch.complex64),
    "int64": lambda value: value.to(torch.int64),
}


@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_quantized_and_complex_weights_are_refused(
    vit_folder: Callable[..., Path], timm_folder: Callable[..., Path], change: Any
) -> None:
    if change is WRONG["complex"] and version_of("safetensors") < (0, 7):
        pytest.skip("safetensors below 0.7 writes no complex numbers")
    for reference, name in (
        (f"hf:{vit_folder(NAMES)}", "classifier.weight"),
        (f"timm:local-dir:{timm_folder('test_resnet', 3)}", "fc.weight"),
    ):
        file = Path(reference.removeprefix("hf:").removeprefix("timm:local-dir:")) / "model.safetensors"
        state = load_file(file)
        save_file({**state, name: change(state[name])}, file, {"format": "pt"})
        with pytest.raises(KdcError, match=rf"its weights {name} are "):
            load_model(reference)


def test_a_quantization_config_is_refused(vit_folder: Callable[..., Path]) -> None:
    folder = vit_folder(NAMES)
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_8bit": True}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(KdcError, match="its weights are quantized"):
        load_model(f"hf:{folder}")


def test_weights_that_are_not_finite_are_refused(vit_folder: Callable[..., Path]) -> None:
    folder = vit_folder(NAMES)
    state = load_file(folder / "model.safetensors")
    state["classifier.bias"][0] = float("nan")
    save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(KdcError, match=r"classifier.bias hold values that are not finite"):
        load_model(f"hf:{folder}")
