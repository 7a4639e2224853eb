"""The layers of a network as a runtime sees them: of what kind, how much each computes, and how much it moves.

The network runs once without values (torch's "meta" device), and every operator that depends on the sample is noted.
Batch normalization after a convolution, and ReLU and clipping after what computes, cost nothing: runtimes fold them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from compressor.schema.tensors import TensorSpec
from compressor.tasks.base import example_inputs

__all__ = ["KINDS", "PRODUCTS", "Layer", "layers_of"]

OPERATORS: dict[str, tuple[str, ...]] = {
    "elementwise": (
        "add", "sub", "rsub", "mul", "div", "neg", "pow", "sqrt", "clamp", "clamp_min", "native_batch_norm",
        "_native_batch_norm_legit_no_training", "linalg_vector_norm", "relu", "hardtanh",
    ),
    "activation": (
        "hardswish", "silu", "gelu", "sigmoid", "hardsigmoid", "tanh", "_softmax", "leaky_relu", "elu", "exp", "mish",
    ),
    "reduction": (
        "mean", "sum", "max", "amax", "max_pool2d_with_indices", "avg_pool2d", "_adaptive_avg_pool2d",
        "native_layer_norm", "native_group_norm",
    ),
    "copy": (
        "cat", "stack", "clone", "constant_pad_nd", "roll", "index_select", "index", "upsample_nearest2d",
        "upsample_bilinear2d", "split", "split_with_sizes",
    ),
}  # fmt: skip
"""Kind -> operators of aten without matrix products. What stands nowhere is a view, which costs nothing."""
BY_OPERATOR = {operator: kind for kind, operators in OPERATORS.items() for operator in operators}
PRODUCTS = ("dense", "pointwise", "depthwise", "grouped", "vector", "matrix")
"""Convolutions by what they mix: neighbours and channels, channels alone, neighbours alone, groups of channels.
Products of a matrix with one vector (linear layers, convolutions of one pixel), and of two matrices."""
KINDS = (*PRODUCTS, *OPERATORS)
"""Of layers: products, and what only passes over values."""
FOLDED = {"native_batch_norm", "_native_batch_norm_legit_no_training"}
CLIPPING = {"relu", "hardtanh", "clamp"}
COMPUTING = {*PRODUCTS, "elementwise"}


@dataclass(frozen=True)
class Layer:
    """`macs`: multiply-accumulates; `weights`: their number; `values`: how many it reads and writes beside its
    weights."""

    kind: str
    macs: int
    weights: int
    values: int


def layers_of(network: nn.Module, inputs: Sequence[TensorSpec], batch: int = 1) -> tuple[Layer, ...]:
    """The layers of `network` in the order in which they run. It is moved to the meta device: its weights are lost."""
    meta = torch.device("meta")
    network.to(meta).eval()
    samples = example_inputs(inputs, batch, meta)
    with torch.no_grad(), _Noting(samples) as noting:
        network(*samples)
    return tuple(noting.layers)


class _Noting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes a layer an operator. `sources`: the tensors that depend on the sample, each with the kind of what made it;
    they are held, so that no other gets their identity."""

    def __init__(self, samples: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.layers: list[Layer] = []
        self.sources: dict[int, tuple[Tensor, str]] = {id(sample): (sample, "") for sample in samples}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        taken = [value for value in _tensors(args) if id(value) in self.sources]
        if not taken:
            return out
        name = func.overloadpacket.__name__.removesuffix("_")
        source = self.sources[id(taken[0])][1]
        layer = _layer(func.overloadpacket, name, source, args, out, taken)
        if layer is not None:
            self.layers.append(layer)
        for result in _tensors([out]):
            self.sources[id(result)] = (result, layer.kind if layer is not None else source)
        return out


def _tensors(values: Any) -> list[Tensor]:
    tensors = []
    for value in values:
        if isinstance(value, Tensor):
            tensors.append(value)
        elif isinstance(value, list | tuple):
            tensors += _tensors(value)
    return tensors


def _layer(operator: Any, name: str, source: str, args: Any, out: Any, taken: list[Tensor]) -> Layer | None:
    results = _tensors([out])
    values = sum(value.numel() for value in (*taken, *results[:1]))
    weights = sum(value.numel() for value in _tensors(args)) - sum(value.numel() for value in taken)
    if operator in flop_registry:
        macs = int(flop_registry[operator](*args, out_val=out)) // 2
        return Layer(_kind(name, args, results[0]), macs, weights, values)
    if (name in FOLDED and source in PRODUCTS) or (name in CLIPPING and source in COMPUTING):
        return None
    if name in ("split", "split_with_sizes"):
        values = 2 * taken[0].numel()
    return Layer(BY_OPERATOR[name], 0, weights, values) if name in BY_OPERATOR else None


def _kind(name: str, args: Any, out: Tensor) -> str:
    """The kind of a product."""
    if name != "convolution":
        return "vector" if out.numel() == out.shape[-1] else "matrix"
    weight, groups = args[1], args[8]
    is_one_pixel = weight[0, 0].numel() == 1
    if groups > 1:
        return "depthwise" if weight.shape[1] == 1 else "grouped"
    if out[0, 0].numel() == 1:
        return "vector"
    return "pointwise" if is_one_pixel else "dense"
