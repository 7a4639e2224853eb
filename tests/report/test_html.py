"""report.html: one file that fetches nothing, in which names are text, and every number is what was measured."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.report import build_report, check, finish, refresh, to_html
from compressor.report.answers import counts_of
from compressor.report.html.svg import Scale
from compressor.report.html.text import shown
from compressor.report.latency import figure_at
from compressor.report.next_step import next_step
from compressor.report.read import read_results
from compressor.report.render.text import NOT_MEASURED, number, p_value, share
from compressor.schema.base import read_json
from compressor.schema.measurement import Measurement
from compressor.schema.race import Contender, LossRace, Race, Trial
from compressor.schema.report import (
    Estimate,
    Gained,
    LengthAccuracy,
    LengthLatency,
    Lengths,
    RealTime,
    RealTimeRow,
    Spread,
)
from compressor.stats import (
    Interval,
    agreement,
    balanced_accuracy,
    balanced_retention,
    difference,
    log_softmax,
    mcnemar,
    paired_ratio,
    percentile,
    retained,
    retention,
    retention_per_class,
    wilson_interval,
)
from tests.kit import Ended, by_classes, score_of
from tests.report.conftest import N, logits_for

Make = Callable[..., Path]
Kdc = Callable[..., Ended]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(2)>\"'&amp;|`]]>--></script><!--\n\r\x1b[31mred\x00\u202eright"
    "\u2066 {{ 7 * 7 }} {% raw %} 😀 שלום ` | \\ " + "long " * 2_000
)
FIRST = score_of(100, 90, 95, by_class=by_classes((34, 32, 30), (36, 35, 33), (30, 28, 27)))
LAST = score_of(100, 94, 95, by_class=by_classes((34, 32, 32), (36, 35, 34), (30, 28, 28)))
CLASS = re.sub("[\x00-\x1f\u2028-\u202e\u2066-\u2069]", " ", HOSTILE)[:990]
"""As the name of a class may be."""
LADDER = [
    {
        "rung": "ptq",
        "how": "min and max",
        "score": FIRST.model_dump(),
        "seconds": 1.4,
        "bytes": 123_456,
        "taken": False,
    },
    {"rung": "qat", "how": "trained on", "score": LAST.model_dump(), "seconds": 64.0, "bytes": 130_000, "taken": True},
]
VARIANTS: dict[str, dict[str, Any]] = {
    "ort-fp32": {"wrong": 10},
    "ort-int8": {
        "precision": "int8",
        "executed": "int8",
        "wrong": 13,
        "p50": 1.1,
        "repeat": 40_000,
        "rungs": LADDER,
        "score": LAST.model_dump(),
    },
    "openvino-f32": {"runtime": "openvino", "precision": "f32", "executed": "f32", "p50": 1.9, "wrong": 12},
    "teacher": {"role": "teacher", "wrong": 6, "p50": 6.0},
}
BUDGETS: dict[str, dict[str, Any]] = {
    "pass": {"budget": {"p50_ms": 2.5, "min_retention": 0.8}},
    "fail": {"budget": {"p50_ms": 0.5, "size_mb": 0.1}},
    "inconclusive": {"budget": {"min_accuracy": 0.95}, "variants": {"ort-fp32": {"wrong": 10}}},
    "unmeasured": {"budget": {"p50_ms": 2.5}, "measured": False},
}


class Page(HTMLParser):
    """What a page is made of: tags and their attributes, figures by what they are, and the cells of tables."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[tuple[str, str]] = []
        self.cells: list[tuple[str, str]] = []
        self.words, self.data = "", ""
        self._figure: list[str] | None = None
        self._cell: list[str] | None = None
        self._depth, self._raw = 0, ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags.append((tag, given))
        if tag in ("script", "style"):
            self._raw = "data" if given.get("id") == "data" else "code"
        if self._figure is not None:
            self._depth += tag == "span"
        elif "data-of" in given:
            self._figure, self._depth, self._of = [], 1, str(given["data-of"])
        if tag == "td":
            self._cell, self._label = [], str(given["data-label"])

    def handle_endtag(self, tag: str) -> None:
        if tag in ("script", "style"):
            self._raw = ""
        if self._figure is not None and tag == "span":
            self._depth -= 1
            if not self._depth:
                self.figures.append((self._of, "".join(self._figure)))
                self._figure = None
        if tag == "td" and self._cell is not None:
            self.cells.append((self._label, "".join(self._cell)))
            self._cell = None

    def handle_data(self, data: str) -> None:
        if self._raw == "data":
            self.data += data
        if self._raw:
            return
        self.words += data
        if self._figure is not None:
            self._figure.append(data)
        elif self._cell is not None:
            self._cell.append(data)


