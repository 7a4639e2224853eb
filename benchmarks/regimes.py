"""The default recipe against labels alone: the same student, the same schedule, as many steps, a case a regime.

    python -m benchmarks.regimes --fashion DIR --lite0 DIR --lite2 DIR --work regimes [--case two …] [--seed 0 1 2]
        [--minutes 20] [--arm 'light=--set losses.0.weight=0.5']

`--fashion` is the folder of Fashion-MNIST's IDX files, `--lite0` and `--lite2` what `examples/lite_weights.py` writes;
cases whose folders are not given are left out. What is finished is not trained again, what was interrupted goes on, and
after `--minutes` nothing new is begun: so it runs in slices. Every arm but `labels` is the default with its own options
laid over it, for trying rules on validation; `labels` has the default's own recipe as its run recorded it, with
cross_entropy alone, for as many steps.
"""

import argparse
import gzip
import json
import math
import os
import shlex
import statistics
import struct
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compressor.cli.app import run
from compressor.models import load_model
from compressor.stats import auc, balanced_accuracy, top1
from compressor.stats.intervals import normal_quantile
from compressor.tasks.image_classification import normalise, open_data
from compressor.tasks.image_classification.pixel_cache import Decoding
from compressor.tasks.image_classification.preprocessing import of_images

FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
SIZE = ("--input-size", "16")
STUDENT = ("--student", "timm:test_efficientnet", "--student-init", "random")
FROM_RANDOM = ("--teacher", "timm:test_resnet", "--teacher-init", "random", "--set", "head_epochs=0")
Arrays = list[NDArray[np.uint8]]


@dataclass(frozen=True)
class Case:
    """`teach` and `distill`: options of the commands, in which {runs}, {work} (the case's), {fashion}, {lite0} … stand.
    `cut`: makes its data of Fashion-MNIST's four arrays; None: `data` as it is. `only_default`: options that the arm of
    labels alone must not have. `taught_on`: the teacher's data, where they are others. `teacher`: the case whose
    teacher it shares."""

    data: str
    teach: Sequence[str]
    distill: Sequence[str]
    cut: Callable[[Arrays], dict[str, Arrays]] | None = None
    only_default: Sequence[str] = ()
    needs: Sequence[str] = ()
    taught_on: str | None = None
    teacher: str | None = None


def drawn(labels: NDArray[np.uint8], classes: Sequence[int], each: int) -> NDArray[np.int64]:
    """The first `each` samples of each of these classes, in the order of the data."""
    return np.sort(np.concatenate([np.flatnonzero(labels == one)[:each] for one in classes]))


