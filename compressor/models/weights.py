"""Weights: identified by content, checked, and their classifier found."""

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from compressor.errors import KdcError

__all__ = ["head_parameters", "heads", "require_finite", "small_head", "tensors_sha256"]


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in order of the names: the same weights whatever file they lay in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def require_finite(network: nn.Module, source: str) -> None:
    """Raise KdcError where weights or batch statistics are infinite or no numbers at all."""
    statistics = ("running_mean", "running_var")
    named = [*network.named_parameters(), *((n, b) for n, b in network.named_buffers() if n.endswith(statistics))]
    for name, tensor in named:
        if not bool(torch.isfinite(tensor).all()):
            raise KdcError(
                f"{source}: its weights {name} hold values that are not finite", "take an earlier checkpoint"
            )


def heads(network: nn.Module, classes: int) -> list[nn.Linear | nn.Conv2d]:
    """The classifier layers of a network: in what timm calls its classifier, else its last layer of that width."""
    named = getattr(network, "get_classifier", None)
    classifier = named() if callable(named) else network
    roots = classifier if isinstance(classifier, (tuple, list)) else (classifier,)
    layers = [
        layer
        for root in roots
        for layer in root.modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == classes)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == classes)
    ]
    return layers if classifier is not network else layers[-1:]


def head_parameters(network: nn.Module, classes: int) -> list[nn.Parameter]:
    """The parameters of the classifier; raises KdcError where none can be found."""
    parameters = [parameter for layer in heads(network, classes) for parameter in layer.parameters()]
    if not parameters:
        raise KdcError("the network's classifier cannot be found", "set head_epochs=0 to train everything at once")
    return parameters


def small_head(network: nn.Module, classes: int) -> None:
    """Draw a new classifier small: weights from N(0, 0.01²), biases 0.

    timm draws some mobile heads from U(±1/√classes) whatever the fan-in: with few classes the first loss is so large
    that small data sets never recover.
    """
    for layer in heads(network, classes):
        nn.init.normal_(layer.weight, std=0.01)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)