def page_of(bundle: Path) -> Page:
    return Page(to_html(bundle, build_report(bundle)))


@pytest.mark.parametrize("state", BUDGETS)
def test_the_first_screen(make_bundle: Make, state: str) -> None:
    bundle = make_bundle(**{"variants": VARIANTS, **BUDGETS[state]})
    report, text = build_report(bundle), to_html(bundle, build_report(bundle))
    page = Page(text)
    assert report.verdict == state
    first = page.words[: page.words.index("Move a limit")]
    assert state in first
    assert f"Ships: {report.winner or 'none can be chosen'}" in first
    for title in ("latency, p50", "size", "retention"):
        assert title in first
    assert ("What to try next" in first) == (state != "pass")
    assert ("Nothing was measured" in first) == (state == "unmeasured")
    assert "://" not in re.sub(r"<script.*?</script>", "", text, flags=re.S), "it fetches nothing"
    assert len(text) < 1_500_000


@pytest.mark.parametrize("state", BUDGETS)
@pytest.mark.parametrize("teacher", [True, False], ids=["beside a teacher", "alone"])
def test_texts_and_sounds_in_each_state(make_bundle: Make, state: str, teacher: bool) -> None:
    """A device that could not be reached has no latency by length, and a page all the same."""
    variants = {name: each for name, each in VARIANTS.items() if teacher or each.get("role") != "teacher"}
    bundle = make_bundle(**{**BUDGETS[state], "variants": variants})
    report, tokens = build_report(bundle), Spread(median=9, lowest=3, highest=20, n=N)
    first = report.rows[0]
    timed = (LengthLatency(variant=first.name, length=24, p50_ms=first.p50_ms, p90_ms=None, p50_ratio=None),)
    scored = () if first.accuracy is None else (
        LengthAccuracy(variant=first.name, low=1, high=20, accuracy=first.accuracy, retention=None),
    )  # fmt: skip
    for latency, accuracy in ((timed, scored), ((), scored), (timed, ()), ((), ())):
        lengths = Lengths(timed=24, test_tokens=tokens, latency=latency, accuracy=accuracy)
        told = Page(to_html(bundle, report.model_copy(update={"sample": "text", "lengths": lengths}))).words
        assert "Test samples have 9.00 tokens in the median" in told
        assert ("Latency by length" in told) == bool(latency)
        assert ("Accuracy by length" in told) == bool(accuracy)
    read = RealTimeRow(variant=first.name, seconds=0.5, ms_per_second=None, factor=None)
    told = Page(to_html(bundle, report.model_copy(update={"real_time": RealTime(rows=(read,))}))).words
    assert "Against real time" in told


@pytest.mark.parametrize(("share", "said"), [(0.5, "2.00 times smaller"), (2, "2.00 times larger")])
def test_what_is_no_smaller_than_the_teacher_is_said_to_be_larger(make_bundle: Make, share: float, said: str) -> None:
    bundle = make_bundle(variants=VARIANTS, **BUDGETS["pass"])
    report = build_report(bundle)
    rows = [
        row.model_copy(update={"size_bytes": 1_000_000 if row.role == "teacher" else int(share * 1_000_000)})
        for row in report.rows
    ]
    assert said in Page(to_html(bundle, report.model_copy(update={"rows": tuple(rows)}))).words


@pytest.mark.parametrize("state", ["fail", "inconclusive", "unmeasured"])
def test_what_to_try_next_is_what_report_md_says(make_bundle: Make, state: str) -> None:
    bundle = make_bundle(**{"variants": VARIANTS, **BUDGETS[state]})
    step = next_step(build_report(bundle))
    assert step is not None
    words = page_of(bundle).words
    told = f"{step.command}: {step.why}" if step.command else step.why
    assert told in " ".join(words[words.index("What to try next") :].split())