def two_classes(arrays: Arrays) -> dict[str, Arrays]:
    """T-shirts and shirts: of 10,800 images to train with the recipe keeps 1,300, and 1,200 are for validation."""
    images, labels, test_images, test_labels = arrays
    few, held = np.isin(labels, (0, 6)), np.isin(test_labels, (0, 6))
    return {"data": [images[few], labels[few] // 6, test_images[held], test_labels[held] // 6]}


def few_labels(arrays: Arrays) -> dict[str, Arrays]:
    """21,000 images to train with, of which the recipe keeps 1,000 labels, and 2,330 for validation."""
    images, labels, test_images, test_labels = arrays
    few = drawn(labels, range(10), 2_333)
    return {"data": [images[few], labels[few], test_images, test_labels]}


def kept(share: float) -> tuple[str, str]:
    """Train with this share of the images alone."""
    return "--set", f"transfer={{{{labelled: {share}, drop_unlabelled: true}}}}"


PAIR = ("--student", "timm:tf_efficientnet_lite0", "--student-init", "{lite0}/model.safetensors", "--input-size", "32")
LITE2 = ("--teacher", "timm:local-dir:{lite2}", "--input-size", "32", "--batch-size", "32",
         "--set", "optimizer.lr=0.0005")  # fmt: skip
TWO, FEW, SMALL = kept(0.1204), kept(0.0476), kept(0.0619)
CASES = {
    "two": Case("idx:{work}/data", (*FROM_RANDOM, *SIZE, "--epochs", "4", "--batch-size", "64"),
                (*STUDENT, *SIZE, "--epochs", "20", *TWO), two_classes, needs=("fashion",)),
    "two-weak": Case("idx:{work}/data", (*FROM_RANDOM, *SIZE, "--epochs", "20", "--batch-size", "32", *TWO),
                     (*STUDENT, *SIZE, "--epochs", "20", *TWO), two_classes, needs=("fashion",)),
    "few": Case("idx:{work}/data", (*FROM_RANDOM, *SIZE, "--epochs", "3"), (*STUDENT, *SIZE, "--epochs", "2"),
                few_labels, ("--set", "transfer.labelled=0.0476"), ("fashion",), "idx:{fashion}"),
    "small": Case("idx:{work}/data", (*FROM_RANDOM, *SIZE, "--epochs", "3"),
                  (*STUDENT, *SIZE, "--epochs", "20", *SMALL), few_labels, (), ("fashion",), "idx:{fashion}", "few"),
    "few-weak": Case("idx:{work}/data", (*FROM_RANDOM, *SIZE, "--epochs", "30", "--batch-size", "32", *FEW),
                (*STUDENT, *SIZE, "--epochs", "2"), few_labels, ("--set", "transfer.labelled=0.0476"), ("fashion",)),
    "pretrained-two": Case("idx:{work}/data", (*LITE2, "--epochs", "4", *TWO), (*PAIR, "--epochs", "4", *TWO),
                           two_classes, needs=("fashion", "lite0", "lite2")),
    "checkpoint": Case("idx:{work}/data", (*FROM_RANDOM, *SIZE, "--epochs", "3"),
                       (*STUDENT[:2], "--student-init", "{runs}/digits/labels-0/student.safetensors", *SIZE,
                        "--epochs", "20", *SMALL), few_labels, (), ("fashion",), "idx:{fashion}", "few"),
    "digits": Case("digits", (*FROM_RANDOM, *SIZE, "--epochs", "20", "--batch-size", "64"),
                   (*STUDENT, *SIZE, "--epochs", "20")),
    "all": Case("idx:{fashion}", (*FROM_RANDOM, *SIZE, "--epochs", "10"), (*STUDENT, *SIZE, "--epochs", "5"),
                needs=("fashion",)),
    "pretrained": Case("idx:{work}/data", (*LITE2, "--epochs", "1"), (*PAIR, "--epochs", "6", *SMALL), few_labels,
                       needs=("fashion", "lite0", "lite2")),
}  # fmt: skip


@dataclass
class Bench:
    """All of one call. `until`: when nothing new is begun any more, by time.monotonic()."""

    work: Path
    places: dict[str, str]
    arms: dict[str, list[str]]
    seeds: list[int]
    until: float
    left: list[str] = field(default_factory=list)

    def work_through(self, name: str, case: Case) -> Path | None:
        """Train what is missing of a case; its folder, or None where its teacher is not there yet."""
        work = self.work / name
        fills = {**self.places, "work": str(work), "runs": str(self.work)}
        if case.cut is not None:
            write_data(work, case.cut, Path(self.places["fashion"]))
        data = ["--data", case.data.format(**fills)]
        teach = ["teach", *(part.format(**fills) for part in (*case.teach, "--data", case.taught_on or case.data))]
        teacher = self.work / (case.teacher or name) / "teacher"
        if not self.train(teach, teacher):
            return None
        distill = ["distill", *data, *(part.format(**fills) for part in case.distill)]
        extra = [part.format(**fills) for part in case.only_default]
        for seed in self.seeds:
            for arm, options in self.arms.items():
                out = work / f"{arm}-{seed}"
                own = ["--teacher", f"run:{teacher}", *extra, *options]
                if arm == "labels":
                    recipe = alone(work / f"default-{seed}", work / f"labels-{seed}.json")
                    if recipe is None:
                        continue
                    at = distill.index("--epochs") if "--epochs" in distill else len(distill)
                    own = ["--teacher", "self", "--recipe", str(recipe)]
                    self.train([*distill[:at], *distill[at + 2 :], *own], out)
                else:
                    self.train([*distill, *own, "--seed", str(seed)], out)
        return work

    def train(self, arguments: list[str], out: Path) -> bool:
        """One training into `out`, what it says in `out`.log; whether it is finished."""
        if (out / "student.json").is_file():
            return True
        if time.monotonic() > self.until:
            self.left.append(str(out))
            return False
        out.parent.mkdir(parents=True, exist_ok=True)
        resume = ["--resume"] if (out / "run.json").is_file() else []
        line = ["kdc", *arguments, "--out", str(out), *resume]
        code = called(line, out.with_suffix(".log"))
        if code:
            sys.exit(f"{shlex.join(line)} ended with {code}: see {out.with_suffix('.log')}")
        print(f"done: {out}", file=sys.stderr, flush=True)
        return True


def called(line: list[str], log: Path) -> int:
    """Run a command in this process, which has torch in memory already; what it says goes into `log`."""
    stderr, argv = os.dup(2), sys.argv
    with log.open("a", encoding="utf-8") as file:
        file.write(f"{shlex.join(line)}\n")
        file.flush()
        sys.argv = line
        os.dup2(file.fileno(), 2)
        try:
            return run()
        finally:
            sys.argv = argv
            os.dup2(stderr, 2)
            os.close(stderr)


def write_data(work: Path, cut: Callable[[Arrays], dict[str, Arrays]], fashion: Path) -> None:
    """The IDX files of a case, unless they are there."""
    if (work / "data" / "done").is_file():
        return
    for folder, parts in cut([read_idx(fashion / f"{name}.gz") for name in FILES]).items():
        (work / folder).mkdir(parents=True, exist_ok=True)
        for name, array in zip(FILES, parts, strict=False):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (work / folder / name).write_bytes(header + array.tobytes())
    (work / "data" / "done").touch()


def read_idx(path: Path) -> NDArray[np.uint8]:
    content = gzip.decompress(path.read_bytes())
    sizes = struct.unpack_from(f">{content[3]}I", content, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)


def alone(default: Path, file: Path) -> Path | None:
    """The recipe of the default's run with labels alone, for as many steps; None where that is not finished."""
    if not (default / "student.json").is_file():
        return None
    record = json.loads((default / "student.json").read_text(encoding="utf-8"))
    recipe: dict[str, Any] = record["recipe"]
    steps = max(1, record["regime"]["labelled"] // recipe["batch_size"])
    recipe["epochs"] = max(1, round(steps_of(default) / steps))
    recipe["losses"] = [{"name": "cross_entropy"}]
    recipe["transfer"]["drop_unlabelled"] = True
    file.write_text(json.dumps(recipe), encoding="utf-8")
    return file


def steps_of(run: Path) -> int:
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text(encoding="utf-8").splitlines()]
    return sum(row["steps"] for row in rows)


def logits_of(run: Path, data: str) -> dict[str, NDArray[Any]]:
    """What a run answers to validation and test, and their labels; kept beside it."""
    kept = run.with_suffix(".npz")
    if not kept.is_file():
        dataset, model = open_data(data), load_model(f"run:{run}")
        values: dict[str, Any] = {}
        inputs = of_images(model.preprocess)
        for split in (dataset.validation, dataset.test):
            rows, answers = np.array_split(np.arange(len(split)), max(1, len(split) // 256)), []
            with torch.inference_mode():
                for (pixels,) in Decoding(split, (inputs,)).batches(rows):
                    answers.append(model.network(torch.from_numpy(normalise(pixels, inputs))).numpy())
            values[split.name], values[f"{split.name}_labels"] = np.concatenate(answers), split.labels
        np.savez(kept, **values)
    with np.load(kept) as values:
        return dict(values)


@dataclass
class Scores:
    """Of one arm, one a seed: percentages; `right`, bool [N], on test."""

    steps: list[int] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    accuracy: list[float] = field(default_factory=list)
    balanced: list[float] = field(default_factory=list)
    auc: list[float] = field(default_factory=list)
    right: list[NDArray[np.bool_]] = field(default_factory=list)
    labels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))


def scores_of(work: Path, arm: str, seeds: Sequence[int], data: str) -> Scores:
    scores = Scores()
    for seed in seeds:
        run = work / f"{arm}-{seed}"
        if not (run / "student.json").is_file():
            continue
        given = logits_of(run, data)
        scores.steps.append(steps_of(run))
        scores.validation.append(100 * _balanced(given, "validation"))
        scores.balanced.append(100 * _balanced(given, "test"))
        right = top1(given["test"]) == given["test_labels"]
        scores.accuracy.append(100 * float(right.mean()))
        scores.right.append(right)
        scores.labels = given["test_labels"]
        if given["test"].shape[1] == 2:
            margins = (given["test"][:, 1] - given["test"][:, 0]).astype(np.float64)
            scores.auc.append(100 * auc(margins, given["test_labels"] == 1).value)
    return scores


def _balanced(given: dict[str, NDArray[Any]], split: str) -> float:
    return balanced_accuracy(top1(given[split]), given[f"{split}_labels"], given[split].shape[1]).value


def gain(arm: Scores, base: Scores, *, balanced: bool = True) -> str:
    """Points of balanced accuracy over labels alone, or of accuracy, with its 95 % interval: from the samples, paired,
    whose mean over the seeds is taken first, and from the seeds; and each seed's own."""
    pairs = min(len(arm.right), len(base.right))
    if not pairs or arm is base:
        return "–"
    counts = np.bincount(arm.labels)[arm.labels] * len(np.unique(arm.labels))
    weights = 1 / (counts if balanced else np.full(len(arm.labels), len(arm.labels)))
    apart = np.stack([a.astype(float) - b for a, b in zip(arm.right, base.right, strict=False)])
    each = apart @ weights
    variance = float((weights**2 * (apart.mean(0) - each.mean()) ** 2).sum())
    if pairs > 1:
        variance += float(each.var(ddof=1)) / pairs
    reach, mean = normal_quantile(0.95) * variance**0.5, each.mean()
    seeds = ", ".join(f"{100 * one:+.1f}" for one in each)
    return f"{100 * mean:+.2f} [{100 * (mean - reach):+.2f} to {100 * (mean + reach):+.2f}] ({seeds})"


def spread(values: Sequence[float]) -> str:
    if not values:
        return "–"
    more = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.2f}{more}"


def table(bench: Bench, chosen: dict[str, Case]) -> str:
    header = ["case", "arm", "seeds", "steps", "validation, balanced %", "test %", "test, balanced %", "AUC %",
              "points of balanced accuracy over labels alone"]  # fmt: skip
    lines = [header, ["---", "---", *["---:"] * 7]]
    for name, case in chosen.items():
        work = bench.work / name
        data = case.data.format(**bench.places, work=work)
        base = scores_of(work, "labels", bench.seeds, data)
        for arm in bench.arms:
            scores = base if arm == "labels" else scores_of(work, arm, bench.seeds, data)
            if scores.steps:
                lines.append([
                    name, arm, str(len(scores.steps)), f"{statistics.fmean(scores.steps):,.0f}",
                    spread(scores.validation), spread(scores.accuracy), spread(scores.balanced), spread(scores.auc),
                    gain(scores, base),
                ])  # fmt: skip
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--work", type=Path, default=Path("regimes"), help="folder for all runs")
    for name in ("fashion", "lite0", "lite2"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--case", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seed", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--arm", nargs="*", default=[], metavar="NAME=OPTIONS", help="more than default and labels")
    parser.add_argument("--only", nargs="+", help="only these arms")
    parser.add_argument("--minutes", type=float, default=math.inf)
    given = parser.parse_args()
    arms: dict[str, list[str]] = {"default": [], "labels": []}
    for text in given.arm:
        name, _, options = text.partition("=")
        arms[name] = shlex.split(options)
    arms = {name: options for name, options in arms.items() if given.only is None or name in given.only}
    places = {name: str(path) for name in ("fashion", "lite0", "lite2") if (path := getattr(given, name))}
    cases = {name: CASES[name] for name in given.case if set(CASES[name].needs) <= places.keys()}
    bench = Bench(given.work, places, arms, given.seed, time.monotonic() + 60 * given.minutes)
    for name, case in cases.items():
        bench.work_through(name, case)
    print(table(bench, cases))
    if bench.left:
        print(f"\nnot begun within {given.minutes:g} minutes: {', '.join(bench.left)}")


if __name__ == "__main__":
    main()
