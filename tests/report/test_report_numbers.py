"""Every number in report.md is the one recomputed from the raw samples, the logits and the manifest."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from compressor.report import build_report, to_markdown
from compressor.report.render.text import number, p_value, share
from compressor.schema.base import read_json
from compressor.schema.measurement import Measurement
from compressor.stats import (
    Interval,
    agreement,
    balanced_accuracy,
    balanced_retention,
    difference,
    mcnemar,
    paired_ratio,
    percentile,
    retention,
    retention_per_class,
    wilson_interval,
)
from tests.report.conftest import N, logits_for

Make = Callable[..., Path]
TEACHER = "teacher"
WORDS = {"reason", "limit", "line", "architecture", "runtime", "variant", "verdict", "budget"}
"""Columns that hold words; what numbers stand in limits is the budget's."""


def told(interval: Interval, *, percent: bool = False) -> str:
    value, low, high = ((share if percent else number)(part) for part in (interval.value, interval.low, interval.high))
    return f"{value} [{low}–{high}]"


def spread(values: list[float]) -> str:
    return f"{number(float(np.median(values)))} [{number(min(values))}–{number(max(values))}], n = {len(values)}"


class Anew:
    """Figures by the titles of their columns, on a way of their own."""

    def __init__(self, bundle: Path) -> None:
        self.variants = {row["name"]: row for row in json.loads((bundle / "bundle.json").read_text())["variants"]}
        self.measured = read_json(bundle / "measurements/measurement.json", Measurement)
        self.ran = {contestant.variant: contestant for contestant in self.measured.contestants}
        self.labels = np.load(bundle / "eval/labels.npy")
        self.logits = {name: np.load(bundle / f"measurements/{name}.npy").astype(float) for name in self.variants}
        self.torch = {name: np.load(bundle / row["reference_logits"]) for name, row in self.variants.items()}
        self.top = {name: logits.argmax(axis=1) for name, logits in self.logits.items()}
        self.right = {name: top == self.labels for name, top in self.top.items()}
        self.classes = int(self.labels.max()) + 1

    def figure(self, name: str, title: str) -> str:
        for source in (self.latency, self.accuracy, self.artefact):
            if title in (figures := source(name)):
                return figures[title]()
        raise AssertionError(f"{title}: nobody looked that number up")

    def times(self, name: str) -> dict[int, tuple[float, ...]]:
        return {block.round: block.wall_ms for block in self.measured.blocks if block.variant == name}

    def latency(self, name: str) -> dict[str, Callable[[], str]]:
        walls, cpu = self.times(name), [block.cpu_ms for block in self.measured.blocks if block.variant == name]

        def ratio(base: str) -> str:
            return told(paired_ratio(self.times(base), walls))

        p50 = percentile(list(walls.values()), 0.5)
        p90, busy = percentile(list(walls.values()), 0.9), percentile(cpu, 0.5)
        assert p50 is not None
        assert p90 is not None
        assert busy is not None
        return {
            "p50 ms": lambda: told(p50),
            "p90 ms": lambda: told(p90),
            "CPU ms a call": lambda: told(busy),
            "times as fast": lambda: "1" if name == TEACHER else ratio(TEACHER),
            "times as fast as the teacher": lambda: "1" if name == TEACHER else ratio(TEACHER),
            "times as fast as fp32": lambda: ratio("ort-fp32"),
            "p50_ms": lambda: f"{told(p50)} ms (n = 40 blocks of 6 calls)",
            "min_speedup": lambda: f"{ratio(TEACHER)} × (n = 40 rounds)",
        }

    def accuracy(self, name: str) -> dict[str, Callable[[], str]]:
        ours, theirs = self.right[name], self.right[TEACHER]
        gap, kept = difference(ours, theirs), retention(ours, theirs)
        balanced = balanced_retention(ours, theirs, self.labels, self.classes)
        per_class = [(int(ours[self.labels == k].sum()), int((self.labels == k).sum())) for k in range(self.classes)]
        signed = [f"{100 * part:+.1f}".replace("-", "−") for part in (gap.value, gap.low, gap.high)]
        retained = [part for part in retention_per_class(ours, theirs, self.labels, self.classes) if part is not None]
        lowest = self.lowest(retained)
        top1 = told(wilson_interval(int(ours.sum()), N), percent=True)
        return {
            "accuracy %": lambda: top1,
            "balanced %": lambda: told(balanced_accuracy(self.top[name], self.labels, self.classes), percent=True),
            "retention %": lambda: "100" if name == TEACHER else told(kept, percent=True),
            "balanced retention %": lambda: told(balanced, percent=True),
            "difference, points": lambda: "{} [{} to {}]".format(*signed),
            "McNemar p": lambda: p_value(mcnemar(ours, theirs).p_value),
            "top-1 as the teacher %": lambda: told(agreement(self.top[name], self.top[TEACHER]), percent=True),
            "least retained class, %": lambda: lowest,
            "lowest recall, %": lambda: self.lowest([wilson_interval(*counts) for counts in per_class]),
            "min_accuracy": lambda: f"{top1} % (n = {N} test samples)",
            "min_retention": lambda: f"{told(kept, percent=True)} % (n = {N} test samples)",
            "min_balanced_retention": lambda: f"{told(balanced, percent=True)} % (n = {N} test samples)",
            "min_class_retention": lambda: f"lowest: {lowest.replace(', n', ' % (n').replace(': ', ' ')} of the class)",
        }

    def lowest(self, kept: list[Interval]) -> str:
        worst = min(range(len(kept)), key=lambda index: kept[index].value)
        return f"class {worst}: {told(kept[worst], percent=True)}, n = {kept[worst].n}"

    def artefact(self, name: str) -> dict[str, Callable[[], str]]:
        row, contestant, torch = self.variants[name], self.ran[name], self.torch[name].astype(float)
        size = sum(entry["bytes"] for entry in row["files"]) / 1e6
        images = [[window.calls / window.seconds for window in mode.windows] for mode in contestant.throughput]
        fastest = max(range(len(images)), key=lambda index: float(np.median(images[index])))
        mode, gap = contestant.throughput[fastest], self.logits[name] - torch
        joules = [window.joules / window.calls for window in mode.windows if window.joules]
        cosines = (self.logits[name] * torch).sum(1) / np.sqrt((self.logits[name] ** 2).sum(1) * (torch**2).sum(1))
        noise = f"{10 * np.log10((torch**2).sum() / (gap**2).sum()):.1f}" if gap.any() else None
        same = share(float((self.top[name] == torch.argmax(axis=1)).mean()))
        parity = (
            f"cosine {cosines.min():.6f}, {'no noise' if noise is None else f'SQNR {noise} dB'}, same top-1 {same} %"
        )
        starts: Any = {
            key: [getattr(start, key) for start in contestant.starts] for key in ("start_ms", "load_ms", "first_ms")
        }
        memory = (contestant.idle_rss_mb or 0, contestant.peak_rss_mb or 0)
        return {
            "size (MB)": lambda: number(size),
            "size MB": lambda: number(size),
            "files MB": lambda: number(size),
            "compressed MB": lambda: number(row["compressed_bytes"] / 1e6),
            "weights MB, by type": lambda: "float32 0.600, int64 < 0.001",
            "params (M)": lambda: number(row["parameters"] / 1e6),
            "MACs (M)": lambda: number(row["macs"] / 1e6),
            "images/s": lambda: number(float(np.median(images[fastest]))),
            "images/s, spread": lambda: spread(images[fastest]),
            "fastest as": lambda: f"{mode.streams} streams × {mode.threads} thread",
            "J/image, all of the machine": lambda: spread(joules),
            "start ms": lambda: spread(starts["start_ms"]),
            "of which: load ms": lambda: spread(starts["load_ms"]),
            "first call ms": lambda: spread(starts["first_ms"]),
            "RSS MB: idle → peak": lambda: " → ".join(map(number, memory)),
            "lowest cosine": lambda: f"{cosines.min():.6f}",
            "SQNR dB": lambda: str(noise),
            "top-1 as torch %": lambda: same,
            "ran as": lambda: str(contestant.executed_precision),
            "precision": lambda: str(contestant.executed_precision),
            "runs": lambda: "ran",
            "parity": lambda: f"{parity} (n = {N})",
            "size_mb": lambda: f"{number(size, 4)} MB",
        }


