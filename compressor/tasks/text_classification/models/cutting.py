"""`layers:N` and `layers:0,2,5`: a student that has some of its teacher's layers, and all else of it; with `,width:W`
they are narrower, too (narrowing.py).

DistilBERT (Sanh et al. 2019, arXiv 1910.01108) begins so: its 6 layers are 0, 2, 4, 7, 9 and 11 of BERT's 12.
"""

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from compressor.errors import KdcError
from compressor.models.building import said
from compressor.models.features import inner_of
from compressor.models.layer_stack import listed_layers, new_name, stack_of, with_layers
from compressor.models.loaded import LoadedModel, SelectClasses, Several
from compressor.models.weights import heads
from compressor.tasks.text_classification.models.classifier import TextClassifier
from compressor.tasks.text_classification.models.hf_models import built
from compressor.tasks.text_classification.models.narrowing import Kept, narrowed

__all__ = ["HALF", "Asked", "Cut", "asked_layers", "cut", "kept_layers", "one_teacher"]

HALF = "layers:half"
"""The default student: half of its teacher's layers, rounded up."""

SPELLING = re.compile(r"(half|\d{1,4}(?:,\d{1,4})*)(?:,width:(\d{1,6}))?")
HINT = "for example --student layers:3, layers:0,2,5 or layers:3,width:192"


class Asked(NamedTuple):
    """What follows `layers:`: a number of them, "half", or some that are listed; and how wide, None: as they are."""

    layers: str
    width: int | None


@dataclass(frozen=True)
class Cut:
    """A network that was cut out of another: which of its `count` layers it has; what they kept, where they are
    narrower."""

    network: TextClassifier
    layers: list[int]
    count: int
    kept: Kept | None


def asked_layers(reference: str) -> Asked:
    """Raises KdcError where that is no number, and no list of some."""
    match = SPELLING.fullmatch(reference.partition(":")[2])
    if match is None:
        raise KdcError(
            f"student {reference!r} is not layers:N, layers:half or layers:0,2,5, with ,width:W or without", HINT
        )
    return Asked(match[1], int(match[2]) if match[2] else None)


def kept_layers(asked: str, count: int, reference: str) -> list[int]:
    """Which of a teacher's `count` layers stay: a number of them, spread evenly, the first and the last among them; or
    those that are listed."""
    if (listed := listed_layers(asked, count, reference, HINT)) is not None:
        return listed
    number = (count + 1) // 2 if asked == "half" else int(asked)
    if not 1 <= number <= count:
        raise KdcError(f"student {reference!r}: the teacher has {count} layers", f"layers:1 to layers:{count}")
    if number == 1:
        return [0]
    return [int(step * (count - 1) / (number - 1) + 0.5) for step in range(number)]


def cut(teacher: LoadedModel, reference: str, *, drawn: bool) -> Cut:
    """The teacher's network with some of its layers, for the same classes in the same order. `drawn`: with the same
    architecture alone, its weights drawn."""
    network = one_teacher(teacher, reference)
    stack, count = stack_of(network, network.model)
    asked = asked_layers(reference)
    layers = kept_layers(asked.layers, count, reference)
    model: Any = network.model
    config = with_layers(copy.deepcopy(model.config), layers, count)
    index = _classes(teacher.network)
    if index is not None:
        config.num_labels = len(index)
    small, kept = TextClassifier(built(config), network.tokenizer), None
    if not drawn:
        _load(small, _state(network, stack, layers, index))
    if asked.width is not None:
        small, kept = narrowed(small, stack, asked.width, reference, drawn=drawn)
    return Cut(small.eval(), layers, count, kept)


def one_teacher(teacher: LoadedModel, reference: str) -> TextClassifier:
    """The transformer that a student is made of; raises KdcError where the teacher is none."""
    network = inner_of(teacher.network)
    if isinstance(network, TextClassifier):
        return network
    several = isinstance(network, Several)
    raise KdcError(
        f"student {reference!r} is made of one transformer, and {teacher.weights.source} is "
        f"{'several networks' if several else 'a table of tokens'}",
        "give one --teacher, or --student hf:PATH" if several else "--student hf:PATH",
    )


def _load(small: TextClassifier, state: dict[str, Any]) -> None:
    try:
        small.load_state_dict(state)
    except RuntimeError as error:
        raise KdcError(
            f"{type(small.model).__name__} has weights that hang on all of its layers, so that none can be left out: "
            f"{said(error)}",
            "--student hf:PATH of a smaller network",
        ) from None


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
    model: Any = network.model
    outputs = {id(p) for layer in heads(network, model.config.num_labels) for p in layer.parameters()}
    state: dict[str, Any] = {}
    parameters = dict(network.named_parameters())
    for name, value in network.state_dict().items():
        if index is not None and name in parameters and id(parameters[name]) in outputs:
            value = value.index_select(0, torch.tensor(index))
        renamed = new_name(name, stack, layers)
        if renamed is not None:
            state[renamed] = value.clone()
    return state
