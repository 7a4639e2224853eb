"""Models from timm: hub weights, local folders, checkpoints."""

import json
from collections.abc import Mapping
from math import floor
from pathlib import Path
from typing import Any

from torch import nn

from compressor.errors import KdcError, did_you_mean, first_line, os_error
from compressor.hub import from_hub
from compressor.models.classes import imagenet_spellings, spellings_of
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.weights import read_checkpoint, tensors_sha256
from compressor.spec.preprocess import Preprocess
from compressor.spec.student import Weights

__all__ = [
    "classifier_names",
    "create",
    "load_checkpoint",
    "load_hub",
    "load_local",
    "local_config",
    "preprocess_of",
    "require_known",
]


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
    if input_size and _registered(name).fixed_input_size:
        arguments["img_size"] = input_size
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained, **arguments)
    except (RuntimeError, AssertionError) as error:
        raise KdcError(f"timm:{name}: {first_line(error)}") from None
    return model


def _registered(name: str) -> Any:
    """timm's own pretrained_cfg of a model, which need not be built for it."""
    import timm

    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=False)
    except RuntimeError as error:
        raise KdcError(f"timm:{name}: {first_line(error)}") from None


def _loaded(
    network: nn.Module, source: str, input_size: int | None, names: Any = None, licence: str | None = None
) -> LoadedModel:
    """`names`: the outputs' names, from the configuration; where it has none, ImageNet's if there are 1,000 outputs."""
    from timm.data import infer_imagenet_subset

    cfg: dict[str, Any] = dict(network.pretrained_cfg)  # type: ignore[arg-type]
    class_names = spellings_of([str(name) for name in names]) if names else None
    if not names and infer_imagenet_subset(network) == "imagenet-1k":
        class_names = imagenet_spellings()
    weights = Weights(
        source=source,
        architecture=str(cfg.get("architecture")),
        sha256=tensors_sha256(network.state_dict()),
        licence=licence or str(cfg.get("license") or "unknown"),
        parameters=sum(p.numel() for p in network.parameters()),
    )
    return check_input(LoadedModel(network.eval(), preprocess_of(cfg, input_size), class_names, weights, "timm"))


def load_hub(name: str, input_size: int | None) -> LoadedModel:
    """`timm:NAME`, with its weights from the Hugging Face hub."""
    require_known(name)
    with from_hub(
        f"timm:{name}", "use timm:local-dir:PATH or timm:NAME@CHECKPOINT for weights that lie on this machine"
    ):
        network = create(name, input_size=input_size, pretrained=True)
    return _loaded(network, f"timm:{name}", input_size, getattr(network, "pretrained_cfg", {}).get("label_names"))


def local_config(folder: Path, source: str) -> dict[str, Any]:
    """FOLDER/config.json of a timm model; raises KdcError that names `source`."""
    config = folder / "config.json"
    if not config.is_file():
        raise KdcError(f"{source}: {config} does not exist", "a timm folder holds config.json and model.safetensors")
    try:
        values: dict[str, Any] = json.loads(config.read_text(encoding="utf-8"))
        require_known(str(values["architecture"]))
    except OSError as error:
        raise os_error(error, f"reading {config}") from error
    except (ValueError, KeyError, TypeError):
        raise KdcError(f"{source}: {config} is no timm configuration (JSON with an architecture)") from None
    return values


def load_local(folder: Path, source: str, input_size: int | None) -> LoadedModel:
    """`timm:local-dir:PATH`: config.json and model.safetensors, as timm and the hub lay them out."""
    import timm

    config = local_config(folder, source)
    if not (folder / "model.safetensors").is_file():
        raise KdcError(f"{source}: {folder / 'model.safetensors'} does not exist", "weights must be safetensors")
    try:
        fixed = input_size and config.get("pretrained_cfg", config).get("fixed_input_size")
        size = {"img_size": input_size} if fixed else {}
        network = timm.create_model(f"local-dir:{folder}", pretrained=True, **size)
    except Exception as error:  # safetensors' own type is not exported from one stable place
        raise KdcError(f"{source} cannot be loaded: {first_line(error)}") from None
    return _loaded(network, source, input_size, network.pretrained_cfg.get("label_names"))


def load_checkpoint(name: str, path: Path, source: str, input_size: int | None) -> LoadedModel:
    """`timm:NAME@CHECKPOINT`: the number of classes is read from the classifier in the checkpoint. Its licence is not
    that of timm's weights of the same name, and so unknown."""
    require_known(name)
    state = read_checkpoint(path)
    first = classifier_names(name)[0]
    weight = state.get(f"{first}.weight")
    if weight is None:
        raise KdcError(f"checkpoint {path} has no {first}.weight: it is no {name} classifier")
    network = create(name, classes=weight.shape[0], input_size=input_size)
    try:
        network.load_state_dict(state, strict=True)
    except RuntimeError as error:
        detail = next(iter(str(error).splitlines()[1:]), first_line(error)).strip()
        raise KdcError(f"checkpoint {path} does not fit {name}: {detail[:200]}") from None
    return _loaded(network, source, input_size, licence="unknown")


def classifier_names(name: str) -> tuple[str, ...]:
    """What the classifier of timm's model `name` is called in its state dict; some models have two."""
    named = _registered(name).classifier
    return tuple(named) if isinstance(named, (tuple, list)) else (str(named),)
