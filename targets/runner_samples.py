"""The samples of a request, as what they are, and raw ones made to a model's inputs.

Standard library and numpy only; runs on Python 3.9 and later. Used by runner_common.py.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:  # a type checker sees the checkout; on a device the scripts lie side by side
    from targets.runner_images import Images
    from targets.runner_records import Records
    from targets.runner_requests import Request, RequestError, count, take, three
else:
    from runner_images import Images
    from runner_records import Records
    from runner_requests import Request, RequestError, count, take, three

MAKERS = {"text-classification": "runner_texts", "audio-classification": "runner_sounds"}


def opened(request: Request, key: str) -> Any:
    """The file that `key` names: `Records` of several inputs, or else `Images`."""
    path = take(request, key, str)
    if np.load(path, mmap_mode="r", allow_pickle=False).dtype.names:
        length = count(request, "length") if "length" in request else 0
        return Records(path, take({"mask": "", **request}, "mask", str), length)
    return Images(path, three(request, "mean"), three(request, "std"))


def preprocessed(request: Request) -> dict[str, Any]:
    """The reply to `preprocess`: README.md says what is in it."""
    task = take(request, "task", str)
    if task not in MAKERS:
        raise RequestError("bad-request", f"of {task} no runner makes inputs; of these: {', '.join(MAKERS)}")
    made: dict[str, Any] = importlib.import_module(MAKERS[task]).preprocessed(request)
    return made
