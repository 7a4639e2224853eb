"""Can the release diff be relied on? Students that are as good as the one before, or worse, simulated.

    python -m benchmarks.release_diff [--times 2000]

Two students that were trained apart disagree on some test samples, however equal they are: `churn` is the share of
samples that one alone has right. For every setting: how often max_accuracy_loss (one point) fails, stays open and
passes, by default and asked for; and how often the diff calls the accuracy worse, or better. Takes a minute.
"""

import argparse
from collections import Counter

import numpy as np

from compressor.report.checks.release import judge_loss
from compressor.schema.profile import ACCURACY_LOSS
from compressor.stats import Interval, difference

SIZES = (360, 2_000, 10_000, 50_000)
CHURNS = (0.02, 0.04, 0.08)
LOST = (0.0, 0.005, 0.01, 0.02)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--times", type=int, default=2000)
    times = parser.parse_args().times
    verdicts = f"default, % of {times:,} test sets: fail | open | pass | asked for: fail | open | pass"
    print(f"| test samples | churn % | points lost | {verdicts} | called worse |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for n in SIZES:
        for churn in CHURNS:
            for lost in LOST:
                if lost <= churn:
                    print(row(n, churn, lost, times))


def row(n: int, churn: float, lost: float, times: int) -> str:
    """One line of the table; shares of `times` test sets, in per cent."""
    random = np.random.default_rng(0)
    asked, default, worse = Counter[str](), Counter[str](), 0
    for _ in range(times):
        # Of all samples, so many were right and are wrong, and so many the reverse.
        down, up = random.multinomial(n, [(churn + lost) / 2, (churn - lost) / 2, 1 - churn])[:2]
        now, before = np.ones(n, bool), np.ones(n, bool)
        now[:down], before[n - up :] = False, False
        change = difference(now, before)
        loss = Interval(-change.value, -change.high, -change.low, n)
        default[judge_loss(loss, ACCURACY_LOSS, asked=False)[0]] += 1
        asked[judge_loss(loss, ACCURACY_LOSS, asked=True)[0]] += 1
        worse += loss.low > 0
    counts = [counter[verdict] for counter in (default, asked) for verdict in ("fail", "inconclusive", "pass")]
    shares = " | ".join(f"{100 * count / times:.1f}" for count in (*counts, worse))
    return f"| {n} | {100 * churn:g} | {100 * lost:g} | {shares} |"


if __name__ == "__main__":
    main()
