"""Hugging Face teachers: a local folder, its image processor, its names, its licence."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModelForImageClassification

from compressor.errors import KdcError
from compressor.models import load_model
from compressor.tasks.image_classification.models.answering import logits_of
from compressor.tasks.image_classification.models.hf_models import preprocess_from_hf
from compressor.tasks.image_classification.preprocessing import normalise, of_images, resize_and_crop

NAMES = ["cat", "dog", "sea lion"]
VitFolder = Callable[..., Path]


def test_a_vit_is_what_transformers_makes_of_it(vit_folder: VitFolder, photos: dict[str, Image.Image]) -> None:
    folder = vit_folder(NAMES)
    model = load_model(f"hf:{folder}")
    assert model.class_names == (("cat",), ("dog",), ("sea lion",))
    assert (model.family, model.weights.architecture, model.weights.licence) == ("hf", "vit", "unknown")
    assert not model.network.training
    theirs, processor = (
        AutoModelForImageClassification.from_pretrained(folder),
        AutoImageProcessor.from_pretrained(folder),
    )
    images = list(photos.values())
    pixels = torch.from_numpy(np.stack([processor(image, return_tensors="np")["pixel_values"][0] for image in images]))
    ours = np.stack(
        [
            normalise(resize_and_crop(p, of_images(model.preprocess))[None], of_images(model.preprocess))[0]
            for p in images
        ]
    )
    # Pillow resizes for kdc, torchvision for transformers: their rounding differs by a level of 255.
    assert np.abs(ours - pixels.numpy()).max() <= 2.01 / 255 / 0.5
    with torch.no_grad():
        torch.testing.assert_close(model.network(pixels), theirs(pixel_values=pixels).logits)
        torch.testing.assert_close(logits_of(model, images), theirs(pixel_values=pixels).logits, rtol=0, atol=1e-2)
    assert of_images(model.preprocess).resize_mode == "squash"


@pytest.mark.slow
def test_what_torch_logs_of_its_callers_is_kept_away_and_nothing_else(vit_folder: VitFolder) -> None:
    """In a process of its own: torch logs it once, when transformers imports torchao."""
    code = "import sys, logging; from compressor.models import load_model; load_model(sys.argv[1])\n"
    code += "logging.getLogger('torch.utils._pytree').warning('a real one')\n"
    command = [sys.executable, "-c", code, f"hf:{vit_folder(NAMES)}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    assert line.endswith("a real one")
    assert done.stdout == ""


def test_a_name_that_is_not_one_line_is_refused(vit_folder: VitFolder) -> None:
    folder = vit_folder(["cat", "dog", "sea\u2028lion"])
    with pytest.raises(KdcError) as caught:
        load_model(f"hf:{folder}")
    assert r"the name of its class 2, 'sea\u2028lion', holds a line break (U+2028)" in caught.value.message
    assert "id2label" in caught.value.hint


@pytest.mark.parametrize(
    ("kind", "settings", "resize", "size", "mode"),
    [
        ("ViT", {}, (224, 224), (224, 224), "squash"),
        ("ViT", {"do_normalize": False}, (224, 224), (224, 224), "squash"),
        ("ConvNext", {"size": {"shortest_edge": 224}}, (256, 256), (224, 224), "shorter"),
        ("ConvNext", {"size": {"shortest_edge": 384}}, (384, 384), (384, 384), "squash"),
        ("Bit", {"size": {"shortest_edge": 256}}, (256, 256), (224, 224), "shorter"),
        ("MobileNetV2", {}, (256, 256), (224, 224), "shorter"),
        ("DeiT", {}, (256, 256), (224, 224), "squash"),
        ("EfficientNet", {"size": {"height": 224, "width": 224}, "resample": 0}, (224, 224), (224, 224), "squash"),
    ],
)
def test_image_processors_are_reproduced(
    vit_folder: VitFolder,
    kind: str,
    settings: dict[str, Any],
    resize: tuple[int, int],
    size: tuple[int, int],
    mode: str,
) -> None:
    """Loaded at the processor's own size the tiny ViT would not fit, so the reading is tried alone."""
    processor = getattr(transformers, f"{kind}ImageProcessor")(**settings)
    how = preprocess_from_hf(processor.to_dict(), None, "hf:x")
    assert (how.resize, how.input_size, how.resize_mode) == (resize, size, mode)
    smooth = (
        np.linspace(0, 255, 200)[:, None, None] * np.array([1, 0.5, 0.2]) + np.linspace(0, 30, 300)[None, :, None] * 0
    )
    image = Image.fromarray(smooth.astype(np.uint8))
    theirs = np.asarray(processor(image, return_tensors="np")["pixel_values"])
    ours = normalise(resize_and_crop(image, how)[None], how)
    assert np.abs(ours - theirs).mean() * 255 * min(how.std) < 1
    at_32 = preprocess_from_hf(processor.to_dict(), 32, "hf:x")
    assert at_32.input_size == (32, 32)
    assert at_32.resize[0] == round(resize[0] * 32 / size[0])