def test_it_lies_beside_the_other_reports_and_is_sealed(make_bundle: Make, kdc: Kdc, tmp_path: Path) -> None:
    bundle = make_bundle(variants=VARIANTS)
    report = finish(bundle)
    written = (bundle / "report.html").read_text(encoding="utf-8")
    assert written == to_html(bundle, report), "the same bundle is the same page"
    assert "  report.html\n" in (bundle / "SHA256SUMS").read_text()
    check(bundle)
    (bundle / "report.html").write_text("an older one", encoding="utf-8")
    assert kdc("check", bundle).code == 2
    refresh(bundle)
    assert (bundle / "report.html").read_text(encoding="utf-8") == written
    check(bundle)
    before = (bundle / "report.html").stat().st_mtime_ns
    refresh(bundle)
    assert (bundle / "report.html").stat().st_mtime_ns == before, "nothing is new, so nothing is written"
    assert kdc("report", bundle, "--format", "html", "--out", tmp_path / "x.html").code == 0
    assert (tmp_path / "x.html").read_text(encoding="utf-8") == written
    assert kdc("report", bundle, "--format", "html").out == written


TEXTS = """
import sys
from pathlib import Path
from compressor.report import build_report, texts_of
from compressor.report.read import read_results
bundle = Path(sys.argv[1])
print(*texts_of(bundle, build_report(bundle), read_results(bundle)).values(), sep="\\n")
"""


@pytest.mark.slow
def test_every_process_writes_the_same_bytes(make_bundle: Make) -> None:
    """Sets of strings come in another order in each: the budget in the page's data once did."""
    bundle = make_bundle(variants=VARIANTS, budget={"p50_ms": 3, "size_mb": 20, "min_retention": 0.5, "p90_ms": 4})
    texts = {
        subprocess.run(
            [sys.executable, "-c", TEXTS, str(bundle)], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True,
            text=True, check=True,
        ).stdout
        for seed in "123"
    }  # fmt: skip
    assert len(texts) == 1


def test_names_are_text(make_bundle: Make, edit_json: Edit) -> None:
    bundle = make_bundle(variants={**VARIANTS, "broken": {"error": HOSTILE}}, notes=(HOSTILE,))
    plain = make_bundle(variants={**VARIANTS, "broken": {"error": "no"}}, notes=("a note",))
    tags = {tag for tag, _ in page_of(plain).tags}
    bundle = make_bundle(variants={**VARIANTS, "broken": {"error": HOSTILE}}, notes=(HOSTILE,))

    def spoil(values: dict[str, Any]) -> None:
        student = values["student"]
        student["class_names"] = [f"{number} {CLASS}" for number in range(3)]
        student["architecture"] = student["init"] = student["kept_rule"] = HOSTILE
        student["data"] |= {"source": HOSTILE, "notes": [HOSTILE]}
        student["environment"]["packages"] = {HOSTILE: HOSTILE}
        values["teacher"] |= {"source": HOSTILE, "licence": HOSTILE}
        values["profile"]["device"]["cpu"]["value"] = HOSTILE
        for variant in values["variants"]:
            variant["weight_bytes"] = {HOSTILE: 5_000_000}

    edit_json(bundle / "bundle.json", spoil)
    edit_json(bundle / "measurements/measurement.json", lambda found: found["machine_before"].update(cpu=HOSTILE))
    (bundle / "eval" / "ids.txt").write_text("\n".join([CLASS] * N) + "\n")
    text = to_html(bundle, build_report(bundle))
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= tags
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    assert not [name for _, given in page.tags for name in given if name.startswith("on")]
    assert all((given.get("src") or "data:").startswith("data:") for _, given in page.tags)
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text), "nothing in it acts"
    assert shown(HOSTILE, 60).removesuffix("…") in page.words
    assert "{{ 7 * 7 }}"[:4] not in page.words or "49" not in shown(HOSTILE)
    data = json.loads(page.data)
    assert data["judge"]["class_names"][0] == shown(f"0 {CLASS}", 60)
    assert "</script>" not in page.data
    assert len(text) < 1_500_000


def estimated(found: Interval | None, *, percent: bool = False, missing: str = NOT_MEASURED) -> str:
    if found is None:
        return missing
    value, low, high = ((share if percent else number)(part) for part in (found.value, found.low, found.high))
    return f"{value} [{low}–{high}]"


def spread_of(values: list[float]) -> str:
    return f"{number(float(np.median(values)))} [{number(min(values))}–{number(max(values))}], n = {len(values)}"


