"""`layers:N,width:W`: a network of layers that are narrower than its teacher's, with a part of its weights.

A head keeps its width, so that W / that many heads stay in each layer; of its neurons the feed-forward part keeps the
same share. Every layer keeps its own heads and neurons. The channels, of which the embedding, every layer's sum and the
pooler are made, are the same W all through the network.

What stays is what has the largest weights: the norm of all weights that would go with it (the groups of DepGraph, Fang
et al. 2023, arXiv 2301.12900, section 3.3). Each tensor's norms are divided by their mean first, so that a vocabulary's
table counts as much as a layer norm.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models.projections import projections_in
from compressor.tasks.text_classification.models.classifier import TextClassifier
from compressor.tasks.text_classification.models.hf_models import built

__all__ = ["Kept", "Shape", "narrowed", "shape_of"]

ALSO_WIDTHS = ("embedding_size", "pooler_hidden_size")
"""Keys of a configuration that say the width again, in some architectures."""
NEURONS = ("intermediate_size", "hidden_dim")


class Shape(NamedTuple):
    """Of a network's layers: `width` channels, so many heads and neurons each."""

    width: int
    heads: int
    neurons: int

    @property
    def head(self) -> int:
        """The width of a head."""
        return self.width // self.heads


class Roles(NamedTuple):
    """The linear layers of one layer, by their paths in the network."""

    projections: tuple[str, ...]
    output: str
    enter: str
    leave: str


@dataclass(frozen=True)
class Kept:
    """What stayed, `whole` of the teacher: `heads` and `neurons` of each layer, and the `channels`, by their numbers
    there. `shares`: of each of the three, how much of the importance of all stayed."""

    whole: Shape
    heads: tuple[tuple[int, ...], ...]
    neurons: tuple[tuple[int, ...], ...]
    channels: tuple[int, ...]
    shares: tuple[float, float, float]

    def told(self, layers: Sequence[int]) -> str:
        """For people; `layers`: what the layers are called."""
        heads = "; ".join(
            f"of layer {layer} the heads {', '.join(map(str, kept))}"
            for layer, kept in zip(layers, self.heads, strict=True)
        )
        head, neuron, channel = (f"{100 * share:.0f}" for share in self.shares)
        return (
            f"{len(self.heads[0])} of {self.whole.heads} heads and {len(self.neurons[0]):,} of {self.whole.neurons:,} "
            f"neurons a layer, and {len(self.channels)} of {self.whole.width} channels stay, those with the largest "
            f"weights ({head}, {neuron} and {channel} % of all norms): {heads}; neurons and channels stand in "
            "hf/config.json, `kept`"
        )

    def as_json(self) -> dict[str, Any]:
        """What config.json of the student says of it."""
        return {
            "heads": list(map(list, self.heads)), "neurons": list(map(list, self.neurons)),
            "channels": list(self.channels),
        }  # fmt: skip


def shape_of(network: TextClassifier) -> Shape:
    """Raises KdcError for a network whose configuration does not say it."""
    model: Any = network.model
    width, heads = (getattr(model.config, key, None) for key in ("hidden_size", "num_attention_heads"))
    neurons = next((value for key in NEURONS if isinstance(value := getattr(model.config, key, None), int)), None)
    if not (isinstance(width, int) and isinstance(heads, int) and isinstance(neurons, int)) or width % heads:
        raise _unknown(network, "its configuration does not say how wide they are")
    return Shape(width, heads, neurons)


def narrowed(
    network: TextClassifier, stack: str, width: int, reference: str, *, drawn: bool
) -> tuple[TextClassifier, Kept | None]:
    """`network` with layers of `width` channels, and what stayed of it; None with `drawn`, where its weights are.
    `stack`: the name of the list that holds its layers. Raises KdcError for a width that it cannot have."""
    whole = shape_of(network)
    _require_width(width, whole, reference)
    if width == whole.width:
        return network, None
    model: Any = network.model
    config = copy.deepcopy(model.config)
    _restate(config, whole, width)
    if drawn:
        return TextClassifier(built(config), network.tokenizer), None
    roles = [_roles(network, f"{stack}.{number}", whole) for number in range(config.num_hidden_layers)]
    small = TextClassifier(built(config), network.tokenizer)
    shapes = {name: tuple(value.shape) for name, value in small.state_dict().items()}
    axes = _axes(network, roles, shapes, whole, width)
    kept, positions = _chosen(network, axes, roles, whole, width)
    small.load_state_dict(
        {name: _picked(value, axes.get(name, ()), positions) for name, value in network.state_dict().items()}
    )
    small_model: Any = small.model
    small_model.config.kept = kept.as_json()
    return small, kept


