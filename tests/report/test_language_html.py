"""report.html of a language model: what report.json says, drawn; names are text; it fits a phone, and prints."""

import json
import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from compressor.report.html.text import shown
from compressor.report.language import check, finish, refresh, report_of, to_html
from compressor.report.language.next_step import next_step
from compressor.report.language.read import read_results
from tests.kit import call
from tests.report.browser import Browser, chromium
from tests.report.language_kit import write_bundle
from tests.report.test_html import HOSTILE, Page
from tests.report.test_language_report import FP32, TWO

LOOKS = ((1100, False), (1100, True), (380, False), (380, True))
BROKEN = "onnxruntime-genai-int4"
NUMBER = re.compile(r"(?<![\w.])[+−-]?\d[\d,]*(?:\.\d+)?(?![\w])")
BUDGETS: dict[str, dict[str, Any]] = {
    "pass": {"budget": {"min_tokens_per_s": 90, "min_retention": 0.8, "size_mb": 1}},
    "fail": {"budget": {"min_tokens_per_s": 500, "peak_rss_mb": 1, "p50_ms": 1}},
    "inconclusive": {"budget": {"min_tokens_per_s": 100}, "variants": {FP32: {}}},
    "unmeasured": {"budget": {"min_tokens_per_s": 90}, "measured": False},
    "elsewhere": {"budget": {"min_tokens_per_s": 90, "peak_rss_mb": 100}, "threads": 4},
    "broken": {"budget": {}, "variants": {**TWO, BROKEN: {"error": "out of memory"}}},
    "alone": {"budget": {"min_retention": 0.9}, "teacher": False, "licence": {"require": ["MIT"]}},
}


def bundle_of(folder: Path, state: str) -> Path:
    changes = dict(BUDGETS[state])
    return write_bundle(folder, changes.pop("budget"), changes.pop("variants", TWO), **changes)


def page_of(bundle: Path) -> Page:
    return Page(to_html(bundle, report_of(read_results(bundle))))


def at(values: Any, path: str) -> Any:
    """What stands at a path of report.json; None below what is null."""
    for part in path.split("/"):
        if values is None:
            return None
        values = values[int(part)] if isinstance(values, list) else values[part]
    return values


def numbers(told: Any) -> Iterator[float]:
    """All that stand in a part of report.json."""
    if isinstance(told, dict):
        told = list(told.values())
    if isinstance(told, list):
        for each in told:
            yield from numbers(each)
    elif isinstance(told, (int, float)) and not isinstance(told, bool):
        yield float(told)


def is_one_of(text: str, told: list[float], scales: tuple[float, ...] = (1, 100, 1e-6)) -> bool:
    """Whether a number as it is shown is one of these, rounded to its digits; as it is, in per cent, or bytes in MB."""
    value = float(text.replace("−", "-").replace(",", ""))
    decimals = len(text.partition(".")[2])
    return any(abs(value - scale * each) <= 0.50001 * 10**-decimals for scale in scales for each in told)


def expected(report: Any, of: str) -> tuple[Any, list[float]]:
    """What a figure is of, and the numbers that it may show: what stands there, and its interval beside it."""
    what, _, rest = of.partition("/")
    if what == "check":
        told = report["checks"][int(rest)]["value"]
        return told, []
    told = at(report, of)
    name = of.rpartition("/")[2]
    if name in ("bits_per_byte", "perplexity") and told is not None:
        beside, ends = at(report, of.rpartition("/")[0]), ("low", "high")
        ends = ends if name == "bits_per_byte" else ("perplexity_low", "perplexity_high")
        return told, [told, *(beside[end] for end in ends if beside[end] is not None)]
    return told, list(numbers(told))


@pytest.mark.parametrize("state", BUDGETS)
def test_every_figure_is_what_report_json_says(tmp_path: Path, state: str) -> None:
    bundle = bundle_of(tmp_path / "bundle", state)
    finish(bundle)
    report = json.loads((bundle / "report.json").read_text())
    page = Page((bundle / "report.html").read_text(encoding="utf-8"))
    assert len(page.figures) > 25
    for of, text in page.figures:
        told, permitted = expected(report, of)
        if of.startswith("check/"):
            assert text == shown(told, 300)
        elif of.endswith("runtime_version"):
            assert text == " ".join(filter(None, ("onnxruntime-genai", told)))
        elif told is None or told == {}:
            assert text in ("not measured", "–", "failed"), of
        elif isinstance(told, str):
            assert text == told, of
        else:
            shows = NUMBER.findall(re.sub(r"float32|int8|int4|n = ", "", text))
            assert shows, of
            assert all(is_one_of(each, permitted) for each in shows), (of, text, told)
            if isinstance(told, dict) and "low" in told:
                assert len(shows) == 3, (of, text)


