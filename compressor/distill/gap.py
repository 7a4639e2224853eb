"""How far a student stays behind its teacher, and what to do about it."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from compressor.progress import Progress
from compressor.statistics import difference

__all__ = ["TOLERABLE", "tell_gap"]

TOLERABLE = 0.02
"""Accuracy, as a share. A gap whose whole interval lies above it is worth a longer way."""


def tell_gap(right: Mapping[tuple[str, str], NDArray[np.bool_]], teacher: str, progress: Progress) -> None:
    """Say by how many points of validation accuracy the student stays behind its teacher, on the same samples, with
    the interval of their difference; warn where all of it is above TOLERABLE. `right`: by key and split, bool [N].

    A student that is far smaller than its teacher learns better from one between them (Mirzadeh et al. 2020, arXiv
    1902.03393), and one that could still learn from a longer training (Beyer et al. 2022, arXiv 2106.05237).
    """
    found = difference(right["student", "validation"], right["teacher", "validation"])
    behind, low, high = -100 * found.value, -100 * found.high, -100 * found.low
    where = "behind" if behind >= 0 else "ahead of"
    points = behind if behind >= 0 else -behind
    interval = f"[{low:.1f}, {high:.1f}]" if behind >= 0 else f"[{-high:.1f}, {-low:.1f}]"
    line = f"validation: the student stays {points:.1f} points {where} its teacher {teacher} {interval}, n={found.n} pairs"
    if low > 100 * TOLERABLE:
        progress.warn(f"{line}; a longer training (--epochs) or a model between them (--assistant timm:NAME) may help")
    else:
        progress.note(line)
