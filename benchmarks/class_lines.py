"""Can the lines on classes be relied on? Sound students that they hold up, lost classes that they miss, simulated.

    python -m benchmarks.class_lines [--times 1000]

A student is right with chance `keeps` where its teacher is right, and 0.3 where it is not, each sample on its own. For
every setting: how often min_class_retention (0.5) fails, stays open and passes; how often min_balanced_retention as a
default (0.7) does not pass; and how often the 95 % interval of balanced retention covers the truth. Takes a minute.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compressor.schema.profile import Budget
from compressor.stats import balanced_retention, class_counts, judge_classes

Shares = float | Sequence[float]
LINES = Budget().class_lines(against_teacher=True)
GAINS = 0.3
TAIL: list[int] = np.geomspace(500, 3, 20).astype(int).tolist()
HARDER: list[float] = np.linspace(0.98, 0.72, 20).tolist()


@dataclass(frozen=True)
class RunContext:
    """Test samples a class, and the teacher's recall and what the student keeps of it, for all classes or by class."""

    name: str
    sizes: Sequence[int]
    teacher: Shares
    keeps: Shares

    def by_class(self, values: Shares) -> NDArray[np.float64]:
        return np.broadcast_to(np.asarray(values, np.float64), (len(self.sizes),))


SOUND = (
    RunContext("2 classes, 180 and 6", [180, 6], 0.98, 0.97),
    RunContext("2 classes, 180 and 3", [180, 3], 0.98, 0.97),
    RunContext("10 classes of 3", [3] * 10, 0.95, 0.95),
    RunContext("10 classes of 6", [6] * 10, 0.9, 0.9),
    RunContext("10 classes of 1000", [1000] * 10, 0.95, 0.95),
    RunContext("20 classes, 500 to 3", TAIL, 0.93, 0.95),
    RunContext("the same, rare ones harder", TAIL, HARDER, HARDER),
    RunContext("100 classes of 2", [2] * 100, 0.9, 0.93),
    RunContext("100 classes of 5", [5] * 100, 0.9, 0.9),
    RunContext("the same, keeping 0.6 to 1", [5] * 100, 0.9, np.linspace(0.6, 1, 100).tolist()),
    RunContext("1000 classes of 50", [50] * 1000, 0.8, 0.93),
)
LOST = (
    RunContext("2 classes, 180 and 6", [180, 6], 0.98, [0.99, 0]),
    RunContext("2 classes, 180 and 3", [180, 3], 0.98, [0.99, 0]),
    RunContext("10 classes of 6", [6] * 10, 0.95, [0] + [0.95] * 9),
    RunContext("10 classes of 30", [30] * 10, 0.95, [0] + [0.95] * 9),
    RunContext("100 classes of 5", [5] * 100, 0.9, [0] + [0.95] * 99),
    RunContext("100 classes of 3", [3] * 100, 0.95, [0] + [0.97] * 99),
    RunContext("1000 classes of 50", [50] * 1000, 0.8, [0] + [0.93] * 999),
)


def simulate(setting: RunContext, times: int, lost: bool) -> str:
    """A row of the table. In a class that is `lost` the student gains nothing either."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(len(setting.sizes)), setting.sizes)
    knows, keeps = setting.by_class(setting.teacher), setting.by_class(setting.keeps)
    gains = np.where(keeps == 0, 0.0, GAINS) if lost else np.full(len(keeps), GAINS)
    truth = float((knows * keeps + (1 - knows) * gains).mean() / knows.mean())
    verdicts: Counter[str] = Counter()
    held_up, covered, told = 0, 0, 0
    for _ in range(times):
        teacher = rng.random(len(labels)) < knows[labels]
        student = rng.random(len(labels)) < np.where(teacher, keeps[labels], gains[labels])
        counts = class_counts(student, labels, len(setting.sizes), teacher)
        verdicts[judge_classes(counts, LINES["min_class_retention"]).verdict] += 1
        try:
            found = balanced_retention(student, teacher, labels, len(setting.sizes))
        except ValueError:
            continue
        told += 1
        held_up += found.value < LINES["min_balanced_retention"]
        covered += found.low <= truth <= found.high
    shares = " ".join(f"{100 * verdicts[verdict] / times:8.1f}" for verdict in ("fail", "inconclusive", "pass"))
    return f"{setting.name:28s} {shares} {100 * held_up / told:12.1f} {100 * covered / told:10.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=1000)
    times = parser.parse_args().times
    for title, settings in (("sound students", SOUND), ("one class lost", LOST)):
        print(f"{title} (% of {times} test sets)\n{'':28s}     fail     open     pass  balanced<0.7   coverage")
        for setting in settings:
            few = max(20, times // 20) if len(setting.sizes) >= 1000 else times
            print(simulate(setting, few, lost=settings is LOST), flush=True)


if __name__ == "__main__":
    main()