@pytest.mark.parametrize("state", BUDGETS)
def test_no_other_number_stands_on_it(tmp_path: Path, state: str) -> None:
    """Each is one of report.json's, part of a text in it or in bundle.json, or kdc's own: 95 % intervals, int8."""
    bundle = bundle_of(tmp_path / "bundle", state)
    finish(bundle)
    report = json.loads((bundle / "report.json").read_text())
    told = list(numbers(report)) + list(numbers(json.loads((bundle / "bundle.json").read_text())["student"]["recipe"]))
    texts = (bundle / "report.json").read_text() + (bundle / "bundle.json").read_text()
    texts += str(next_step(report_of(read_results(bundle))))
    more = [95.0, 99.0, 99.5, 10.0, 0.0, float(len(report["rows"])), *range(1, len(report["rows"]) + 1)]
    session = report["session"]
    if session is not None and session["aa"] is not None:  # told as what is off, in per cent
        more += [100 * (session["aa"][end] - 1) for end in ("value", "low", "high")]
        more += [100 * session["smallest_effect"], 100 * session["confidence"]]
    for row in report["rows"]:
        more += [100 * (row["loss_share"] or 0), *(size / 1e6 for size in row["weight_bytes"].values())]
    told_in_words = re.sub(
        r"<(style|script|svg).*?</\1>|<[^<>]*>", " ", (bundle / "report.html").read_text(), flags=re.S
    )
    shows = NUMBER.findall(unescape(told_in_words))
    assert len(shows) > 60
    for each in shows:
        assert each.lstrip("+−-") in texts or is_one_of(each, [*told, *more]), each


@pytest.mark.parametrize("state", BUDGETS)
def test_the_first_screen(tmp_path: Path, state: str) -> None:
    bundle = bundle_of(tmp_path / "bundle", state)
    report, text = report_of(read_results(bundle)), to_html(bundle, report_of(read_results(bundle)))
    first = Page(text).words.partition("What the figures are of")[0]
    assert report.verdict in first
    assert f"Ships: {report.winner or 'none can be chosen'}" in first
    for title in ("generates", "reads a prompt", "bits a byte, test", "retention", "size", "memory at its peak"):
        assert title in first
    step = next_step(report)
    assert (step is None) == (report.verdict == "pass")
    if step is not None:
        told = f"{step.command}: {step.why}" if step.command else step.why
        assert told in " ".join(first[first.index("What to try next") :].split())
    assert ("Nothing was measured" in first) == (state == "unmeasured")
    assert ("not the profile's device" in first) == (state == "elsewhere")
    assert "://" not in re.sub(r"<script.*?</script>", "", text, flags=re.S), "it fetches nothing"
    assert len(text) < 300_000


def test_what_it_says_of_what_is_not_there(tmp_path: Path) -> None:
    missing = {
        state: page_of(bundle_of(tmp_path / state, state)).words.partition("What was not measured, and why")[2]
        for state in BUDGETS
    }
    assert "the bundle holds no measurement" in missing["unmeasured"]
    assert f"everything of {BROKEN}" in missing["broken"]
    assert "out of memory" in missing["broken"]
    assert "threads are 2, the profile's 4" in missing["elsewhere"]
    assert "there is no teacher that could be run" in missing["alone"]
    assert "these lines of the budget are not for language models" in missing["fail"]
    assert "energy" in missing["pass"]
    assert "not measured" not in missing["pass"].partition("Where it comes from")[0]


def test_licences_and_provenance_are_on_it(tmp_path: Path) -> None:
    words = page_of(bundle_of(tmp_path / "bundle", "alone")).words
    section = words.partition("Teacher and licences")[2]
    assert "MIT" in section.partition("Parity")[0]
    assert "pass" in section.partition("Parity")[0]
    told = words.partition("Where it comes from")[2]
    for fact in ("teacher's licence", "student's weights", "sha256", "seeds", "trained with", "executed precision"):
        assert fact in told
    assert "The profile has no rule on licences" in page_of(bundle_of(tmp_path / "plain", "pass")).words