def tables(markdown: str) -> list[list[list[str]]]:
    found = re.findall(r"(?:^\|.*\n)+", markdown, re.MULTILINE)
    return [
        [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in text.splitlines()] for text in found
    ]


def test_every_number_is_the_one_that_was_measured(make_bundle: Make) -> None:
    logits = logits_for(np.arange(N) % 3, 3, 13)
    noisy = logits + np.random.default_rng(5).normal(0, 1e-3, logits.shape).astype(np.float32)
    variants = {
        "ort-fp32": {"wrong": 10},
        "ort-int8": {"precision": "int8", "executed": "int8", "p50": 1.2, "logits": noisy, "reference": logits},
        TEACHER: {"role": "teacher", "wrong": 6, "p50": 6.0},
    }
    budget = {"p50_ms": 1.5, "size_mb": 0.9, "min_speedup": 2, "min_retention": 0.9, "min_accuracy": 0.9}
    bundle = make_bundle(variants, budget, spread=0.1)
    anew, report, looked_up = Anew(bundle), build_report(bundle), 0
    assert report.winner == "ort-int8"
    for head, _, *rows in tables(to_markdown(report)):
        for row in rows:
            name = row[0].split("`")[1] if "`" in row[0] else ""
            for title, cell in zip(head, row, strict=True):
                if not re.search(r"\d", cell) or title in WORDS or (not title and "`" not in cell):
                    continue
                if head[0] == "":  # the head: a row a figure, of the variant that ships and of the teacher
                    name, title = (TEACHER if title == "the teacher" else "ort-int8"), row[0]
                elif title == "measured":
                    title, cell = row[1], re.sub(r": [\d.]+ .*(over|below|limit)$", "", cell)
                elif title == "images/s" and "[" in cell:
                    title = "images/s, spread"
                assert cell.removesuffix(" **slower**") == anew.figure(name, title), (name, title)
                looked_up += 1
    assert looked_up > 90