class Anew:
    """Every figure from the raw samples, the logits and the manifest, on a way of its own."""

    def __init__(self, bundle: Path) -> None:
        self.bundle = json.loads((bundle / "bundle.json").read_text())
        self.measured = read_json(bundle / "measurements/measurement.json", Measurement)
        self.labels = np.load(bundle / "eval/labels.npy")
        self.names = [variant["name"] for variant in self.bundle["variants"]]
        self.contestants = {found.variant: found for found in self.measured.contestants}
        self.top = {name: np.load(bundle / f"measurements/{name}.npy").argmax(axis=1) for name in self.names}
        self.torch = {v["name"]: np.load(bundle / v["reference_logits"]) for v in self.bundle["variants"]}
        self.logits = {name: np.load(bundle / f"measurements/{name}.npy") for name in self.names}
        self.classes = len(self.bundle["student"]["class_names"])
        self.right = {name: top == self.labels for name, top in self.top.items()}

    def blocks(self, name: str) -> dict[int, tuple[float, ...]]:
        return {block.round: block.wall_ms for block in self.measured.blocks if block.variant == name}

    def row(self, index: int, of: str) -> str:
        name = self.names[index]
        student = name != "teacher"
        ours, theirs = self.right[name], self.right["teacher"]
        entry = self.bundle["variants"][index]
        if of in ("p50_ms", "p90_ms"):
            return estimated(percentile(list(self.blocks(name).values()), 0.5 if of == "p50_ms" else 0.9))
        if of == "cpu_p50_ms":
            return estimated(percentile([b.cpu_ms for b in self.measured.blocks if b.variant == name], 0.5))
        if of in ("p50_ratio", "fp32_ratio"):
            other = "teacher" if of == "p50_ratio" else "ort-fp32"
            return "–" if other == name else estimated(paired_ratio(self.blocks(other), self.blocks(name)))
        shares: dict[str, Callable[[], Interval]] = {
            "accuracy": lambda: wilson_interval(int(ours.sum()), len(ours)),
            "balanced_accuracy": lambda: balanced_accuracy(self.top[name], self.labels, self.classes),
            "retention": lambda: retention(ours, theirs),
            "balanced_retention": lambda: balanced_retention(ours, theirs, self.labels, self.classes),
            "agreement": lambda: agreement(self.top[name], self.top["teacher"]),
        }
        if of in shares:
            return estimated(shares[of](), percent=True) if student or "acc" in of else "–"
        return self.rest(name, entry, of)

    def rest(self, name: str, entry: dict[str, Any], of: str) -> str:
        student, found = name != "teacher", self.contestants[name]
        ours, theirs = self.right[name], self.right["teacher"]
        if of in ("start_ms", "load_ms", "first_ms"):
            return spread_of([getattr(start, of) for start in found.starts])
        if of == "difference":
            gap = difference(ours, theirs)
            signed = [f"{100 * part:+.1f}".replace("-", "−") for part in (gap.value, gap.low, gap.high)]
            return "{} [{} to {}]".format(*signed) if student else "–"
        if of == "mcnemar":
            return p_value(mcnemar(ours, theirs).p_value) if student else "–"
        if of == "worst_retention":
            kept = [part for part in retention_per_class(ours, theirs, self.labels, self.classes) if part]
            return self.worst(kept) if student else "–"
        if of == "worst_class":
            per = [(ours[self.labels == k].sum(), (self.labels == k).sum()) for k in range(self.classes)]
            return self.worst([wilson_interval(int(right), int(n)) for right, n in per])
        return self.plain(name, entry, of)

    def worst(self, kept: list[Interval]) -> str:
        worst = min(range(len(kept)), key=lambda k: kept[k].value)
        return f"class {worst}: {estimated(kept[worst], percent=True)}, n = {kept[worst].n}"

    def plain(self, name: str, entry: dict[str, Any], of: str) -> str:
        found, torch = self.contestants[name], self.torch[name].astype(float)
        size = sum(file["bytes"] for file in entry["files"]) / 1e6
        images = [[w.calls / w.seconds for w in mode.windows] for mode in found.throughput]
        fastest = max(range(len(images)), key=lambda k: float(np.median(images[k])))
        told, mode = images[fastest], found.throughput[fastest]
        gap = self.logits[name].astype(float) - torch
        joules = [w.joules / w.calls for w in mode.windows if w.joules]
        values = {
            "size": number(size),
            "compressed": number(entry["compressed_bytes"] / 1e6),
            "weights": "float32 0.600, int64 < 0.001",
            "parameters": number(entry["parameters"] / 1e6),
            "macs": number(entry["macs"] / 1e6),
            "executed": found.executed_precision,
            "runtime": f"{entry['runtime']} {found.runtime_version}",
            "memory": f"{number(found.idle_rss_mb or 0)} → {number(found.peak_rss_mb or 0)}",
            "throughput": f"{spread_of(told)} ({mode.streams} × {mode.threads} threads)",
            "joules": spread_of(joules),
            "cosine": "1.000000",
            "sqnr": NOT_MEASURED if not gap.any() else f"{10 * np.log10((torch**2).sum() / (gap**2).sum()):.1f}",
            "same": share(float((self.top[name] == torch.argmax(axis=1)).mean())),
        }  # fmt: skip
        return str(values[of])

    def counted(self, of: str) -> str:
        """What stands outside of the tables of variants."""
        what, *at = of.split("/")
        numbers = [int(part) for part in at if part.isdigit()]
        if what == "smaller":
            sizes = [sum(file["bytes"] for file in entry["files"]) for entry in self.bundle["variants"]]
            return number(sizes[self.names.index("teacher")] / sizes[numbers[0]])
        name = self.names[numbers[0]] if numbers else ""
        ours, theirs = self.right.get(name), self.right["teacher"]
        assert ours is not None
        if what in ("lost", "gained"):
            return f"{int((~ours & theirs if what == 'lost' else ours & ~theirs).sum())} of {N}"
        if what in ("class", "counted"):
            of_class = self.labels == numbers[1]
            x, y, both = (int(part[of_class].sum()) for part in (ours, theirs, ours & theirs))
            n = int(of_class.sum())
            counted = f"{x} of {n}, the teacher {y}"
            return estimated(retained(x, y, both, n), percent=True) if what == "class" else counted
        rung = self.bundle["variants"][numbers[0]]["rungs"][numbers[1]]
        score = rung["score"]
        by = score["by_class"]
        lost = (score["reference_correct"] - score["correct"]) / score["n"]
        balanced = np.mean([(a - b) / n for a, b, n in zip(by["reference"], by["correct"], by["n"], strict=True)])
        values = {
            "right": f"{score['correct']} of {score['n']}",
            "drop": f"{100 * lost:+.2f}", "balanced": f"{100 * balanced:+.2f}",
            "close": "lowest cosine 1.000, SQNR 60.0 dB", "seconds": f"{rung['seconds']:.0f}",
            "size": number(rung["bytes"] / 1e6),
        }  # fmt: skip
        return values[at[-1]]

    def line(self, variant: str, line: str) -> str:
        """What the report says was measured of a line of the budget."""
        index = self.names.index(variant)
        shown_as = {
            "size_mb": ("size", "{} MB"), "p50_ms": ("p50_ms", "{} ms (n = 40 blocks of 6 calls)"),
            "min_speedup": ("p50_ratio", "{} × (n = 40 rounds)"),
            "min_retention": ("retention", f"{{}} % (n = {N} test samples)"),
            "min_accuracy": ("accuracy", f"{{}} % (n = {N} test samples)"),
            "min_balanced_retention": ("balanced_retention", f"{{}} % (n = {N} test samples)"),
        }  # fmt: skip
        if line == "size_mb":
            return f"{number(sum(f['bytes'] for f in self.bundle['variants'][index]['files']) / 1e6, 4)} MB"
        if line == "min_class_retention":
            return (
                f"lowest: {self.row(index, 'worst_retention').replace(', n', ' % (n').replace(': ', ' ')} of the class)"
            )
        if line in shown_as:
            of, text = shown_as[line]
            return text.format(self.row(index, of))
        same, sqnr = self.row(index, "same"), self.row(index, "sqnr")
        noise = "no noise" if sqnr == NOT_MEASURED else f"SQNR {sqnr} dB"
        return {
            "runs": "ran", "precision": self.row(index, "executed"),
            "max_drop": "+1.00 points, balanced +0.93 (n = 100 validation samples)",
            "parity": f"cosine 1.000000, {noise}, same top-1 {same} % (n = {N})",
        }[line]  # fmt: skip


