"""What every runner shares: the JSON-lines loop on stdin/stdout, the pictures, the clocks, the memory.

A runner (run_*.py) says how its runtime loads a model and hands that to `serve`. README.md has the protocol.
Standard library and numpy only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import gc
import importlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.machine_info import machine
else:
    from machine_info import machine

Floats = npt.NDArray[np.float32]
Request = dict[str, Any]
Reply = dict[str, Any]


class RequestError(Exception):
    """A request that cannot be answered; `kind` is "missing", "bad-request" or "failed"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


@dataclass(frozen=True)
class Loaded:
    """A model in its runtime. `call`: float32 [batch, 3, height, width] -> float32 [batch, classes]. `executed`: reads
    from the runtime in which precision it runs; perhaps slow, so called once and outside every timing. In a shape, a
    text or None is a dimension that may vary."""

    call: Callable[[Floats], Floats]
    executed: Callable[[], str]
    input_name: str
    input_shape: list[int | str | None]
    output_name: str
    output_shape: list[int | str | None]


@dataclass(frozen=True)
class Runtime:
    """How a runner uses its runtime. `precisions`: imported module -> those that really run on this machine.
    `load`: module, model's path, threads, precision -> the model. `known`: all the precisions that `load` takes."""

    name: str
    install: str
    known: tuple[str, ...]
    precisions: Callable[[Any], list[str]]
    load: Callable[[Any, str, int, str], Loaded]


def mixed(precisions: Iterable[str]) -> str:
    """One name for the precisions of a model's layers: "f32", or "mixed bf16+f32"."""
    names = sorted(set(precisions))
    return names[0] if len(names) == 1 else "mixed " + "+".join(names) if names else "unknown"


