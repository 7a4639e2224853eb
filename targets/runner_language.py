"""What the runners of language models share: the operations that they answer, scores, the clocks.

Standard library and numpy only; runs on Python 3.9 and later. Used by run_ort_genai.py and run_ov_genai.py; README.md
has the protocol.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.runner_memory import memory_mb
    from targets.runner_process import Process, Reply, Runtime, serve_as
    from targets.runner_requests import Request, RequestError, count, take
else:
    from runner_memory import memory_mb
    from runner_process import Process, Reply, Runtime, serve_as
    from runner_requests import Request, RequestError, count, take

import numpy as np  # after runner_process, which can answer without it

ROWS = 64  # of logits whose softmax is computed at once: in float64 they are twice as large


@dataclass(frozen=True)
class LanguageModel:
    """A language model in its runtime. `limit`: the most tokens that it takes; `vocabulary`: how many tokens there are.
    `logits`: int32 [B, N] -> float32 [B, N, vocabulary], of which row i tells token i + 1. `batches`: whether B may be
    more than 1. `generate`: (prompt, tokens, told): calls `told` with each of so many most probable tokens, as soon as
    it is there, whether or not one ends a text. `encode`: the runtime's own tokenizer; a text's tokens stand behind the
    one that starts a document. `decode`: prompt, the tokens that follow -> their text. `executed`: the precision of its
    weights, read from the model."""

    limit: int
    vocabulary: int
    logits: Callable[[Any], Any]
    batches: bool
    generate: Callable[[list[int], int, Callable[[int], None]], None]
    encode: Callable[[str], list[int]]
    decode: Callable[[list[int], list[int]], str]
    executed: Callable[[], str]


class LanguageSession(Process):
    """The state of one runner process: a runtime, then a model. One method an operation."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.model: LanguageModel | None = None

    def load(self, request: Request) -> Reply:
        path, precision, threads = take(request, "model", str), self._precision(request), count(request, "threads")
        if not Path(path).is_dir():
            raise RequestError("failed", f"the model {path} does not exist, or is no folder")
        module = self._module()
        self.model = None
        idle = memory_mb("VmRSS")
        begin = time.perf_counter_ns()
        model: LanguageModel = self.runtime.load(module, path, threads, precision, 1)
        load_ms = (time.perf_counter_ns() - begin) / 1e6
        self.model = model
        return {
            "load_ms": load_ms,
            "runtime_version": self.runtime.version(module),
            "limit": model.limit,
            "vocabulary": model.vocabulary,
            "idle_rss_mb": idle,
            "rss_mb": memory_mb("VmRSS"),
        }

    def executed(self, request: Request) -> Reply:
        return {"executed_precision": self._model().executed()}

    def score(self, request: Request) -> Reply:
        model, batch = self._model(), count(request, "batch")
        out = Path(take(request, "out", str))
        ids, starts = read_blocks(take(request, "path", str), model)
        begin = time.perf_counter()
        told = np.zeros(len(ids), np.float32)
        tokens = 0
        for places in alike(starts, batch if model.batches else 1):
            blocks = np.stack([ids[start:stop] for start, stop in places])
            logits = model.logits(np.ascontiguousarray(blocks[:, :-1]))
            for (start, stop), block, row in zip(places, blocks, logits):  # noqa: B905  (Python 3.9)
                told[start + 1 : stop] = log_probabilities(row, block[1:])
                tokens += stop - start - 1
        seconds = time.perf_counter() - begin
        write_whole(out, told)
        return {"seconds": seconds, "tokens": tokens}

    def generate(self, request: Request) -> Reply:
        model, prompt, tokens = self._model(), take(request, "prompt", list), count(request, "tokens")
        require_tokens(prompt, model)
        ids, ms = self._continued(prompt, tokens)
        return {"ids": ids, "prompt_ms": ms[0], "token_ms": ms[1:]}

    def text(self, request: Request) -> Reply:
        model, tokens = self._model(), count(request, "tokens")
        prompt = model.encode(take(request, "prompt", str))
        ids, _ = self._continued(prompt, tokens)
        return {"text": model.decode(prompt, ids), "ids_in": prompt}

    def _continued(self, prompt: list[int], tokens: int) -> tuple[list[int], list[float]]:
        """The tokens that follow, and the milliseconds that each took: the first one with the prompt."""
        model = self._model()
        if len(prompt) + tokens > model.limit:
            raise RequestError(
                "failed", f"{len(prompt)} tokens and {tokens} new ones are more than the {model.limit} of the model"
            )
        ids: list[int] = []
        times = [0.0]

        def told(token: int) -> None:
            ids.append(token)
            times.append(time.perf_counter())

        gc.disable()  # as timeit does: Python's collector is no cost of the model
        try:
            times[0] = time.perf_counter()
            model.generate(prompt, tokens, told)
        finally:
            gc.enable()
        if len(ids) != tokens:
            raise RequestError("failed", f"the runtime gave {len(ids)} tokens, expected {tokens}")
        return ids, [(after - before) * 1e3 for before, after in zip(times, times[1:])]  # noqa: B905, RUF007  (Python 3.9)

    def _model(self) -> LanguageModel:
        if self.model is None:
            raise RequestError("bad-request", "no model is loaded yet: ask for load first")
        return self.model

    def _forget(self) -> None:
        self.model = None