def _require_width(width: int, whole: Shape, reference: str) -> None:
    if width % whole.head or not whole.head <= width <= whole.width:
        below = min(max(width // whole.head, 1), whole.heads)
        near = {number * whole.head for number in (below, below + 1) if 1 <= number <= whole.heads}
        raise KdcError(
            f"student {reference!r}: the teacher has {whole.heads} heads of {whole.head}, and a width must divide into "
            f"some of them: a multiple of {whole.head}, up to {whole.width}",
            f"for example {' or '.join(f'width:{number}' for number in sorted(near))}",
        )


def _restate(config: Any, whole: Shape, width: int) -> None:
    """Let a configuration say that its layers are of `width` channels."""
    for key in ALSO_WIDTHS:
        if getattr(config, key, None) == whole.width:
            setattr(config, key, width)
    key = next(key for key in NEURONS if isinstance(getattr(config, key, None), int))
    setattr(config, key, max(1, round(whole.neurons * width / whole.width)))
    config.num_attention_heads = width // whole.head
    config.hidden_size = width


def _roles(network: TextClassifier, block: str, whole: Shape) -> Roles:
    """The linear layers of one layer. Raises KdcError where they are not those of a plain encoder."""
    layer = network.get_submodule(block)
    shapes = {
        f"{block}.{path}": (module.out_features, module.in_features)
        for path, module in layer.named_modules()
        if isinstance(module, nn.Linear)
    }
    attention = [f"{block}.{path}.{name}".replace("..", ".") for path, names in projections_in(layer) for name in names]
    square, others = (whole.width, whole.width), [path for path in shapes if path not in attention]
    expected = [square, (whole.neurons, whole.width), (whole.width, whole.neurons)]
    if len(attention) != 3 or any(shapes[path] != square for path in attention):
        raise _unknown(network, "their queries, keys and values are no linear layers of one width")
    if [shapes[path] for path in others] != expected:
        raise _unknown(network, "they have other linear layers than an encoder's")
    return Roles(tuple(attention), *others)


Axis = tuple[str, int] | None
"""Of a tensor's dimension: what it counts, "rows" (of heads) or "neurons" of a layer or "channels", and the layer."""


def _axes(
    network: TextClassifier, roles: Sequence[Roles], shapes: Mapping[str, tuple[int, ...]], whole: Shape, width: int
) -> dict[str, tuple[Axis, ...]]:
    """What the dimensions of every tensor count that becomes smaller, by its name."""
    channels: Axis = ("channels", 0)
    axes: dict[str, tuple[Axis, ...]] = {}
    for number, role in enumerate(roles):
        rows, neurons = ("rows", number), ("neurons", number)
        layers: dict[str, tuple[Axis, Axis]] = dict.fromkeys(role.projections, (rows, channels))
        layers |= {role.output: (channels, rows), role.enter: (neurons, channels), role.leave: (channels, neurons)}
        for path, both in layers.items():
            axes |= {f"{path}.weight": both, f"{path}.bias": both[:1]}
    for name, value in network.state_dict().items():
        if name in axes:
            continue
        if name not in shapes or value.ndim != len(shapes[name]):
            raise _unknown(network, f"{name} would be another")
        pairs = list(zip(value.shape, shapes[name], strict=True))
        if any(pair[0] != pair[1] and pair != (whole.width, width) for pair in pairs):
            raise _unknown(network, f"{name} hangs on more than their width")
        axes[name] = tuple(channels if before != after else None for before, after in pairs)
    return axes


def _chosen(
    network: TextClassifier, axes: Mapping[str, tuple[Axis, ...]], roles: Sequence[Roles], whole: Shape, width: int
) -> tuple[Kept, dict[Axis, Tensor]]:
    """What stays, and its positions along what the dimensions count."""
    state = network.state_dict()

    def importance(axis: Axis, head: int = 1) -> Tensor:
        """Of each position along `axis`; of heads, each of so many rows."""
        norms = [
            _norms(state[name], dimension, head)
            for name, dimensions in axes.items() if name in state
            for dimension, counted in enumerate(dimensions) if counted == axis
        ]  # fmt: skip
        return torch.stack([norm / norm.mean().clamp_min(1e-12) for norm in norms]).mean(0)

    numbers = range(len(roles))
    heads = [_largest(importance(("rows", number), whole.head), width // whole.head) for number in numbers]
    count = max(1, round(whole.neurons * width / whole.width))
    neurons = [_largest(importance(("neurons", number)), count) for number in numbers]
    channels, share = _largest(importance(("channels", 0)), width)
    positions: dict[Axis, Tensor] = {("channels", 0): channels}
    for number in numbers:
        starts = heads[number][0][:, None] * whole.head
        positions["rows", number] = (starts + torch.arange(whole.head)).flatten()
        positions["neurons", number] = neurons[number][0]
    kept = Kept(
        whole,
        tuple(tuple(head.tolist()) for head, _ in heads),
        tuple(tuple(neuron.tolist()) for neuron, _ in neurons),
        tuple(channels.tolist()),
        (_mean(share for _, share in heads), _mean(share for _, share in neurons), share),
    )
    return kept, positions


def _norms(tensor: Tensor, dimension: int, head: int) -> Tensor:
    """The length of each slice along a dimension, `head` rows of it together."""
    squares = tensor.detach().double().movedim(dimension, 0).square()
    return squares.reshape(len(squares) // head, -1).sum(1).sqrt()


def _largest(importance: Tensor, count: int) -> tuple[Tensor, float]:
    """The positions of the `count` largest, in their order, the first of equal ones; and their share of all."""
    order = torch.sort(importance, descending=True, stable=True).indices[:count].sort().values
    return order, float(importance[order].sum() / importance.sum())


def _mean(values: Iterator[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)


def _picked(value: Tensor, axes: tuple[Axis, ...], positions: Mapping[Axis, Tensor]) -> Tensor:
    for dimension, axis in enumerate(axes):
        if axis is not None:
            value = value.index_select(dimension, positions[axis])
    return value.clone()


def _unknown(network: TextClassifier, why: str) -> KdcError:
    return KdcError(
        f"kdc cannot make the layers of {type(network.model).__name__} narrower: {why}",
        "--student-init random draws narrower ones; or a smaller network: --student hf:PATH",
    )
