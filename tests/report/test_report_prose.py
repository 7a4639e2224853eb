"""No number stands in report.md or report.html that cannot be recomputed: sentences, reasons and legends included.

test_report_numbers and test_html look up every cell and every figure in its place. Here all of the text is walked,
whatever it is a part of, and what no measurement, prediction, manifest or limit gives is found.
"""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.report import build_report, to_html, to_markdown
from compressor.report.render.text import number
from compressor.schema.report import Report
from compressor.stats import paired_ratio, percentile, widen
from tests.report.conftest import N, logits_for
from tests.report.test_html import LADDER, VARIANTS, Page
from tests.report.test_html import Anew as AnewOfPage
from tests.report.test_report_numbers import TEACHER, Anew

Make = Callable[..., Path]
TOKEN = re.compile(r"\d+(?:\.\d+)?")
BUDGET = {"p50_ms": 1.5, "size_mb": 0.9, "min_speedup": 2, "min_retention": 0.9, "min_accuracy": 0.9}
TITLES = (
    "p50 ms", "p90 ms", "CPU ms a call", "times as fast as the teacher", "times as fast as fp32", "accuracy %",
    "balanced %", "retention %", "balanced retention %", "difference, points", "McNemar p", "top-1 as the teacher %",
    "least retained class, %", "lowest recall, %", "size MB", "compressed MB", "weights MB, by type", "params (M)",
    "MACs (M)", "images/s", "images/s, spread", "fastest as", "J/image, all of the machine", "start ms",
    "of which: load ms", "first call ms", "RSS MB: idle → peak", "lowest cosine", "SQNR dB", "top-1 as torch %",
)  # fmt: skip
OF_THE_TEACHER = ("McNemar p", "difference, points", "top-1 as the teacher %", "least retained class, %")
# What stands there that nobody measured: names, units, versions, the manifest's words, and the scales of drawings.
NAMES = (
    "ort-fp32", "ort-int8", "openvino-f32", "fp32", "int8", "f32", "float32", "int64", "p50", "p90", "N100", "x86_64",
    "Python 3.11", "kdc 0.1.0", "1.22.0", "Linux 6.1", "2026-11-24T07:00:00Z", "10^6", "sha256", "top-1",
    "0" * 64, "small_net",
)  # fmt: skip
SCALES = ("0", "0.2", "0.4", "0.6", "0.8", "1", "2", "3", "4", "5", "10", "15", "20", "90", "95", "100")
MANIFEST = ("7", "30", "128")
"""The epoch that was kept; epochs and batch size of the recipe."""


class Apart(Page):
    """A page's words, those of each element apart."""

    def handle_data(self, data: str) -> None:
        super().handle_data(f" {data} " if not self._raw else data)


def words_of(bundle: Path, report: Report) -> str:
    return Apart(to_html(bundle, report)).words


def tokens(text: str) -> list[str]:
    for name in NAMES:
        text = text.replace(name, " ")
    return TOKEN.findall(text)


def made(make_bundle: Make) -> Path:
    logits = logits_for(np.arange(N) % 3, 3, 13)
    noisy = logits + np.random.default_rng(5).normal(0, 1e-3, logits.shape).astype(np.float32)
    variants = {**VARIANTS, "ort-int8": {**VARIANTS["ort-int8"], "logits": noisy, "reference": logits}}
    return make_bundle(variants, BUDGET, spread=0.1)


def decided(anew: Anew, names: list[str]) -> Iterator[str]:
    """What verdicts rest on, at the confidence that one look leaves; and the A/A of two copies."""
    copy, first = anew.times("ort-fp32-again"), anew.times("ort-fp32")
    aa = paired_ratio(copy, first, confidence=0.995)
    yield from (f"{100 * abs(part - 1):.1f}" for part in (aa.value, aa.low, aa.high))
    yield number(100 * (max(1 / aa.low, aa.high) - 1), 2)
    for name in names:
        p50 = percentile(list(anew.times(name).values()), 0.5, confidence=0.995)
        assert p50 is not None
        ratios = [] if name == TEACHER else [paired_ratio(anew.times(TEACHER), anew.times(name), confidence=0.995)]
        for part in (p50, *(widen(ratio, aa) for ratio in ratios)):
            yield from (number(end, 4) for end in (part.low, part.high))
        yield f"{100 * (p50.value / BUDGET['p50_ms'] - 1):.0f}"
        size = sum(entry["bytes"] for entry in anew.variants[name]["files"]) / 1e6
        yield from (number(size, 4), number(size - BUDGET["size_mb"]), f"{100 * (size / BUDGET['size_mb'] - 1):.0f}")


