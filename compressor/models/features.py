"""What a network computes on the way to its logits, by name: stages, pooled features, attention maps, any module.

    stage1 … stageN     the output of a stage: of each block of a transformer, of the last block at each stride of a CNN
    embedding           of a plain transformer: what its first block takes
    attention1 …        the attention matrices of each block of a transformer, after the softmax
    scores1 …           of a sequence: the same before the softmax, `Q Kᵀ / √d`
    projections1 …      of a sequence: each block's queries, keys and values, one behind the other
    vocabulary          of a sequence: logits over the tokens' vocabulary
    pooled              what the classifier takes
    blocks.3.conv       the output of a module, by its path in the network

timm's `forward_intermediates` and transformers' `output_hidden_states` give stages; hooks give the rest, and stay only
for the pass that they were asked for. A network is not changed by being looked into.
"""

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal

from torch import Tensor, nn

from compressor.errors import KdcError, did_you_mean
from compressor.models.loaded import SelectClasses
from compressor.models.staged import Staged
from compressor.models.weights import heads

__all__ = [
    "EMBEDDING",
    "INSIDE",
    "POOLED",
    "VOCABULARY",
    "Patches",
    "Staged",
    "Taps",
    "inner_of",
    "inside_of",
    "kind_of",
    "with_stages",
]

Patches = Literal["square", "oblong", "none"]
"""What the tokens of a network are: patches of a square image, which are a map; of one that is not square, so that
nothing says how they lie; or a sequence, which stays one."""

POOLED, EMBEDDING, VOCABULARY = "pooled", "embedding", "vocabulary"

INSIDE = "attention", "scores", "projections"
"""What blocks of attention compute on their way."""

BEFORE_IMAGE = (0, 1, 2, 4, 5)
"""Tokens before those of the image: class, distillation, registers."""


