"""The course of the student's training, as BUNDLE/history.jsonl has it, and what each term of the loss weighs."""

import json
import math
from pathlib import Path
from typing import Any

from compressor.errors import KdcError
from compressor.files.reading import read_text
from compressor.report.read import Results
from compressor.schema.recipe import Recipe

__all__ = ["HISTORY", "history_of", "weights_of"]

HISTORY = "history.jsonl"
MOST = 64_000_000
POINTS = 400
"""Epochs that are drawn, at most: of more, evenly so many."""


def history_of(bundle_dir: Path, results: Results) -> list[dict[str, Any]]:
    """A row an epoch; none where the bundle holds no history, or one that cannot be read. `loss`: the mean of every
    term, before its weight; `validation`: accuracy and n."""
    if HISTORY not in {entry.path for entry in results.bundle.support}:
        return []
    try:
        lines = read_text(bundle_dir / HISTORY, most=MOST).splitlines()
        rows = [row for line in lines if (row := _row(json.loads(line))) is not None]
    except (KdcError, ValueError, RecursionError):
        return []
    every = -(-len(rows) // POINTS) or 1
    return rows if every == 1 else [*rows[:-1:every], rows[-1]]


def _row(row: Any) -> dict[str, Any] | None:
    if not isinstance(row, dict) or not _is_number(row.get("epoch")) or not isinstance(row.get("loss"), dict):
        return None
    kept: dict[str, Any] = {
        "epoch": row["epoch"],
        "loss": {str(name)[:80]: value for name, value in row["loss"].items() if _is_number(value)},
    }
    validation = row.get("validation")
    if isinstance(validation, dict) and _is_number(validation.get("accuracy")) and _is_number(validation.get("n")):
        kept["validation"] = {"accuracy": validation["accuracy"], "n": validation["n"]}
    return kept


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def weights_of(recipe: Recipe) -> dict[str, tuple[float, float]]:
    """What every term of the loss weighs at the first step and at the last."""
    return {term.name: (term.weight_at(0.0), term.weight_at(1.0)) for term in recipe.losses}
