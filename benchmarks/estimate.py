"""How far estimates of latency are off: calibrated on half of the families, tested on the other half.

    kdc profiles new here
    kdc students --profile here --classes 10 --input-size 224
    python -m benchmarks.estimate --profile here [--splits 20] [--seed 0]

Reads the figures that `kdc students` has kept of the profile's device. For every runtime and precision: the roofline of
the profile's facts alone (no shares, no overheads), the usual shares of them, and the calibrated one over so many
of the families into halves. Errors are |estimated / measured - 1| against p50 as it was measured; the drift that the
reference shows is divided out for the calibration alone. Takes a minute; measures nothing.
"""

import argparse
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, median

import numpy as np

from compressor.profiles import load_profile
from compressor.schema.profile import Profile
from compressor.schema.unmeasured import Accuracy
from compressor.students.api import screened
from compressor.students.estimate.api import Layers
from compressor.students.estimate.basis import arithmetic_of, held_out_accuracy, kept_of, measured_of, why_not
from compressor.students.estimate.calibration import Measured, accuracy_of, left_out, split_families
from compressor.students.estimate.roofline import (
    Constants,
    Peaks,
    latencies_ms,
    missing_facts,
    peaks_of,
    start,
    work_of,
)
from compressor.students.kept import all_kept, machine_line, shelf
from compressor.tasks.table import DEFAULT
from compressor.terminal.tables import table


def plain(constants: Constants, peaks: Peaks) -> Constants:
    """The roofline as in the textbook: the peak for all that computes, the bandwidth for all that moves; and the
    overhead that was measured, for every layer and call."""
    gmacs, gbs = np.full_like(constants.gmacs, peaks.gflops / 2), np.full_like(constants.pass_gbs, peaks.bandwidth_gbs)
    return Constants(gmacs, gbs, peaks.bandwidth_gbs, peaks.bandwidth_gbs, *[peaks.layer_overhead_us] * 3)


def all_of(rows: Sequence[Measured], constants: Constants, arithmetic: str) -> Accuracy:
    """How far estimates are off for all candidates, where none of them had a part in finding the constants."""
    measured = np.array([row.p50_ms for row in rows])
    return accuracy_of(latencies_ms(work_of([row.layers for row in rows]), constants, arithmetic), measured, "all")


def halves(rows: Sequence[Measured], begin: Constants, arithmetic: str, splits: int, seed: int) -> list[Accuracy]:
    """Of each split, how far the second half's estimates are off."""
    answers = []
    for number in range(splits):
        half = split_families(rows, 2, seed + number)[:1]
        ((tested, estimates),) = left_out(rows, begin, arithmetic, half)
        measured = np.array([rows[row].p50_ms for row in tested])
        answers.append(accuracy_of(estimates, measured, "half of the families"))
    return answers


def odd(names: Sequence[str], rows: Sequence[Measured], begin: Constants, arithmetic: str, seed: int) -> str:
    """The candidates that are furthest off where their family has no part in the calibration."""
    errors: dict[str, float] = {}
    for tested, estimates in left_out(rows, begin, arithmetic, split_families(rows, 5, seed)):
        errors |= {names[row]: estimate / rows[row].p50_ms - 1 for row, estimate in zip(tested, estimates, strict=True)}
    worst = sorted(errors, key=lambda name: -abs(errors[name]))[:5]
    return ", ".join(f"{name} {errors[name]:+.0%}" for name in worst)


def cells(name: str, what: str, accuracy: Accuracy) -> tuple[str, ...]:
    median_error, worst = f"{accuracy.median_error:.1%}", f"{accuracy.worst_error:.0%}"
    return name, what, median_error, worst, f"{accuracy.spearman:.3f}", str(accuracy.n)


def report(profile: Profile, splits: int, seed: int) -> str:
    look, everything = Layers(DEFAULT, profile.batch), tuple(all_kept(shelf()))
    lines: list[tuple[str, ...]] = [("variant", "estimated by", "median error", "worst", "Spearman", "n")]
    notes = []
    for runtime, precision in screened(profile):
        name, arithmetic = f"{runtime}-{precision}", arithmetic_of(runtime, precision)
        kept = kept_of(profile, runtime, precision, everything)
        if missing_facts(profile.device, arithmetic) or not kept:
            notes.append(f"{name}: nothing, {why_not(profile, runtime, precision, kept) or 'no figures are kept'}")
            continue
        rows, names = measured_of(kept, look), [row.figures.student.partition(":")[2] for row in kept]
        peaks = peaks_of(profile.device, profile.threads, arithmetic)
        begin = start(peaks, arithmetic, runtime)
        textbook = plain(begin, peaks)
        lines.append(cells(name, "the profile's facts alone", all_of(rows, textbook, arithmetic)))
        lines.append(cells("", "the usual shares of them", all_of(rows, begin, arithmetic)))
        tested = halves(rows, begin, arithmetic, splits, seed)
        lines.append(("", f"calibrated on half, {splits} splits", *spread(tested)))
        from_facts = halves(rows, textbook, arithmetic, splits, seed)
        lines.append(("", "the same, from the facts and not from shares", *spread(from_facts)))
        raw = halves([replace(row, drift=1.0) for row in rows], begin, arithmetic, splits, seed)
        lines.append(("", "the same, drift not divided out", *spread(raw)))
        lines.append(cells("", "calibrated on four fifths, in turn", held_out_accuracy(rows, begin, arithmetic)))
        notes.append(f"{name}, furthest off with their families left out: {odd(names, rows, begin, arithmetic, 0)}")
        notes.append(f"{name}, measured on {machine_line(kept[0].machine)}, {kept[0].figures.measured}")
    return "\n".join([table(lines), "", *notes])


def spread(accuracies: Sequence[Accuracy]) -> tuple[str, ...]:
    """Over splits: the mean, and the range."""
    columns = defaultdict(list)
    for accuracy in accuracies:
        for key in ("median_error", "worst_error", "spearman", "n"):
            columns[key].append(getattr(accuracy, key))
    errors, ranks = columns["median_error"], columns["spearman"]
    return (
        f"{mean(errors):.1%} [{min(errors):.1%}, {max(errors):.1%}]",
        f"{median(columns['worst_error']):.0%} [to {max(columns['worst_error']):.0%}]",
        f"{mean(ranks):.3f} [{min(ranks):.3f}, {max(ranks):.3f}]",
        f"{min(columns['n'])} to {max(columns['n'])}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--profile", required=True)
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(report(load_profile(options.profile), options.splits, options.seed))


if __name__ == "__main__":
    main()
