"""What `benchmarks.ten_into_one` trains: members, students and what each learns from."""

import csv
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from benchmarks.regimes import Bench

STUDENT, BATCH = "mlp:384x3", 256
TEMPERATURES = (1, 2, 3, 5)
LABELLED, FEW, ALL_EPOCHS = 0.1, 0.03, 8
"""The shares of the labels, and for how many epochs those learn that see all of them."""
FIRST_MEMBER = 100
"""The seed of the first member: no student begins as one of them."""
MIXUP = 0.4
"""Alpha; it was not tuned."""


@dataclass(frozen=True)
class Arm:
    """What a student learns from: `frames` that are labelled, all of train, or more: those of prompts without a
    transcript, too. `tried`: the arm that its temperature is chosen in. `times`: its steps, in those of a member."""

    targets: Literal["labels", "both", "teacher"]
    frames: Literal["labelled", "all", "more"] = "labelled"
    tried: str | None = None
    mixup: bool = False
    times: int = 1


ARMS = {
    "labels": Arm("labels"),
    "labels-mixup": Arm("labels", mixup=True),
    "kd": Arm("both", "labelled", "kd"),
    "kd-mixup": Arm("both", "labelled", "kd", mixup=True),
    "all": Arm("teacher", "all", "all"),
    "all-mixup": Arm("teacher", "all", "all", mixup=True),
    "more": Arm("teacher", "more", "all"),
    "labels-x3": Arm("labels", times=3),
    "all-x3": Arm("teacher", "all", "all", times=3),
    "labels-x10": Arm("labels", times=10),
    "all-x10": Arm("teacher", "all", "all", times=10),
}
CURVE = ("labels", "all")
FEW_ARMS = {"hard": Arm("labels"), "soft": Arm("teacher", "labelled", "soft")}


@dataclass(frozen=True)
class Case:
    """Students that have `share` of the labels and learn for `epochs` of these; members that have `members_share` and
    learn for `members_epochs`. `tried`: the case in which temperatures are tried."""

    name: str
    tried: str
    arms: dict[str, Arm]
    share: float
    epochs: int
    members_share: float
    members_epochs: int


def cases_of(epochs: int, curve: Sequence[int], arms: Sequence[str]) -> dict[str, list[Case]]:
    """By the table that they are for."""
    main = f"tenth-{epochs}"
    chosen = {name: ARMS[name] for name in arms}
    on_curve = {name: arm for name, arm in chosen.items() if name in CURVE}
    return {
        "tenth": [Case(main, main, chosen, LABELLED, epochs, LABELLED, epochs)],
        "few": [Case("few", "few", FEW_ARMS, FEW, epochs, 1.0, ALL_EPOCHS)],
        "curve": [Case(f"tenth-{each}", main, on_curve, LABELLED, each, LABELLED, each) for each in curve],
    }


def recipe_of(arm: Arm, share: float, epochs: int, temperature: int | None, seed: int) -> dict[str, Any]:
    """The rate rises for 3 % of the steps, whatever an epoch is; the last weights are not averaged."""
    labels, soft = {"name": "cross_entropy"}, {"name": "kd", "temperature": temperature}
    losses = {"labels": [labels], "both": [{**soft, "weight": 0.9}, {**labels, "weight": 0.1}], "teacher": [soft]}
    return {
        "schema": 1,
        "seed": seed,
        "epochs": epochs,
        "batch_size": BATCH,
        "optimizer": {"lr": 0.001, "weight_decay": 0.01, "warmup_epochs": 0.03 * epochs},
        "ema_decay": 0.0,
        "views": {"mixup": MIXUP} if arm.mixup else {"distinct": 1},
        "transfer": {"labelled": share, "drop_unlabelled": arm.frames == "labelled" and share < 1},
        "losses": losses[arm.targets],
    }