@pytest.mark.parametrize("kind", ["MobileViT", "Levit", "Perceiver"])
def test_image_processors_that_do_more_than_they_say_are_refused(vit_folder: VitFolder, kind: str) -> None:
    """MobileViT's swaps red and blue, Levit's resizes to 8/7, Perceiver's crops first."""
    folder = vit_folder(NAMES)
    getattr(transformers, f"{kind}ImageProcessor")().save_pretrained(folder)
    with pytest.raises(KdcError, match=rf"what its image processor \({kind}ImageProcessor.*\) does"):
        load_model(f"hf:{folder}")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"do_rescale": False}, "does not rescale"),
        ({"rescale_factor": 1 / 127.5}, "rescale_factor"),
        ({"size": {"longest_edge": 32}}, "size {'longest_edge': 32} is not supported"),
        ({"size": {"shortest_edge": 32}}, "is not supported without a crop"),
        ({"size": None}, "size is missing is not supported"),
        ({"image_mean": None}, "has no image_mean or image_std"),
    ],
)
def test_settings_that_a_preprocess_cannot_say_are_refused(changes: dict[str, Any], message: str) -> None:
    values = {
        "do_rescale": True, "rescale_factor": 1 / 255, "size": {"height": 32, "width": 32}, "resample": 2,
        "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
    }  # fmt: skip
    with pytest.raises(KdcError) as caught:
        preprocess_from_hf({**values, **changes}, None, "hf:x")
    assert message in caught.value.message
    assert caught.value.message.startswith("hf:x: ")


def test_a_processor_that_has_no_means_normalises_nothing() -> None:
    """As MobileViT's of transformers 4: KeyError 'image_mean'."""
    values = {"size": {"height": 32, "width": 32}, "resample": 2, "do_rescale": True, "rescale_factor": 1 / 255}
    how = preprocess_from_hf(values, None, "hf:x")
    assert (how.mean, how.std) == ((0.0,) * 3, (1.0,) * 3)


def test_numbered_labels_are_no_names(vit_folder: VitFolder) -> None:
    assert load_model(f"hf:{vit_folder(None)}").class_names is None


def test_weights_without_a_classifier_have_no_class_names(vit_folder: VitFolder) -> None:
    """Pitfalls, "A random head": transformers puts a random classifier there, and says so only in a log."""
    assert load_model(f"hf:{vit_folder(NAMES, base_only=True)}").class_names is None


def test_weights_that_lack_more_than_the_classifier_are_refused(vit_folder: VitFolder) -> None:
    folder = vit_folder(NAMES)
    state = load_file(folder / "model.safetensors")
    gone = next(name for name in state if "layer.1" in name and name.endswith("weight"))
    save_file(
        {name: value for name, value in state.items() if name != gone}, folder / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(KdcError, match="its weights lack "):
        load_model(f"hf:{folder}")


@pytest.mark.parametrize("size", [16, 48])
def test_a_network_that_fixes_its_size_refuses_another(vit_folder: VitFolder, size: int) -> None:
    with pytest.raises(KdcError, match=f"does not take images of {size}×{size}: ") as caught:
        load_model(f"hf:{vit_folder(NAMES)}", size)
    assert "--input-size" in caught.value.hint


@pytest.mark.parametrize("how", ["truncated", "no weights", "pickled", "no config", "config no json", "no processor"])
def test_a_damaged_folder_is_refused(vit_folder: VitFolder, how: str) -> None:
    folder = vit_folder(NAMES)
    weights, config = folder / "model.safetensors", folder / "config.json"
    if how == "truncated":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif how in ("no weights", "pickled"):
        state = load_file(weights)
        weights.unlink()
        if how == "pickled":
            torch.save(state, folder / "pytorch_model.bin")
    elif how == "no config":
        config.unlink()
    elif how == "config no json":
        config.write_text("{")
    else:
        (folder / "preprocessor_config.json").unlink()
    with pytest.raises(KdcError) as caught:
        load_model(f"hf:{folder}")
    assert str(folder) in caught.value.message
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("card", "licence"),
    [
        ("---\nlicense: apache-2.0\ntags: [vision]\n---\n# A model\n", "apache-2.0"),
        ("---\ntags: [vision]\n---\n", "unknown"),
        ("# A model\nlicense: mit\n", "unknown"),
        ("---\n: : {\n---\n", "unknown"),
        ("---", "unknown"),
    ],
)
def test_the_licence_is_read_from_the_model_card(vit_folder: VitFolder, card: str, licence: str) -> None:
    folder = vit_folder(NAMES)
    (folder / "README.md").write_text(card)
    assert load_model(f"hf:{folder}").weights.licence == licence


def test_the_configuration_states_a_licence_before_the_card(vit_folder: VitFolder) -> None:
    folder = vit_folder(NAMES)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "license": "cc-by-4.0"}))
    assert load_model(f"hf:{folder}").weights.licence == "cc-by-4.0"


def test_an_adapter_is_not_left_out(vit_folder: VitFolder) -> None:
    """Without peft, transformers loads the base model in silence."""
    folder = vit_folder(["cat", "dog", "sea lion"])
    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4}))
    with pytest.raises(KdcError, match=r"holds an adapter \(adapter_config.json\)"):
        load_model(f"hf:{folder}")


def test_layers_that_the_configuration_leaves_out_are_said(vit_folder: VitFolder) -> None:
    folder = vit_folder(["cat", "dog", "sea lion"])
    assert load_model(f"hf:{folder}").notes == ()
    config = json.loads((folder / "config.json").read_text())
    layers = config["num_hidden_layers"]
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers - 1}))
    (said,) = load_model(f"hf:{folder}").notes
    assert f"layer.{layers - 1}." in said or f"layers.{layers - 1}." in said
    assert "its config.json has no place for" in said
