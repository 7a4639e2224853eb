"""Models from timm: hub weights, local folders, checkpoints."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor
from pathlib import Path
from typing import Any

from torch import nn

from compressor.errors import KdcError, did_you_mean, first_line
from compressor.hub import from_hub
from compressor.models.building import (
    config_in,
    described_by,
    require_files,
    require_size,
    weights_file,
)
from compressor.models.checkpoints.files import stored_in_half
from compressor.models.checkpoints.state_dict import read_checkpoint, read_tensors, split_key
from compressor.models.classes import imagenet_spellings, spellings_of
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.timm_weights import (
    base_of,
    classifier_names,
    fill,
    other_architecture,
    registered,
)
from compressor.models.weights import require_finite, tensors_sha256
from compressor.schema.base import parse
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.student import Weights
from compressor.tasks.image_classification.models.narrowing import Shapes, shapes_of
from compressor.tasks.image_classification.models.surgery import operate, require_operations, width_of

__all__ = [
    "create",
    "load_checkpoint",
    "load_hub",
    "load_local",
    "local_config",
    "preprocess_of",
    "require_known",
]


def require_known(name: str) -> None:
    """Raise KdcError unless timm has an architecture of that name (a weights tag after "." is permitted), and what is
    changed in it after "+" is something that kdc changes."""
    import timm

    architecture = base_of(name).split(".")[0]
    if not timm.is_model(architecture):
        near = did_you_mean(architecture, timm.list_models())
        raise KdcError(f"timm has no model {architecture}{near}", "python -c 'import timm; print(timm.list_models())'")
    require_operations(name)


def preprocess_of(
    cfg: Mapping[str, Any], input_size: int | None = None, crop_pct: float | None = None, source: str = "timm"
) -> ImagePreprocess:
    """A timm pretrained_cfg as a ImagePreprocess; `input_size` (pixels) and `crop_pct` override the model's own. Raises
    KdcError that names `source` for what a ImagePreprocess cannot say."""
    from timm.data import resolve_data_config

    where = f"{source}: its preprocessing"
    try:
        data = resolve_data_config(pretrained_cfg=dict(cfg))
        channels, *sides = (int(side) for side in data["input_size"])
        share = float(crop_pct or data["crop_pct"])
        mean, std = ([float(value) for value in data[key]] for key in ("mean", "std"))
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise KdcError(f"{where} cannot be read: {first_line(error)}") from None
    require_three(channels, source)
    size = (input_size, input_size) if input_size else tuple(sides)
    if len(size) != 2 or not 0.05 <= share <= 4:
        raise KdcError(f"{where}: input_size {data['input_size']} and crop_pct {share:g} make no image")
    mode = data.get("crop_mode") or "center"
    if mode not in ("center", "squash") or (size[0] != size[1] and mode == "center"):
        raise KdcError(f"{where} with crop mode {mode} at {size[0]}×{size[1]} is not supported")
    require_scale(std, where)
    settings = {
        "input_size": size,
        "resize": tuple(floor(side / share) for side in size),
        "resize_mode": "shorter" if mode == "center" else "squash",
        "interpolation": data["interpolation"],
        "mean": tuple(mean),
        "std": tuple(std),
    }
    return parse(ImagePreprocess, settings, where)


def require_three(channels: int, source: str) -> None:
    """Raise KdcError for a network of images that are not RGB."""
    if channels != 3:
        raise KdcError(
            f"{source} takes images of {channels} channel{'' if channels == 1 else 's'}; kdc's have 3",
            "take a model for RGB images: grey ones are read as RGB",
        )


def require_scale(std: Sequence[float], where: str) -> None:
    """Raise KdcError for standard deviations that images cannot be divided by."""
    if not all(value > 0 for value in std):
        raise KdcError(f"{where}: its standard deviations {list(std)} are not all above 0")


def create(
    name: str,
    classes: int | None = None,
    input_size: int | None = None,
    pretrained: bool = False,
    like: Shapes | None = None,
) -> nn.Module:
    """`timm.create_model`, at another input size also for networks whose position embedding fixes it, and changed where
    the name says so (`surgery`). `like`: of what shapes the weights are that will be loaded, where they are pruned."""
    import timm

    require_size(input_size)
    arguments: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if input_size and registered(name).fixed_input_size:
        arguments["img_size"] = input_size
    try:
        model: nn.Module = timm.create_model(base_of(name), pretrained=pretrained, **arguments)
    except (RuntimeError, AssertionError) as error:
        raise KdcError(f"timm:{name}: {first_line(error)}") from None
    operate(model, name, input_size=input_size, like=like)
    return model


def _loaded(
    network: nn.Module, source: str, input_size: int | None, names: Any = None, licence: str | None = None,
    notes: tuple[str, ...] = (), left: frozenset[str] = frozenset(),
) -> LoadedModel:  # fmt: skip
    """`names`: the outputs' names, from the configuration; where it has none, ImageNet's if there are 1,000 outputs.
    `left`: what the weights did not bring, which is the classifier."""
    from timm.data import infer_imagenet_subset

    cfg: dict[str, Any] = dict(network.pretrained_cfg)  # type: ignore[arg-type]
    class_names = spellings_of(_listed(names, source)) if names else None
    if not names and not left and infer_imagenet_subset(network) == "imagenet-1k":
        class_names = imagenet_spellings()
    require_finite(network, source)
    brought = {name: value for name, value in network.state_dict().items() if name not in left}
    weights = Weights(
        source=source,
        architecture=str(cfg.get("architecture")),
        sha256=tensors_sha256(brought),
        licence=licence or str(cfg.get("license") or "unknown"),
        parameters=sum(p.numel() for p in network.parameters()),
    )
    preprocess = preprocess_of(cfg, input_size, source=source)
    headless = bool(left) or getattr(network, "num_classes", None) == 0
    return check_input(
        LoadedModel(network.float().eval(), preprocess, class_names, weights, "timm", headless=headless, notes=notes)
    )


def _listed(names: Any, source: str) -> list[str]:
    if not isinstance(names, (list, tuple)):
        raise KdcError(f"{source}: label_names of its configuration is {type(names).__name__}, not a list of names")
    return [str(name) for name in names]


def load_hub(name: str, input_size: int | None) -> LoadedModel:
    """`timm:NAME`, with its weights from the Hugging Face hub."""
    require_known(name)
    with from_hub(
        f"timm:{name}", "use timm:local-dir:PATH or timm:NAME@CHECKPOINT for weights that lie on this machine"
    ):
        network = create(base_of(name), input_size=input_size, pretrained=True)
    names = getattr(network, "pretrained_cfg", {}).get("label_names")
    told = operate(network, name, input_size=input_size)
    return _loaded(network, f"timm:{name}", input_size, names, notes=told)


@dataclass(frozen=True)
class _Config:
    """A timm folder's config.json: `cfg` is timm's pretrained_cfg, `arguments` change the architecture."""

    architecture: str
    cfg: dict[str, Any]
    arguments: dict[str, Any]


def local_config(folder: Path, source: str) -> _Config:
    """FOLDER/config.json of a timm model; raises KdcError that names `source`."""
    from timm.models._hub import _parse_model_cfg

    config = folder / "config.json"
    if not config.exists():
        raise KdcError(f"{source}: {config} does not exist", "a timm folder holds config.json and model.safetensors")
    bad = KdcError(f"{source}: {config} is no timm configuration (JSON with an architecture)")
    values = config_in(config)
    if not isinstance(values, dict) or not isinstance(values.get("architecture"), str):
        raise bad
    require_known(values["architecture"])
    try:
        cfg, architecture, arguments = _parse_model_cfg(values, {})
        return _Config(architecture, dict(cfg), dict(arguments or {}))
    except Exception as error:  # wrong types, wherever timm first looks at them
        raise KdcError(f"{bad.message}: {first_line(error)}") from None


NOT_OF_A_MODEL = {
    "model_name", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "device",
    "dtype", "features_only",
}  # fmt: skip


def load_local(folder: Path, source: str, input_size: int | None) -> LoadedModel:
    """`timm:local-dir:PATH`: config.json and model.safetensors, as timm and the hub lay them out. The weights are read
    here, and timm is handed the tensors, which it adapts as it does those that it reads itself."""
    import timm

    require_size(input_size)
    config = local_config(folder, source)
    require_files(folder)
    file = weights_file(folder, source)
    foreign = sorted(config.arguments.keys() & NOT_OF_A_MODEL)
    if foreign:
        raise KdcError(f"{source}: model_args of its config.json holds {foreign[0]}, which is no part of a network")
    require_three(_number(config.arguments.get("in_chans"), 3, source), source)
    seen = config.cfg.get("input_size")
    if isinstance(seen, (list, tuple)) and seen:
        require_three(_number(seen[0], 3, source), source)
    classes = config.arguments.get("num_classes", config.cfg.get("num_classes"))
    if classes != config.cfg.get("num_classes"):  # timm would then draw the classifier anew, in silence
        raise KdcError(f"{source}: config.json says {config.cfg.get('num_classes')} classes, its model_args {classes}")
    arguments = dict(config.arguments)
    if input_size and config.cfg.get("fixed_input_size"):
        arguments["img_size"] = input_size
    try:
        state = read_tensors(file)
    except KdcError as error:
        raise KdcError(f"{source} cannot be loaded: {error.message}", error.hint) from None
    # Only the tensors are a source of weights here, never an address that the configuration names.
    cfg = {key: value for key, value in config.cfg.items() if key not in ("url", "file", "hf_hub_id", "source")}
    stored = stored_in_half({str(value.dtype).removeprefix("torch.") for value in state.values()})
    with described_by(source, sum(value.numel() for value in state.values())):
        network: nn.Module = timm.create_model(
            config.architecture, pretrained=True, pretrained_cfg={**cfg, "state_dict": state}, **arguments
        )
        network.pretrained_cfg["state_dict"] = None  # type: ignore[index, operator, assignment]
    return _loaded(network, source, input_size, config.cfg.get("label_names"), notes=(stored,) if stored else ())


def _number(value: Any, otherwise: int, source: str) -> int:
    if value is None:
        return otherwise
    if not isinstance(value, int) or isinstance(value, bool):
        raise KdcError(f"{source}: {value!r} in its config.json is no whole number")
    return value


def load_checkpoint(name: str, spelt: str, source: str, input_size: int | None) -> LoadedModel:
    """`timm:NAME@CHECKPOINT[#KEY]`: the number of classes is read from the classifier in the checkpoint; without one it
    is a backbone. Its licence is not that of timm's weights of the same name, and so unknown."""
    require_known(name)
    path, key = split_key(spelt)
    network = create(base_of(name), input_size=input_size)
    wanted, width = require_operations(name), width_of(name)
    told = operate(network, name, [operation for operation in wanted if operation != width])
    checkpoint = read_checkpoint(path, network.state_dict().keys(), key)
    like = shapes_of(checkpoint.state)
    if width is not None:
        told += operate(network, name, [width], like=like)
    rows = [checkpoint.state.get(f"{head}.weight") for head in classifier_names(name)]
    shapes = {len(row) for row in rows if row is not None and row.ndim > 0}
    if len(shapes) == 1:
        network = create(name, classes=shapes.pop(), input_size=input_size, like=like)
    left = fill(network, checkpoint.state, name, f"checkpoint {path}")
    notes = told + checkpoint.notes + other_architecture(checkpoint.architecture, name, path)
    return _loaded(network, source, input_size, licence="unknown", notes=notes, left=left)
