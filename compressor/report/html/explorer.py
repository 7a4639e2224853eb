"""The teacher's answers at every temperature: some real samples whole, and the mean over many more."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.report.arrays import ArrayFile
from compressor.report.html.samples import Pictures, sample_texts
from compressor.report.html.text import shown
from compressor.report.latency import teacher_of
from compressor.report.read import Results
from compressor.stats import log_softmax

__all__ = ["TEMPERATURES", "explorer"]

TEMPERATURES = tuple(half / 2 for half in range(2, 41))
"""From 1 to 20, as the slider goes."""
MEAN_OVER = 512
SHOWN = 8
MOST_LOGITS = 16_000
"""Numbers in the page: of many classes, fewer samples are shown."""


def explorer(bundle_dir: Path, results: Results) -> dict[str, Any]:
    """For the page's script: `samples` with their logits, and `mean`, over `n` samples spread evenly over the test
    split, of entropy and of the top class's probability at TEMPERATURES. `missing`: why there is nothing of it."""
    logits, why = _logits(results)
    if logits is None:
        return {"missing": why, "samples": [], "temperatures": TEMPERATURES}
    count = results.bundle.eval.n
    spread = np.unique(np.linspace(0, count - 1, min(MEAN_OVER, count)).astype(np.int64))
    rows = logits.rows(spread.tolist()).astype(np.float64)
    finite = np.isfinite(rows).all(axis=1)
    spread, rows = spread[finite], rows[finite]
    if not len(rows):
        return {"missing": "none of its answers is finite", "samples": [], "temperatures": TEMPERATURES}
    mean = [_mean(log_softmax(rows, temperature)) for temperature in TEMPERATURES]
    most = max(1, min(SHOWN, MOST_LOGITS // rows.shape[1]))
    chosen = _spread_by_entropy(rows, most)
    return {
        "missing": "",
        "temperatures": TEMPERATURES,
        "mean": mean,
        "n": len(rows),
        "of": count,
        "samples": _samples(bundle_dir, results, spread[chosen].tolist(), rows[chosen]),
        **_balance(results),
    }


def _mean(logs: NDArray[np.float64]) -> dict[str, float]:
    """Rounded: processors differ in the last digit of exp, and the same bundle shall be the same page on each."""
    entropy, confidence = -(np.exp(logs) * logs).sum(axis=1).mean(), np.exp(logs.max(axis=1)).mean()
    return {"entropy": float(f"{entropy:.9g}"), "confidence": float(f"{confidence:.9g}")}


def _logits(results: Results) -> tuple[ArrayFile | None, str]:
    """The file that has the teacher's logits on test, or why there is none."""
    table = results.bundle.teacher_table
    if table is not None and table.answers is not None and table.kind in ("labels", "top-k"):
        return None, f"the teacher is a table of {table.kind}: nothing is known of its other classes"
    if table is not None:
        return results.table_file, str(table.missing or "")
    teacher = teacher_of(results)
    return (results.references[teacher.name], "") if teacher is not None else (None, "the bundle holds no teacher")


def _spread_by_entropy(rows: NDArray[np.float64], most: int) -> list[int]:
    """Samples from the least certain to the most, at temperature 4: evenly by rank."""
    logs = log_softmax(rows, 4.0)
    order = np.argsort(-(np.exp(logs) * -logs).sum(axis=1), kind="stable")
    ranks = np.unique(np.linspace(0, len(order) - 1, min(most, len(order))).astype(np.int64))
    return [int(order[rank]) for rank in ranks]


def _samples(bundle_dir: Path, results: Results, numbers: list[int], rows: NDArray[np.float64]) -> list[dict[str, Any]]:
    students = [variant for variant in results.bundle.variants if variant.role in ("student", "reference")]
    pictures = Pictures(bundle_dir, results, students[0]).of(numbers) if students else [None] * len(numbers)
    name, _ = sample_texts(bundle_dir, results, students[0]) if students else ("test sample {}".format, "")
    return [
        {
            "name": name(number),
            "picture": picture,
            "label": int(results.labels[number]),
            "logits": [float(f"{value:.6g}") for value in row],
        }
        for number, picture, row in zip(numbers, pictures, rows.tolist(), strict=True)
    ]


def _balance(results: Results) -> dict[str, Any]:
    """How the recipe weighs the teacher's answers against the labels, at the last step; null where it does not do
    both. `temperature`: of the term that learns from the teacher's answers."""
    terms = {term.name: term for term in results.bundle.student.recipe.losses if term.ever}
    soft = next((term for term in terms.values() if "temperature" in term.parameters), None)
    hard = terms.get("cross_entropy")
    if soft is None:
        return {"temperature": None, "alpha": None, "soft": None}
    weight, against = soft.weight_at(1.0), hard.weight_at(1.0) if hard else 0.0
    temperature = soft.parameters["temperature"]
    known = float(temperature) if isinstance(temperature, (int, float)) else None
    alpha = weight / (weight + against) if weight + against > 0 else None
    return {"temperature": known, "alpha": alpha, "soft": shown(soft.name)}
