"""Weights: read without running code, identified by content, and described."""

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from compressor.errors import KdcError, os_error

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
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise os_error(error, f"reading {path}") from error
    except pickle.UnpicklingError:
        raise KdcError(
            f"checkpoint {path} holds more than tensors (pickled code or objects), and was not loaded",
            "save it as .safetensors, or with torch.save(model.state_dict(), …)",
        ) from None
    except Exception as error:  # safetensors and torch.load raise many types for a damaged file
        raise KdcError(f"checkpoint {path} cannot be read: {str(error).splitlines()[0]}") from None
    for key in ("state_dict_ema", "state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
            break
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise KdcError(f"checkpoint {path} is no state dict (names -> tensors)")
    return {str(name).removeprefix("module."): value for name, value in state.items()}


def heads(network: nn.Module, classes: int) -> list[nn.Linear]:
    """The classifier layers of a network: timm's own answer where there is one, else its last Linear of that width."""
    named = getattr(network, "get_classifier", None)
    found = named() if callable(named) else None
    layers = list(found) if isinstance(found, (tuple, list)) else [found]
    linear = [layer for layer in layers if isinstance(layer, nn.Linear)]
    if not linear:
        linear = [m for m in network.modules() if isinstance(m, nn.Linear) and m.out_features == classes][-1:]
    return linear


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
