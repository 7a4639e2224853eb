"""What every call of the API has in common: who listens to it, which numbers it takes, how messages spell things."""

import functools
import inspect
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ParamSpec, TypeVar

from compressor.errors import KdcError, KdcWarning, limit_error, os_error
from compressor.progress import Progress, Silent
from compressor.terminal.spelling import TYPED

__all__ = ["LIMITS", "Listener", "StrPath", "api_call", "called_like", "listener"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

StrPath = str | os.PathLike[str]

LIMITS: dict[str, tuple[float, float]] = {
    "input_size": (8, 4096),
    "max_length": (8, 4096),
    "clip_seconds": (0.01, 600),
    "epochs": (1, 1_000_000),
    "batch_size": (2, 1_000_000),
    "seed": (0, 2**31 - 1),
    "classes": (2, 100_000),
    "count": (1, 10_000),
    "jobs": (1, 1_000),
    "top_k": (1, 1_000_000),
    "race_share": (0.01, 100),
    "rounds": (11, 100_000),
    "seconds": (1, 1_000_000),
}
"""Lowest and highest value of each keyword that is a number, as the command line has them."""


class Listener:
    """What a call's work reports to. `shown`: who is told; None: nobody, and warnings go through `warnings`."""

    def __init__(self, shown: Progress | None, spell: Callable[[str], str]) -> None:
        self.heard: list[str] = []
        self._shown = shown
        self._to: Progress = shown or Silent()
        self._spell = spell

    def note(self, text: str) -> None:
        self._to.note(self._spell(text))

    def warn(self, text: str) -> None:
        text = self._spell(text)
        self.heard.append(text)
        if self._shown is None:
            warnings.warn(text, KdcWarning, stacklevel=_callers_level())
        else:
            self._shown.warn(text)

    def track(self, items: Iterable[T], total: int, doing: str) -> Iterator[T]:
        yield from self._to.track(items, total, doing)

    def at(self, doing: str, done: int, total: int) -> None:
        self._to.at(doing, done, total)

    def end(self) -> None:
        self._to.end()

    @property
    def warnings(self) -> tuple[str, ...]:
        return tuple(self.heard)


def listener(progress: "bool | Progress") -> Listener:
    """The `progress` of a function that `api_call` wraps."""
    assert isinstance(progress, Listener)
    return progress


def api_call(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, with its numbers checked against LIMITS, a Listener for its `progress`, and messages that name its
    keywords."""
    parameters = inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        typed = TYPED.get()
        spell: Callable[[str], str] = str if typed else functools.partial(_as_keywords, parameters)
        given: dict[str, Any] = kwargs
        try:
            for name in LIMITS.keys() & given.keys():
                several = isinstance(given[name], (list, tuple))
                given[name] = (
                    tuple(_number(name, value) for value in given[name]) if several else _number(name, given[name])
                )
            if "progress" in parameters:
                given["progress"] = Listener(_shown(given.get("progress", False)), spell)
            return function(*args, **kwargs)
        except KdcError as error:
            error.message, error.hint = spell(error.message), spell(error.hint)
            error.args = (error.message,)
            raise
        except Exception as error:
            # What no part of kdc expected stays as it is, for the command line to explain and for others to see.
            if (
                typed
                or (known := os_error(error, "working") if isinstance(error, OSError) else limit_error(error)) is None
            ):
                raise
            raise KdcError(spell(known.message), spell(known.hint), known.exit_code) from error

    return call


def called_like(other: Callable[..., Any]) -> Callable[[Callable[..., R]], Callable[..., R]]:
    """For a function that takes the keywords of `other`, and gets all of them, also those that were left out."""
    signature = inspect.signature(other)

    def decorated(function: Callable[..., R]) -> Callable[..., R]:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> R:
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            return function(**bound.arguments)

        call.__signature__ = signature.replace(  # type: ignore[attr-defined]
            return_annotation=inspect.signature(function).return_annotation
        )
        return call

    return decorated


def _shown(progress: "bool | Progress") -> Progress | None:
    if isinstance(progress, bool):
        from compressor.terminal.console import progress_for

        return progress_for(quiet=False) if progress else None
    if not all(callable(getattr(progress, name, None)) for name in ("note", "warn", "track", "at", "end")):
        raise KdcError(f"progress is {type(progress).__name__}", "True, False, or what compressor.progress describes")
    return progress


def _number(name: str, value: Any) -> Any:
    low, high = LIMITS[name]
    if value is None:
        return None  # where that is no default, it fails where it is used
    is_integer = name not in ("race_share", "seconds", "clip_seconds")
    try:
        if isinstance(value, bool):
            raise TypeError
        number = value.__index__() if is_integer else float(value)
    except (AttributeError, TypeError, ValueError):
        raise KdcError(f"{name} is {value!r}, and is to be a {'whole ' if is_integer else ''}number") from None
    if not low <= number <= high:
        raise KdcError(f"{name} is {number:,}, and is to be from {low:,} to {high:,}")
    return number


_OPTION = re.compile(
    r"kdc [a-z]+(?: [^\s;,]+)*|--set (?:'([^']+=[^']+)'|([a-z][\w.]*=(?:\[[^\]]*\]|[^\s;,]+)))"
    r"|(?<![\w/.-])--(no-)?([a-z][a-z0-9-]*)"
)
"""A command to type, which stays as it is, an assignment, or an option."""


def _as_keywords(parameters: Mapping[str, inspect.Parameter], text: str) -> str:
    """`--overwrite to replace it` as `overwrite=True to replace it`, `--out run exists` as `out run exists`, and
    `--set qat.epochs=2` as `set=['qat.epochs=2']`."""

    def spelt(match: re.Match[str]) -> str:
        assigned = match[1] or match[2]
        if assigned and "set" in parameters:
            return f"set=[{assigned!r}]"
        name = (match[4] or "").replace("-", "_")
        if name not in parameters:
            return match[0]
        return f"{name}={not match[3]}" if isinstance(parameters[name].default, bool) else name

    return _OPTION.sub(spelt, text)


def _callers_level() -> int:
    """How many frames up from `Listener.warn` the code lies that called kdc."""
    here, level, frame = __name__.partition(".")[0], 1, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] in (here, "contextlib"):
        frame, level = frame.f_back, level + 1
    return level
