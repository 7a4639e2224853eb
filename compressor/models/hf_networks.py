"""Networks of Hugging Face transformers, whatever their task: from weights, or drawn by a configuration; with another
classifier; and what is known of their weights."""

from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from compressor.errors import KdcError
from compressor.models.building import described_by
from compressor.models.checkpoints.files import stored_in_half
from compressor.models.hugging_face import (
    as_float32,
    licence_of,
    pretrained,
    require_plain_config,
    terms_of,
    transformers_library,
)
from compressor.models.weights import heads, tensors_sha256
from compressor.schema.student import Weights

__all__ = ["config_from", "drawn", "loaded", "told_of_weights", "weights_of", "with_all_but_the_head"]

Stored = Mapping[str, tuple[str, int]]
"""See `hugging_face.stored_in`."""


def loaded(auto: str, reference: str, stored: Stored | None) -> tuple[Any, dict[str, Any]]:
    """The model, and what transformers says of loading it. `auto`: a class of transformers, AutoModelFor….
    `stored`: what its weights are, where that is known before."""
    transformers = transformers_library()
    numbers = sum(count for _, count in stored.values()) if stored else None
    with described_by(f"hf:{reference}", numbers, "the folder must hold config.json and model.safetensors"):
        return pretrained(getattr(transformers, auto), reference, transformers)


def config_from(path: Path) -> Any:
    """The configuration in a folder, or that file."""
    transformers = transformers_library()
    folder = path if path.is_dir() else path.parent
    if path.is_dir() or path.name == "config.json":
        return transformers.AutoConfig.from_pretrained(folder, trust_remote_code=False)
    values = dict(require_plain_config(path, str(path)))
    kind = values.pop("model_type", None)
    if not isinstance(kind, str):
        raise KdcError(f"{path} is no configuration of a model: it has no model_type")
    return transformers.AutoConfig.for_model(kind, **values)


def drawn(auto: str, config: Any) -> nn.Module:
    """The network of a configuration, in float32, its weights drawn from torch's generator. `auto`: see `loaded`."""
    transformers = transformers_library()
    made: nn.Module = getattr(transformers, auto).from_config(
        config, trust_remote_code=False, **as_float32(transformers)
    )
    return made.float()


def with_all_but_the_head(changed: nn.Module, network: nn.Module, classes: int) -> None:
    """Give `changed`, which has `classes` outputs, all weights of `network` that fit, but for those of its own last
    layer, which stays as transformers drew it."""
    state = changed.state_dict()
    outputs = {
        f"{name}.{part}"
        for name, layer in changed.named_modules()
        if any(layer is head for head in heads(changed, classes))
        for part in ("weight", "bias")
    }
    fitting = {
        name: value
        for name, value in network.state_dict().items()
        if name not in outputs and name in state and value.shape == state[name].shape
    }
    changed.load_state_dict({**state, **fitting})


def weights_of(reference: str, network: nn.Module, config: Any, left: Container[str] = ()) -> Weights:
    """What is known of a network's weights. `left`: names of those that `reference` did not bring, and that were drawn
    therefore."""
    source = f"hf:{reference}"
    brought = {name: value for name, value in network.state_dict().items() if name.removeprefix("model.") not in left}
    with described_by(source, None):
        licence, terms = licence_of(reference, config), terms_of(reference)
    return Weights(
        source=source,
        architecture=str(getattr(config, "architecture", None) or config.model_type),
        sha256=tensors_sha256(brought),
        licence=licence,
        terms=terms,
        parameters=sum(parameter.numel() for parameter in network.parameters()),
    )


def told_of_weights(source: str, stored: Stored, spare: Sequence[str]) -> list[str]:
    """That they are stored in half precision, and what of them is left out. `spare`: those
    that the configuration has no place for."""
    notes = [f"{source}: {half}"] if (half := stored_in_half({dtype for dtype, _ in stored.values()})) else []
    if spare:
        shown = ", ".join(spare[:2]) + (f" and {len(spare) - 2} more" if len(spare) > 2 else "")
        notes.append(f"{source}: its weights also hold {shown}, which its config.json has no place for: left out")
    return notes
