"""The raw sounds of a bundle, made to a model's inputs where it runs: whether they are those that the model is measured
on, how many are cut, filled up or resampled, and how long it takes.

Standard library and numpy only; runs on Python 3.9 and later. Used by runner_samples.py.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.runner_requests import Request, RequestError, take
    from targets.sound_features import FrontEnd
    from targets.sound_files import SoundError, SoundMissingError, read_sound
else:
    from runner_requests import Request, RequestError, take
    from sound_features import FrontEnd
    from sound_files import SoundError, SoundMissingError, read_sound

TOLERANCE = 1e-4
TIMED = 1000  # sounds, at most, of which the time is told one by one
WARM = 3


def preprocessed(request: Request) -> dict[str, Any]:
    """The reply to `preprocess` of sounds: README.md says what is in it."""
    listed, inputs = take(request, "samples", str), take(request, "inputs", str)
    preprocess = take(request, "preprocess", dict)
    wall_ms: list[float] = []
    count = {"cut": 0, "padded": 0, "resampled": 0, "differ": 0}
    largest = 0.0
    try:
        front_end = FrontEnd(preprocess)
        samples = json.loads(Path(listed).read_text(encoding="utf-8"))
        rows = np.load(inputs, mmap_mode="r", allow_pickle=False)
        for _, path in samples[:WARM]:
            front_end.heard(read_sound(Path(path)))
        for row, path in samples:
            begin = time.perf_counter_ns()
            heard = front_end.heard(read_sound(Path(path)))
            wall_ms.append((time.perf_counter_ns() - begin) / 1e6)
            difference = _difference(heard.input, rows[row]["input"])
            largest = max(largest, difference)
            count["differ"] += not difference <= TOLERANCE
            count["cut"] += heard.cut > 0
            count["padded"] += heard.filled > 0
            count["resampled"] += heard.resampled
    except SoundMissingError as error:
        raise RequestError("missing", str(error)) from error
    except SoundError as error:
        raise RequestError("failed", str(error)) from error
    return {
        "version": str(np.__version__),
        "n": len(samples),
        **count,
        "largest_difference": largest,
        "wall_ms": wall_ms[:TIMED],
    }


def _difference(made: Any, expected: Any) -> float:
    if made.shape != expected.shape:
        raise RequestError("failed", f"a sound became {list(made.shape)} there, and {list(expected.shape)} in training")
    return float(np.abs(made - expected).max())
