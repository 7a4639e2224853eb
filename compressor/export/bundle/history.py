"""BUNDLE/history.jsonl: the course of the student's training, for the report. Nothing is decided by it."""

import json
from pathlib import Path

from compressor.errors import KdcError
from compressor.files.atomic import write_text
from compressor.files.reading import read_text

__all__ = ["HISTORY", "write_history"]

HISTORY = "history.jsonl"
MOST = 64_000_000
KEPT = ("epoch", "loss", "validation")


def write_history(run: Path, root: Path) -> None:
    """Write into the bundle in `root` what RUN/history.jsonl has of each epoch, but for how long it took. A run that
    has none, or one that cannot be read, leaves none."""
    try:
        lines = read_text(run / HISTORY, most=MOST).splitlines()
        rows = [row for row in map(json.loads, lines) if isinstance(row, dict) and "epoch" in row]
    except (KdcError, ValueError, RecursionError):
        return
    kept = ({key: row[key] for key in KEPT if key in row} for row in rows)
    write_text(root / HISTORY, "".join(json.dumps(row) + "\n" for row in kept))
