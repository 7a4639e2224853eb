"""Models from timm: hub weights, local folders, checkpoints."""

import json
from collections.abc import Mapping
from math import floor
from pathlib import Path
from typing import Any

import torch
from torch import nn

from compressor.errors import KdcError, did_you_mean
from compressor.hub import from_hub
from compressor.models.classes import imagenet_spellings
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.weights import read_checkpoint, tensors_sha256
from compressor.spec.preprocess import Preprocess
from compressor.spec.student import Weights

__all__ = ["create", "load_checkpoint", "load_hub", "load_local", "preprocess_of", "require_known"]


def require_known(name: str) -> None:
    """Raise KdcError unless timm has an architecture of that name (a weights tag after "." is permitted)."""
    import timm

    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = did_you_mean(architecture, timm.list_models())
        raise KdcError(f"timm has no model {architecture}{near}", "python -c 'import timm; print(timm.list_models())'")


def preprocess_of(cfg: Mapping[str, Any], input_size: int | None = None, crop_pct: float | None = None) -> Preprocess:
    """A timm pretrained_cfg as a Preprocess; `input_size` (pixels) and `crop_pct` override the model's own."""
    from timm.data import resolve_data_config

    data = resolve_data_config(pretrained_cfg=dict(cfg))
    size = (input_size, input_size) if input_size else tuple(data["input_size"][1:])
    share = crop_pct or data["crop_pct"]
    mode = data.get("crop_mode") or "center"
    if mode not in ("center", "squash") or (size[0] != size[1] and mode == "center"):
        raise KdcError(f"timm preprocessing with crop mode {mode} at {size[0]}×{size[1]} is not supported")
    return Preprocess(
        input_size=size,
        resize=tuple(floor(side / share) for side in size),
        resize_mode="shorter" if mode == "center" else "squash",
        interpolation=data["interpolation"],
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )


def create(name: str, classes: int | None = None, input_size: int | None = None, pretrained: bool = False) -> nn.Module:
    """`timm.create_model`, at another input size also for networks whose position embedding fixes it."""
    import timm

    arguments: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if input_size and not name.startswith("local-dir:"):
        cfg = timm.get_pretrained_cfg(name, allow_unregistered=False)
        if cfg is not None and cfg.fixed_input_size:
            arguments["img_size"] = input_size
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except RuntimeError as error:
        raise KdcError(f"timm:{name}: {str(error).splitlines()[0]}") from None
    return model


def _spellings(network: nn.Module, names: Any) -> tuple[tuple[str, ...], ...] | None:
    """The outputs' names: the configuration's, or ImageNet's where the weights are of ImageNet-1k."""
    from timm.data import infer_imagenet_subset

    imagenet = imagenet_spellings()
    if names and [str(name) for name in names] != [spellings[0] for spellings in imagenet]:
        return tuple((str(name),) for name in names)
    return imagenet if names or infer_imagenet_subset(network) == "imagenet-1k" else None


def _loaded(network: nn.Module, source: str, input_size: int | None, names: Any = None) -> LoadedModel:
    cfg: dict[str, Any] = dict(network.pretrained_cfg)  # type: ignore[arg-type]
    weights = Weights(
        source=source,
        architecture=str(cfg.get("architecture")),
        sha256=tensors_sha256(network.state_dict()),
        licence=str(cfg.get("license") or "unknown"),
        parameters=sum(p.numel() for p in network.parameters()),
    )
    loaded = LoadedModel(network.eval(), preprocess_of(cfg, input_size), _spellings(network, names), weights, "timm")
    return check_input(loaded)


def load_hub(name: str, input_size: int | None) -> LoadedModel:
    """`timm:NAME`, with its weights from the Hugging Face hub."""
    require_known(name)
    with from_hub(
        f"timm:{name}", "use timm:local-dir:PATH or timm:NAME@CHECKPOINT for weights that lie on this machine"
    ):
        network = create(name, input_size=input_size, pretrained=True)
    return _loaded(network, f"timm:{name}", input_size, getattr(network, "pretrained_cfg", {}).get("label_names"))


def load_local(folder: Path, source: str, input_size: int | None) -> LoadedModel:
    """`timm:local-dir:PATH`: config.json and model.safetensors, as timm and the hub lay them out."""
    import timm

    config = folder / "config.json"
    if not config.is_file():
        raise KdcError(f"{source}: {config} does not exist", "a timm folder holds config.json and model.safetensors")
    try:
        json.loads(config.read_text(encoding="utf-8"))["architecture"]
    except (ValueError, KeyError, TypeError):
        raise KdcError(f"{source}: {config} is no timm configuration (JSON with an architecture)") from None
    if not (folder / "model.safetensors").is_file():
        raise KdcError(f"{source}: {folder / 'model.safetensors'} does not exist", "weights must be safetensors")
    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True)
    except (RuntimeError, ValueError, OSError) as error:
        raise KdcError(f"{source} cannot be loaded: {str(error).splitlines()[0]}") from None
    except Exception as error:  # safetensors' own type, which is not exported from one stable place
        raise KdcError(f"{source} is damaged: {str(error).splitlines()[0]}") from None
    return _loaded(network, source, input_size, network.pretrained_cfg.get("label_names"))


def load_checkpoint(name: str, path: Path, source: str, input_size: int | None) -> LoadedModel:
    """`timm:NAME@CHECKPOINT`: the number of classes is read from the classifier in the checkpoint."""
    require_known(name)
    state = read_checkpoint(path)
    cfg = create(name).pretrained_cfg
    classifier = cfg["classifier"] if isinstance(cfg, Mapping) else getattr(cfg, "classifier", None)
    first = classifier[0] if isinstance(classifier, (tuple, list)) else classifier
    weight = state.get(f"{first}.weight")
    if weight is None:
        raise KdcError(f"checkpoint {path} has no {first}.weight: it is no {name} classifier")
    network = create(name, classes=weight.shape[0], input_size=input_size)
    _fill(network, state, name, path)
    return _loaded(network, source, input_size)


def _fill(network: nn.Module, state: Mapping[str, torch.Tensor], name: str, path: Path) -> None:
    try:
        network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        detail = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise KdcError(f"checkpoint {path} does not fit {name}: {detail[:200]}") from None
