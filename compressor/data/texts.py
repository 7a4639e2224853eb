"""Texts as samples: which can be used, and which are copies."""

import hashlib
import json
import unicodedata
from collections.abc import Sequence

from compressor.errors import KdcError

__all__ = ["digest_of", "gaps_told", "is_seen", "normalised", "require_text"]

GAPS = frozenset({"nan", "na", "n/a", "#n/a", "<na>", "none", "null"})
"""What programs write where nothing is."""


def require_text(cell: object, where: str, called: str = "text") -> str:
    """`cell`, where it is a text in Unicode; else raises KdcError. `called`: what it is in messages."""
    if not isinstance(cell, str):
        raise KdcError(f"{where}: the {called} is {'missing' if cell is None else f'no text ({cell!r:.40})'}")
    if "\0" in cell:
        raise KdcError(f"{where}: the {called} holds a zero byte", "is it in UTF-16? save it in UTF-8")
    try:
        cell.encode()
    except UnicodeEncodeError:
        raise KdcError(f"{where}: the {called} holds half a character") from None
    return cell


def is_seen(text: str) -> bool:
    """Whether it holds more than blanks and signs that only format: of U+200B alone no tokenizer makes a token."""
    return any(not sign.isspace() and unicodedata.category(sign) not in ("Cc", "Cf") for sign in text)


def normalised(text: str) -> str:
    """The text as people read it: in Unicode's form NFKC, without case, its blanks as one space each."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split())


def gaps_told(texts: Sequence[Sequence[str]]) -> list[str]:
    """A note on samples that say no more than programs write where a text is missing."""
    gaps = [words[0] for words in texts if {word.strip().casefold() for word in words} <= GAPS | {""}]
    if not gaps:
        return []
    return [
        f"{len(gaps):,} texts say {gaps[0].strip()} alone, as programs write what is missing: leave them out where so"
    ]


def digest_of(texts: Sequence[str]) -> bytes:
    return hashlib.sha256(json.dumps(texts).encode()).digest()