def read_blocks(path: str, model: LanguageModel) -> tuple[Any, Any]:
    """`ids` int32 [T] and `starts` int64 [blocks + 1] of an .npz file; refused where the model cannot read them."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            ids, starts = arrays["ids"], arrays["starts"]
    except (KeyError, ValueError) as error:
        raise RequestError("failed", f"{path} does not hold ids and starts: {error}") from error
    if ids.dtype != np.int32 or ids.ndim != 1 or starts.dtype != np.int64 or starts.ndim != 1:
        raise RequestError("failed", f"{path}: expected ids int32 [T] and starts int64 [blocks + 1]")
    lengths = np.diff(starts)
    if len(starts) < 2 or starts[0] != 0 or starts[-1] != len(ids) or lengths.min() < 1:
        raise RequestError("failed", f"{path}: starts do not cut {len(ids)} ids into blocks")
    if lengths.max() - 1 > model.limit:
        # Of the last token of a block nothing is asked.
        raise RequestError("failed", f"a block of {lengths.max() - 1} tokens; the model takes {model.limit} at most")
    if ids.min() < 0 or ids.max() >= model.vocabulary:
        raise RequestError("failed", f"{path}: tokens beyond 0 to {model.vocabulary - 1}")
    return ids, starts


def require_tokens(prompt: list[Any], model: LanguageModel) -> None:
    if not prompt or not all(type(token) is int and 0 <= token < model.vocabulary for token in prompt):
        raise RequestError("bad-request", f"generate needs prompt, a list of tokens from 0 to {model.vocabulary - 1}")


def alike(starts: Any, most: int) -> Iterator[Sequence[tuple[int, int]]]:
    """The blocks of two tokens or more, from where to where each, `most` of one length at a time: so that none is
    filled up, and no runtime has to be told what does not count."""
    places = [(int(start), int(stop)) for start, stop in zip(starts, starts[1:])]  # noqa: B905, RUF007
    for length in sorted({stop - start for start, stop in places} - {1}):
        same = [(start, stop) for start, stop in places if stop - start == length]
        for first in range(0, len(same), most):
            yield same[first : first + most]


def log_probabilities(logits: Any, targets: Any) -> Any:
    """float32 [N, vocabulary], and the token asked for in each row -> its natural log-probability, float64 [N]."""
    told = np.empty(len(targets), np.float64)
    for first in range(0, len(targets), ROWS):
        rows = logits[first : first + ROWS].astype(np.float64)
        chosen = rows[np.arange(len(rows)), targets[first : first + ROWS]]
        highest = rows.max(axis=1)
        told[first : first + ROWS] = chosen - highest - np.log(np.exp(rows - highest[:, None]).sum(axis=1))
    return told


def write_whole(out: Path, values: Any) -> None:
    temporary = out.with_name(f".kdc-tmp.{out.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            np.save(file, values)
        temporary.replace(out)
    finally:
        temporary.unlink(missing_ok=True)


def serve_language(runtime: Runtime) -> None:
    """Answer requests about language models, until "quit" or the end of stdin."""
    serve_as(LanguageSession(runtime))
