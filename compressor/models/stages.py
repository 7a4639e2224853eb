"""Which layers a network has, and which of two networks see alike."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from compressor.errors import KdcError, first_line
from compressor.models.features import (
    INSIDE,
    POOLED,
    VOCABULARY,
    Patches,
    Taps,
    inner_of,
    inside_of,
    kind_of,
    with_stages,
)
from compressor.models.loaded import LoadedModel, example_of, outputs_of
from compressor.modes import evaluating

__all__ = ["Layer", "layers_of", "match", "named_layer", "same_strides", "taps_for"]


@dataclass(frozen=True)
class Layer:
    """A place in a network, and the shape of what comes out there, for one sample: (C, H, W) of a map, (N, D) of
    tokens, (N, V) of logits over a vocabulary, (heads, N, N) of attention and scores, (3, N, D) of projections, (D,) of
    pooled features. N is that of an example where it varies. `stride`: pixels of the input a step of the map; 0: no
    map."""

    name: str
    shape: tuple[int, ...]
    stride: float = 0.0

    @property
    def is_tokens(self) -> bool:
        return len(self.shape) == 2


def layers_of(model: LoadedModel, taps: str) -> list[Layer]:
    """The places of a kind that a loss wants (`losses.Taps`); "maps": stages, maps of stride 4 and more, since the stem
    sees edges alone, or tokens; "tokens": these alone. Raises KdcError where the network has none."""
    example, height = example_of(model), height_of(model)
    inner = inner_of(model.network)
    classes = _width(model)
    with evaluating(model.network):
        if taps in (POOLED, VOCABULARY):
            return [_single(model, taps, classes, example)]
        if taps in INSIDE:
            tensors: list[Tensor] = []
            with inside_of(inner, taps, tensors):
                inner(*example)
            return [Layer(f"{taps}{n}", tuple(tensor.shape[1:])) for n, tensor in enumerate(tensors, 1)]
        expected = inner(*example)
        try:
            logits, stages, _ = with_stages(inner, example, patches_of(model))
        except (AttributeError, NotImplementedError, TypeError) as error:
            raise KdcError(
                f"the stages of {model.weights.source} cannot be taken out: {first_line(error)}",
                "name modules by their path",
            ) from None
    if not torch.allclose(logits, expected, rtol=1e-3, atol=1e-3):
        raise KdcError(
            f"{model.weights.source} answers otherwise when its stages are taken out", "name modules instead"
        )
    if taps == "tokens" and height:
        raise KdcError(
            f"{model.weights.source} takes images, and this loss wants tokens", "hidden_states takes maps too"
        )
    wanted = 4 if height else 3
    layers = [
        Layer(f"stage{n}", tuple(tensor.shape[1:]), _stride(height, tensor.shape[2]) if height else 0.0)
        for n, tensor in enumerate(stages, 1)
        if tensor.ndim == wanted
    ]
    coarse = [layer for layer in layers if layer.stride >= 4]
    return coarse or layers


def _single(model: LoadedModel, name: str, classes: int, example: tuple[Tensor, ...]) -> Layer:
    taps = Taps(model.network, [name], classes, patches=patches_of(model))
    return Layer(name, tuple(taps(model.network, example)[1][name].shape[1:]))


def named_layer(model: LoadedModel, name: str) -> Layer:
    """The layer `name` (see Taps), with its shape; raises KdcError where there is none."""
    taps = taps_for(model, [name])
    with evaluating(model.network):
        feature = taps(model.network, example_of(model))[1][name]
    is_map = feature.ndim == 4 and kind_of(name) in ("stage", None)
    stride = _stride(height_of(model), feature.shape[2]) if is_map else 0.0
    return Layer(name, tuple(feature.shape[1:]), stride)


def taps_for(model: LoadedModel, names: Sequence[str]) -> Taps:
    return Taps(model.network, names, _width(model), patches=patches_of(model))


def height_of(model: LoadedModel) -> int:
    """Of what the network takes, in pixels; 0 where it takes no image, [batch, channels, height, width]."""
    shape = model.preprocess.inputs[0].shape
    return shape[2] if len(shape) == 4 and isinstance(shape[2], int) else 0


def patches_of(model: LoadedModel) -> Patches:
    """What the tokens of the network are, going by what it takes."""
    shape = model.preprocess.inputs[0].shape
    if not height_of(model):
        return "none"
    return "square" if shape[2] == shape[3] else "oblong"


def _width(model: LoadedModel) -> int:
    """Of the network's own classifier, before classes are selected from it."""
    return outputs_of(LoadedModel(inner_of(model.network), model.preprocess, None, model.weights, model.family))


def match(student: Sequence[Layer], teacher: Sequence[Layer]) -> list[tuple[Layer, Layer]]:
    """Pairs of layers that see alike: of equal stride where both networks narrow their maps; else as deep, each in its
    own network, the last with the last."""
    pairs = same_strides(student, teacher)
    if pairs:
        return pairs
    count = min(len(student), len(teacher))

    def spread(layers: Sequence[Layer]) -> list[Layer]:
        return [layers[round((number + 1) * len(layers) / count) - 1] for number in range(count)]

    return list(zip(spread(student), spread(teacher), strict=True))


def same_strides(student: Sequence[Layer], teacher: Sequence[Layer]) -> list[tuple[Layer, Layer]]:
    """Pairs of layers of equal stride; none where one of the networks does not narrow its maps."""
    strides = {_octave(layer): layer for layer in teacher}
    if len(strides) < 2 or len({_octave(layer) for layer in student}) < 2:
        return []
    return [(layer, strides[_octave(layer)]) for layer in student if _octave(layer) in strides]


def _stride(height: int, rows: int) -> float:
    """Of a map of so many rows: the power of two that strided convolutions make so many with, which round up (of 40
    rows 3 at a stride of 16, and 2 at one of 32); else how many rows of the input there are to one."""
    powers = (1 << n for n in range(height.bit_length() + 1))
    return float(next((power for power in powers if -(-height // power) == rows), height / rows))


def _octave(layer: Layer) -> int:
    """How often the map was halved: at an input size that does not divide evenly, a stride is 8.1 and not 8."""
    return round(math.log2(layer.stride)) if layer.stride else 0
