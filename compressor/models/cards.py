"""Model cards: the README.md of a model, whose head is YAML."""

from pathlib import Path
from typing import Any

from compressor.files.reading import open_regular

__all__ = ["licence_in"]

MOST = 200_000
MOST_NAMED = 200
DEEPEST = 20


def licence_in(card: Path) -> str | None:
    """The licence that a model card names; None where it names none, or its head is not what a card's should be."""
    with open_regular(card) as file:
        text = file.read(MOST).decode("utf-8", errors="replace")
    parts = text.split("---")
    if not text.startswith("---") or len(parts) < 3:
        return None
    head = _head(parts[1])
    stated = head.get("license") if isinstance(head, dict) else None
    listed = stated if isinstance(stated, list) else [stated]
    named = [licence for licence in listed if isinstance(licence, str) and licence]
    return ", ".join(named)[:MOST_NAMED] or None


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