def test_every_number_is_what_was_measured(make_bundle: Make) -> None:
    logits = logits_for(np.arange(N) % 3, 3, 13)
    noisy = logits + np.random.default_rng(5).normal(0, 1e-3, logits.shape).astype(np.float32)
    variants = {**VARIANTS, "ort-int8": {**VARIANTS["ort-int8"], "logits": noisy, "reference": logits}}
    budget = {"p50_ms": 1.5, "size_mb": 0.9, "min_speedup": 2, "min_retention": 0.9, "min_accuracy": 0.9}
    bundle = make_bundle(variants=variants, budget=budget, spread=0.1)
    report, anew = build_report(bundle), Anew(bundle)
    page = page_of(bundle)
    kinds = set()
    for of, text in page.figures:
        what, *at = of.split("/")
        kinds.add(what)
        if what == "row":
            assert text == anew.row(int(at[0]), at[1]), of
        elif what == "check":
            told = report.checks[int(at[0])]
            assert text == anew.line(told.variant, told.line), of
        else:
            assert text == anew.counted(of), of
    drawn = re.findall(r"([\d.]+) MB</text>", to_html(bundle, report))
    assert drawn == [number(row.size_bytes / 1e6) for row in report.rows]
    assert kinds == {"row", "check", "class", "counted", "lost", "gained", "rung", "smaller"}
    assert len(page.figures) > 150
    words = {"limit", "reason", "how"}
    assert not [cell for cell in page.cells if re.search(r"\d", cell[1]) and cell[0] not in words], "not looked up"


