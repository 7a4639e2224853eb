"""What a network computes on the way to its logits, by name: stages, pooled features, attention maps, any module.

    stage1 … stageN     the output of a stage: of each block of a transformer, of the last block at each stride of a CNN
    attention1 …        the attention matrices of each block of a transformer, after the softmax
    pooled              what the classifier takes
    blocks.3.conv       the output of a module, by its path in the network

timm's `forward_intermediates` and transformers' `output_hidden_states` give stages; hooks give the rest, and stay only
for the pass that they were asked for. A network is not changed by being looked into.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import KdcError, did_you_mean, first_line
from compressor.models.hf_models import HfClassifier
from compressor.models.loaded import LoadedModel, SelectClasses, evaluating, outputs_of
from compressor.models.weights import heads

__all__ = ["POOLED", "Layer", "Taps", "inner_of", "layers_of", "match", "named_layer", "taps_for"]

POOLED = "pooled"


@dataclass(frozen=True)
class Layer:
    """A place in a network, and the shape of what comes out there, for one sample: (C, H, W) of a stage or a module,
    (heads, N, N) of attention, (D,) of pooled features. `stride`: pixels of the input a step of the map; 0: no map."""

    name: str
    shape: tuple[int, ...]
    stride: float = 0.0


class Taps:
    """Runs a network and gives what comes out at `names` too. Raises KdcError for a name that it does not have."""

    def __init__(self, network: nn.Module, names: Sequence[str], classes: int) -> None:
        """`classes`: the width of the classifier, by which it is found."""
        self.names, self._classes = tuple(dict.fromkeys(names)), classes
        self._stages = any(_is_stage(name) for name in self.names)
        self._attention = any(_is_attention(name) for name in self.names)
        inner = inner_of(network)
        known = dict(inner.named_modules())
        for name in self.names:
            if name != POOLED and not _is_stage(name) and not _is_attention(name) and name not in known:
                near = did_you_mean(name, known)
                raise KdcError(
                    f"{type(inner).__name__} has no layer {name}{near}",
                    "stage1, stage2, … (stage-1 is the last), pooled, attention1, … or the path of a module",
                )

    def __call__(self, network: nn.Module, pictures: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [B, C], and the features by name: maps [B, C, H, W], attention [B, heads, N, N], pooled [B, D]."""
        found: dict[str, Tensor] = {}
        inner = inner_of(network)
        with ExitStack() as stack:
            if POOLED in self.names:
                stack.enter_context(_pooled(inner, self._classes, found))
            for name in self.names:
                if name != POOLED and not _is_stage(name) and not _is_attention(name):
                    stack.enter_context(_output(inner.get_submodule(name), name, found))
            attention: list[Tensor] = []
            if self._attention:
                stack.enter_context(_attention(inner, attention))
            if self._stages:
                logits, stages = _with_stages(inner, pictures)
                found.update(_numbered("stage", stages, self.names))
            else:
                logits = inner(pictures)
            if self._attention:
                found.update(_numbered("attention", attention, self.names))
        return _selected(network, logits), {name: found[name] for name in self.names}


def inner_of(network: nn.Module) -> nn.Module:
    """The network itself, where classes are selected from its answers."""
    while isinstance(network, SelectClasses):
        network = network.network
    return network


def _selected(network: nn.Module, logits: Tensor) -> Tensor:
    """`logits` of the inner network, as `network` answers."""
    if not isinstance(network, SelectClasses):
        return logits
    return _selected(network.network, logits).index_select(-1, network.index)


def _is_stage(name: str) -> bool:
    return _number(name, "stage") is not None


def _is_attention(name: str) -> bool:
    return _number(name, "attention") is not None


def _number(name: str, kind: str) -> int | None:
    """`stage3` -> 3, `stage-1` -> -1."""
    digits = name.removeprefix(kind)
    return int(digits) if digits != name and digits.lstrip("-").isdigit() and int(digits) else None


