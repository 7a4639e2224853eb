"""What report.html shows beside a baseline and over time: the words and numbers of report.md, drawn, with images."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.report import build_report, release_of, to_html, to_markdown
from compressor.report.history import Trend, entry_of, trend_table
from compressor.report.html.trend import history_drawn
from compressor.report.release import Baseline, results_beside
from compressor.report.render.release import in_words, release_diff_of
from compressor.schema.history import HistoryEntry
from compressor.schema.report import Estimate, Report
from compressor.stats import balanced_difference, difference, wilson_interval
from tests.kit import Ended
from tests.report.test_html import HOSTILE, Page
from tests.report.test_release_lines import predicted, wrong_where

Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
N, CLASSES = 1000, 10
LABELS, DIGESTS = np.arange(N) % CLASSES, np.arange(N, dtype=np.uint64) * np.uint64(7919)
BEFORE = wrong_where(np.arange(N) < 20, LABELS)
# 41 new mistakes, all but one in classes 0 to 3; 20 old ones are right now.
NOW = wrong_where(((np.arange(N) >= 500) & (np.arange(N) < 600) & (LABELS < 4)) | (np.arange(N) == 709), LABELS)


@pytest.fixture
def held(make_bundle: Make) -> Callable[..., tuple[Path, Report, Page]]:
    """held(after=…): the bundle that answers NOW, beside one that answered BEFORE: bundle, report and page."""

    def make(
        before: Any = BEFORE, after: Callable[[Path], object] | None = None, trend: Trend | None = None
    ) -> tuple[Path, Report, Page]:
        made: dict[str, Any] = {"labels": LABELS, "classes": CLASSES, "digests": DIGESTS, "rounds": 12}
        made["ids"] = [f"photos/{number}|<b>.png" for number in range(N)]
        old = Baseline("--baseline old", release_of(make_bundle({"s": predicted(before, CLASSES)}, **made)), None)
        variants = {"s": predicted(NOW, CLASSES), "t": predicted(BEFORE, CLASSES, runtime="openvino", p50=3.0)}
        bundle = make_bundle(variants, {"p50_ms": 2.5}, **made)
        if after is not None:
            after(bundle)
        results, report = results_beside(bundle, old)
        return bundle, report, Page(to_html(bundle, report, results, trend=trend))

    return make


def test_the_page_says_what_report_md_says(held: Callable[..., tuple[Path, Report, Page]]) -> None:
    _, report, page = held()
    diff, words, markdown = release_diff_of(report), " ".join(page.words.split()), to_markdown(report)
    assert diff is not None
    told = list(in_words(diff))
    assert [title for title, _ in told] == ["Worse", "The same"]
    for title, what in told:
        assert f"{title}{what}." in words
        assert f"**{title}:** {what}." in markdown
    assert "Baseline small_net (kdc" in words
    assert "all 1000 test samples are in both." in words
    assert "Variants new here: t." in words
    gap, now, then = difference(NOW == LABELS, BEFORE == LABELS), NOW == LABELS, BEFORE == LABELS
    balanced = balanced_difference(now, then, LABELS, CLASSES)
    shares = [wilson_interval(int(part.sum()), N) for part in (then & ~now, now & ~then)]

    def points(part: Any) -> str:
        value, low, high = (f"{100 * each:+.1f}".replace("-", "−") for each in (part.value, part.low, part.high))
        return f"{value} [{low} to {high}] points"

    figures = dict(page.figures)
    assert figures["release/0/accuracy"] == points(gap)
    assert figures["release/0/balanced_accuracy"] == points(balanced)
    assert [figures[f"release/0/{name}"].split(" ")[0] for name in ("negative", "positive")] == [
        f"{100 * part.value:.2f}" for part in shares
    ]
    assert figures["release/0/size_bytes"] == "1.00 ×"
    assert figures["release/0/p50_ms"] == "not measured", "the baseline did not race"
    for of, text in figures.items():
        if of.startswith("release/") and text != "not measured":
            assert text in markdown.replace("\\|", "|"), of


def test_what_was_right_before_is_shown_with_its_images(held: Callable[..., tuple[Path, Report, Page]]) -> None:
    inputs = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3)).astype(np.uint8)

    def with_images(bundle: Path) -> None:
        for name in ("s", "t"):
            np.save(bundle / f"eval/{name}-inputs.npy", inputs)

    _, report, page = held(after=with_images)
    assert dict(page.figures)["flips/0"] == "41 of 1000"
    words = page.words[page.words.index("Right before, wrong now\n") :]
    words = " ".join(words[: words.index("Accuracy against latency")].split())
    assert "16 are shown, in turns by class." in words
    # Of five classes the first of each, then the second: the rare one is among them.
    assert "class 9now: class 0photos/709|<b>.png" in words
    assert len([given for tag, given in page.tags if tag == "img"]) == 16
    assert report.release is not None
    diff = release_diff_of(report)
    assert diff is not None
    names = {flip.sample for flip in diff.flips}
    assert set(re.findall(r"photos/\d+\|<b>\.png", words)) <= names
    without = held()[2]
    assert not [given for tag, given in without.tags if tag == "img"]
    assert "No images: the bundle holds the inputs of 2 of 1000 test samples." in " ".join(without.words.split())


def test_nothing_lost_and_nothing_to_hold_it_against(
    held: Callable[..., tuple[Path, Report, Page]], make_bundle: Make
) -> None:
    page = held(before=NOW)[2]
    assert dict(page.figures)["flips/0"] == "0 of 1000"
    bundle = make_bundle()
    assert "Against the baseline" not in to_html(bundle, build_report(bundle))


def entry(number: int, **changes: Any) -> dict[str, Any]:
    def share(value: float) -> dict[str, Any]:
        return {"value": value, "low": value - 0.02, "high": value + 0.02, "n": 100, "of": "test samples"}

    variant = {
        "name": "s", "size_bytes": 1_000_000 + 1000 * number, "p90_ms": None, "peak_rss_mb": None,
        "p50_ms": {"value": 2.0 + number / 10, "low": 1.9, "high": 2.5, "n": 40, "of": "blocks"},
        "accuracy": share(0.9 - number / 100), "balanced_accuracy": share(0.8), "retention": None,
    }  # fmt: skip
    values = {
        "id": str(number), "kdc": "1.2.3", "measured": f"2026-11-{number:02}T07:00:00Z", "profile": "mini-pc",
        "machine": "cpu", "student": "net", "verdict": "pass", "failed": (), "winner": "s", "test_n": 100,
        "test": "a" * 64, "variants": (variant,),
    }  # fmt: skip
    return {**values, **changes}


def trend_of(*entries: dict[str, Any], added: bool = True) -> Trend:
    return Trend(tuple(HistoryEntry.model_validate(each) for each in entries), added)


def lines_of(drawing: str, name: str) -> int:
    return len(re.findall(f'<line class="{name}"', drawing))


def test_the_trend_is_drawn_and_told(make_bundle: Make) -> None:
    """A point a bundle; a line only between what compares; a gap where nothing ships."""
    trend = trend_of(
        entry(1), entry(2), entry(3, winner=None, verdict="fail", failed=("p50_ms",)), entry(4, test="b" * 64),
        added=False,
    )  # fmt: skip
    drawn = history_drawn(trend)
    assert drawn.title == "History on mini-pc: 4 bundles"
    assert "not added again" in drawn.note
    charts = dict(drawn.drawings)
    assert list(charts) == [
        "size, MB, of what ships", "p50, ms, of what ships", "accuracy, %, of what ships",
        "balanced accuracy, %, of what ships",
    ]  # fmt: skip
    for title, chart in charts.items():
        assert len(re.findall("<circle", chart)) == 3
        assert lines_of(chart, "curve") == (1 if "accuracy" in title else 2), "4 was tested on other samples"
        assert "2026-11-01" in chart
        assert "2026-11-04" in chart
    assert 'aria-label="p50, ms of what ships, from 2.10 to 2.40 over 3 bundles"' in charts["p50, ms, of what ships"]
    bundle = make_bundle()
    page = Page(to_html(bundle, build_report(bundle), trend=trend))
    figures, markdown = dict(page.figures), trend_table(trend)
    assert figures["history/1/p50"] == "2.10 [1.90–2.50]"
    assert figures["history/4/accuracy"] == "86.0 [84.0–88.0]"
    assert figures["history/3/size"] == "–"
    told = [text for of, text in figures.items() if of.startswith("history/")]
    assert told
    assert all(text in markdown for text in told)
    assert "fail p50_ms" in page.words


def test_one_bundle_and_very_many(make_bundle: Make) -> None:
    alone = history_drawn(trend_of(entry(1)))
    assert alone.title.endswith(": 1 bundle")
    assert all("<circle" in chart and not lines_of(chart, "curve") for _, chart in alone.drawings)
    many = history_drawn(trend_of(*(entry(1, id=str(number)) for number in range(500))))
    assert "Drawn are the last 200." in many.note
    assert len(re.findall("<circle", many.drawings[0][1])) == 200
    assert ">400</text>" in many.drawings[0][1], "the bundle's own number"
    assert [row[0].split(".")[0] for row in many.table.rows] == [str(number) for number in range(489, 501)]
    nothing = history_drawn(trend_of(entry(1, winner=None)))
    assert (nothing.drawings, len(nothing.table.rows)) == ((), 1)


def test_names_of_a_history_are_text(make_bundle: Make) -> None:
    spoilt = entry(
        1, kdc=HOSTILE, measured=HOSTILE, profile=HOSTILE, student=HOSTILE, failed=(HOSTILE,), verdict="fail",
        test=HOSTILE, machine=HOSTILE,
    )  # fmt: skip
    bundle = make_bundle()
    plain = Page(to_html(bundle, build_report(bundle), trend=trend_of(entry(1), entry(2))))
    text = to_html(bundle, build_report(bundle), trend=trend_of(spoilt, {**spoilt, "id": "2"}))
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in plain.tags}
    assert not [name for _, given in page.tags for name in given if name.startswith("on")]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text)
    assert "<script>alert(1)" in page.words
    assert len(text) < 1_500_000


def test_figures_beyond_all_reason_are_not_drawn() -> None:
    huge = Estimate(value=1e308, low=-1e308, high=1e308, n=1, of="x").model_dump()
    variant = {**entry(1)["variants"][0], "accuracy": huge}
    drawn = dict(history_drawn(trend_of(entry(1, variants=(variant,)))).drawings)
    assert "accuracy, %, of what ships" not in drawn
    assert not any("nan" in chart or "inf" in chart for chart in drawn.values())


def test_the_command_draws_the_history(make_bundle: Make, kdc: Callable[..., Ended], tmp_path: Path) -> None:
    from compressor.report import finish

    bundle = make_bundle()
    finish(bundle)
    before = (bundle / "report.html").read_text(encoding="utf-8")
    done = kdc("report", bundle, "--history", tmp_path / "h.jsonl", "--out", tmp_path / "r.html")
    assert done.code == 0, done.err
    assert "History on mini-pc: 1 bundle" in (tmp_path / "r.html").read_text(encoding="utf-8")
    assert (bundle / "report.html").read_text(encoding="utf-8") == before, "a bundle's own page knows no history"
    assert entry_of(bundle, build_report(bundle)).profile == "mini-pc"
