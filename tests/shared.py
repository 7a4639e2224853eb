"""What a test run makes once, for all of its worker processes: it lies in one folder beside theirs."""

import fcntl
import functools
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

__all__ = ["KEPT_GRAPHS", "each_graph_once", "each_registry_once", "made_once", "shared_folder"]

KEPT_GRAPHS = "KDC_TESTS_GRAPHS"
"""The environment variable with the folder that `each_graph_once` keeps them in."""


def shared_folder(factory: pytest.TempPathFactory) -> Path:
    """Ends with the test run, like every temporary folder of pytest."""
    own = factory.getbasetemp()
    folder = (own.parent if "PYTEST_XDIST_WORKER" in os.environ else own) / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def made_once(factory: pytest.TempPathFactory, name: str, make: Callable[[Path], object]) -> Path:
    """The folder `name`, which the first worker that asks for it fills by `make(folder)` while others that ask wait.
    Never change what is in it."""
    folder = shared_folder(factory) / name
    finished = folder.with_name(f"{name}.finished")
    with folder.with_name(f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not finished.exists():
            shutil.rmtree(folder, ignore_errors=True)  # of a worker that failed at it
            folder.mkdir()
            make(folder)
            finished.touch()
    return folder


@contextmanager
def each_graph_once() -> Iterator[None]:
    """torch.onnx.export, which takes two seconds even for the smallest network, asked once for each: the graphs lie in
    the folder KEPT_GRAPHS. All that kdc does to a graph it does every time, and tests of the exporter itself do without
    this."""
    import onnx
    import torch

    export = torch.onnx.export

    def once(network: torch.nn.Module, example: tuple[torch.Tensor, ...], **options: Any) -> Any:
        key = _key(network, example, options)
        if key is None:
            return export(network, example, **options)
        file = Path(os.environ[KEPT_GRAPHS]) / f"{key}.onnx"
        if not file.exists():
            program = export(network, example, **options)
            assert program is not None
            own = file.with_suffix(f".{os.getpid()}")
            own.write_bytes(program.model_proto.SerializeToString())
            own.rename(file)
        return SimpleNamespace(model_proto=onnx.load_model_from_string(file.read_bytes()))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", once)
        yield


@contextmanager
def each_registry_once() -> Iterator[None]:
    """torch.onnx.export reads the source of its five hundred translations for every graph, half a second; here once for
    each opset. Nothing changes what it has read."""
    import torch

    export = torch.onnx.export
    with pytest.MonkeyPatch.context() as patch:

        def quicker(*arguments: Any, **options: Any) -> Any:
            from torch.onnx._internal.exporter._registration import ONNXRegistry

            if not isinstance(vars(ONNXRegistry)["from_torchlib"], staticmethod):
                patch.setattr(ONNXRegistry, "from_torchlib", staticmethod(functools.cache(ONNXRegistry.from_torchlib)))
            return export(*arguments, **options)

        patch.setattr(torch.onnx, "export", quicker)
        yield


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
