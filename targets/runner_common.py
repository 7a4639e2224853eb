"""What the runners of classifiers share: the operations that they answer, the clocks.

A runner (run_*.py) says how its runtime loads a model and hands that to `serve`. README.md has the protocol.
Standard library and numpy only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import gc
import math
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.energy import Meter, meter
    from targets.runner_images import Batch, Floats
    from targets.runner_memory import memory_mb
    from targets.runner_process import Process, Reply, Runtime, mixed, serve_as
    from targets.runner_profile import UNPROFILED, Profile
    from targets.runner_requests import Request, RequestError, count, take
    from targets.runner_samples import opened, preprocessed
    from targets.runner_streams import run_window
else:
    from runner_process import Process, Reply, Runtime, mixed, serve_as  # isort: skip  (first: it can answer without numpy)
    from energy import Meter, meter
    from runner_images import Batch, Floats
    from runner_memory import memory_mb
    from runner_profile import UNPROFILED, Profile
    from runner_requests import Request, RequestError, count, take
    from runner_samples import opened, preprocessed
    from runner_streams import run_window

import numpy as np  # after runner_process, which can answer without it

__all__ = ["Loaded", "Runtime", "Session", "mixed", "serve"]


@dataclass(frozen=True)
class Loaded:
    """A model in its runtime. `call`: a batch -> float32 [batch, classes]. Of images the batch is float32 [batch, 3,
    height, width], normalized, or where `input_type` is "uint8", the images as they are, [batch, height, width, 3].
    Where a model takes several inputs, `inputs` has the name, shape and type of each, and a batch is an array a name.
    `streams`: one function a stream, batch -> a call on always that batch; calls of several streams may run at the same
    time, each on the threads asked for. `executed`: reads from the runtime in which precision it runs; may take long
    and leave memory behind. `profile`: (number -> batch), calls -> how long each node takes, by the runtime's
    profiler; a text: why it cannot be told. In a shape, a text or None is a dimension that may vary."""

    call: Callable[[Batch], Floats]
    streams: Sequence[Callable[[Batch], Callable[[], object]]]
    executed: Callable[[], str]
    input_name: str
    input_shape: list[int | str | None]
    output_name: str
    output_shape: list[int | str | None]
    input_type: str = "float32"
    inputs: Sequence[tuple[str, list[int | str | None], str]] = ()
    profile: Callable[[Callable[[int], Any], int], Profile] | str = UNPROFILED

    @property
    def ports(self) -> Sequence[tuple[str, list[int | str | None], str]]:
        """Name, shape and type of each input."""
        return self.inputs or [(self.input_name, self.input_shape, self.input_type)]


class Session(Process):
    """The state of one runner process: a runtime, then a model, then inputs."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.model: Loaded | None = None
        self.samples: Any = None
        self.batch: Any = None
        self.size = 0
        self.distinct = 0
        self.calls = 0
        self.bound: list[Callable[[], object]] = []
        self.tokens: list[int | None] = []
        self.meter: Meter | None = None

    def load(self, request: Request) -> Reply:
        path, precision = take(request, "model", str), self._precision(request)
        threads, streams = count(request, "threads"), count({"streams": 1, **request}, "streams")
        if not Path(path).is_file():
            raise RequestError("failed", f"the model {path} does not exist")
        module = self._module()
        self._forget()
        idle = memory_mb("VmRSS")
        begin = time.perf_counter_ns()
        model: Loaded = self.runtime.load(module, path, threads, precision, streams)
        load_ms = (time.perf_counter_ns() - begin) / 1e6
        self.model = model
        return {
            "load_ms": load_ms,
            "runtime_version": self.runtime.version(module),
            "input": {"name": model.input_name, "shape": model.input_shape},
            "output": {"name": model.output_name, "shape": model.output_shape},
            "idle_rss_mb": idle,
            "rss_mb": memory_mb("VmRSS"),
        }

    def executed(self, request: Request) -> Reply:
        return {"executed_precision": self._model().executed()}

    def inputs(self, request: Request) -> Reply:
        samples, batch, size = self._opened(request, "path")
        # Batch i starts at sample i × size, wrapping round: that gives N / gcd(N, size) different batches at most.
        self.distinct = min(count(request, "distinct"), samples.n // math.gcd(samples.n, size))
        if self.samples is not None:
            self.samples.close()
        self.samples, self.batch, self.size, self.bound, self.tokens = samples, batch, size, [], []
        return {"distinct": self.distinct}

    def first(self, request: Request) -> Reply:
        if self.calls:
            raise RequestError("bad-request", "first comes before every block: the model has run already")
        return {"first_ms": self._timed_call()[0]}

    def block(self, request: Request) -> Reply:
        n = count(request, "n")
        gc.disable()  # as timeit does: Python's collector is no cost of the model
        try:
            times = [self._timed_call() for _ in range(n)]
        finally:
            gc.enable()
        return {"wall_ms": [wall for wall, _ in times], "cpu_ms": [cpu for _, cpu in times]}

    def throughput(self, request: Request) -> Reply:
        """Every stream has a batch of its own, made before: preparing samples is not the model's work."""
        seconds = float(take(request, "seconds", int, float))
        if not 0 < seconds < 1000:
            raise RequestError("bad-request", f"throughput needs seconds between 0 and 1000; found {seconds}")
        samples = self._samples()
        if not self.bound:
            for number, bind in enumerate(self._model().streams):
                batch = samples.new_batch(self.size, self._model().ports)
                batch = self._fill(samples, batch, number)
                self.bound.append(bind(batch))
                self.tokens.append(samples.tokens(batch))
        self.meter = self.meter or meter()
        tokens = [count for count in self.tokens if count is not None]
        window = run_window(self.bound, seconds, self.meter)
        return {**window, "tokens": sum(tokens) / len(tokens)} if tokens else window

    def profile(self, request: Request) -> Reply:
        profile = self._model().profile
        if isinstance(profile, str):
            raise RequestError("no-profiler", profile)
        return profile(lambda number: self._fill(self._samples(), self.batch, number), count(request, "n")).told()

    def preprocess(self, request: Request) -> Reply:
        made: Reply = preprocessed(request)
        return made

    def predict(self, request: Request) -> Reply:
        out = Path(take(request, "out", str))
        samples, batch, size = self._opened(request, "inputs")
        temporary = out.with_name(f".kdc-tmp.{out.name}.{os.getpid()}")
        try:
            with temporary.open("wb") as file:
                self._predict(samples, batch, size, file)
            temporary.replace(out)
        finally:
            samples.close()
            temporary.unlink(missing_ok=True)
        return {"n": samples.n}

    def _forget(self) -> None:
        if self.samples is not None:
            self.samples.close()
        self.model = self.samples = None
        self.calls, self.bound, self.tokens = 0, [], []

    def _predict(self, samples: Any, batch: Any, size: int, file: IO[bytes]) -> None:
        for start in range(0, samples.n, size):
            # A model may be built for one batch size, so the last sample fills up the last batch.
            batch = samples.fill(batch, (min(row, samples.n - 1) for row in range(start, start + size)))
            logits = self._model().call(batch)
            if logits.ndim != 2 or len(logits) != size:
                raise RequestError("failed", f"the model answers {list(logits.shape)}, expected [{size}, classes]")
            if start == 0:
                header = {"descr": "<f4", "fortran_order": False, "shape": (samples.n, logits.shape[1])}
                np.lib.format.write_array_header_1_0(file, header)
            file.write(logits[: samples.n - start].astype("<f4", order="C").tobytes())

    def _timed_call(self) -> tuple[float, float]:
        """One inference on the next input: wall time, and CPU time of all threads of this process, in ms."""
        samples, call = self._samples(), self._model().call
        # Just before the call, as an application does it: the input is warm in the cache, and memory holds one batch.
        self.batch = self._fill(samples, self.batch, self.calls)
        cpu = time.process_time_ns()
        wall = time.perf_counter_ns()
        call(self.batch)
        wall = time.perf_counter_ns() - wall
        cpu = time.process_time_ns() - cpu
        self.calls += 1
        return wall / 1e6, cpu / 1e6

    def _samples(self) -> Any:
        if self.samples is None:
            raise RequestError("bad-request", "there are no inputs yet: ask for load, then inputs")
        return self.samples

    def _fill(self, samples: Any, batch: Any, number: int) -> Any:
        """`batch` with input `number` in it, of the different ones that there are."""
        start = number % self.distinct * self.size
        return samples.fill(batch, ((start + slot) % samples.n for slot in range(self.size)))

    def _model(self) -> Loaded:
        if self.model is None:
            raise RequestError("bad-request", "no model is loaded yet: ask for load first")
        return self.model

    def _opened(self, request: Request, key: str) -> tuple[Any, Any, int]:
        """The samples of a request, a batch to fill and its size; refused where the loaded model takes others."""
        model, size = self._model(), count(request, "batch")
        samples = opened(request, key)
        return samples, samples.new_batch(size, model.ports), size


def serve(runtime: Runtime) -> None:
    """Answer requests about models that classify, until "quit" or the end of stdin."""
    serve_as(Session(runtime))
