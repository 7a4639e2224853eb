"""Networks of timm, changed for speed or cut smaller, by a name that says so: `NAME+relu+no_se`, `NAME+depth6`,
`NAME+width0.5`.

What is changed is told wherever such a network is made. Its weights are those of NAME, and what it answers is not:
distillation has to win the accuracy back.
"""

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass

import torch
from torch import nn

from compressor.errors import KdcError, did_you_mean
from compressor.models.timm_weights import architecture_of, base_of
from compressor.tasks.image_classification.models.narrowing import Shapes, narrow_like, widths
from compressor.tasks.image_classification.models.pruning import prune

__all__ = ["OPERATIONS", "operate", "possible", "require_operations", "width_of"]

CURVED = {"SiLU", "Swish", "SwishMe", "SwishJit", "Hardswish", "HardSwish", "HardSwishMe", "HardSwishJit"}
"""Activations that many kernels compute step by step, by the names of torch's and timm's classes."""
GATES = ("se", "se_module")
"""What timm calls the squeeze-excite of a block."""
DEPTH = re.compile(r"depth([1-9]\d{0,2})")
WIDTH = re.compile(r"width(0\.\d?[1-9])")


@dataclass(frozen=True)
class Operation:
    """`apply` changes a network in place, and says in words what; "" where there is nothing to change."""

    apply: Callable[[nn.Module], str]
    meaning: str


def _relu(network: nn.Module) -> str:
    places = _replaced(network, lambda name, child: type(child).__name__ in CURVED, lambda: nn.ReLU(inplace=True))
    return f"hard-swish and SiLU became ReLU in {places} places" if places else ""


def _no_se(network: nn.Module) -> str:
    def is_gate(name: str, child: nn.Module) -> bool:
        return name in GATES and not isinstance(child, nn.Identity) and any(True for _ in child.parameters())

    places = _replaced(network, is_gate, nn.Identity)
    return f"squeeze-excite was taken out in {places} places" if places else ""


def _replaced(network: nn.Module, wanted: Callable[[str, nn.Module], bool], make: Callable[[], nn.Module]) -> int:
    """Put a new module in the place of each that is wanted; how many there were."""
    places = [
        (parent, name) for parent in network.modules() for name, child in parent.named_children() if wanted(name, child)
    ]
    for parent, name in places:
        setattr(parent, name, make())
    return len(places)


OPERATIONS = {
    "relu": Operation(_relu, "hard-swish and SiLU become ReLU"),
    "no_se": Operation(_no_se, "squeeze-excite is taken out"),
}
"""By what stands after the "+"; beside them depthN, which keeps N blocks of a plain transformer, and width0.N, which
keeps that share of the channels."""


def require_operations(name: str) -> tuple[str, ...]:
    """What stands after each "+" of `name`; raises KdcError for what kdc cannot change."""
    operations = tuple(name.split("+")[1:])
    for operation in operations:
        if operation not in OPERATIONS and not DEPTH.fullmatch(operation) and not WIDTH.fullmatch(operation):
            meanings = "; ".join(f"+{key}: {row.meaning}" for key, row in OPERATIONS.items())
            raise KdcError(
                f"timm:{name}: +{operation} is nothing that kdc changes{did_you_mean(operation, OPERATIONS)}",
                f"{meanings}; +depthN: N blocks of a plain transformer are kept, the first and the last among them; "
                "+width0.5: half of the channels are kept (0.01 to 0.99)",
            )
    if len({"width" if WIDTH.fullmatch(operation) else operation for operation in operations}) < len(operations):
        raise KdcError(f"timm:{name} names the same change twice", "name each once")
    return operations


def width_of(name: str) -> str | None:
    """The `width0.5` of a name; None where its channels are not pruned."""
    return next(filter(WIDTH.fullmatch, require_operations(name)), None)


def operate(
    network: nn.Module,
    name: str,
    wanted: Collection[str] | None = None,
    *,
    input_size: int | None = None,
    like: Shapes | None = None,
) -> tuple[str, ...]:
    """Change `network`, which timm built by the base of `name`, in place; a line for each change. Raises KdcError where
    there is nothing to change.

    `wanted`: of the changes that `name` asks for, these alone; None: all. `input_size`: side of an image in pixels,
    None: timm's own. `like`: the shapes of weights that are pruned already, whose channels are taken; None: those of
    the network's weights that are largest.
    """
    told = []
    for operation in require_operations(name) if wanted is None else wanted:
        depth, width = DEPTH.fullmatch(operation), WIDTH.fullmatch(operation)
        if depth:
            said = _shorten(network, int(depth[1]), name)
        elif width:
            said = _narrow(network, float(width[1]), name, input_size, like)
        else:
            said = OPERATIONS[operation].apply(network)
        if not said:
            raise KdcError(f"timm:{name}: {base_of(name)} has nothing that +{operation} would change", "leave it out")
        told.append(f"{name}: {said}")
    if told:
        cfg = getattr(network, "pretrained_cfg", None) or {}
        network.pretrained_cfg = {**cfg, "architecture": architecture_of(name)}  # type: ignore[assignment]
    return tuple(told)


def _narrow(network: nn.Module, share: float, name: str, input_size: int | None, like: Shapes | None) -> str:
    if like is None:
        cfg = getattr(network, "pretrained_cfg", None) or {}
        height, width = (input_size, input_size) if input_size else cfg.get("input_size", (3, 224, 224))[1:]
        return prune(network, share, (height, width), name)
    before = sum(widths(network).values())
    narrow_like(network, like, share, f"timm:{name}")
    return f"{sum(widths(network).values()):,} of {before:,} channels are there, as in its weights"


def _shorten(network: nn.Module, depth: int, name: str) -> str:
    """Keep `depth` blocks at even distances, the first and the last among them, as DistilBERT keeps every other layer
    (Sanh et al. 2019, arXiv 1910.01108, sec. 3)."""
    blocks = getattr(network, "blocks", None)
    if not isinstance(blocks, nn.Sequential) or hasattr(network, "conv_stem"):
        raise KdcError(f"timm:{name}: {base_of(name)} is no plain transformer, whose blocks could be left out", "")
    if not 1 < depth < len(blocks):
        raise KdcError(f"timm:{name}: {base_of(name)} has {len(blocks)} blocks", f"+depth2 to +depth{len(blocks) - 1}")
    kept = torch.linspace(0, len(blocks) - 1, depth).round().int().tolist()
    network.blocks = nn.Sequential(*(blocks[number] for number in kept))
    info = getattr(network, "feature_info", None)
    if isinstance(info, list):
        network.feature_info = info[:depth]  # type: ignore[assignment]
    numbers = ", ".join(str(number + 1) for number in kept)
    return f"{depth} of {len(blocks)} blocks are kept: {numbers}"


def possible(name: str) -> tuple[str, ...]:
    """The changed forms of timm's model `name` that can be had: NAME+relu, NAME+no_se, NAME+relu+no_se."""
    import timm

    with torch.device("meta"):
        network = timm.create_model(base_of(name))
    able = [operation for operation, row in OPERATIONS.items() if row.apply(network)]
    forms = [f"{name}+{operation}" for operation in able]
    return (*forms, "+".join((name, *able))) if len(able) > 1 else tuple(forms)
