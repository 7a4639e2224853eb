"""Ten acoustic models into one of their size (Hinton et al. 2015, arXiv 1503.02531, sections 3 and 6), on real speech.

    python -m benchmarks.ten_into_one --phones phones --work ten [--members 10] [--seed 0 1 2] [--epochs 60]
        [--curve 20 180] [--case tenth few curve] [--arm all …] [--minutes 30]

`--phones` is what `examples/phones.py` writes. A tenth of the training frames keep their label. The members learn from
these for `--epochs`, each with a seed of its own, and so do the students, with other seeds; one that learns from all
training frames makes as many steps on them, in a tenth of the epochs. Arms with x3 and x10 make so many times as many.
Case `curve`: again with members and students that all learn for as many epochs as `--curve` says. Case `few`: 3 % of
the labels, hard targets against those of members that had learned from all labels.

Temperatures are tried in the arms `kd` and `all`. That of the best mean validation accuracy is taken there, and in the
arms on the same frames; the test split is not looked at for it, nor shown for the others.

All is trained by `kdc distill`. What is finished is not trained again, what was interrupted goes on, and after
`--minutes` nothing new is begun: so it runs in slices, and `tenth` and `few` at a time.
"""

import argparse
import csv
import math
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.by_group import Bools, Floats, Resampled, kept, within
from benchmarks.regimes import Bench, spread, steps_of
from benchmarks.ten_runs import ARMS, CURVE, TEMPERATURES, Case, Ten, cases_of, validations
from benchmarks.texts import answers, opened
from compressor.schema.preprocess import AudioPreprocess
from compressor.stats import top1
from compressor.stats.softmax import log_softmax

Table = list[list[str]]


class Tables:
    """What was trained, in tables. Models are compared on the test frames, whose prompts are drawn."""

    def __init__(self, ten: Ten) -> None:
        self.ten = ten
        with (ten.phones / "frames.csv").open(encoding="utf-8", newline="") as file:
            group_of = {row["path"]: row["group"] for row in csv.DictReader(file)}
        test = opened(AudioPreprocess.task, ten.data).test
        self.draws = Resampled([group_of[name.rpartition("[")[0]] for name in test.ids])

    def right(self, runs: Sequence[Path]) -> list[Bools]:
        """Which test frames each has right."""
        given = [answers(run, self.ten.data) for run in runs]
        return [np.asarray(top1(each["test"]) == each["test_labels"]) for each in given]

    def together(self, runs: Sequence[Path], split: str = "test") -> Bools:
        """The mean of their probabilities, as several --teacher answer."""
        given = [answers(run, self.ten.data) for run in runs]
        mean = np.mean([np.exp(log_softmax(each[split])) for each in given], axis=0)
        return np.asarray(top1(mean) == given[0][f"{split}_labels"])

    def of_members(self, case: Case) -> tuple[Floats, Floats]:
        """The accuracies of one of them, and of all together, in every draw."""
        runs = self.ten.members_of(case)
        return self.draws.accuracy(self.right(runs)), self.draws.accuracy([self.together(runs)])

    def trials(self, case: Case) -> Table:
        """Validation accuracy of each temperature that was tried."""
        rows = [["arm", *(f"T = {heat}, validation %" for heat in TEMPERATURES), "taken"]]
        for name, arm in case.arms.items():
            taken = self.ten.temperature(case, arm)
            if arm.tried == name and taken:
                tried = [validations(self.ten.students(case, name, heat)) for heat in TEMPERATURES]
                rows.append([name, *map(spread, tried), str(taken)])
        return rows

    def arms(self, case: Case) -> Table:
        """One row an arm."""
        rows = [["arm", "T", "epochs", "steps", "seeds", "validation %", "test %", "points over one model [95 %]",
                 "of the gain of all together, % [95 %]"]]  # fmt: skip
        members = self.ten.members_of(case)
        if not self.ten.finished(members):
            return rows
        single, ensemble = self.of_members(case)
        together = 100 * float(self.together(members, "validation").mean())
        rows.append(["one model", "", str(case.members_epochs), *self.scores(members), "–", "0"])
        rows.append([f"{len(members)} together", "", "", "", "", f"{together:.2f}", f"{ensemble[0]:.2f}",
                     str(within(ensemble - single)), "100"])  # fmt: skip
        for name, arm in case.arms.items():
            runs = self.ten.taught(case, name)
            if runs:
                student = self.draws.of_seeds(self.right(runs))
                rows.append([name, str(self.ten.temperature(case, arm) or ""), str(self.ten.epochs(case, arm)),
                             *self.scores(runs), str(within(student - single)),
                             share(student, single, ensemble)])  # fmt: skip
        return rows

    def scores(self, runs: Sequence[Path]) -> list[str]:
        """Steps, seeds, and accuracy on validation and test."""
        return [f"{steps_of(runs[0]):,}", str(len(runs)), spread(validations(runs)), self.tested(runs)]

    def tested(self, runs: Sequence[Path]) -> str:
        return spread([100 * float(right.mean()) for right in self.right(runs)])

    def curve(self, cases: Sequence[Case]) -> Table:
        """One row a length, of members and students alike."""
        rows = [["epochs", "steps", "one model, test %", "together, test %", "gain [95 %]",
                 *(f"{name}, test %" for name in CURVE), "all: of the gain, % [95 %]"]]  # fmt: skip
        for case in sorted(cases, key=lambda case: case.epochs):
            members = self.ten.members_of(case)
            taught = [self.ten.taught(case, name) for name in CURVE if name in case.arms]
            if not self.ten.finished(members) or len(taught) < len(CURVE) or not all(taught):
                continue
            single, ensemble = self.of_members(case)
            student = self.draws.of_seeds(self.right(taught[-1]))
            rows.append([str(case.epochs), f"{steps_of(members[0]):,}", self.tested(members), f"{ensemble[0]:.2f}",
                         str(within(ensemble - single)), *map(self.tested, taught),
                         share(student, single, ensemble)])  # fmt: skip
        return rows

    def few(self, case: Case) -> Table:
        """Hard targets or soft ones for a small share of the frames (Hinton's section 6)."""
        rows = [["targets", "T", "epochs", "steps", "seeds", "validation %", "test %", "points over hard [95 %]"]]
        members, hard = self.ten.members_of(case), self.ten.taught(case, "hard")
        if not self.ten.finished(members) or not hard:
            return rows
        base = self.draws.of_seeds(self.right(hard))
        for name, arm in case.arms.items():
            runs = self.ten.taught(case, name)
            if runs:
                gained = "–" if name == "hard" else str(within(self.draws.of_seeds(self.right(runs)) - base))
                rows.append([f"{100 * case.share:g} %, {name}", str(self.ten.temperature(case, arm) or ""),
                             str(self.ten.epochs(case, arm)), *self.scores(runs), gained])  # fmt: skip
        gained = str(within(self.draws.of_seeds(self.right(members)) - base))
        return [*rows, ["100 %, hard: one member", "", str(case.members_epochs), *self.scores(members), gained]]