def test_what_is_embedded_is_what_was_measured(make_bundle: Make) -> None:
    bundle = make_bundle(variants=VARIANTS, budget={"p50_ms": 1.5})
    data, results = json.loads(page_of(bundle).data), read_results(bundle)
    assert results.measurement is not None
    names = [variant.name for variant in results.bundle.variants]
    for variant in data["raw"]["variants"]:
        timed = [list(b.wall_ms) for b in results.measurement.blocks if b.variant == names[variant["row"]]]
        assert variant["blocks"] == timed
    for student in data["judge"]["students"]:
        p50 = figure_at("p50_ms", results, student["name"], data["raw"]["confidence"])
        assert p50 is not None
        assert student["bases"]["p50_ms"]["low"] == p50.low
        counts = counts_of(results, student["name"])
        assert counts is not None
        assert (student["right"], student["both"]) == (counts.right.tolist(), counts.both.tolist())
    explored, logits = data["explorer"], np.load(bundle / "eval/teacher-logits.npy").astype(float)
    assert explored["n"] == N
    for temperature, mean in zip(explored["temperatures"], explored["mean"], strict=True):
        logs = log_softmax(logits, temperature)
        assert mean["confidence"] == pytest.approx(float(np.exp(logs).max(axis=1).mean()))
        assert mean["entropy"] == pytest.approx(float(-(np.exp(logs) * logs).sum(axis=1).mean()))
    ids = (bundle / "eval/ids.txt").read_text().splitlines()
    for sample in explored["samples"]:
        rows = np.flatnonzero(np.isclose(logits, sample["logits"], rtol=1e-5).all(axis=1))
        assert results.labels[rows[0]] == sample["label"]
        assert sample["name"] in ids


def test_pictures_and_training_are_shown_where_the_bundle_has_them(make_bundle: Make, edit_json: Edit) -> None:
    bundle = make_bundle(variants=VARIANTS)
    page = page_of(bundle)
    assert not [given for tag, given in page.tags if tag == "img"]
    assert "No images: the bundle holds the inputs of 2 of 200 test samples" in page.words
    assert "Not in the bundle." in page.words
    inputs = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3)).astype(np.uint8)
    for name in VARIANTS:
        np.save(bundle / f"eval/{name}-inputs.npy", inputs)
    rows = [
        {"epoch": epoch, "loss": {"kd": 6 / epoch, HOSTILE[:60]: 1.0}, "validation": {"accuracy": 0.9, "n": 145}}
        for epoch in range(1, 6)
    ]
    (bundle / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"bias": {}}, 7]))
    listed = {"path": "history.jsonl", "sha256": "0" * 64, "bytes": 1}
    edit_json(bundle / "bundle.json", lambda values: values["support"].append(listed))
    page = page_of(bundle)
    lost = sum((np.arange(N) >= 6) & (np.arange(N) < 13))
    assert len([given for tag, given in page.tags if tag == "img"]) == lost, "those of ort-int8, which ships"
    assert "kd, weight 1: ends at 1.20 × 1 = 1.20" in page.words
    assert "accuracy on validation, % (n = 145)" in page.words
    (bundle / "history.jsonl").write_text("{" * 100_000)
    assert "Not in the bundle." in page_of(bundle).words


