"""How far a student stays behind its teacher, and what to do about it."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from compressor.progress import Progress
from compressor.stats import difference
from compressor.stats.language import Costs, bits_difference

__all__ = ["TOLERABLE", "TOLERABLE_BITS", "points_apart", "tell_bits", "tell_gap"]

TOLERABLE = 0.02
"""Accuracy, as a share. A gap whose whole interval lies above it is worth a longer way."""

TOLERABLE_BITS = 0.05
"""Likewise of a language model, bits a byte."""

Bools = NDArray[np.bool_]


def tell_gap(right: Mapping[tuple[str, str], Bools], teacher: str, steps: int, progress: Progress) -> None:
    """Say by how many points of validation accuracy the student stays behind its teacher, on the same samples, with
    the interval of their difference; warn where all of it is above TOLERABLE. `right`: by key and split, bool [N];
    `steps`: of the training, in all.

    A student that is far smaller than its teacher learns better from one between them (Mirzadeh et al. 2020, arXiv
    1902.03393), and one that could still learn from a longer training (Beyer et al. 2022, arXiv 2106.05237).
    """
    student, taught_by = right["student", "validation"], right["teacher", "validation"]
    line = f"validation: the student is {points_apart(student, taught_by, f'its teacher {teacher}')}"
    if difference(student, taught_by).high < -TOLERABLE:
        progress.warn(f"{line}; {_helps(steps)}")
    else:
        progress.note(line)


def _helps(steps: int) -> str:
    longer = f"a training of more than its {steps:,} steps (--epochs, or a smaller --batch-size)"
    return f"{longer} or a model between them (--assistant MODEL) may help"


def tell_bits(costs: Mapping[tuple[str, str], Costs], teacher: str, steps: int, progress: Progress) -> None:
    """Say by how many bits a byte of validation the student stays behind its teacher, on the same documents, with the
    interval of their difference; warn as `tell_gap` does, where all of it is above TOLERABLE_BITS. `costs`: by key and
    split."""
    gap = bits_difference(costs["student", "validation"], costs["teacher", "validation"])
    behind = gap.value > 0
    value, low, high = (gap.value, gap.low, gap.high) if behind else (-gap.value, -gap.high, -gap.low)
    where = "behind" if behind else "ahead of"
    line = (
        f"validation: the student is {value:.3f} bits a byte [{low:.3f}, {high:.3f}] {where} "
        f"its teacher {teacher} (n={gap.n:,} documents)"
    )
    if gap.low > TOLERABLE_BITS:
        progress.warn(f"{line}; {_helps(steps)}")
    else:
        progress.note(line)


def points_apart(first: Bools, second: Bools, name: str) -> str:
    """`"1.3 points [0.2, 2.4] behind NAME (n=1,000 pairs)"`: one model's accuracy against another's on the same
    samples; bool [N], right or wrong. In the interval what is below 0 speaks for the other way round."""
    gap = difference(first, second)
    ahead = gap.value > 0
    values = (gap.value, gap.low, gap.high) if ahead else (abs(gap.value), -gap.high, -gap.low)
    value, low, high = (f"{100 * number:.1f}" for number in values)
    return f"{value} points [{low}, {high}] {'ahead of' if ahead else 'behind'} {name} (n={gap.n:,} pairs)"