@dataclass
class Ten:
    """All of one call."""

    bench: Bench
    phones: Path
    members: int
    waits: list[str] = field(default_factory=list)

    @property
    def data(self) -> str:
        return f"csv:{self.phones / 'frames.csv'}"

    @cached_property
    def more(self) -> float:
        """How many times as many frames there are with those without a transcript."""
        with (self.phones / "frames.csv").open(encoding="utf-8", newline="") as file:
            train = [row["split"] for row in csv.DictReader(file)].count("train")
        with (self.phones / "unlabelled.csv").open(encoding="utf-8", newline="") as file:
            return 1 + len([*csv.DictReader(file)]) / train

    def members_of(self, case: Case) -> list[Path]:
        return [self.bench.work / case.name / f"member-{number}" for number in range(self.members)]

    def students(self, case: Case, arm: str, temperature: int | None) -> list[Path]:
        """Of an arm, one a seed; whether they are there or not."""
        heat = "" if temperature is None else f"-t{temperature}"
        folder = self.bench.work / case.name / f"of-{self.members}"
        return [folder / f"{arm}{heat}-{seed}" for seed in self.bench.seeds]

    def finished(self, runs: Sequence[Path]) -> bool:
        return all((run / "student.json").is_file() for run in runs)

    def taught(self, case: Case, name: str) -> list[Path]:
        """Those that are there, with the temperature that was chosen."""
        arm = case.arms[name]
        heat = self.temperature(case, arm)
        if arm.tried and heat is None:
            return []
        return [run for run in self.students(case, name, heat) if self.finished([run])]

    def epochs(self, case: Case, arm: Arm) -> int:
        """For about as many steps as a member makes, or so many times as many."""
        frames = {"labelled": 1.0, "all": 1 / case.share, "more": self.more / case.share}[arm.frames]
        return max(1, round(case.epochs * arm.times / frames))

    def work_through(self, case: Case) -> None:
        """Train what is missing: members, arms in which temperatures are tried, then the others."""
        for seed, member in enumerate(self.members_of(case), FIRST_MEMBER):
            recipe = recipe_of(Arm("labels"), case.members_share, case.members_epochs, None, seed)
            self.train(["--teacher", "self"], recipe, member)
        if not self.finished(self.members_of(case)):
            return
        for name, arm in sorted(case.arms.items(), key=lambda item: item[1].tried != item[0]):
            heats = TEMPERATURES if arm.tried == name and case.tried == case.name else (self.temperature(case, arm),)
            if arm.tried and None in heats:
                self.waits.append(f"{case.name}/{name}")
                continue
            for heat in heats:
                for seed, run in zip(self.bench.seeds, self.students(case, name, heat), strict=True):
                    recipe = recipe_of(arm, case.share, self.epochs(case, arm), heat, seed)
                    self.train(self.teaching(case, arm), recipe, run)

    def teaching(self, case: Case, arm: Arm) -> list[str]:
        """Options: who teaches, where the answers are kept, and what else there is to hear."""
        if arm.targets == "labels":
            return ["--teacher", "self"]
        teachers = [part for member in self.members_of(case) for part in ("--teacher", f"run:{member}")]
        kept_in = "off" if arm.mixup else str(self.bench.work / "answers")
        more = ["--unlabelled", f"csv:{self.phones / 'unlabelled.csv'}"] if arm.frames == "more" else []
        return [*teachers, "--teacher-cache", kept_in, *more]

    def train(self, options: list[str], recipe: dict[str, Any], out: Path) -> bool:
        file, text = out.with_suffix(".json"), json.dumps(recipe)
        if file.is_file() and file.read_text(encoding="utf-8") != text:
            sys.exit(f"{file} is another recipe than it is now: remove it and {out}, or take another --work")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")
        command = ["distill", *options, "--data", self.data, "--student", STUDENT, "--recipe", str(file)]
        return self.bench.train(command, out)

    def temperature(self, case: Case, arm: Arm) -> int | None:
        """The one of the best mean validation accuracy; None where not all were tried, or none is needed."""
        if arm.tried is None:
            return None
        decides = replace(case, name=case.tried)
        tried = {heat: self.students(decides, arm.tried, heat) for heat in TEMPERATURES}
        if not all(self.finished(runs) for runs in tried.values()):
            return None
        return max(tried, key=lambda heat: statistics.fmean(validations(tried[heat])))


def validations(runs: Sequence[Path]) -> list[float]:
    """Percent, of the kept epoch."""
    records = [json.loads((run / "student.json").read_text(encoding="utf-8")) for run in runs]
    return [100 * record["validation"]["accuracy"] for record in records]
