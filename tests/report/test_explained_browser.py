"""The tables of layers in a browser: they are sorted, fit a phone, and nothing complains."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from compressor.report import build_report, to_html
from tests.report.browser import Browser, chromium
from tests.report.test_explained import Edit, Make, explain
from tests.report.test_html import HOSTILE, VARIANTS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium()
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


@pytest.mark.parametrize("prefix", ["", HOSTILE], ids=["plain", "hostile"])
def test_layers(browser: Browser, make_bundle: Make, edit_json: Edit, tmp_path: Path, prefix: str) -> None:
    bundle = explain(make_bundle(variants=VARIANTS, budget={"p50_ms": 9}), edit_json, prefix)
    page = tmp_path / "report.html"
    page.write_text(to_html(bundle, build_report(bundle)), encoding="utf-8")
    browser.complaints.clear()
    for width, dark in ((1100, False), (380, True)):
        browser.show_as(width=width, dark=dark, phone=width < 500)
        browser.open(page)
        browser.evaluate("document.querySelectorAll('#layers details').forEach((found) => (found.open = true))")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width, f"at {width} px it scrolls sideways"
    assert not browser.complaints
    assert page.stat().st_size < 1_500_000
    browser.evaluate("document.title = 'unmoved'")
    rows = "[...document.querySelectorAll('#table-timed-0 tbody tr')].map((row) => row.cells[{}].textContent.trim())"
    before = browser.evaluate(rows.format(5))

    def choose(number: int) -> None:
        code = f"const select = document.querySelector('#table-timed-0 select'); select.value = {number}; "
        browser.evaluate(f"(() => {{ {code} select.dispatchEvent(new Event('change', {{ bubbles: true }})); }})()")

    choose(1)
    names = browser.evaluate(rows.format(0))
    assert len(names) == 30
    choose(6)
    medians = [float(text.split()[0]) for text in browser.evaluate(rows.format(5))]
    assert medians == sorted(medians, reverse=True)
    choose(0)
    assert browser.evaluate(rows.format(5)) == before
    assert browser.evaluate("document.title") == "unmoved"