def test_it_lies_beside_the_other_reports_and_is_sealed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = bundle_of(tmp_path / "bundle", "pass")
    report = finish(bundle)
    written = (bundle / "report.html").read_text(encoding="utf-8")
    assert written == to_html(bundle, report), "the same bundle is the same page"
    assert "  report.html\n" in (bundle / "SHA256SUMS").read_text()
    check(bundle)
    (bundle / "report.html").write_text("an older one", encoding="utf-8")
    assert call("check", bundle) == 2
    refresh(bundle)
    assert (bundle / "report.html").read_text(encoding="utf-8") == written
    assert call("report", bundle, "--format", "html", "--out", tmp_path / "x.html") == 0
    assert (tmp_path / "x.html").read_text(encoding="utf-8") == written
    capsys.readouterr()
    assert call("report", bundle, "--format", "html") == 0
    assert capsys.readouterr().out == written


def hostile_bundle(folder: Path) -> Path:
    """One that says something hostile wherever a text may stand."""
    bundle = write_bundle(folder, {"size_mb": 1}, {**TWO, BROKEN: {"error": HOSTILE}}, licence={"forbid": ["gpl-*"]})
    values = json.loads((bundle / "bundle.json").read_text())
    student = values["student"]
    student["architecture"] = student["init"] = student["kept_rule"] = HOSTILE
    student["data"] |= {"source": HOSTILE, "notes": [HOSTILE]}
    student["environment"]["packages"] = {HOSTILE: HOSTILE}
    values["teacher"] |= {"source": HOSTILE, "licence": HOSTILE}
    values["notes"] = [HOSTILE]
    values["profile"]["device"]["cpu"]["value"] = HOSTILE
    for variant in values["variants"]:
        variant["made"] = HOSTILE
        variant["weight_bytes"] = {HOSTILE: 5_000_000}
    (bundle / "bundle.json").write_text(json.dumps(values))
    measured = bundle / "measurements" / "measurement.json"
    values = json.loads(measured.read_text())
    values["machine_before"]["cpu"] = values["contestants"][0]["runtime_version"] = HOSTILE
    measured.write_text(json.dumps(values))
    return bundle


def test_names_are_text(tmp_path: Path) -> None:
    tags = {tag for tag, _ in page_of(bundle_of(tmp_path / "plain", "broken")).tags}
    bundle = hostile_bundle(tmp_path / "bundle")
    text = to_html(bundle, report_of(read_results(bundle)))
    page = Page(text)
    assert {tag for tag, _ in page.tags} <= tags
    assert sum(tag == "script" for tag, _ in page.tags) == 1
    assert not [name for _, given in page.tags for name in given if name.startswith("on")]
    assert not [given for _, given in page.tags if "src" in given or "href" in given]
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", text), "nothing in it acts"
    assert shown(HOSTILE, 60).removesuffix("…") in page.words
    assert len(text) < 300_000


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium()
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.mark.slow
@pytest.mark.parametrize("state", [*BUDGETS, "hostile"])
def test_in_a_browser(browser: Browser, tmp_path: Path, state: str) -> None:
    """It fits, in light and dark; the button turns it over; nothing is fetched, and nothing complains."""
    folder = tmp_path / "bundle"
    bundle = hostile_bundle(folder) if state == "hostile" else bundle_of(folder, state)
    page = tmp_path / "report.html"
    page.write_text(to_html(bundle, report_of(read_results(bundle))), encoding="utf-8")
    browser.complaints.clear()
    for width, dark in (*LOOKS, (760, False), (1010, False)):
        browser.show_as(width=width, dark=dark, phone=width < 500)
        browser.open(page)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width, f"at {width} px it scrolls sideways"
        ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(18, 21, 24)" if dark else "rgb(250, 250, 248)")
        browser.evaluate("document.getElementById('theme').click()")
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    assert not browser.complaints


@pytest.mark.slow
def test_it_prints_unfolded(browser: Browser, tmp_path: Path) -> None:
    bundle, page = bundle_of(tmp_path / "bundle", "pass"), tmp_path / "report.html"
    page.write_text(to_html(bundle, report_of(read_results(bundle))), encoding="utf-8")
    browser.open(page)
    assert not browser.evaluate("[...document.querySelectorAll('details')].every((found) => found.open)")
    browser.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert browser.evaluate("[...document.querySelectorAll('details')].every((found) => found.open)")


@pytest.mark.slow
@pytest.mark.parametrize("state", ["pass", "fail"])
def test_axe_finds_no_serious_fault(browser: Browser, tmp_path: Path, state: str) -> None:
    bundle, page = bundle_of(tmp_path / "bundle", state), tmp_path / "report.html"
    page.write_text(to_html(bundle, report_of(read_results(bundle))), encoding="utf-8")
    for width, dark in LOOKS:
        browser.show_as(width=width, dark=dark, phone=width < 500)
        browser.open(page)
        assert browser.faults() == []
