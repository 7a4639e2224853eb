"""Requests to a runner: their fields, and the refusal of those that cannot be answered.

Standard library only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import math
from typing import Any

Request = dict[str, Any]


class RequestError(Exception):
    """A request that cannot be answered; `kind` is "missing", "bad-request" or "failed"."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def take(request: Request, key: str, *kinds: type[Any]) -> Any:
    value = request.get(key)
    if not isinstance(value, kinds) or isinstance(value, bool):
        raise RequestError("bad-request", f"{request['op']} needs {key}, a {kinds[-1].__name__}; found {value!r}")
    return value


def count(request: Request, key: str) -> int:
    value = int(take(request, key, int))
    if value < 1:
        raise RequestError("bad-request", f"{request['op']} needs {key} of at least 1; found {value}")
    return value


def three(request: Request, key: str) -> list[float]:
    values = take(request, key, list)
    if len(values) != 3 or not all(isinstance(value, (int, float)) and math.isfinite(value) for value in values):
        raise RequestError("bad-request", f"{request['op']} needs {key}, three numbers; found {values!r}")
    return [float(value) for value in values]
