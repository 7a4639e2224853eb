"""What a test run makes once, for all of its worker processes: it lies in one folder beside theirs."""

import fcntl
import functools
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.kept_graphs import kept

__all__ = ["each_graph_once", "each_registry_once", "made_once", "shared_folder"]


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
    """torch.onnx.export, which follows each network once (kept_graphs.py). Tests of the exporter itself do without it
    (`real_exports`)."""
    import torch

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.onnx, "export", kept(torch.onnx.export))
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