def memory_mb(key: str) -> float | None:
    """A line of /proc/self/status in MB (10^6 bytes): VmRSS, or VmHWM for the peak. None where there is no /proc.
    Not getrusage: its maximum survives exec, so that a child would report the memory of its parent."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    found = next((line.split() for line in lines if line.startswith(key + ":")), None)
    return round(int(found[1]) * 1024 / 1e6, 3) if found else None


class Pictures:
    """uint8 [N, height, width, 3] in a .npy file, read one at a time, so that memory is the model's and not the data's.

    Each value has only 256 × 3 possible inputs, so `(x / 255 - mean) / std` is a table, computed once in float32.
    """

    def __init__(self, path: str, mean: Sequence[float], std: Sequence[float]) -> None:
        header = np.load(path, mmap_mode="r")
        if header.dtype != np.uint8 or header.ndim != 4 or header.shape[3] != 3 or not header.flags.c_contiguous:
            raise RequestError("failed", f"{path}: expected uint8 [N, H, W, 3], found {header.dtype} {header.shape}")
        if not len(header):
            raise RequestError("failed", f"{path}: no pictures in it")
        self.n, self.height, self.width = header.shape[:3]
        self._offset: int = header.offset
        self._file = Path(path).open("rb", buffering=0)  # noqa: SIM115  (see close)
        self._picture = np.empty(header.shape[1:], np.uint8)
        levels = np.arange(256, dtype=np.float32) / np.float32(255)
        self._table = (levels - np.asarray(mean, np.float32)[:, None]) / np.asarray(std, np.float32)[:, None]

    def fill(self, batch: Floats, rows: Iterable[int]) -> None:
        """Write the pictures `rows` into `batch`, [len(rows), 3, height, width]."""
        for slot, row in enumerate(rows):
            self._file.seek(self._offset + row * self._picture.nbytes)
            if self._file.readinto(self._picture.data) != self._picture.nbytes:
                raise RequestError("failed", "the file of pictures was cut short while it was read")
            for channel in range(3):
                np.take(self._table[channel], self._picture[:, :, channel], out=batch[slot, channel], mode="clip")

    def close(self) -> None:
        self._file.close()


class Session:
    """The state of one runner process: a runtime, then a model, then inputs. One method an operation."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.model: Loaded | None = None
        self.pictures: Pictures | None = None
        self.batch: Floats = np.empty(0, np.float32)
        self.distinct = 0
        self.calls = 0

    def info(self, request: Request) -> Reply:
        module = self._module()
        return {
            "runtime": self.runtime.name,
            "version": str(module.__version__),
            "precisions": self.runtime.precisions(module),
            "machine": machine(),
        }

    def load(self, request: Request) -> Reply:
        path, precision = _take(request, "model", str), _take(request, "precision", str)
        threads = _count(request, "threads")
        if precision not in self.runtime.known:
            known = ", ".join(self.runtime.known)
            raise RequestError("bad-request", f"{self.runtime.name} has no precision {precision}; known: {known}")
        if not Path(path).is_file():
            raise RequestError("failed", f"the model {path} does not exist")
        module = self._module()
        self._forget()
        idle = memory_mb("VmRSS")
        begin = time.perf_counter_ns()
        model = self.runtime.load(module, path, threads, precision)
        load_ms = (time.perf_counter_ns() - begin) / 1e6
        rss = memory_mb("VmRSS")
        executed = model.executed()
        self.model = model
        return {
            "load_ms": load_ms,
            "executed_precision": executed,
            "runtime_version": str(module.__version__),
            "input": {"name": model.input_name, "shape": model.input_shape},
            "output": {"name": model.output_name, "shape": model.output_shape},
            "idle_rss_mb": idle,
            "rss_mb": rss,
        }

    def inputs(self, request: Request) -> Reply:
        pictures, batch = self._pictures(request, "path")
        # Batch i starts at picture i × size, wrapping round: that gives N / gcd(N, size) different batches at most.
        self.distinct = min(_count(request, "distinct"), pictures.n // math.gcd(pictures.n, len(batch)))
        if self.pictures is not None:
            self.pictures.close()
        self.pictures, self.batch = pictures, batch
        return {"distinct": self.distinct}

    def first(self, request: Request) -> Reply:
        if self.calls:
            raise RequestError("bad-request", "first comes before every block: the model has run already")
        return {"first_ms": self._timed_call()[0]}

    def block(self, request: Request) -> Reply:
        n = _count(request, "n")
        gc.disable()  # as timeit does: Python's collector is no cost of the model
        try:
            times = [self._timed_call() for _ in range(n)]
        finally:
            gc.enable()
        return {"wall_ms": [wall for wall, _ in times], "cpu_ms": [cpu for _, cpu in times]}

    def memory(self, request: Request) -> Reply:
        return {"rss_mb": memory_mb("VmRSS"), "peak_rss_mb": memory_mb("VmHWM")}

    def predict(self, request: Request) -> Reply:
        out = Path(_take(request, "out", str))
        pictures, batch = self._pictures(request, "inputs")
        temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
        try:
            with temporary.open("wb") as file:
                self._predict(pictures, batch, file)
            temporary.replace(out)
        finally:
            pictures.close()
            temporary.unlink(missing_ok=True)
        return {"n": pictures.n}

    def quit(self, request: Request) -> Reply:
        self._forget()
        return {}

    def _forget(self) -> None:
        if self.pictures is not None:
            self.pictures.close()
        self.model = self.pictures = None
        self.calls = 0

    def _predict(self, pictures: Pictures, batch: Floats, file: IO[bytes]) -> None:
        size = len(batch)
        for start in range(0, pictures.n, size):
            # A model may be built for one batch size, so the last picture fills up the last batch.
            pictures.fill(batch, (min(row, pictures.n - 1) for row in range(start, start + size)))
            logits = self._model().call(batch)
            if logits.ndim != 2 or len(logits) != size:
                raise RequestError("failed", f"the model answers {list(logits.shape)}, expected [{size}, classes]")
            if start == 0:
                header = {"descr": "<f4", "fortran_order": False, "shape": (pictures.n, logits.shape[1])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(logits[: pictures.n - start].astype("<f4", order="C").tobytes())

    def _timed_call(self) -> tuple[float, float]:
        """One inference on the next input: wall time, and CPU time of all threads of this process, in ms."""
        if self.pictures is None:
            raise RequestError("bad-request", "there are no inputs yet: ask for load, then inputs")
        call, size = self._model().call, len(self.batch)
        start = self.calls % self.distinct * size
        # Just before the call, as an application does it: the input is warm in the cache, and memory holds one batch.
        self.pictures.fill(self.batch, ((start + slot) % self.pictures.n for slot in range(size)))
        cpu = time.process_time_ns()
        wall = time.perf_counter_ns()
        call(self.batch)
        wall = time.perf_counter_ns() - wall
        cpu = time.process_time_ns() - cpu
        self.calls += 1
        return wall / 1e6, cpu / 1e6

    def _module(self) -> Any:
        name, install = self.runtime.name, self.runtime.install
        try:
            return importlib.import_module(name)
        except ImportError as error:
            raise RequestError("missing", f"{install} (cannot import {name}: {error})") from error

    def _model(self) -> Loaded:
        if self.model is None:
            raise RequestError("bad-request", "no model is loaded yet: ask for load first")
        return self.model

    def _pictures(self, request: Request, key: str) -> tuple[Pictures, Floats]:
        """The pictures of a request, and a batch to fill; refused where the loaded model takes another shape."""
        expected = self._model().input_shape
        pictures = Pictures(_take(request, key, str), _three(request, "mean"), _three(request, "std"))
        batch = np.empty((_count(request, "batch"), 3, pictures.height, pictures.width), np.float32)
        fixed = [size if isinstance(size, int) else batch.shape[axis] for axis, size in enumerate(expected[:4])]
        if len(expected) != 4 or fixed != list(batch.shape):
            raise RequestError("failed", f"the model takes {expected}, the pictures make {list(batch.shape)}")
        return pictures, batch


OPERATIONS = ("info", "load", "inputs", "first", "block", "memory", "predict", "quit")


def answer(session: Session, line: bytes) -> tuple[Reply, bool]:
    """The reply to one line, and whether it asked to quit. Never raises for what a request or a runtime can cause."""
    try:
        request = json.loads(line)
        if not isinstance(request, dict) or request.get("op") not in OPERATIONS:
            raise RequestError("bad-request", f'expected {{"op": …}}, one of: {", ".join(OPERATIONS)}')
        return {"ok": True, **getattr(session, request["op"])(request)}, request["op"] == "quit"
    except RequestError as error:
        kind, message = error.kind, str(error)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        kind, message = "bad-request", f"not JSON: {error}"
    except Exception as error:
        kind, message = "failed", f"{type(error).__name__}: {error}"
    return {"ok": False, "kind": kind, "message": " ".join(message.split())[:500]}, False


def serve(runtime: Runtime) -> None:
    """Answer requests, a line each, until "quit" or the end of stdin. Only replies reach the real stdout: libraries
    that print, in Python or in C, print to stderr."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as replies:
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        session = Session(runtime)
        for line in sys.stdin.buffer:
            reply, done = answer(session, line)
            print(json.dumps(reply), file=replies, flush=True)
            if done:
                return


def _take(request: Request, key: str, kind: type[Any]) -> Any:
    value = request.get(key)
    if not isinstance(value, kind) or isinstance(value, bool):
        raise RequestError("bad-request", f"{request['op']} needs {key}, a {kind.__name__}; found {value!r}")
    return value


def _count(request: Request, key: str) -> int:
    value = int(_take(request, key, int))
    if value < 1:
        raise RequestError("bad-request", f"{request['op']} needs {key} of at least 1; found {value}")
    return value


def _three(request: Request, key: str) -> list[float]:
    values = _take(request, key, list)
    if len(values) != 3 or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
        raise RequestError("bad-request", f"{request['op']} needs {key}, three numbers; found {values!r}")
    return [float(value) for value in values]
