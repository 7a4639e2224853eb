"""Samples as the page shows them: what they look like, and those that the student gets wrong and the teacher right."""

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import KdcError
from compressor.files.reading import JSON_BYTES, read_text
from compressor.report.arrays import open_array
from compressor.report.html.text import shown
from compressor.report.integrity import inside
from compressor.report.latency import teacher_of
from compressor.report.read import Results
from compressor.schema.bundle import Variant
from compressor.tasks.table import shipping_of

__all__ = ["Disagreements", "Pictures", "disagreements", "pictured", "sample_texts", "teacher_answers"]

SHOWN = 16
PIXELS = 56
LONGEST_TEXT = 160
MOST_BYTES = 100_000_000
"""Of one stored sample; there are none so large."""


class Pictures:
    """What samples look like, from the inputs of a variant in the bundle; `missing`: why nothing can be shown."""

    def __init__(self, bundle_dir: Path, results: Results, variant: Variant) -> None:
        self._task = shipping_of(variant.task)
        self.missing = ""
        try:
            self._inputs = open_array(inside(bundle_dir, variant.inputs, "bundle.json"))
        except KdcError as error:
            self.missing = shown(error.message)
            return
        count = self._inputs.shape[0] if self._inputs.shape else 0
        if count != results.bundle.eval.n:
            self.missing = f"the bundle holds the inputs of {count} of {results.bundle.eval.n} test samples"

    def of(self, numbers: Sequence[int]) -> list[str | None]:
        """A data: address each, or None where there is nothing to look at."""
        size = int(np.prod(self._inputs.shape[1:], dtype=np.int64)) if not self.missing else 0
        if self.missing or not numbers or not 0 < size * self._inputs.dtype.itemsize <= MOST_BYTES:
            return [None] * len(numbers)
        return [self._address(stored) for number in numbers for stored in self._inputs.rows([number])]

    def _address(self, stored: NDArray[Any]) -> str | None:
        picture = self._task.picture(stored, PIXELS)
        if picture is None:
            return None
        return f"data:{picture[0]};base64,{base64.b64encode(picture[1]).decode()}"


@dataclass(frozen=True)
class Disagreements:
    """`lost` samples that the teacher has right and the student wrong, `gained` the other way round, of `n`. `shown`:
    some of the former, each with name, picture, label and both answers. `missing`: why there are no pictures."""

    lost: int
    gained: int
    n: int
    shown: tuple[dict[str, Any], ...]
    missing: str


def disagreements(bundle_dir: Path, results: Results, name: str) -> Disagreements | None:
    """Of the variant `name`; None where its answers or the teacher's are not there. Of many, those that are shown take
    turns by class, so that a rare one is among them."""
    theirs = teacher_answers(results)
    if name not in results.answers or theirs is None:
        return None
    ours, labels = results.answers[name].top1, results.labels
    lost = np.flatnonzero((ours != labels) & (theirs == labels))
    gained = int(((ours == labels) & (theirs != labels)).sum())
    listed, missing = pictured(bundle_dir, results, name, lost)
    return Disagreements(len(lost), gained, len(labels), listed, missing)


def pictured(
    bundle_dir: Path, results: Results, name: str, numbers: NDArray[np.int64]
) -> tuple[tuple[dict[str, Any], ...], str]:
    """Some of these test samples, in turns by class: name, picture, label, and what the variant `name` answers; and why
    there are no pictures."""
    ours, labels = results.answers[name].top1, results.labels
    chosen = _by_turns(numbers, labels)[:SHOWN]
    variant = next(variant for variant in results.bundle.variants if variant.name == name)
    pictures = Pictures(bundle_dir, results, variant)
    names, missing = sample_texts(bundle_dir, results, variant)
    missing, classes = pictures.missing if missing is None else missing, results.bundle.student.class_names
    listed = tuple(
        {
            "name": names(number),
            "picture": picture,
            "label": shown(classes[labels[number]], 80),
            "student": shown(classes[ours[number]], 80) if ours[number] >= 0 else "no finite answer",
        }
        for number, picture in zip(chosen, pictures.of(chosen), strict=True)
    )
    return listed, missing


def _by_turns(numbers: NDArray[np.int64], labels: NDArray[np.int64]) -> list[int]:
    seen: dict[int, int] = {}
    turns = []
    for number in numbers.tolist():
        label = int(labels[number])
        turns.append((seen.get(label, 0), number))
        seen[label] = seen.get(label, 0) + 1
    return [number for _, number in sorted(turns)]


def teacher_answers(results: Results) -> NDArray[np.int64] | None:
    """The teacher's top-1 [N]: of its table, or of the variant that ran."""
    if results.table is not None:
        return results.table.top1
    teacher = teacher_of(results)
    return results.answers[teacher.name].top1 if teacher is not None and teacher.name in results.answers else None


def sample_texts(bundle_dir: Path, results: Results, variant: Variant) -> tuple[Callable[[int], str], str | None]:
    """What a sample is called: a text as it begins, else its name; and why the texts cannot be read, empty where they
    can be; None where samples are no texts."""
    names = sample_names(bundle_dir, results)
    if variant.raw is None or not shipping_of(variant.task).in_words:
        return names, None
    return _texts(bundle_dir, variant.raw.samples, names)


def _texts(bundle_dir: Path, path: str, names: Callable[[int], str]) -> tuple[Callable[[int], str], str]:
    """The beginning of a sample that is a text, or of both of a pair; its name, where it has none. And why the texts
    cannot be read, where that is so."""
    try:
        texts = json.loads(read_text(inside(bundle_dir, path, "bundle.json"), most=MOST_BYTES))
    except KdcError as error:
        return names, shown(error.message)
    except (ValueError, RecursionError):
        return names, f"{path} is not JSON"
    if not isinstance(texts, list):
        return names, f"{path} holds no list of texts"
    said = dict(enumerate(texts))

    def named(number: int) -> str:
        row = said.get(number)
        return (
            " | ".join(shown(text, LONGEST_TEXT) for text in map(str, row)) if isinstance(row, list) else names(number)
        )

    return named, ""


def sample_names(bundle_dir: Path, results: Results) -> Callable[[int], str]:
    """What a sample is called: its id in eval/ids.txt, or its number where that file does not name them all."""
    try:
        ids = read_text(inside(bundle_dir, results.bundle.eval.ids, "bundle.json"), most=JSON_BYTES).split("\n")
    except KdcError:
        ids = []
    if ids and not ids[-1]:
        ids.pop()
    named = len(ids) == results.bundle.eval.n
    return lambda number: shown(ids[number], 80) if named else f"test sample {number}"
