"""The tokenizer of a bundle of texts, tried where it runs: whether it makes the tokens that the model is measured on,
how many texts are cut, and how long it takes.

Standard library, numpy and tokenizers only; runs on Python 3.9 and later. Used by runner_samples.py.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.runner_requests import Request, RequestError, take
    from targets.text_tokens import INSTALL, TextError, Tokenizer
else:
    from runner_requests import Request, RequestError, take
    from text_tokens import INSTALL, TextError, Tokenizer

TIMED = 1000  # texts, at most, of which the time is told one by one
WARM = 10


def preprocessed(request: Request) -> dict[str, Any]:
    """The reply to `preprocess` of texts: README.md says what is in it."""
    texts, inputs = take(request, "samples", str), take(request, "inputs", str)
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # a text at a time, as an application hands it over
    try:
        tokenizer = Tokenizer(Path(take(request, "tokenizer", str)), take(request, "preprocess", dict))
        samples = json.loads(Path(texts).read_text(encoding="utf-8"))
        rows = np.load(inputs, mmap_mode="r", allow_pickle=False)
        if len(samples) != len(rows):
            raise RequestError("failed", f"{texts} has {len(samples)} texts, {inputs} {len(rows)}")
        for sample in samples[:WARM]:
            tokenizer.encode(sample)
        wall_ms, lengths, cut, differ = [], [], 0, 0
        for sample, row in zip(samples, rows):  # noqa: B905  (strict= is newer than Python 3.9)
            begin = time.perf_counter_ns()
            tokens = tokenizer.encode(sample)
            wall_ms.append((time.perf_counter_ns() - begin) / 1e6)
            lengths.append(len(tokens.ids))
            cut += tokens.cut
            made = tokenizer.inputs([tokens], row["input_ids"].shape[0])
            differ += not all(np.array_equal(made[name][0], row[name]) for name in row.dtype.names)
    except ImportError as error:
        raise RequestError("missing", f"{INSTALL} (cannot import tokenizers: {error})") from error
    except TextError as error:
        raise RequestError("failed", str(error)) from error
    return {
        "version": tokenizer.version,
        "n": len(samples),
        "cut": cut,
        "differ": differ,
        "lengths": lengths,
        "wall_ms": wall_ms[:TIMED],
    }
