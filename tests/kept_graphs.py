"""torch.onnx.export, which takes one to three seconds even for the smallest network, asked once for each. Nearly all of
it goes into following the network, whatever its weights: of those that differ in their weights alone one is followed.
Without pytest: forked programs (forked.py) have this too."""

import functools
import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import is_dataclass
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

__all__ = ["KEPT_GRAPHS", "imported_by_exports", "kept"]

KEPT_GRAPHS = "KDC_TESTS_GRAPHS"
"""The environment variable with the folder that the graphs are kept in; without it none is."""


def kept(export: Callable[..., Any]) -> Callable[..., Any]:
    """`export`, which is torch.onnx.export; for what it was asked before, what it answered then, and for other weights
    what it made of that network, with these weights. All that kdc does to a graph it does every time."""

    def once(network: Any, example: tuple[Any, ...], *file_to_write: Any, **options: Any) -> Any:
        if file_to_write:  # by the tracing exporter, which is quick, and returns nothing
            return export(network, example, *file_to_write, **options)
        folder = os.environ.get(KEPT_GRAPHS)
        keys = _keys(network, example, options) if folder else None
        if folder is None or keys is None:
            return export(network, example, **options)
        import onnx

        file, followed = (Path(folder) / f"{key}.onnx" for key in keys)
        if not file.exists():
            program = _exported(export, network, example, options, followed)
            assert program is not None
            _write(file, program.model_proto)
        return SimpleNamespace(model_proto=onnx.load_model_from_string(file.read_bytes()))

    return once


def _write(file: Path, graph: Any) -> None:
    own = file.with_suffix(f".{os.getpid()}")
    own.write_bytes(graph.SerializeToString())
    own.rename(file)


def _exported(
    export: Callable[..., Any], network: Any, example: tuple[Any, ...], options: Mapping[str, Any], followed: Path
) -> Any:
    """By torch, from the graph that `followed` holds of such a network, with the weights of this one: it is still
    converted to the opset, optimized and named as any other. Where there is none it is kept."""
    import onnx
    import onnx_ir
    from torch.onnx._internal.exporter import _core, _onnx_program

    translate, prepare = _core._exported_program_to_onnx_program, _core._prepare_exported_program_for_export

    def translated(program: Any, **others: Any) -> Any:
        if not followed.exists():
            _write(followed, onnx_ir.to_proto(translate(program, **others).model))
        model = onnx_ir.from_proto(onnx.load_model_from_string(followed.read_bytes()))
        for name, tensor in _weights(network):
            if (initializer := model.graph.initializers.get(name)) is not None:
                initializer.const_value = _core.TorchTensor(tensor.detach(), name=name)
        return _onnx_program.ONNXProgram(model, program)

    known, core = followed.exists(), vars(_core)
    core["_exported_program_to_onnx_program"] = translated
    if known:
        core["_prepare_exported_program_for_export"] = lambda program, **_: program
    try:
        return export(_anything() if known else network, example, **options)
    finally:
        core["_exported_program_to_onnx_program"], core["_prepare_exported_program_for_export"] = translate, prepare


@functools.cache
def _anything() -> Any:
    """What torch.onnx.export takes for a network that was followed already."""
    import torch

    return torch.export.export(torch.nn.Identity(), (torch.zeros(2, 1),))


def _weights(network: Any) -> Iterator[tuple[str, Any]]:
    return chain(network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False))


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


def _keys(network: Any, example: tuple[Any, ...], options: Mapping[str, Any]) -> tuple[str, str] | None:
    """Of all that a graph is made of: the modules with what they hold, weights, shapes, options; and the same without
    the weights. None: cannot tell."""
    digest = hashlib.sha256(repr(sorted((name, repr(value)) for name, value in options.items())).encode())
    for name, module in network.named_modules():
        held = {key: value for key, value in vars(module).items() if key not in ("_parameters", "_buffers", "_modules")}
        if any(value for key, value in held.items() if key.endswith("_hooks")):
            return None
        kind = type(module)
        digest.update(repr((name, kind.__module__, kind.__qualname__, _plain(held))).encode())
    firsts = dict[int, str]()
    for name, tensor in _weights(network):
        first = firsts.setdefault(id(tensor), name)  # of one that has several names
        digest.update(repr((name, first, tensor.dtype, tuple(tensor.shape), tensor.requires_grad)).encode())
    digest.update(repr([(tensor.dtype, tuple(tensor.shape)) for tensor in example]).encode())
    whole = digest.copy()
    for _, tensor in _weights(network):
        whole.update(_bytes(tensor))
    return whole.hexdigest(), digest.hexdigest()


def _bytes(tensor: Any) -> bytes:
    content: bytes = tensor.detach().contiguous().cpu().numpy().tobytes()
    return content


def _plain(value: Any) -> Any:
    """What tells a value that a module holds from another one."""
    if isinstance(value, Mapping):
        return [(str(key), _plain(each)) for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (bool, int, float, complex, str, bytes, type(None))):
        return value
    if hasattr(value, "detach"):
        return str(value.dtype), tuple(value.shape), _bytes(value)
    if hasattr(value, "tobytes"):
        return str(value.dtype), value.shape, value.tobytes()
    kind = type(value)
    if isinstance(value, functools.partial):
        return _plain(value.func), _plain(value.args), _plain(value.keywords)
    if hasattr(value, "to_dict") and not isinstance(value, type):  # a configuration of transformers
        return kind.__qualname__, _plain(value.to_dict())
    if is_dataclass(value) or isinstance(value, SimpleNamespace):
        return kind.__qualname__, _plain(vars(value))
    return getattr(value, "__qualname__", f"{kind.__module__}.{kind.__qualname__}")
