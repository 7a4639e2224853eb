"""`layers:N` and `layers:0,2,5`: a student that has some of its teacher's layers, and all else of it.

DistilBERT (Sanh et al. 2019, arXiv 1910.01108) begins so: its 6 layers are 0, 2, 4, 7, 9 and 11 of BERT's 12.
"""

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from compressor.errors import KdcError
from compressor.models.features import inner_of
from compressor.models.loaded import LoadedModel, SelectClasses
from compressor.models.weights import heads
from compressor.tasks.text_classification.models.classifier import TextClassifier
from compressor.tasks.text_classification.models.hf_models import built

__all__ = ["HALF", "asked_layers", "cut", "kept_layers", "stack_of"]

HALF = "layers:half"
"""The default student: half of its teacher's layers, rounded up."""

SPELLING = re.compile(r"half|\d{1,4}(,\d{1,4})*")
HINT = "for example --student layers:3, or layers:0,2,5"


def asked_layers(reference: str) -> str:
    """What follows `layers:`; raises KdcError where that is no number, and no list of some."""
    rest = reference.partition(":")[2]
    if re.search(r"width", rest):
        raise KdcError(f"student {reference!r}: kdc cannot make layers narrower yet", HINT)
    if not SPELLING.fullmatch(rest):
        raise KdcError(f"student {reference!r} is not layers:N, layers:half or layers:0,2,5", HINT)
    return rest


def kept_layers(asked: str, count: int, reference: str) -> list[int]:
    """Which of a teacher's `count` layers stay: a number of them, spread evenly, the first and the last among them; or
    those that are listed."""
    if "," in asked:
        layers = [int(number) for number in asked.split(",")]
        if layers != sorted({*layers}) or layers[-1] >= count:
            raise KdcError(
                f"student {reference!r}: the teacher has the layers 0 to {count - 1}, and they stay in their order",
                HINT,
            )
        return layers
    number = (count + 1) // 2 if asked == "half" else int(asked)
    if not 1 <= number <= count:
        raise KdcError(f"student {reference!r}: the teacher has {count} layers", f"layers:1 to layers:{count}")
    if number == 1:
        return [0]
    return [int(step * (count - 1) / (number - 1) + 0.5) for step in range(number)]


def stack_of(network: TextClassifier) -> tuple[str, int]:
    """The name of the list that holds the network's layers, and how many there are. Raises KdcError."""
    model: Any = network.model
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


def cut(teacher: LoadedModel, reference: str, *, drawn: bool) -> tuple[TextClassifier, list[int], int]:
    """The teacher's network with some of its layers, for the same classes in the same order; which, and of how many.
    `drawn`: with the same architecture alone, its weights drawn."""
    network = inner_of(teacher.network)
    if not isinstance(network, TextClassifier):
        raise KdcError(
            f"student {reference!r} is cut out of one teacher, and {teacher.weights.source} is several networks",
            "--student hf:PATH, or one --teacher",
        )
    stack, count = stack_of(network)
    layers = kept_layers(asked_layers(reference), count, reference)
    model: Any = network.model
    config = _with_layers(copy.deepcopy(model.config), layers, count)
    index = _classes(teacher.network)
    if index is not None:
        config.num_labels = len(index)
    small = TextClassifier(built(config), network.tokenizer)
    if not drawn:
        small.load_state_dict(_state(network, stack, layers, index))
    return small.eval(), layers, count


def _with_layers(config: Any, layers: Sequence[int], count: int) -> Any:
    """The configuration of so many layers; lists of one value a layer (`layer_types`) lose the others' values."""
    for key, value in list(vars(config).items()):
        if isinstance(value, (list, tuple)) and len(value) == count and key not in ("architectures",):
            setattr(config, key, [value[number] for number in layers])
    config.num_hidden_layers = len(layers)
    return config


def _classes(network: nn.Module) -> list[int] | None:
    """Which of the inner network's outputs are answered, in which order; None: all, as they are."""
    index: list[int] | None = None
    while isinstance(network, SelectClasses):
        outer = network.index.tolist()
        index = outer if index is None else [outer[number] for number in index]
        network = network.network
    return index


def _state(network: TextClassifier, stack: str, layers: Sequence[int], index: list[int] | None) -> dict[str, Any]:
    """The weights that stay, under the names that they have then."""
    renumbered = {f"{stack}.{old}.": f"{stack}.{new}." for new, old in enumerate(layers)}
    model: Any = network.model
    outputs = {id(p) for layer in heads(network, model.config.num_labels) for p in layer.parameters()}
    state: dict[str, Any] = {}
    parameters = dict(network.named_parameters())
    for name, value in network.state_dict().items():
        if name.startswith(f"{stack}."):
            prefix = ".".join(name.split(".")[: stack.count(".") + 2]) + "."
            if prefix not in renumbered:
                continue
            name = renumbered[prefix] + name.removeprefix(prefix)
        elif index is not None and name in parameters and id(parameters[name]) in outputs:
            value = value.index_select(0, torch.tensor(index))
        state[name] = value.clone()
    return state