class Taps:
    """Runs a network and gives what comes out at `names` too. Raises KdcError for a name that it does not have."""

    def __init__(self, network: nn.Module, names: Sequence[str], classes: int, *, patches: Patches = "square") -> None:
        """`classes`: the width of the classifier, by which it is found. `patches`: what its tokens are."""
        self.names, self._classes, self._patches = tuple(dict.fromkeys(names)), classes, patches
        kinds = {kind_of(name) for name in self.names}
        self._stages, self._inside = bool(kinds & {"stage", VOCABULARY}), [kind for kind in INSIDE if kind in kinds]
        inner = inner_of(network)
        known = dict(inner.named_modules())
        for name in self.names:
            if kind_of(name) is None and name not in known:
                near = did_you_mean(name, known)
                raise KdcError(
                    f"{type(inner).__name__} has no layer {name}{near}",
                    "stage1, stage2, … (stage-1 is the last), pooled, attention1, … or the path of a module",
                )

    def __call__(self, network: nn.Module, inputs: Sequence[Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Logits [B, C], and the features by name: maps [B, C, H, W], tokens [B, N, D], attention and scores
        [B, heads, N, N], projections [B, 3, N, D], vocabulary [B, N, V], pooled [B, D]."""
        features: dict[str, Tensor] = {}
        inner = inner_of(network)
        with ExitStack() as stack:
            if POOLED in self.names:
                stack.enter_context(_pooled(inner, self._classes, features))
            for name in self.names:
                if kind_of(name) is None:
                    stack.enter_context(_output(inner.get_submodule(name), name, features, self._patches))
            tensors: dict[str, list[Tensor]] = {kind: [] for kind in self._inside}
            for kind in self._inside:
                stack.enter_context(inside_of(inner, kind, tensors[kind]))
            if self._stages:
                logits, stages, embedding = with_stages(inner, inputs, self._patches)
                features.update(_numbered("stage", stages, self.names))
                features.update(_beside(inner, stages, embedding, self.names))
            else:
                logits = inner(*inputs)
            for kind in self._inside:
                features.update(_numbered(kind, tensors[kind], self.names))
        missing = [name for name in self.names if name not in features]
        if missing:
            raise KdcError(f"{missing[0]} of {type(inner).__name__} is never called, so nothing comes out of it")
        return _selected(network, logits), {name: features[name] for name in self.names}


def inner_of(network: nn.Module) -> nn.Module:
    """The network itself, where classes are selected from its answers."""
    while isinstance(network, SelectClasses):
        network = network.network
    return network


def _with_its_stages(inner: nn.Module) -> nn.Module:
    """transformers wraps networks of timm, which give their stages as timm does."""
    wrapped = getattr(getattr(inner, "model", None), "timm_model", None)
    return wrapped if isinstance(wrapped, nn.Module) else inner


def _selected(network: nn.Module, logits: Tensor) -> Tensor:
    """`logits` of the inner network, as `network` answers."""
    if not isinstance(network, SelectClasses):
        return logits
    return _selected(network.network, logits).index_select(-1, network.index)


def kind_of(name: str) -> str | None:
    """pooled, stage, vocabulary, attention, scores or projections; None for the path of a module."""
    if name in (POOLED, VOCABULARY):
        return name
    if name == EMBEDDING:
        return "stage"
    return next((kind for kind in ("stage", *INSIDE) if _number(name, kind) is not None), None)


def _beside(
    inner: nn.Module, stages: Sequence[Tensor], embedding: Tensor | None, names: Sequence[str]
) -> dict[str, Tensor]:
    """What is asked for of the embedding, and of a head over the vocabulary."""
    beside = {}
    if EMBEDDING in names:
        if embedding is None:
            raise KdcError(f"{type(inner).__name__} gives no embedding that could be told apart", "stage1 is the first")
        beside[EMBEDDING] = embedding
    if VOCABULARY in names:
        if not isinstance(inner, Staged):
            raise KdcError(f"{type(inner).__name__} has no head over a vocabulary", "choose a loss on stages")
        beside[VOCABULARY] = inner.vocabulary(stages[-1])
    return beside


def _number(name: str, kind: str) -> int | None:
    """`stage3` -> 3, `stage-1` -> -1."""
    match = re.fullmatch(rf"{kind}(-?[0-9]+)", name)
    return int(match[1]) or None if match else None


def _numbered(kind: str, tensors: Sequence[Tensor], names: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of a kind that were asked for, by name."""
    chosen = {}
    for name in names:
        number = _number(name, kind)
        if number is None:
            continue
        if abs(number) > len(tensors):
            raise KdcError(
                f"there is no {name}: the network has {len(tensors)} of them", f"{kind}1 to {kind}{len(tensors)}"
            )
        chosen[name] = tensors[number - 1 if number > 0 else number]
    return chosen


def with_stages(
    inner: nn.Module, inputs: Sequence[Tensor], patches: Patches
) -> tuple[Tensor, list[Tensor], Tensor | None]:
    """Logits, and what comes out of each stage: maps [B, C, H, W], or where tokens are no patches, [B, N, D]; the same
    of the embedding of a plain transformer, where it is shown."""
    inner = _with_its_stages(inner)
    if isinstance(inner, Staged):
        logits, states = inner.stages(*inputs)
        maps = [_as_map(state, patches) for state in states]
        # A plain transformer gives its embedding first, which no block has seen.
        plain = len(maps) > 1 and len({_places(stage_map) for stage_map in maps}) == 1
        return logits, _one_a_stage(maps[1:] if plain else maps), maps[0] if plain else None
    if not hasattr(inner, "forward_intermediates"):
        raise KdcError(f"{type(inner).__name__} has no stages that can be told apart", "name modules by their path")
    network: Any = inner
    final, maps = network.forward_intermediates(*inputs)
    return network.forward_head(final), _one_a_stage([_as_map(stage_map, patches) for stage_map in maps]), None


def _one_a_stage(maps: list[Tensor]) -> list[Tensor]:
    """The last map of each size; all of them where there is one size, as in a plain transformer."""
    sizes = [_places(stage_map) for stage_map in maps]
    if len(set(sizes)) == 1:
        return maps
    return [
        stage_map
        for number, stage_map in enumerate(maps)
        if number + 1 == len(maps) or sizes[number + 1] != sizes[number]
    ]


def _places(features: Tensor) -> tuple[int, ...]:
    """The places of a map, or of a sequence of tokens."""
    return tuple(features.shape[1:2] if features.ndim == 3 else features.shape[2:])


def _as_map(features: Tensor, patches: Patches) -> Tensor:
    """[B, N, D] tokens that are patches of a square image -> [B, D, H, W] without the class token and its like; all
    else as it is.

    The patches of an image form a square, and a few tokens that are not of the image come before them.
    """
    if features.ndim != 3 or patches == "none":
        return features
    if patches == "oblong":
        raise KdcError(
            f"{features.shape[1]} tokens of an image that is not square do not say how they lie",
            "name another layer, or choose a square --input-size",
        )
    side = math.isqrt(features.shape[1])
    if features.shape[1] - side * side not in BEFORE_IMAGE:
        raise KdcError(
            f"{features.shape[1]} tokens do not form a square, with {', '.join(map(str, BEFORE_IMAGE))} others",
            "name another layer, or choose a square --input-size",
        )
    tokens = features[:, features.shape[1] - side * side :]
    return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)


@contextmanager
def _output(module: nn.Module, name: str, features: dict[str, Tensor], patches: Patches) -> Iterator[None]:
    def keep(module: nn.Module, inputs: Any, output: Any) -> None:
        value = output[0] if isinstance(output, (tuple, list)) else output
        # A copy: an activation that follows may work in place, on what the hook has seen.
        features[name] = _as_map(value, patches).clone()

    handle = module.register_forward_hook(keep)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def _pooled(inner: nn.Module, classes: int, features: dict[str, Tensor]) -> Iterator[None]:
    layers = heads(inner, classes)
    if not layers:
        raise KdcError(f"the classifier of {type(inner).__name__} cannot be found, nor what it takes")

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        features[POOLED] = inputs[0].flatten(1)

    handle = layers[0].register_forward_pre_hook(keep)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def inside_of(inner: nn.Module, kind: str, tensors: list[Tensor]) -> Iterator[None]:
    """Inside, a forward pass adds what the blocks compute to `tensors`. Fused attention never makes its matrix, so that
    it is computed step by step meanwhile."""
    if isinstance(inner, Staged):
        looking = {"attention": inner.attention, "scores": inner.scores, "projections": inner.projections}
        with looking[kind](tensors):
            yield
        return
    if kind != "attention":
        raise KdcError(f"{type(inner).__name__} shows no {kind} of its attention", "choose a loss on stages")
    blocks: list[Any] = [
        block for block in inner.modules() if hasattr(block, "fused_attn") and hasattr(block, "attn_drop")
    ]
    if not blocks:
        raise KdcError(f"{type(inner).__name__} has no attention", "attention maps are a transformer's")

    def keep(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        tensors.append(inputs[0])

    handles = [block.attn_drop.register_forward_pre_hook(keep) for block in blocks]
    before = [block.fused_attn for block in blocks]
    try:
        for block in blocks:
            block.fused_attn = False
        yield
    finally:
        for block, fused, handle in zip(blocks, before, handles, strict=True):
            block.fused_attn = fused
            handle.remove()
