"""The Hugging Face hub: reached, or quickly found to be out of reach."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from compressor.errors import KdcError, first_line

__all__ = ["from_hub", "offline_if_unreachable"]

CONNECT_S = 5.0
"""A connection that takes longer to be made is no connection. What is then sent over it may take any time."""


@contextmanager
def offline_if_unreachable() -> Iterator[str | None]:
    """Inside, the hub's clients use only their cache if no connection to it can be made: they would try each file six
    times over most of a minute, and tell of each try. Gives the reason; None where the hub answers, or where the user
    has forbidden to ask.
    """
    from huggingface_hub import constants

    # datasets copies the setting when it is imported.
    modules: list[Any] = [constants, *filter(None, [sys.modules.get("datasets.config")])]
    before = [module.HF_HUB_OFFLINE for module in modules]
    reason = None if any(before) else _unreachable(str(constants.ENDPOINT))
    if reason is not None:
        for module in modules:
            module.HF_HUB_OFFLINE = True
    try:
        yield reason
    finally:
        for module, value in zip(modules, before, strict=True):
            module.HF_HUB_OFFLINE = value


def _unreachable(endpoint: str) -> str | None:
    """Why `endpoint` cannot be reached, asked once, as the hub's own client would: by its proxies and certificates.
    None where it answers anything, and where it is connected and slow."""
    from huggingface_hub.utils import get_session

    try:
        get_session().head(endpoint, timeout=CONNECT_S)
    except Exception as error:  # of httpx or requests, by the version of huggingface_hub
        return None if type(error).__name__ == "ReadTimeout" else first_line(error)
    return None


@contextmanager
def from_hub(source: str, instead: str) -> Iterator[None]:
    """Load `source` from the hub; KdcError where that fails, with `instead` as the hint."""
    from huggingface_hub import constants

    with offline_if_unreachable() as unreachable:
        try:
            yield
        except KdcError:
            raise
        except Exception as error:  # huggingface_hub, httpx, timm and transformers each raise their own
            reason = first_line(error)
            if unreachable is not None and isinstance(error, OSError):
                reason = f"{constants.ENDPOINT} cannot be reached ({unreachable}), and no copy of it is kept here"
            raise KdcError(f"{source} cannot be loaded from the hub: {reason}", instead) from None
