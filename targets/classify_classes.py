"""Classes for the example programs: their names, and which are the likeliest.

Standard library and numpy only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]


class LabelsError(Exception):
    """labels.txt cannot be read, or is another model's: one line for people."""


ACTING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(name: str) -> str:
    """A name with what acts on a terminal (control characters, line ends, changes of direction) as visible escapes."""
    return ACTING.sub(lambda match: ascii(match[0])[1:-1], name)


def labels_in(path: Path) -> list[str]:
    """The names of the classes, one a line: a line ends at a line feed and at nothing else. Raises LabelsError."""
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise LabelsError(f"cannot read {path.name}: {error}") from error
    return [line[:-1] if line.endswith("\r") else line for line in (lines if lines[-1] else lines[:-1])]


def likeliest(logits: Floats, labels: Sequence[str], top: int) -> list[tuple[str, float]]:
    """The first `top` classes with their probabilities, softmax(logits)."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    shares = powers / powers.sum()
    return [(labels[index], float(shares[index])) for index in np.argsort(-shares, kind="stable")[: max(top, 1)]]
