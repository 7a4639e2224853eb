"""Networks whose channels were pruned, built from the shapes that their tensors have: what pruned them is not needed,
and no version of it can build another network from the same record."""

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from compressor.errors import KdcError

__all__ = [
    "MULTIPLE",
    "Shapes",
    "classifier_layers",
    "is_narrower",
    "load_picked",
    "narrow",
    "narrow_like",
    "shapes_of",
    "widths",
]

Shapes = Mapping[str, tuple[int, ...]]
"""Names in a state dict -> shapes."""

MULTIPLE = 8
"""Kernels of CPUs and phones take channels in eights."""


def shapes_of(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def classifier_layers(network: nn.Module) -> dict[str, nn.Linear | nn.Conv2d]:
    """The layers of what timm calls the classifier, by their paths: they keep their outputs, which are the classes."""
    named = network.get_classifier() if hasattr(network, "get_classifier") else ()  # type: ignore[operator]
    roots = named if isinstance(named, (tuple, list)) else (named,)
    inside = {id(module) for root in roots if isinstance(root, nn.Module) for module in root.modules()}
    return {path: module for path, module in _layers(network) if id(module) in inside}


def _layers(network: nn.Module) -> Iterator[tuple[str, nn.Linear | nn.Conv2d]]:
    for path, module in network.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            yield path, module


def is_narrower(network: nn.Module, shapes: Shapes) -> bool:
    """Whether `shapes`, of a checkpoint, are those of `network` with fewer channels; classifiers are not compared."""
    heads = tuple(f"{path}." for path in classifier_layers(network))
    whole = {name: shape for name, shape in shapes_of(network.state_dict()).items() if not name.startswith(heads)}
    pairs = [(shape, shapes[name]) for name, shape in whole.items() if name in shapes]
    return any(new != old for old, new in pairs) and all(_within(new, old) for old, new in pairs)


def _within(new: tuple[int, ...], old: tuple[int, ...]) -> bool:
    return len(new) == len(old) and all(1 <= fewer <= all_ for fewer, all_ in zip(new, old, strict=True))


def widths(network: nn.Module) -> dict[str, int]:
    """The output channels of each convolution and linear layer, by path; without the classifier's."""
    heads = classifier_layers(network)
    return {path: len(layer.weight) for path, layer in _layers(network) if path not in heads}


def narrow_like(network: nn.Module, shapes: Shapes, share: float, name: str) -> None:
    """`narrow`, where somebody else says how: a run, or a checkpoint for the network `name`, which keeps `share` of its
    channels. Its classifier keeps its classes. Raises KdcError for shapes that are not of such a network."""
    whole, before, heads = shapes_of(network.state_dict()), widths(network), classifier_layers(network)
    fitting = {tensor: tuple(shape) for tensor, shape in shapes.items() if tensor in whole}
    for tensor, shape in fitting.items():
        if tensor.rpartition(".")[0] in heads and shape:
            fitting[tensor] = (whole[tensor][0], *shape[1:])
        if not _within(fitting[tensor], whole[tensor]):
            raise KdcError(f"{name}: {tensor} of shape {list(shape)} is no part of it", "its weights are another's")
    if missing := sorted(f"{path}.weight" for path in heads if f"{path}.weight" not in shapes):
        raise KdcError(f"{name}: without {missing[0]} nobody knows its channels", "take weights with a classifier")
    narrow(network, fitting)
    after = widths(network)
    slack = {path: max(MULTIPLE, getattr(network.get_submodule(path), "groups", 1)) for path in after}
    wrong = [path for path, n in after.items() if n != before[path] and abs(n - share * before[path]) > slack[path]]
    if wrong or after == before:
        layer = wrong[0] if wrong else next(iter(after))
        raise KdcError(
            f"{name}: {after[layer]} of {before[layer]} channels of {layer} are no share of {share:g}",
            "name the network that the weights are of: another share, or the whole",
        )


def narrow(network: nn.Module, shapes: Shapes) -> None:
    """Make the tensors of `network` as small as `shapes` says, in place, and let its layers say so. What is left in
    them are the first of their values; weights are loaded afterwards. `pretrained_cfg` keeps the shapes as "channels".
    """
    whole = shapes_of(network.state_dict())
    changed = {name: shape for name, shape in shapes.items() if whole[name] != tuple(shape)}
    inputs = {layer.weight.shape[1] for layer in classifier_layers(network).values()}
    touched = {}
    for name, shape in changed.items():
        path, _, leaf = name.rpartition(".")
        module = touched[path] = network.get_submodule(path)
        old = getattr(module, leaf)
        part = old.detach()[tuple(slice(size) for size in shape)].clone()
        setattr(module, leaf, nn.Parameter(part, old.requires_grad) if isinstance(old, nn.Parameter) else part)
    for path, module in touched.items():
        before = getattr(module, "groups", 1)
        _restate(module)
        if getattr(module, "groups", 1) != before:  # a block whose branches merge repeats those of its convolutions
            for above in (network.get_submodule(path[:end]) for end in _dots(path)):
                if getattr(above, "groups", None) == before:
                    above.groups = module.groups
    _restate_features(network, inputs)
    cfg = getattr(network, "pretrained_cfg", None) or {}
    network.pretrained_cfg = {**cfg, "channels": changed}  # type: ignore[assignment]


def _dots(path: str) -> list[int]:
    return [number for number, letter in enumerate(path) if letter == "."]


def _restate(module: nn.Module) -> None:
    """What a layer says of itself, after its tensors."""
    if isinstance(module, nn.Conv2d):
        depthwise = module.groups == module.in_channels == module.out_channels
        module.out_channels = len(module.weight)
        module.groups = module.out_channels if depthwise else module.groups
        module.in_channels = module.weight.shape[1] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _BatchNorm) and isinstance(module.running_mean, Tensor):
        module.num_features = len(module.running_mean)
    elif isinstance(module, nn.GroupNorm):
        module.num_channels = len(module.weight)
    elif isinstance(module, nn.LayerNorm):
        module.normalized_shape = tuple(module.weight.shape)


def _restate_features(network: nn.Module, before: set[int]) -> None:
    """timm makes a new classifier by what a network says of its features: what the classifier takes, `before`."""
    after = {layer.weight.shape[1] for layer in classifier_layers(network).values()}
    if len(before) != 1 or len(after) != 1:
        return
    for module in (network, getattr(network, "head", None)):
        for key in ("num_features", "head_hidden_size", "in_features"):
            if getattr(module, key, None) == next(iter(before)):
                setattr(module, key, next(iter(after)))


def load_picked(network: nn.Module, picked: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Load into a narrowed network the values of the whole one's `state` at the positions `picked`, in each of its
    tensors as a flat row."""
    network.load_state_dict({name: value.flatten()[picked[name]] for name, value in state.items()})
