"""Channels pruned by structure: a narrower network out of a wide one, by torch-pruning's graph of what depends on what.

Fang et al. 2023, arXiv 2301.12900: layers whose channels must go together make a group. A channel counts as much as its
weights are large, by their L2 norm over all of the group's tensors. No data are asked.
"""

import copy
import math
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from compressor.errors import KdcError, first_line, needs
from compressor.install import install_line
from compressor.tasks.image_classification.models.merging import merged
from compressor.tasks.image_classification.models.narrowing import (
    MULTIPLE,
    classifier_layers,
    load_picked,
    narrow,
    narrow_like,
    shapes_of,
    widths,
)

__all__ = ["kept_of", "picked_channels", "prune", "require_pruner"]

HINT = "take another network, or one that timm has in several widths; +depthN shortens a plain transformer"


def require_pruner(operation: str) -> Any:
    """torch-pruning; raises KdcError where it is not installed."""
    return needs("torch_pruning", install_line("torch-pruning"), f"+{operation}")


def prune(network: nn.Module, share: float, input_size: tuple[int, int], name: str) -> str:
    """Leave about `share` of the channels of each layer of `network`, in place: the largest, in multiples of eight.

    The classifier keeps its outputs, and the first layer its inputs. Tested before it is done: with drawn weights, the
    narrow network answers as the whole one does where no layer hears the channels that go. Returns what is to be said;
    "" where no layer is wide enough. Raises KdcError where the network cannot be pruned.
    """
    require_pruner(f"width{share:g}")
    example = torch.rand(1, 3, *input_size, generator=torch.Generator().manual_seed(0)).double()
    before, parameters = sum(widths(network).values()), sum(value.numel() for value in network.parameters())
    try:
        picked = picked_channels(network, share, example)
        if shapes_of(picked) == shapes_of(network.state_dict()):
            return ""
        _require_same(network, picked, share, example)
    except Exception as error:  # of whatever torch-pruning, or the network that it pruned, stumbled over
        why = first_line(error)[:200] or type(error).__name__
        raise KdcError(f"timm:{name}: its channels cannot be pruned: {why}", HINT) from None
    state = copy.deepcopy(network.state_dict())
    narrow(network, shapes_of(picked))
    load_picked(network, picked, state)
    after, left = sum(widths(network).values()), sum(value.numel() for value in network.parameters())
    return (
        f"{after:,} of {before:,} channels are kept, those of the largest weights (L2 over all that depends on one), "
        f"and {left:,} of {parameters:,} parameters"
    )


def kept_of(channels: int, share: float, groups: int = 1) -> int:
    """How many of a group's `channels` are kept: `share` of them, rounded so that all `groups` together have a multiple
    of eight, and never fewer than the least one; all where there are fewer than that."""
    step = MULTIPLE // math.gcd(groups, MULTIPLE)
    return min(channels, max(step, math.floor(channels * share / step + 0.5) * step))


def picked_channels(network: nn.Module, share: float, example: Tensor) -> dict[str, Tensor]:
    """For each tensor of the state dict the positions, in it as a flat row, that the pruned network keeps, in the shape
    that they have there. `example`: images [1, 3, height, width] in double precision."""
    pruner = require_pruner(f"width{share:g}")
    traced = copy.deepcopy(network).double().requires_grad_(True)
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")  # of parameters outside of layers; what it makes of them is tested
        graph = pruner.DependencyGraph().build_dependency(traced, example_inputs=example)
        chosen = _chosen(pruner, graph, traced, share)
        # From here on every value is its own position, which the pruning takes along.
        for value in traced.state_dict(keep_vars=True).values():
            value.data = torch.arange(value.numel(), dtype=torch.float64).reshape(value.shape)
        for layer, function, channels in chosen:
            group = graph.get_pruning_group(layer, function, channels)
            if not graph.check_pruning_group(group):
                raise ValueError("a layer would have no channel left")
            group.prune()
    return {name: value.detach().long() for name, value in traced.state_dict().items()}


