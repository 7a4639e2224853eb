"""The layers of a transformer, of which a student keeps some: where they lie, and what they are called then."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from compressor.errors import KdcError

__all__ = ["listed_layers", "new_name", "stack_of", "with_layers"]


def listed_layers(asked: str, count: int, reference: str, hint: str) -> list[int] | None:
    """Of `count` layers those that "0,2,5" lists; None where it lists none. Raises KdcError."""
    if "," not in asked:
        return None
    layers = [int(number) for number in asked.split(",")]
    if layers != sorted({*layers}) or layers[-1] >= count:
        raise KdcError(
            f"student {reference!r}: the teacher has the layers 0 to {count - 1}, and they stay in their order", hint
        )
    return layers


def stack_of(network: nn.Module, model: Any) -> tuple[str, int]:
    """The name of the list in `network` that holds the layers of `model`, a part of it that transformers made, and how
    many there are. Raises KdcError."""
    count = model.config.num_hidden_layers
    stacks = [
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and len({type(layer) for layer in module}) == 1
    ]
    outermost = [name for name in stacks if not any(name.startswith(f"{other}.") for other in stacks)]
    if len(outermost) != 1:
        raise KdcError(
            f"the layers of {type(model).__name__} cannot be told apart, so none can be left out",
            "--student hf:PATH of a smaller network",
        )
    return outermost[0], count


def with_layers(config: Any, layers: Sequence[int], count: int) -> Any:
    """The configuration of so many layers; lists of one value a layer (`layer_types`) lose the others' values."""
    for key, value in list(vars(config).items()):
        if isinstance(value, (list, tuple)) and len(value) == count and key not in ("architectures",):
            setattr(config, key, [value[number] for number in layers])
    config.num_hidden_layers = len(layers)
    if hasattr(config, "kept"):  # of a teacher which was made narrower itself
        del config.kept
    return config


def new_name(name: str, stack: str, layers: Sequence[int]) -> str | None:
    """What the weights `name` are called where the `stack` has these layers alone, renumbered; None: they are of one
    that goes."""
    if not name.startswith(f"{stack}."):
        return name
    number, _, rest = name.removeprefix(f"{stack}.").partition(".")
    return f"{stack}.{layers.index(int(number))}.{rest}" if int(number) in layers else None
