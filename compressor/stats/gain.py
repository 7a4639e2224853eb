"""What distillation gained over labels alone, from the same samples, and how that is said."""

from compressor.schema.accuracy import Advantage
from compressor.stats.intervals import Bools, Interval
from compressor.stats.paired import difference, differing

__all__ = ["advantage", "gain_line", "gained_interval"]


def advantage(student: Bools, control: Bools, split: str) -> Advantage:
    """The student's accuracy less the control's on the same samples of `split`; right or wrong, bool [N]. Raises
    ValueError where N is 0."""
    gap = difference(student, control)
    return Advantage(
        split=split,
        n=gap.n,
        only_student=int((student & ~control).sum()),
        only_control=int((control & ~student).sum()),
        difference=gap.value,
        low=gap.low,
        high=gap.high,
    )


def gained_interval(counted: Advantage) -> Interval:
    """The difference with its interval, computed anew from the counts."""
    return differing(counted.only_student, counted.only_control, counted.n)


def gain_line(gap: Interval, split: str) -> str:
    """`distillation gained +1.9 points [+0.8, +3.0] over labels alone, n=1,000 test samples`. That it gained, or lost,
    is said only where the whole interval (95 %) says so."""
    value, low, high = (_points(part) for part in (gap.value, gap.low, gap.high))
    figures, of = f"{value} points [{low}, {high}]", f"n={gap.n:,} {split} samples"
    if gap.low > 0:
        return f"distillation gained {figures} over labels alone, {of}"
    if gap.high < 0:
        return f"distillation lost: {figures} against labels alone, {of}"
    return f"whether distillation gains over labels alone cannot be told: {figures}, {of}"


def _points(part: float) -> str:
    text = f"{100 * part:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text
