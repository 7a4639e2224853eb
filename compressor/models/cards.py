"""Model cards: the README.md of a model, whose head is YAML."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from compressor.files.reading import open_regular
from compressor.terminal.printable import one_line

__all__ = ["CardTerms", "terms_in"]

MOST = 200_000
MOST_NAMED = 200
DEEPEST = 20


@dataclass(frozen=True)
class CardTerms:
    """What a card says of the use of its model; None: nothing."""

    licence: str | None = None
    terms: str | None = None


def terms_in(card: Path) -> CardTerms:
    """The licence that a model card names, and the link or the name beside it; where its `license` is "other", that is
    `license_name` (huggingface.co/docs/hub/model-cards). Nothing where its head is not what a card's should be."""
    with open_regular(card) as file:
        text = file.read(MOST).decode("utf-8", errors="replace")
    parts = text.split("---")
    if not text.startswith("---") or len(parts) < 3:
        return CardTerms()
    head = _head(parts[1])
    if not isinstance(head, dict):
        return CardTerms()
    licence, name, link = (_named(head.get(key)) for key in ("license", "license_name", "license_link"))
    if licence is None or licence.lower() == "other":
        licence, name = name or licence, None
    return CardTerms(licence, ", ".join(filter(None, [name, link]))[:MOST_NAMED] or None)


def _named(stated: Any) -> str | None:
    """A name, or several in a list, on one line."""
    listed = stated if isinstance(stated, list) else [stated]
    return one_line(", ".join(name for name in listed if isinstance(name, str) and name))[:MOST_NAMED] or None


def _head(text: str) -> Any:
    """The YAML of a card's head; None where it is none. Anchors are not followed: nested ones grow without bounds, and
    deep nesting takes minutes."""
    import yaml

    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST or isinstance(event, yaml.AliasEvent):
                return None
        return yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return None