def _chosen(pruner: Any, graph: Any, network: nn.Module, share: float) -> list[tuple[nn.Module, Any, list[int]]]:
    """Layer, torch-pruning's function and the channels that go: one row a group of layers."""
    importance, rows = pruner.importance.GroupMagnitudeImportance(p=2), []
    kept = list(classifier_layers(network).values())
    for group in graph.get_all_groups(ignored_layers=kept, root_module_types=[nn.Conv2d, nn.Linear]):
        sizes = importance(group)
        if sizes is None or len(sizes) == 0:
            continue
        parts = max(_parts(item.dep.target.module) for item in group)
        each = len(sizes) // parts
        count = each - kept_of(each, share, parts)
        if count:
            least = sizes.view(parts, each).mean(0).argsort(stable=True)[:count]
            channels = torch.cat([least + part * each for part in range(parts)]).sort().values.tolist()
            rows.append((group[0].dep.target.module, group[0].dep.handler, channels))
    return rows


def _parts(module: object) -> int:
    """In how many equal parts the channels of a layer fall that must stay equal."""
    if isinstance(module, nn.Conv2d) and module.groups != module.out_channels:
        return module.groups
    return module.num_groups if isinstance(module, nn.GroupNorm) else 1


def _require_same(network: nn.Module, picked: Mapping[str, Tensor], share: float, example: Tensor) -> None:
    """Raise ValueError or KdcError unless a run will be able to build the pruned network again, and it answers, with
    drawn weights, as the whole one does when no layer hears the channels that went.

    torch-pruning guesses at what it does not know (splits, shuffles, slices), and would mix up channels in silence.
    Norms over channels are left out of both: over fewer channels they are others.
    """
    whole = copy.deepcopy(network).double().eval()
    _draw(whole)
    pruned = copy.deepcopy(whole)
    narrow_like(pruned, shapes_of(picked), share, "it")
    load_picked(pruned, picked, whole.state_dict())
    with torch.no_grad():
        single, image = copy.deepcopy(pruned).float(), example.float()  # timm merges into float32
        answer = single(image)
        if not torch.allclose(merged(single)(image), answer, rtol=1e-3, atol=1e-3 * float(answer.abs().max())):
            raise ValueError("its branches would no longer merge into one")
        for part in (whole, pruned):
            _without_norms(part)
        _deafen(whole, picked)
        answer, expected = pruned(example), whole(example)
    if answer.shape != expected.shape:
        raise ValueError(f"it would answer {list(answer.shape)}, not {list(expected.shape)}")
    most = float(expected.abs().max())
    if not (0 < most < math.inf and torch.allclose(answer, expected, rtol=1e-6, atol=1e-6 * most)):
        raise ValueError("torch-pruning takes other channels out of one layer than out of the next")


def _draw(network: nn.Module) -> None:
    """Weights of which none is zero (timm begins some branches with zeros), and statistics above zero."""
    generator = torch.Generator().manual_seed(0)
    for value in network.state_dict().values():
        if value.ndim > 1:
            value.normal_(std=(len(value) / value.numel()) ** 0.5, generator=generator)
        elif value.is_floating_point():
            value.uniform_(0.5, 1.5, generator=generator)


def _without_norms(network: nn.Module) -> None:
    for module in network.modules():
        if isinstance(module, (nn.LayerNorm, nn.GroupNorm)):
            module.forward = _unchanged  # type: ignore[assignment, method-assign]


def _unchanged(values: Tensor) -> Tensor:
    return values


def _deafen(network: nn.Module, picked: Mapping[str, Tensor]) -> None:
    """Let each layer of `network` hear 0 on every channel of which `picked` keeps no weight."""
    for path, module in network.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            heard = torch.zeros(_inputs(module), dtype=torch.float64)
            heard[_channels(module, picked[f"{path}.weight"])] = 1
            shape = (1, -1, 1, 1) if isinstance(module, nn.Conv2d) else (-1,)
            module.register_forward_pre_hook(_times(heard.view(shape)))


def _times(heard: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], tuple[Tensor, ...]]:
    return lambda layer, inputs: (inputs[0] * heard, *inputs[1:])


def _inputs(layer: nn.Linear | nn.Conv2d) -> int:
    return layer.in_channels if isinstance(layer, nn.Conv2d) else layer.in_features


def _channels(layer: nn.Linear | nn.Conv2d, positions: Tensor) -> Tensor:
    """The input channels that a layer's weights at `positions` belong to."""
    outputs, inputs, *kernel = layer.weight.shape
    column = positions.flatten() // math.prod(kernel)
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    return column // inputs // (outputs // groups) * inputs + column % inputs
