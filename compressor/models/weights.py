"""Weights: read without running code, identified by content, and described."""

import hashlib
import pickle
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from compressor.errors import KdcError, first_line, os_error

__all__ = ["head_parameters", "heads", "read_checkpoint", "small_head", "tensors_sha256"]


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, types, shapes and bytes, in order of the names: the same weights whatever file they lay in."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def read_checkpoint(path: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors file, or in a .pth that holds nothing but tensors and plain values.

    Weights under "state_dict", "model" or "state_dict_ema" (as training scripts write them) are found, "module." is
    taken off. Raises KdcError for a missing or damaged file and for a pickle that would run code.
    """
    if not path.is_file():
        raise KdcError(f"checkpoint {path} does not exist", "give a .safetensors or a weights-only .pth file")
    state = _safetensors(path) if path.suffix == ".safetensors" else _pickled_tensors(path)
    for key in ("state_dict_ema", "state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise KdcError(f"checkpoint {path} is no state dict (names -> tensors)")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def _safetensors(path: Path) -> Any:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # safetensors has a type of its own
        raise KdcError(f"checkpoint {path} cannot be read: {first_line(error)}") from None


def _pickled_tensors(path: Path) -> Any:
    try:
        with path.open("rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's advice on pickle protocols
            return _load_tensors(file, path)
    except OSError as error:
        raise os_error(error, f"reading {path}") from error


def _load_tensors(file: BinaryIO, path: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise KdcError(
            f"checkpoint {path} holds more than tensors (pickled code or objects), and was not loaded",
            "save it as .safetensors, or with torch.save(model.state_dict(), …)",
        ) from None
    except Exception as error:  # on damaged bytes torch.load raises nearly anything, even an OSError
        raise KdcError(f"checkpoint {path} is damaged, or no checkpoint: {first_line(error)}") from None


def heads(network: nn.Module, classes: int) -> list[nn.Linear | nn.Conv2d]:
    """The classifier layers of a network: in what timm calls its classifier, else its last layer of that width."""
    named = getattr(network, "get_classifier", None)
    found = named() if callable(named) else network
    roots = found if isinstance(found, (tuple, list)) else (found,)
    layers = [
        layer
        for root in roots
        for layer in root.modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == classes)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == classes)
    ]
    return layers if found is not network else layers[-1:]


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
