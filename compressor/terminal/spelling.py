"""How messages spell an option: `--input-size` for who typed a command, `input_size` for who called a function."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

__all__ = ["TYPED", "typed_as_options"]

TYPED: ContextVar[bool] = ContextVar("TYPED", default=False)
"""Whether a command was typed."""


@contextmanager
def typed_as_options() -> Iterator[None]:
    """Inside, messages spell options as they are typed: for the command line."""
    token = TYPED.set(True)
    try:
        yield
    finally:
        TYPED.reset(token)
