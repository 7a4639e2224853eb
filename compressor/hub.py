"""The Hugging Face hub: reached, or quickly found to be out of reach."""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlparse
from urllib.request import getproxies

from compressor.errors import KdcError, first_line

__all__ = ["from_hub", "offline_if_unreachable"]


@contextmanager
def offline_if_unreachable() -> Iterator[None]:
    """Inside, the hub's clients use only their cache if the hub's name does not resolve: they would try again for most
    of a minute, and tell of each try."""
    from huggingface_hub import constants

    # datasets copies the setting when it is imported.
    places: list[Any] = [constants, *filter(None, [sys.modules.get("datasets.config")])]
    before = [place.HF_HUB_OFFLINE for place in places]
    if not any(before) and not getproxies() and not _resolves(str(constants.ENDPOINT)):
        for place in places:
            place.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.HF_HUB_OFFLINE = value


def _resolves(endpoint: str) -> bool:
    try:
        socket.getaddrinfo(urlparse(endpoint).hostname, 443)
    except OSError:
        return False
    return True


@contextmanager
def from_hub(what: str, instead: str) -> Iterator[None]:
    """Load `what` from the hub; KdcError where that fails, with `instead` as the hint."""
    with offline_if_unreachable():
        try:
            yield
        except KdcError:
            raise
        except Exception as error:  # huggingface_hub, httpx, timm and transformers each raise their own
            raise KdcError(f"{what} cannot be loaded from the hub: {first_line(error)}", instead) from None
