"""Networks of timm on log-mel features, which are an image of one channel: hub weights, folders, checkpoints."""

from pathlib import Path
from typing import Any

from torch import nn

from compressor.errors import KdcError, did_you_mean, first_line
from compressor.hub import from_hub
from compressor.models.building import config_in, described_by, require_files, weights_file
from compressor.models.checkpoints.files import require_checkpoint
from compressor.models.checkpoints.state_dict import read_checkpoint, read_tensors, split_key
from compressor.models.loaded import LoadedModel, check_input
from compressor.models.timm_weights import classifier_names, fill, other_architecture, registered
from compressor.models.weights import require_finite, tensors_sha256
from compressor.references import Reference
from compressor.schema.student import Weights
from compressor.tasks.audio_classification.fitting import placeholder

__all__ = ["FAMILY", "create", "load_timm", "one_channel", "require_known", "require_timm"]

FAMILY = "timm"


def require_known(name: str) -> None:
    """Raise KdcError unless timm has an architecture of that name (a weights tag after "." is permitted) that takes
    images of any size."""
    import timm

    if "+" in name:
        raise KdcError(f"timm:{name}: kdc changes networks for images, and not yet those for sounds", "leave +… out")
    architecture = name.split(".")[0]
    if not timm.is_model(architecture):
        near = did_you_mean(architecture, timm.list_models())
        raise KdcError(f"timm has no model {architecture}{near}", "python -c 'import timm; print(timm.list_models())'")
    if registered(name).fixed_input_size:
        raise KdcError(
            f"timm:{name} takes images of one size, and log-mel features have as many frames as the sound",
            "take a convolutional network, such as timm:mobilenetv3_small_100",
        )


def require_timm(reference: str) -> None:
    """Raise KdcError for a name that is unknown, and for a folder or checkpoint that is not there."""
    named = Reference.parse(reference)
    if named.local is not None:
        _local_config(named.local, reference)
        weights_file(named.local, reference)
        return
    require_known(named.name)
    if named.at is not None:
        require_checkpoint(split_key(named.at)[0])


def create(name: str, classes: int | None = None, pretrained: bool = False) -> nn.Module:
    """`timm.create_model` for one channel; of pretrained weights, whose first layer has three, their sum."""
    import timm

    arguments: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    try:
        network: nn.Module = timm.create_model(name, pretrained=pretrained, in_chans=1, **arguments)
    except (RuntimeError, AssertionError, TypeError) as error:
        raise KdcError(f"timm:{name}: {first_line(error)}") from None
    return network


def load_timm(reference: str) -> LoadedModel:
    """`timm:NAME` with the hub's weights, `timm:NAME@CHECKPOINT[#KEY]` or `timm:local-dir:PATH`. How it hears sound is
    found of the data that it is trained on; of weights whose first layer takes three channels the sum is taken."""
    named = Reference.parse(reference)
    if named.local is not None:
        return _local(named.local, reference)
    require_known(named.name)
    if named.at is None:
        with from_hub(reference, "--teacher-init random, or timm:NAME@CHECKPOINT for weights on this machine"):
            network = create(named.name, pretrained=True)
        return _loaded(network, named.name, reference, str(registered(named.name).license or "unknown"))
    path, key = split_key(named.at)
    checkpoint = read_checkpoint(path, create(named.name).state_dict().keys(), key)
    rows = [checkpoint.state.get(f"{head}.weight") for head in classifier_names(named.name)]
    shapes = {len(row) for row in rows if row is not None and row.ndim > 0}
    network = create(named.name, shapes.pop() if len(shapes) == 1 else None)
    left = fill(network, one_channel(checkpoint.state, network), named.name, f"checkpoint {path}")
    notes = checkpoint.notes + other_architecture(checkpoint.architecture, named.name, path)
    return _loaded(network, named.name, reference, "unknown", notes=notes, left=left)


def one_channel(state: dict[str, Any], network: nn.Module) -> dict[str, Any]:
    """`state`, with the sum of what a first layer of three channels has, as timm makes one of its own weights."""
    expected = network.state_dict()
    return {
        name: value.sum(1, keepdim=True)
        if name in expected and value.ndim == 4 and value.shape[1] == 3 and expected[name].shape[1] == 1
        else value
        for name, value in state.items()
    }


def _local(folder: Path, source: str) -> LoadedModel:
    values = _local_config(folder, source)
    require_files(folder)
    try:
        state = read_tensors(weights_file(folder, source))
    except KdcError as error:
        raise KdcError(f"{source} cannot be loaded: {error.message}", error.hint) from None
    name = values["architecture"]
    with described_by(source, sum(value.numel() for value in state.values())):
        rows = [state.get(f"{head}.weight") for head in classifier_names(name)]
        shapes = {len(row) for row in rows if row is not None and row.ndim > 0}
        network = create(name, shapes.pop() if len(shapes) == 1 else None)
        left = fill(network, one_channel(state, network), name, source)
    stated = values.get("label_names") or (values.get("pretrained_cfg") or {}).get("label_names")
    names = [str(label) for label in stated] if isinstance(stated, list) else None
    return _loaded(network, name, source, str(values.get("license") or "unknown"), left=left, names=names)


def _local_config(folder: Path, source: str) -> dict[str, Any]:
    config = folder / "config.json"
    if not config.exists():
        raise KdcError(f"{source}: {config} does not exist", "a timm folder holds config.json and model.safetensors")
    values = config_in(config)
    if not isinstance(values, dict) or not isinstance(values.get("architecture"), str):
        raise KdcError(f"{source}: {config} is no timm configuration (JSON with an architecture)")
    if values.get("model_args"):
        raise KdcError(f"{source}: model_args of its config.json change the network, which kdc cannot keep for sounds")
    require_known(values["architecture"])
    return values


def _loaded(
    network: nn.Module, name: str, source: str, licence: str, *, notes: tuple[str, ...] = (),
    left: frozenset[str] = frozenset(), names: list[str] | None = None,
) -> LoadedModel:  # fmt: skip
    require_finite(network, source)
    brought = {key: value for key, value in network.state_dict().items() if key not in left}
    weights = Weights(
        source=source,
        architecture=name.split(".")[0],
        sha256=tensors_sha256(brought),
        licence=licence,
        parameters=sum(p.numel() for p in network.parameters()),
    )
    spellings = None if names is None or left else tuple((label,) for label in names)
    headless = bool(left) or getattr(network, "num_classes", None) == 0
    return check_input(
        LoadedModel(network.float().eval(), placeholder(), spellings, weights, FAMILY, headless=headless, notes=notes)
    )