def test_the_race_and_the_gain(make_bundle: Make) -> None:
    def share_of(value: float) -> Estimate:
        return Estimate(value=value, low=value - 0.05, high=value + 0.05, n=1000, of="validation samples")

    def trial(student: str, epochs: int, value: float) -> Trial:
        return Trial(student=student, epochs=epochs, steps=9, accuracy=share_of(value), seconds=1.0, inputs={})

    p50 = Estimate(value=2.0, low=1.9, high=2.1, n=30, of="blocks")
    race = Race(
        contenders=(Contender(student="timm:a"), Contender(student=HOSTILE, variant="x", p50_ms=p50, size_mb=1.25)),
        why="of 9 candidates the budget admits 2",
        share=0.5,
        planned=7,
        rounds=((trial("timm:a", 1, 0.9), trial(HOSTILE, 1, 0.8)), (trial(HOSTILE, 3, 0.93),)),
        failed={},
        winner=HOSTILE,
        lead=None,
        reason="it has the highest validation accuracy",
    )
    losses = LossRace(
        arms={"default": {"kd": 0.9, "pkd": 10.0}, "labels alone": {"kd": 0.0, "pkd": 0.0}},
        epochs=4,
        trials=tuple(
            trial("a", 4, value).model_copy(update={"arm": arm})
            for arm, value in (("labels alone", 0.8), ("default", 0.7))
        ),
        in_full=(trial("a", 9, 0.82).model_copy(update={"arm": "labels alone"}),),
        failed={"another": HOSTILE},
        winner="labels alone",
        lead=None,
        reason="it was best on validation",
    )
    gain = Gained(validation=share_of(0.02), test=share_of(0.03), control_accuracy=share_of(0.9), steps=5, samples=9)
    bundle = make_bundle(variants=VARIANTS)
    results = read_results(bundle)
    page = Page(
        to_html(bundle, build_report(bundle).model_copy(update={"race": race, "gain": gain, "losses": losses}), results)
    )
    figures = dict(page.figures)
    assert figures["gain"] == "+3.0 [−2.0 to +8.0]"
    assert {of: text for of, text in figures.items() if of.startswith("race/")} == {
        "race/1/p50": "2.00 [1.90–2.10]", "race/1/size": "1.25", "race/1/0": "80.0 [75.0–85.0]",
        "race/1/1": "93.0 [88.0–98.0]", "race/0/p50": NOT_MEASURED, "race/0/size": NOT_MEASURED,
        "race/0/0": "90.0 [85.0–95.0]", "race/0/1": "–",
    }  # fmt: skip
    weighed = {of: text for of, text in figures.items() if of.startswith("losses/")}
    assert list(weighed.values()) == [
        "0", "0", "80.0 [75.0–85.0]", "82.0 [77.0–87.0]", "0.9", "10", "70.0 [65.0–75.0]", "–",
    ]  # fmt: skip
    assert "after 9 epochs" in page.words
    assert "no control was trained" in page.words, "the record of the student has none"


@pytest.mark.parametrize("kind", ["probabilities", "top-k", "labels"])
def test_a_teacher_that_is_a_table(make_bundle: Make, kind: str) -> None:
    answers = logits_for(np.arange(N) % 3, 3, 6)
    given = np.asarray(log_softmax(answers), np.float32) if kind == "probabilities" else answers.argmax(axis=1)
    bundle = make_bundle({"ort-fp32": {"wrong": 10}}, table=(kind, given))
    page = page_of(bundle)
    assert ("nothing is known of its other classes" in page.words) == (kind != "probabilities")
    assert bool(json.loads(page.data)["explorer"]["samples"]) == (kind == "probabilities")
    assert f"teacher: {estimated(wilson_interval(N - 6, N), percent=True)} %" in page.words


def test_nothing_at_all(make_bundle: Make) -> None:
    """One student, no teacher, no measurement; and a bundle that has no student."""
    page = page_of(make_bundle({"ort-fp32": {}}, measured=False))
    assert "No temperature to explore: the bundle holds no teacher" in page.words
    assert "the bundle holds no measurement" in page.words
    page = page_of(make_bundle({"ort-fp32": {"role": "reference"}}))
    assert "the bundle has no student variant" in page.words


