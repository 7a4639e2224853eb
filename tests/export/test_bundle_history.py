"""The course of the training in a bundle: what a report draws, and nothing that differs from machine to machine."""

import json
from pathlib import Path
from typing import Any

from compressor.export.bundle.history import write_history


def test_times_stay_behind(tmp_path: Path) -> None:
    run, root = tmp_path / "run", tmp_path / "bundle"
    run.mkdir()
    root.mkdir()
    rows: list[dict[str, Any]] = [
        {"epoch": 1, "steps": 20, "loss": {"kd": 6.0}, "validation": {"accuracy": 0.1, "n": 145}, "seconds": 1.12},
        {"epoch": 2, "steps": 20, "loss": {"kd": 2.5}, "validation": {"accuracy": 0.6, "n": 145}, "seconds": 1.10},
        {"bias_correction": {"class 3": 0.5}},
    ]
    (run / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_history(run, root)
    written = [json.loads(line) for line in (root / "history.jsonl").read_text().splitlines()]
    assert written == [{key: row[key] for key in ("epoch", "loss", "validation")} for row in rows[:2]]


def test_a_run_without_one_leaves_none(tmp_path: Path) -> None:
    for content in (None, "{", "[" * 10_000, "\xff"):
        if content is not None:
            (tmp_path / "history.jsonl").write_bytes(content.encode("latin-1"))
        root = tmp_path / "bundle"
        root.mkdir(exist_ok=True)
        write_history(tmp_path, root)
        assert not list(root.iterdir())
