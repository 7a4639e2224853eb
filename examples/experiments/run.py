"""Runs one experiment file and prints its table: python examples/experiments/run.py losses.yaml [--jobs 2] [--work DIR]

A file names `common` options, `once` (trainings that all arms share) and `arms`. A training is the command line of
`kdc teach`, `kdc distill` or `kdc specialists` without --out, in which {seed}, {work} and {data} are filled in. An arm
with `of` trains nothing: it is what those teachers answer together. What is finished is not trained again, and what was
interrupted goes on. Test accuracy is read here, after everything is trained; nothing is chosen by it.
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import yaml

from compressor.tasks.image_classification.preprocessing import of_images

if TYPE_CHECKING:
    from compressor.data.samples import Dataset

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Arm:
    """`train`: a command line; None where the teachers `of` answer together."""

    name: str
    train: str | None
    of: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)


@dataclass(frozen=True)
class Experiment:
    title: str
    data: str
    once: dict[str, str]
    arms: tuple[Arm, ...]
    common: str = ""
    recall: tuple[str, ...] = ()
    notes: str = ""


@dataclass
class Result:
    """Of one arm, one a seed: accuracy on test, recall of the classes that the file names, steps of the optimizer."""

    accuracy: list[float] = field(default_factory=list)
    recall: dict[str, list[float]] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)
    n: int = 0


def read(file: Path) -> Experiment:
    values: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
    seeds = tuple(values.pop("seeds", (0, 1, 2)))
    arms = tuple(
        Arm(arm["name"], arm.get("train"), tuple(arm.get("of", ())), tuple(arm.get("seeds", seeds)))
        for arm in values.pop("arms")
    )
    values["recall"] = tuple(values.pop("recall", ()))
    return Experiment(arms=arms, once=values.pop("once", {}), **values)


def command(text: str, common: str, **fills: object) -> list[str]:
    """The arguments of `kdc`, without --out."""
    verb, _, rest = text.partition(" ")
    # What an arm says itself comes last, and so counts.
    whole = text if verb == "specialists" else f"{verb} {common} {rest}"
    return [part.format(**fills) for part in shlex.split(whole)]


def folder_of(arm: str, seed: int) -> str:
    return f"{''.join(c if c.isalnum() else '-' for c in arm)}-{seed}"


def stages(experiment: Experiment) -> tuple[list[Arm], list[Arm]]:
    """The arms that stand alone, and those that start from what others trained."""
    folders = ["{work}/" + folder_of(arm.name, 0).removesuffix("0") for arm in experiment.arms]
    later = [arm for arm in experiment.arms if any(folder in (arm.train or "") for folder in folders)]
    return [arm for arm in experiment.arms if arm not in later], later


def run(arguments: Sequence[str], out: Path, threads: int) -> None:
    """One training into `out`, its output in `out`.log."""
    finished = "specialists.json" if arguments[0] == "specialists" else "student.json"
    if (out / finished).is_file():
        return
    resume = ["--resume"] if out.exists() else []
    out.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with out.with_suffix(".log").open("a", encoding="utf-8") as log:
        done = subprocess.run(
            [sys.executable, "-m", "compressor", *arguments, "--out", str(out), *resume],
            stdout=log, stderr=subprocess.STDOUT, env=environment, check=False,
        )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"{shlex.join(arguments)} ended with {done.returncode}: see {out.with_suffix('.log')}")
    print(f"done: {out.name}", file=sys.stderr, flush=True)


def measured(references: Sequence[str], experiment: Experiment, data: "Dataset") -> tuple[float, dict[str, float]]:
    """Accuracy and recalls on test, of the model (or of several as one) that the references name."""
    import torch

    from compressor.models import load_model, map_classes, with_classes
    from compressor.models.ensemble import combined
    from compressor.schema.recipe import Ensemble
    from compressor.stats import per_class_recall, top1
    from compressor.tasks.image_classification import normalise
    from compressor.tasks.image_classification.pixel_cache import Decoding

    names = data.info.class_names
    models = [load_model(reference) for reference in references]
    model = combined([with_classes(one, map_classes(one, names), names) for one in models], Ensemble())
    rows = np.array_split(np.arange(len(data.test)), max(1, len(data.test) // 256))
    answers = []
    with torch.no_grad():
        for (pixels,) in Decoding(data.test, (of_images(model.preprocess),)).batches(rows):
            answers.append(model.network(torch.from_numpy(normalise(pixels, of_images(model.preprocess)))).numpy())
    predicted = top1(np.concatenate(answers))
    recalls, _ = per_class_recall(predicted, data.test.labels, len(names))
    recall = {name: float(recalls[names.index(name)]) for name in experiment.recall}
    return float((predicted == data.test.labels).mean()), recall


def collect(experiment: Experiment, work: Path) -> dict[str, Result]:
    from compressor.tasks.image_classification import open_data

    data = open_data(experiment.data)
    results: dict[str, Result] = {}
    for arm in experiment.arms:
        result = results[arm.name] = Result(n=len(data.test))
        for seed in arm.seeds:
            out = work / folder_of(arm.name, seed)
            references = [text.format(work=work, seed=seed) for text in arm.of] or [f"run:{out}"]
            accuracy, recall = measured(references, experiment, data)
            result.accuracy.append(accuracy)
            for name, value in recall.items():
                result.recall.setdefault(name, []).append(value)
            if arm.train is not None:
                rows = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
                result.steps.append(sum(row.get("steps", 0) for row in rows))
    return results


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Mean ± standard deviation over the seeds."""
    mean = f"{statistics.fmean(values):.{digits}f}"
    return f"{mean} ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else mean