def counted(bundle: Path, anew: Anew) -> Iterator[str]:
    """Samples, classes, calls and rounds; and by class, what students and teacher have right."""
    yield from map(str, (N, 40, 6, 8, 2, 32, 40 * 6 * len(anew.variants), 4, 1))
    page = AnewOfPage(bundle)
    theirs = anew.right[TEACHER]
    for index, name in enumerate(anew.variants):
        ours = anew.right[name]
        yield from map(str, (int((~ours & theirs).sum()), int((ours & ~theirs).sum()), index + 1))
        yield f"{int((anew.top[name] != anew.torch[name].argmax(axis=1)).sum())}"
        for label in range(anew.classes) if name != TEACHER else ():
            yield from TOKEN.findall(page.counted(f"class/{index}/{label}"))
            yield from TOKEN.findall(page.counted(f"counted/{index}/{label}"))
        yield from TOKEN.findall(page.counted(f"smaller/{index}"))
    yield from map(str, np.bincount(anew.labels))
    for rung in LADDER:
        for key in ("right", "drop", "balanced", "close", "seconds", "size"):
            yield from TOKEN.findall(page.counted(f"rung/1/{LADDER.index(rung)}/{key}"))


def limits(report: Report) -> Iterator[str]:
    """Of the budget, of kdc's own lines, and of parity; how many lines have which verdict; and the confidences."""
    yield from (f"{limit:g}" for limit in BUDGET.values())
    yield from map(str, (90, 70, 50, 0.9999, 40, 99.9, 0.5, 8, 95, 99.5))
    verdicts = [check.verdict for check in report.checks]
    yield from (str(verdicts.count(verdict)) for verdict in set(verdicts))
    yield str(len(report.holds))


def accounted(bundle: Path, report: Report) -> set[str]:
    anew = Anew(bundle)
    anew.variants = {row["name"]: row for row in anew.variants.values()}
    names = list(anew.variants)
    known = {*decided(anew, names), *counted(bundle, anew), *limits(report), *SCALES, *MANIFEST}
    for name in names:
        for title in TITLES:
            if not (name == TEACHER and title in OF_THE_TEACHER) and not (name == "ort-fp32" and "fp32" in title):
                known |= set(TOKEN.findall(anew.figure(name, title)))
    return known


def unknown(bundle: Path, report: Report, known: set[str]) -> tuple[list[str], list[str]]:
    texts = to_markdown(report), words_of(bundle, report)
    markdown, page = ([token for token in tokens(text) if token not in known] for text in texts)
    return markdown, page


def test_no_number_stands_anywhere_that_cannot_be_recomputed(make_bundle: Make) -> None:
    bundle = made(make_bundle)
    report = build_report(bundle)
    assert report.winner == "ort-int8"
    known = accounted(bundle, report)
    assert unknown(bundle, report, known) == ([], [])
    walked = [len(tokens(text)) for text in (to_markdown(report), words_of(bundle, report))]
    assert min(walked) > 400


def longer(interval: Any) -> Any:
    return interval.model_copy(update={"value": 1.037 * interval.value})


def spoiled(report: Report, what: str) -> Report:
    if what == "reason":
        checks = (
            check.model_copy(update={"reason": re.sub(r"\d\.\d{3}", "7.654", check.reason)}) for check in report.checks
        )
        return report.model_copy(update={"checks": tuple(checks)})
    if what == "aa":
        assert report.session is not None
        assert report.session.aa is not None
        aa = report.session.aa.model_copy(update={"value": 1.0765})
        return report.model_copy(update={"session": report.session.model_copy(update={"aa": aa})})
    students, others = report.rows[:-1], report.rows[-1:]
    rows = tuple(row.model_copy(update={what: longer(getattr(row, what))}) for row in students)
    return report.model_copy(update={"rows": (*rows, *others)})


@pytest.mark.slow
def test_a_wrong_number_is_found_in_both(make_bundle: Make) -> None:
    """In the head, in a table, in a reason, in a footnote: else the test above could not fail."""
    bundle = made(make_bundle)
    report = build_report(bundle)
    known = accounted(bundle, report)
    for what in ("p50_ms", "p90_ms", "cpu_p50_ms", "p50_ratio", "accuracy", "retention", "reason", "aa"):
        assert all(unknown(bundle, spoiled(report, what), known)), what
