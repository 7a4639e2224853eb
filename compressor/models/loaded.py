"""What every loader returns: a network from normalised images to logits, with everything that must travel with it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from torch import Tensor, nn

from compressor.errors import KdcError, first_line
from compressor.modes import evaluating
from compressor.names import escaped, line_fault
from compressor.schema.preprocess import Preprocess
from compressor.schema.student import Weights
from compressor.tasks.base import drawn_inputs, example_inputs
from compressor.tasks.table import TASKS, task_named

__all__ = [
    "LoadedModel",
    "SelectClasses",
    "Several",
    "check_input",
    "example_of",
    "outputs_of",
    "probe_of",
    "with_classes",
]

N = TypeVar("N", bound=nn.Module)

PROBED = 8


@dataclass(frozen=True)
class LoadedModel:
    """`network`: the tensors that `preprocess.inputs` names, in their order -> logits [B, classes], or where it answers
    every token (`Preprocess.every_token`), [B, N, vocabulary].

    `class_names`: every spelling by which output k is known, the first its own name; None where the weights do not say,
    and where there are no classes.
    `family`: whose network it is, and so how its architecture is named. `headless`: its weights bring no classifier of
    their own, so that what it answers means nothing until it is taught. `notes`: lines for people on how it was loaded.
    """

    network: nn.Module
    preprocess: Preprocess
    class_names: tuple[tuple[str, ...], ...] | None
    weights: Weights
    family: str
    headless: bool = False
    notes: tuple[str, ...] = ()


class SelectClasses(nn.Module):
    """A network whose outputs are the columns `index` of another's."""

    def __init__(self, network: nn.Module, index: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.index: Tensor
        self.register_buffer("index", torch.tensor(index, dtype=torch.int64), persistent=False)

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.network(*inputs)
        return logits.index_select(-1, self.index)


class Several(nn.Module):
    """Networks that answer together: they have no layers in common."""


def with_classes(model: LoadedModel, index: Sequence[int], names: Sequence[str]) -> LoadedModel:
    """`model` answering only the classes `names`, which are its outputs `index`, in that order. From then on its
    weights say by which outputs it answers which classes, how it sees images, and what it answers to one: that, too,
    is who it is."""
    if not names:  # it answers every token
        return replace(model, weights=model.weights.model_copy(update=_answering(model)))
    named = tuple((name,) for name in names)
    if model.class_names is None or list(index) != list(range(len(model.class_names))):
        model = replace(model, network=SelectClasses(model.network, index).eval())
    classes = {"classes_sha256": _sha256([list(names), [int(number) for number in index]])}
    answers = {**_answering(model), **classes}
    return replace(model, class_names=named, weights=model.weights.model_copy(update=answers))


def _answering(model: LoadedModel) -> dict[str, object]:
    """How it sees samples, and what it answers to one."""
    return {
        "preprocess_sha256": _sha256(model.preprocess.model_dump(mode="json")),
        "probe": probe_of(model.network, model.preprocess),
    }


def probe_of(network: nn.Module, preprocess: Preprocess) -> tuple[float, ...]:
    """The first logits of a drawn sample (`Weights.probe`)."""
    with evaluating(network):
        logits: Tensor = network(*drawn_inputs(preprocess.inputs, 0, _device_of(network)))
    answer = logits[0] if logits.ndim == 2 else logits[0, -1]
    return tuple(float(f"{value:.6g}") for value in answer[:PROBED].tolist())


def _sha256(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def outputs_of(model: LoadedModel) -> int:
    """How many classes the network answers, or values at each token, found by one forward pass at its input
    size, in evaluation mode. Raises KdcError where it answers with anything but finite logits."""
    with evaluating(model.network):
        logits: object = model.network(*example_of(model))
    dimensions = 2 if model.preprocess.every_token is None else 3
    if not isinstance(logits, Tensor) or logits.ndim != dimensions or len(logits) != 1 or logits.shape[-1] < 1:
        answer = (
            f"numbers of shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"a {type(logits).__name__}"
        )
        sample = task_named(model.preprocess.task).sample
        article = "an" if sample[0] in "aeiou" else "a"
        raise KdcError(f"{model.weights.source} answers {article} {sample} with {answer}, not with a number a class")
    if not bool(torch.isfinite(logits).all()):
        raise KdcError(f"{model.weights.source} answers with numbers that are not finite: its weights are spoilt")
    return logits.shape[-1]


def example_of(model: LoadedModel) -> tuple[Tensor, ...]:
    """A sample of zeros, where the network is."""
    return example_inputs(model.preprocess.inputs, 1, _device_of(model.network))


def _device_of(network: nn.Module) -> torch.device:
    return next((parameter.device for parameter in network.parameters()), torch.device("cpu"))


def check_input(model: LoadedModel) -> LoadedModel:
    """`model`; raises KdcError where the network does not take its inputs, answers more or fewer classes than it has
    names, or one of these is not one line."""
    try:
        outputs = outputs_of(model)
    except KdcError:
        raise
    except Exception as error:  # each network notices in its own way
        raise KdcError(
            f"{model.weights.source} does not take {model.preprocess.described}: {first_line(error)}",
            f"choose another {TASKS[model.preprocess.task].size}",
        ) from None
    if outputs != (model.preprocess.every_token or outputs):
        raise KdcError(f"{model.weights.source} answers {outputs} values a token, and its vocabulary has others")
    if model.class_names is not None and len(model.class_names) != outputs:
        raise KdcError(
            f"{model.weights.source} answers {outputs} classes, but its configuration names {len(model.class_names)}"
        )
    for number, spellings in enumerate(model.class_names or ()):
        if fault := line_fault(spellings[0]):
            raise KdcError(
                f"{model.weights.source}: the name of its class {number}, {escaped(spellings[0])}, {fault}",
                "mend it in a copy of the model: id2label or label_names in config.json",
            )
    return model