def table(experiment: Experiment, results: dict[str, Result]) -> str:
    """Markdown: a row an arm; differences are paired, seed by seed, with the first arm."""
    first = experiment.arms[0]
    recalls = [f"recall of {name} %" for name in experiment.recall]
    header = ["arm", "seeds", "test accuracy %", "errors", f"points over {first.name}", *recalls, "steps"]
    lines = [" | ".join(header), " | ".join(["---", *["---:"] * (len(header) - 1)])]
    for arm in experiment.arms:
        result, base = results[arm.name], results[first.name]
        percent = [100 * value for value in result.accuracy]
        errors = [(1 - value) * result.n for value in result.accuracy]
        apart = "–"
        if arm is not first and arm.seeds == first.seeds:
            apart = spread([100 * (a - b) for a, b in zip(result.accuracy, base.accuracy, strict=True)])
        elif arm is not first:
            apart = f"{statistics.fmean(percent) - 100 * statistics.fmean(base.accuracy):.2f} (means)"
        lines.append(
            " | ".join(
                [
                    arm.name, str(len(arm.seeds)), spread(percent), spread(errors, 0), apart,
                    *(spread([100 * value for value in result.recall[name]], 1) for name in experiment.recall),
                    f"{statistics.fmean(result.steps):,.0f}" if result.steps else "–",
                ]
            )
        )  # fmt: skip
    n = next(iter(results.values())).n
    closing = f"n = {n} test samples; mean ± standard deviation over the seeds."
    return "\n".join([f"| {line} |" for line in lines] + ["", closing])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path, help="a .yaml beside this script, or a path")
    parser.add_argument("--work", type=Path, default=Path("experiments"), help="folder for all runs")
    parser.add_argument("--jobs", type=int, default=1, help="trainings at a time, which share the cores")
    parser.add_argument("--data", help="other data than the file's")
    given = parser.parse_args()
    file = given.file if given.file.exists() else HERE / given.file
    experiment = read(file)
    if given.data:
        experiment = Experiment(**{**vars(experiment), "data": given.data})
    work = given.work / file.stem
    threads = max(1, (os.cpu_count() or 1) // given.jobs)
    fills = {"work": work, "data": experiment.data}
    # In their order: a later one may start from an earlier one.
    for name, text in experiment.once.items():
        run(command(text, experiment.common, name=name, seed=0, **fills), work / name, threads)
    for arms in stages(experiment):
        with ThreadPoolExecutor(given.jobs) as pool:
            runs = [
                pool.submit(
                    run, command(arm.train, experiment.common, seed=seed, name=arm.name, **fills),
                    work / folder_of(arm.name, seed), threads,
                )
                for seed in sorted({seed for arm in arms for seed in arm.seeds})
                for arm in arms if arm.train is not None and seed in arm.seeds
            ]  # fmt: skip
            for each in runs:
                each.result()
    text = f"{experiment.title}\n\n{table(experiment, collect(experiment, work))}\n"
    (work / "table.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
