"""torch.onnx.export, which takes two seconds even for the smallest network, asked once for each. Without pytest: forked
programs (forked.py) have this too."""

import functools
import hashlib
import os
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["KEPT_GRAPHS", "imported_by_exports", "kept"]

KEPT_GRAPHS = "KDC_TESTS_GRAPHS"
"""The environment variable with the folder that the graphs are kept in; without it none is."""


def kept(export: Callable[..., Any]) -> Callable[..., Any]:
    """`export`, which is torch.onnx.export; for what it was asked before, what it answered then. All that kdc does to a
    graph it does every time."""

    def once(network: Any, example: tuple[Any, ...], *file_to_write: Any, **options: Any) -> Any:
        if file_to_write:  # by the tracing exporter, which is quick, and returns nothing
            return export(network, example, *file_to_write, **options)
        folder = os.environ.get(KEPT_GRAPHS)
        key = _key(network, example, options) if folder else None
        if folder is None or key is None:
            return export(network, example, **options)
        import onnx

        file = Path(folder) / f"{key}.onnx"
        if not file.exists():
            program = export(network, example, **options)
            assert program is not None
            own = file.with_suffix(f".{os.getpid()}")
            own.write_bytes(program.model_proto.SerializeToString())
            own.rename(file)
        return SimpleNamespace(model_proto=onnx.load_model_from_string(file.read_bytes()))

    return once


def imported_by_exports() -> None:
    """Import and read what the first export of a process takes half of its time for."""
    import torch
    import tqdm  # type: ignore[import-untyped]
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    tqdm.tqdm.monitor_interval = 0  # else its first bar starts a thread, and only one is forked
    registry = functools.cache(ONNXRegistry.from_torchlib)
    ONNXRegistry.from_torchlib = staticmethod(registry)  # type: ignore[method-assign]
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 1, 1), torch.nn.BatchNorm2d(1)).eval()
    torch.onnx.export(network, (torch.zeros(2, 1, 1, 1),), dynamo=True, opset_version=18, verbose=False)


def _key(network: Any, example: tuple[Any, ...], options: Mapping[str, Any]) -> str | None:
    """Of all that a graph is made of: the modules with what they hold, weights, shapes, options; None: cannot tell."""
    digest = hashlib.sha256(repr(sorted((name, repr(value)) for name, value in options.items())).encode())
    for name, module in network.named_modules():
        held = {key: value for key, value in vars(module).items() if key not in ("_parameters", "_buffers", "_modules")}
        if any(value for key, value in held.items() if key.endswith("_hooks")):
            return None
        kind = type(module)
        digest.update(repr((name, kind.__module__, kind.__qualname__, _plain(held))).encode())
    for name, tensor in chain(network.named_parameters(), network.named_buffers()):
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().contiguous().cpu().numpy().tobytes())
    digest.update(repr([(tensor.dtype, tuple(tensor.shape)) for tensor in example]).encode())
    return digest.hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [(str(key), _plain(each)) for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        return value
    kind = type(value)
    return getattr(value, "__qualname__", f"{kind.__module__}.{kind.__qualname__}")