def _numbered(kind: str, found: Sequence[Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of a kind that were asked for; `all{kind}` is not a name, so that each is asked for by number."""
    chosen = {}
    for name in names:
        number = _number(name, kind)
        if number is None:
            continue
        if abs(number) > len(found):
            raise KdcError(
                f"there is no {name}: the network has {len(found)} of them", f"{kind}1 to {kind}{len(found)}"
            )
        chosen[name] = found[number - 1 if number > 0 else number]
    return chosen


def _with_stages(inner: nn.Module, pictures: Tensor) -> tuple[Tensor, list[Tensor]]:
    if isinstance(inner, HfClassifier):
        answer: Any = inner.model(pixel_values=pictures, output_hidden_states=True)
        states = answer.hidden_states
        if states is None:
            raise KdcError(f"{type(inner.model).__name__} gives no hidden states", "name modules by their path")
        logits: Tensor = answer.logits
        maps = [_as_map(state) for state in states]
        # The first is the embedding, which no block has seen.
        return logits, _one_a_stage(maps[1:] if len(maps) > 1 else maps)
    if not hasattr(inner, "forward_intermediates"):
        raise KdcError(f"{type(inner).__name__} has no stages that can be told apart", "name modules by their path")
    network: Any = inner
    final, maps = network.forward_intermediates(pictures)
    return network.forward_head(final), _one_a_stage([_as_map(one) for one in maps])


def _one_a_stage(maps: list[Tensor]) -> list[Tensor]:
    """The last map of each size; all of them where there is one size, as in a plain transformer."""
    sizes = [tuple(one.shape[2:]) for one in maps]
    if len(set(sizes)) == 1:
        return maps
    return [one for number, one in enumerate(maps) if number + 1 == len(maps) or sizes[number + 1] != sizes[number]]


def _as_map(features: Tensor) -> Tensor:
    """[B, N, D] tokens -> [B, D, H, W] without the class token and its like; maps as they are.

    The tokens of a picture form a square: what is above the largest one is not of the picture.
    """
    if features.ndim != 3:
        return features
    side = math.isqrt(features.shape[1])
    tokens = features[:, features.shape[1] - side * side :]
    return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)


@contextmanager
def _output(module: nn.Module, name: str, found: dict[str, Tensor]) -> Iterator[None]:
    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        value = output[0] if isinstance(output, (tuple, list)) else output
        # A copy: an activation that follows may work in place, on what the hook has seen.
        found[name] = _as_map(value).clone()

    handle = module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _pooled(inner: nn.Module, classes: int, found: dict[str, Tensor]) -> Iterator[None]:
    layers = heads(inner, classes)
    if not layers:
        raise KdcError(f"the classifier of {type(inner).__name__} cannot be found, nor what it takes")

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found[POOLED] = inputs[0].flatten(1)

    handle = layers[0].register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _attention(inner: nn.Module, found: list[Tensor]) -> Iterator[None]:
    """Fused attention never makes the matrix, so that it is computed step by step meanwhile."""
    if isinstance(inner, HfClassifier):
        with _hf_attention(inner, found):
            yield
        return
    blocks: list[Any] = [one for one in inner.modules() if hasattr(one, "fused_attn") and hasattr(one, "attn_drop")]
    if not blocks:
        raise KdcError(f"{type(inner).__name__} has no attention", "attention maps are a transformer's")

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        found.append(inputs[0])

    handles = [one.attn_drop.register_forward_pre_hook(keep) for one in blocks]
    before = [one.fused_attn for one in blocks]
    try:
        for one in blocks:
            one.fused_attn = False
        yield
    finally:
        for one, fused, handle in zip(blocks, before, handles, strict=True):
            one.fused_attn = fused
            handle.remove()


@contextmanager
def _hf_attention(inner: HfClassifier, found: list[Tensor]) -> Iterator[None]:
    model: Any = inner.model
    before = model.config._attn_implementation

    def ask(module: nn.Module, arguments: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return arguments, {**named, "output_attentions": True}

    def keep(module: nn.Module, arguments: Any, output: Any) -> None:
        found.extend(output.attentions or ())

    handles = [model.register_forward_pre_hook(ask, with_kwargs=True), model.register_forward_hook(keep)]
    try:
        model.set_attn_implementation("eager")
        yield
    finally:
        model.set_attn_implementation(before)
        for handle in handles:
            handle.remove()
    if not found:
        raise KdcError(f"{type(model).__name__} shows no attention matrices", "choose a loss on stages")


def layers_of(model: LoadedModel, taps: str) -> list[Layer]:
    """The places of a kind that a loss wants: "maps" (stages of stride 4 and more: the stem sees edges alone), "pooled"
    or "attention". Raises KdcError where the network has none."""
    height, width = model.preprocess.input_size
    example = torch.zeros(1, 3, height, width)
    inner = inner_of(model.network)
    classes = _width(model)
    with evaluating(model.network):
        if taps == "pooled":
            found = Taps(model.network, [POOLED], classes)(model.network, example)[1]
            return [Layer(POOLED, tuple(found[POOLED].shape[1:]))]
        if taps == "attention":
            matrices: list[Tensor] = []
            with _attention(inner, matrices):
                inner(example)
            return [Layer(f"attention{n}", tuple(one.shape[1:])) for n, one in enumerate(matrices, 1)]
        expected = inner(example)
        try:
            logits, stages = _with_stages(inner, example)
        except (AttributeError, NotImplementedError, TypeError) as error:
            raise KdcError(
                f"the stages of {model.weights.source} cannot be taken out: {first_line(error)}",
                "name modules by their path",
            ) from None
    if not torch.allclose(logits, expected, rtol=1e-3, atol=1e-3):
        raise KdcError(
            f"{model.weights.source} answers otherwise when its stages are taken out", "name modules instead"
        )
    found_layers = [
        Layer(f"stage{n}", tuple(one.shape[1:]), height / one.shape[2])
        for n, one in enumerate(stages, 1)
        if one.ndim == 4
    ]
    coarse = [layer for layer in found_layers if layer.stride >= 4]
    return coarse or found_layers


def named_layer(model: LoadedModel, name: str) -> Layer:
    """The layer `name` (see Taps), with its shape; raises KdcError where there is none."""
    height, width = model.preprocess.input_size
    taps = Taps(model.network, [name], _width(model))
    with evaluating(model.network):
        found = taps(model.network, torch.zeros(1, 3, height, width))[1][name]
    stride = height / found.shape[2] if found.ndim == 4 and not _is_attention(name) else 0.0
    return Layer(name, tuple(found.shape[1:]), stride)


def taps_for(model: LoadedModel, names: Sequence[str]) -> Taps:
    return Taps(model.network, names, _width(model))


def _width(model: LoadedModel) -> int:
    """Of the network's own classifier, before classes are selected from it."""
    return outputs_of(LoadedModel(inner_of(model.network), model.preprocess, None, model.weights, model.family))


def match(student: Sequence[Layer], teacher: Sequence[Layer]) -> list[tuple[Layer, Layer]]:
    """Pairs of layers that see alike: of equal stride where both networks narrow their maps; else as deep, each in its
    own network, the last with the last."""
    strides = {layer.stride: layer for layer in teacher}
    if len(strides) > 1 and len({layer.stride for layer in student}) > 1:
        pairs = [(layer, strides[layer.stride]) for layer in student if layer.stride in strides]
        if pairs:
            return pairs
    count = min(len(student), len(teacher))

    def spread(layers: Sequence[Layer]) -> list[Layer]:
        return [layers[round((number + 1) * len(layers) / count) - 1] for number in range(count)]

    return list(zip(spread(student), spread(teacher), strict=True))