def share(student: Floats, single: Floats, ensemble: Floats) -> str:
    """Of the gain; nothing where that cannot be told from none."""
    return str(kept(student, single, ensemble)) if within(ensemble - single).low > 0 else "–"


def markdown(rows: Table) -> str:
    lines = [rows[0], ["---", *["---:"] * (len(rows[0]) - 1)], *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--phones", type=Path, required=True, help="folder of examples/phones.py")
    parser.add_argument("--work", type=Path, default=Path("ten"), help="folder for all runs")
    parser.add_argument("--members", type=int, default=10)
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--curve", nargs="*", type=int, default=[20, 180])
    parser.add_argument("--arm", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--case", nargs="+", choices=("tenth", "few", "curve"), default=["tenth", "few", "curve"])
    parser.add_argument("--minutes", type=float, default=math.inf)
    given = parser.parse_args()
    bench = Bench(given.work, {}, {}, given.seed, time.monotonic() + 60 * given.minutes)
    ten = Ten(bench, given.phones, given.members)
    cases = cases_of(given.epochs, given.curve, given.arm)
    for name in given.case:
        for case in cases[name]:
            ten.work_through(case)
    tables = Tables(ten)
    made = {
        "tenth": lambda: [tables.trials(cases["tenth"][0]), tables.arms(cases["tenth"][0])],
        "few": lambda: [tables.trials(cases["few"][0]), tables.few(cases["few"][0])],
        "curve": lambda: [tables.curve([*cases["tenth"], *cases["curve"]])],
    }
    print(*(markdown(table) for name in given.case for table in made[name]()), sep="\n")
    if bench.left or ten.waits:
        print(f"\nnot begun within {given.minutes:g} minutes: {', '.join([*bench.left, *ten.waits])}", file=sys.stderr)


if __name__ == "__main__":
    main()