def test_scales() -> None:
    assert Scale(0.2, 30.0, 0, 1, log=True).ticks == [0.2, 0.5, 1, 2, 5, 10, 20]
    assert Scale(97.0, 99.5, 0, 1).ticks == [97, 97.5, 98, 98.5, 99, 99.5]
    assert Scale(1.0, 100.0, 0, 2, log=True).at(10) == 1
    assert Scale(1.0, 1e9, 0, 1, log=True).ticks == [1, 100, 1e4, 1e6, 1e8]


LARGE = """
import json, sys, time
from dataclasses import replace
from pathlib import Path
import numpy as np
from compressor.report import summary, texts_of
from compressor.report.build import report_of
from compressor.report.read import Answers, read_results
from compressor.report.arrays import open_array
from compressor.stats import ParityFigures
from compressor.terminal.console import rendered_text

folder, count, classes = Path(sys.argv[1]), 50_000, 1_000
results = read_results(folder)
rng = np.random.default_rng(0)
labels = np.arange(count) % classes
def sparse(name, shape, dtype):
    with (folder / name).open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
        file.truncate(file.tell() + int(np.prod(shape)) * np.dtype(dtype).itemsize)
    return open_array(folder / name)
logits = sparse("eval/large.npy", (count, classes), "<f4")
sparse("eval/student-0-inputs.npy", (count, 224, 224, 3), "|u1")
def answers(share):
    top = np.where(rng.random(count) < share, labels, (labels + 1) % classes)
    return Answers(top, None, ParityFigures(count, count, 0, 1.0, 90.0))
bundle = results.bundle.model_copy(update={"eval": results.bundle.eval.model_copy(update={"n": count})})
results = replace(results, bundle=bundle, labels=labels, references=dict.fromkeys(results.references, logits),
                  answers={name: answers(0.8) for name in results.answers})
started = time.process_time()
report = report_of(results)
texts = texts_of(folder, report, results)
shown = rendered_text(summary(report, "bundle"))
took = time.process_time() - started
# Not getrusage: its peak is that of the process that forked this one, too.
peak = next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
text = texts["report.html"]
told = [sorted(texts), max(map(len, shown.splitlines())), len(texts["report.md"])]
print(json.dumps([len(report.rows), took, peak / 1024, len(text.encode()), "th round: " in text, *told]))
"""


@pytest.mark.slow
def test_a_large_report_is_quick_and_small(make_bundle: Make) -> None:
    """1,000 classes, 30 variants, 50,000 test samples, in every format: what is drawn is thinned, and the page says
    so."""
    students = {f"student-{number}": {"p50": 2.0 + 0.1 * number} for number in range(29)}
    bundle = make_bundle({**students, "teacher": {"role": "teacher"}}, classes=1_000, rounds=400, budget={"p50_ms": 3})
    done = subprocess.run([sys.executable, "-c", LARGE, str(bundle)], capture_output=True, text=True, check=True)
    rows, took, peak, size, thinned, files, widest, markdown = json.loads(done.stdout)
    assert files == ["README.md", "junit.xml", "report.html", "report.json", "report.md"]
    assert (widest <= 80, markdown <= 65_536) == (True, True)
    print(f"{took:.1f} s, {peak:.0f} MB, {size} bytes")
    assert rows == 30
    assert took < 5, f"{took:.1f} s"
    assert peak < 500, f"{peak:.0f} MB"
    assert size < 1_500_000
    assert thinned


def test_of_too_many_classes_lines_stand_as_they_are(make_bundle: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their counts would not fit into the page."""
    bundle = make_bundle(variants=VARIANTS, budget={"min_class_recall": 0.9})
    report = build_report(bundle)
    assert json.loads(page_of(bundle).data)["judge"]["students"][0]["right"]
    monkeypatch.setattr(import_module("compressor.report.html.instrument"), "MOST_COUNTS", 5)
    for student in json.loads(page_of(bundle).data)["judge"]["students"]:
        assert not student["right"]
        told = {check.line: check.verdict for check in report.checks if check.variant == student["name"]}
        for line in ("min_class_retention", "min_class_recall"):
            assert student["bases"][line]["fixed"] == told[line]
            assert "not in this page" in student["bases"][line]["reason"]
