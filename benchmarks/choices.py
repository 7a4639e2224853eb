"""Does the student that kdc chooses hold the budget, once it is trained, exported and measured at full length?

    python -m benchmarks.choices --teacher run:TEACHER --data DATA --work DIR [--budgets 10] [--seed 0] [--epochs 4]
        [--input-size 64]

Draws p50 budgets log-uniformly between the fastest and the slowest candidate of the catalogue on this machine, as
`kdc students` measures them. For each: `kdc distill` without --student and with few epochs (latency does not depend on
them), `kdc export`, and whether the variant that ships holds the budget's line; and whether a student that the race
left out was better on validation in the last round that both ran, by more than the interval of their difference. A
budget that is done is not done again, so that it may be interrupted. Minutes a budget; do nothing else meanwhile.
"""

import argparse
import json
from pathlib import Path

import numpy as np

import compressor
from compressor.profiles import load_profile
from compressor.schema.race import Race

PROFILE = "choices"


def main() -> None:
    """Run all budgets, then print a row each and how many hold."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--teacher", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--budgets", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--input-size", type=int, default=64)
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    limits = budgets_of(asked)
    rows = [row_of(number, limit, asked) for number, limit in enumerate(limits, 1)]
    print(f"{'budget p50 ms':>13}  {'chosen':28} {'before ms':>9}  {'after ms':>8}  holds  outdone")
    for row in rows:
        print(
            f"{row['limit']:13.3g}  {row['winner']:28} {row['before']:9.3g}  {row['after']:8.3g}  "
            f"{row['holds']!s:5}  {row['outdone'] or '-'}"
        )
    print(f"{sum(bool(row['holds']) for row in rows)} of {len(rows)} budgets hold")


def budgets_of(asked: argparse.Namespace) -> list[float]:
    """Drawn once, kept in the work folder with the profile that they are budgets of."""
    path = asked.work / "budgets.json"
    if not path.exists():
        compressor_profile(asked)
        answer = compressor.students(
            profile=asked.work / f"{PROFILE}.yaml", classes=classes_of(asked), input_size=asked.input_size
        ).answer
        times = [row.figures.p50_ms.value for row in answer.rows if row.figures.p50_ms is not None]
        low, high = np.log(min(times)), np.log(max(times))
        drawn = np.exp(np.random.default_rng(asked.seed).uniform(low, high, asked.budgets))
        path.write_text(json.dumps([float(f"{value:.3g}") for value in drawn]))
    limits: list[float] = json.loads(path.read_text())
    return limits


def compressor_profile(asked: argparse.Namespace) -> None:
    """A profile of this machine, of the two runtimes that every machine here has."""
    from compressor.measure.machine import runtime_info, this_machine
    from compressor.profiles import write_new_profile

    precisions = {"onnxruntime": ("fp32", "int8"), "openvino": ("f32", "int8")}
    available = {
        name: [precision for precision in wanted if precision in runtime_info(name).precisions]
        for name, wanted in precisions.items()
    }
    sets = [f"input_size={asked.input_size}", "budget={p50_ms: 1000}"]
    write_new_profile(PROFILE, asked.work, this_machine(), available, sets)


def classes_of(asked: argparse.Namespace) -> int:
    """As the teacher's record says; a table or a hub model would have to be asked."""
    record = json.loads((Path(asked.teacher.removeprefix("run:")) / "student.json").read_text())
    return len(record["class_names"])


def row_of(number: int, limit: float, asked: argparse.Namespace) -> dict[str, object]:
    """Distill and export for one budget."""
    path = asked.work / f"{number}.json"
    if not path.exists():
        profile = load_profile(str(asked.work / f"{PROFILE}.yaml"), [f"budget={{p50_ms: {limit}}}"])
        run = asked.work / f"run{number}"
        try:
            done = compressor.distill(
                teacher=asked.teacher, data=asked.data, out=run, profile=profile, student_init="random",
                epochs=asked.epochs, overwrite=True, progress=True,
            )  # fmt: skip
        except compressor.KdcError as error:  # nobody holds the budget: counts as one that is not held
            print(error.message)
            nobody = {"winner": "none", "before": np.nan, "after": np.nan, "holds": False, "outdone": None}
            return {"limit": limit, **nobody}
        bundle = compressor.export(
            run, profile=profile, out=asked.work / f"bundle{number}", overwrite=True, qat=False, throughput=False,
            progress=True,
        )  # fmt: skip
        race = done.student.race
        assert race is not None
        winner = next(contender for contender in race.contenders if contender.student == race.winner)
        assert winner.p50_ms is not None
        rows = {row.name: row for row in bundle.report.rows}
        measured = [row.p50_ms for row in rows.values() if row.role == "student" and row.p50_ms is not None]
        fastest = min(measured, key=lambda estimate: estimate.value)
        line = [check for check in bundle.report.checks if check.line == "p50_ms"]
        path.write_text(
            json.dumps(
                {
                    "limit": limit,
                    "winner": race.winner.removeprefix("timm:"),
                    "before": winner.p50_ms.value,
                    "after": fastest.value,
                    "holds": any(check.verdict == "pass" for check in line),
                    "outdone": outdone(race),
                }
            )
        )
    row: dict[str, object] = json.loads(path.read_text())
    return row


def outdone(race: Race) -> str | None:
    """Who was better than the winner in the last round that it ran in, by more than both intervals."""
    for trials in race.rounds:
        scores = {trial.student: trial.accuracy for trial in trials}
        if race.winner in scores:
            for student, accuracy in scores.items():
                if len(trials) == len(race.rounds[-1]) and accuracy.low > scores[race.winner].high:
                    return student
    return None


if __name__ == "__main__":
    main()
