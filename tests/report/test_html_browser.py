"""report.html in a browser: nothing complains, what can be moved moves, and it fits a phone, in light and dark."""

import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.report import build_report, release_of, to_html
from compressor.report.release import Baseline, results_beside
from compressor.schema.device import Device
from tests.report.browser import Browser, chromium
from tests.report.conftest import N
from tests.report.test_explained import explain
from tests.report.test_html import BUDGETS, CLASS, HOSTILE, VARIANTS
from tests.report.test_html_changes import entry, trend_of
from tests.report.test_html_judge import give

pytestmark = pytest.mark.slow
Make = Callable[..., Path]
Edit = Callable[[Path, Callable[[dict[str, Any]], object]], None]
PARTS = ("#release img", "#history circle", "#layers table", "#table-ladder", "[aria-labelledby=course-title] svg")
LOOKS = ((1100, False), (1100, True), (380, False), (380, True))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium()
    opened = Browser(tmp_path_factory.mktemp("browser"))
    yield opened
    opened.close()


def written(bundle: Path, to: Path) -> Path:
    to.write_text(to_html(bundle, build_report(bundle)), encoding="utf-8")
    return to


def everything(make_bundle: Make, edit_json: Edit, prefix: str = "") -> str:
    """The page of a bundle about which all is known that can be. `prefix`: before every name in it."""
    made: dict[str, Any] = {"digests": np.arange(N, dtype=np.uint64), "ids": [f"{prefix}{row}.jpg" for row in range(N)]}

    def named(values: dict[str, Any]) -> None:
        values["student"]["class_names"] = [f"{number} {prefix}" for number in range(3)]

    old = make_bundle({name: {**changes, "wrong": 2} for name, changes in VARIANTS.items()}, **made)
    edit_json(old / "bundle.json", named)
    baseline = Baseline("--baseline old", release_of(old), None)
    bundle = explain(make_bundle(VARIANTS, {"max_accuracy_loss": 0.1, "p50_ms": 2.5}, **made), edit_json, prefix)
    inputs = np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3)).astype(np.uint8)
    for variant in VARIANTS:
        np.save(bundle / f"eval/{variant}-inputs.npy", inputs)
    rows = [
        {"epoch": epoch, "loss": {"kd": 6 / epoch, f"{prefix[:60]}x": 1.0}, "validation": {"accuracy": 0.9, "n": 145}}
        for epoch in range(1, 6)
    ]
    (bundle / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    def change(values: dict[str, Any]) -> None:
        named(values)
        values["support"].append({"path": "history.jsonl", "sha256": "0" * 64, "bytes": 1})

    edit_json(bundle / "bundle.json", change)
    results, report = results_beside(bundle, baseline)
    report = report.model_copy(update={"measured_on": Device(name="nano", url=f"ssh://nano/{prefix[:50]}")})
    trend = trend_of(*(entry(number, student=f"net {prefix}") for number in range(1, 9)))
    return to_html(bundle, report, results, trend=trend)


def slide(browser: Browser, name: str, place: int) -> None:
    """Move a slider as a hand or a key would."""
    code = f"(() => {{ const knob = document.getElementById('{name}'); knob.value = {place}; "
    browser.evaluate(code + "knob.dispatchEvent(new Event('input', { bubbles: true })); })()")


@pytest.mark.parametrize("state", BUDGETS)
def test_each_verdict(browser: Browser, make_bundle: Make, tmp_path: Path, state: str) -> None:
    bundle = make_bundle(**{"variants": VARIANTS, **BUDGETS[state]})
    report, page = build_report(bundle), written(bundle, tmp_path / "report.html")
    browser.complaints.clear()
    for width, dark in LOOKS:
        browser.show_as(width=width, dark=dark, phone=width < 500)
        browser.open(page)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width, f"at {width} px it scrolls sideways"
        ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(18, 21, 24)" if dark else "rgb(250, 250, 248)")
        told = browser.evaluate("window.kdc.result")
        assert (told["verdict"], told["why"]) == (report.verdict, report.why)
        assert browser.evaluate("document.getElementById('theme').getClientRects()[0].height") < 45, "a line of its own"
        browser.evaluate("document.getElementById('theme').click()")
        assert browser.evaluate("getComputedStyle(document.body).backgroundColor") != ground
    assert not browser.complaints
    assert page.stat().st_size < 1_500_000


@pytest.mark.parametrize("state", BUDGETS)
def test_sliders_move_in_each_state(
    browser: Browser, make_bundle: Make, edit_json: Edit, tmp_path: Path, state: str
) -> None:
    """And what is said then is what a bundle with that budget gets."""
    bundle = make_bundle(**{**BUDGETS[state], "variants": VARIANTS})
    browser.complaints.clear()
    browser.open(written(bundle, tmp_path / "report.html"))
    assert browser.evaluate("window.kdc.result.verdict") == state
    before = browser.evaluate("document.getElementById('softened').textContent")
    slide(browser, "temperature", 20)
    assert browser.evaluate("document.getElementById('softened').textContent") != before
    verdicts = set()
    for place in (0, 300, 500, 800, 1000):
        for line in BUDGETS[state]["budget"]:
            slide(browser, f"knob-{line}", place)
        told = browser.evaluate("window.kdc.result")
        edit_json(bundle / "bundle.json", partial(give, budget=told["limits"]))
        report = build_report(bundle)
        assert (told["verdict"], told["why"]) == (report.verdict, report.why)
        assert browser.evaluate("document.getElementById('badge').textContent") == report.verdict
        assert browser.evaluate("document.getElementById('ships').textContent") == (
            report.winner or "none can be chosen"
        )
        verdicts.add(report.verdict)
    assert len(verdicts) > 1 or state == "unmeasured"
    assert not browser.complaints


def test_limits_and_temperature_move(browser: Browser, make_bundle: Make, tmp_path: Path) -> None:
    bundle = make_bundle(variants=VARIANTS, budget={"p50_ms": 2.5, "size_mb": 1})
    browser.complaints.clear()
    browser.open(written(bundle, tmp_path / "report.html"))
    assert browser.evaluate("document.getElementById('moved').hidden")
    slide(browser, "knob-p50_ms", 0)
    assert browser.evaluate("document.getElementById('badge').textContent") == "fail"
    assert browser.evaluate("document.getElementById('ships').textContent") == "none can be chosen"
    assert "--set budget.p50_ms=" in browser.evaluate("document.getElementById('keep').textContent")
    slide(browser, "knob-p50_ms", 500)
    line = "[...document.querySelectorAll('.pareto .limit')].find((found) => found.dataset.line === 'p50_ms')"
    first = browser.evaluate(f"{line}.getAttribute('x1')")
    slide(browser, "knob-p50_ms", 560)
    assert browser.evaluate(f"{line}.getAttribute('visibility')") == "visible"
    assert float(browser.evaluate(f"{line}.getAttribute('x1')")) > float(first)
    browser.evaluate("document.querySelector('button.reset').click()")
    assert browser.evaluate("document.getElementById('badge').textContent") == "pass"
    before = browser.evaluate("document.getElementById('softened').textContent")
    slide(browser, "temperature", 20)
    assert browser.evaluate("document.getElementById('softened').textContent") != before
    slide(browser, "quantile", 50)
    assert browser.evaluate("document.getElementById('quantiles').textContent").startswith("p50 of the raw samples")
    browser.evaluate("document.getElementById('judge-min_class_retention').click()")
    assert browser.evaluate("'min_class_retention' in window.kdc.result.limits") is False
    assert not browser.complaints


def test_keys_move_a_limit(browser: Browser, make_bundle: Make, tmp_path: Path) -> None:
    browser.open(written(make_bundle(variants=VARIANTS, budget={"p50_ms": 2.5}), tmp_path / "report.html"))
    browser.evaluate("document.getElementById('knob-p50_ms').focus()")
    before = browser.evaluate("window.kdc.result.limits.p50_ms")
    for kind in ("keyDown", "keyUp"):
        key = {"type": kind, "key": "ArrowLeft", "code": "ArrowLeft", "windowsVirtualKeyCode": 37}
        browser.send("Input.dispatchKeyEvent", key)
    assert browser.evaluate("window.kdc.result.limits.p50_ms") < before == 2.5


def test_a_limit_is_dragged_in_the_drawing(browser: Browser, make_bundle: Make, tmp_path: Path) -> None:
    browser.show_as()
    browser.open(written(make_bundle(variants=VARIANTS, budget={"p50_ms": 2.5}), tmp_path / "report.html"))
    grip = "document.querySelector('.pareto .grip[data-line=p50_ms]')"
    browser.evaluate(f"{grip}.scrollIntoView({{ block: 'center' }})")
    x, y = browser.evaluate(
        f"(({{ x, y, width, height }}) => [x + width / 2, y + height / 2])({grip}.getBoundingClientRect())"
    )
    for kind, to in (("mousePressed", x), ("mouseMoved", x - 60), ("mouseReleased", x - 60)):
        held = {"button": "left", "buttons": 1, "clickCount": 1}
        browser.send("Input.dispatchMouseEvent", {"type": kind, "x": to, "y": y, **held})
    assert browser.evaluate("window.kdc.result.limits.p50_ms") < 2.4
    assert not browser.complaints


def test_hostile_names_do_nothing(browser: Browser, make_bundle: Make, edit_json: Edit, tmp_path: Path) -> None:
    bundle = make_bundle(variants=VARIANTS, notes=(HOSTILE,))

    def spoil(values: dict[str, Any]) -> None:
        values["student"]["class_names"] = [f"{number} {CLASS}" for number in range(3)]
        values["teacher"]["source"] = "x" * 10_000

    edit_json(bundle / "bundle.json", spoil)
    browser.complaints.clear()
    browser.show_as(width=380, phone=True)
    browser.open(written(bundle, tmp_path / "report.html"))
    slide(browser, "temperature", 9)
    assert browser.evaluate("document.documentElement.scrollWidth") <= 380
    for width in (760, 1010, 1100):
        browser.show_as(width=width)
        browser.open(tmp_path / "report.html")
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert not browser.complaints, "nor was anything fetched, or a dialog opened"


def test_it_prints(browser: Browser, make_bundle: Make, tmp_path: Path) -> None:
    browser.open(written(make_bundle(variants=VARIANTS), tmp_path / "report.html"))
    browser.pdf(tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF")
    assert browser.evaluate("[...document.querySelectorAll('details')].every((found) => found.open)")


@pytest.mark.parametrize("state", BUDGETS)
def test_axe_finds_no_serious_fault(browser: Browser, make_bundle: Make, tmp_path: Path, state: str) -> None:
    page = written(make_bundle(**{"variants": VARIANTS, **BUDGETS[state]}), tmp_path / "report.html")
    for width, dark in LOOKS:
        browser.show_as(width=width, dark=dark, phone=width < 500)
        browser.open(page)
        assert browser.faults() == []


def test_axe_finds_a_fault(browser: Browser, make_bundle: Make, tmp_path: Path) -> None:
    """Grey on grey, and a button without a name: else the tests above could not fail."""
    page = written(make_bundle(variants=VARIANTS), tmp_path / "report.html")
    spoiled = page.read_text(encoding="utf-8").replace(
        "<main", '<button></button><p style="color: #bbb; background: #ccc">grey</p><main', 1
    )
    page.write_text(spoiled, encoding="utf-8")
    browser.show_as()
    browser.open(page)
    assert {rule for rule, _, _ in browser.faults()} == {"button-name", "color-contrast"}


@pytest.mark.parametrize("name", ["", CLASS], ids=["plain", "hostile"])
def test_a_page_that_has_everything(
    browser: Browser, make_bundle: Make, edit_json: Edit, tmp_path: Path, name: str
) -> None:
    """Images, training curves, layers, the ladder, a release diff with flips, a trend, one of several devices."""
    page = tmp_path / "report.html"
    page.write_text(everything(make_bundle, edit_json, name), encoding="utf-8")
    browser.complaints.clear()
    for width, dark in LOOKS:
        browser.show_as(width=width, dark=dark, phone=width < 500)
        browser.open(page)
        for part in (
            "#release img",
            "#history circle",
            "#layers table",
            "#table-ladder",
            "[aria-labelledby=course-title] svg",
        ):
            assert browser.evaluate(f"document.querySelectorAll('{part}').length"), part
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        if name == "" or dark:
            assert browser.faults() == []
    assert not browser.complaints
    assert page.stat().st_size < 1_500_000


def test_the_release_and_the_history_fit_a_phone(browser: Browser, make_bundle: Make, tmp_path: Path) -> None:
    """With hostile names; and what is decided when a limit moves is decided beside the baseline."""
    from compressor.report import exit_code_for
    from tests.report.test_html_changes import BEFORE, CLASSES, DIGESTS, LABELS, NOW, N
    from tests.report.test_release_lines import predicted

    made: dict[str, Any] = {"labels": LABELS, "classes": CLASSES, "digests": DIGESTS, "rounds": 12}
    made["ids"] = [f"{number} {CLASS}" for number in range(N)]
    old = Baseline("--baseline old", release_of(make_bundle({"s": predicted(BEFORE, CLASSES)}, **made)), None)
    bundle = make_bundle({"s": predicted(NOW, CLASSES)}, {"max_accuracy_loss": 0.1, "p50_ms": 2.5}, **made)
    np.save(bundle / "eval/s-inputs.npy", np.random.default_rng(0).integers(0, 256, (N, 8, 8, 3)).astype(np.uint8))
    results, report = results_beside(bundle, old)
    trend = trend_of(*(entry(number, student=HOSTILE, measured=HOSTILE) for number in range(1, 9)))
    page = tmp_path / "report.html"
    page.write_text(to_html(bundle, report, results, trend=trend), encoding="utf-8")
    browser.complaints.clear()
    for width, dark in ((1100, False), (380, True)):
        browser.show_as(width=width, dark=dark, phone=width < 500)
        browser.open(page)
        assert browser.evaluate("document.documentElement.scrollWidth") <= width
        assert browser.evaluate("window.kdc.result.verdict") == report.verdict
    assert exit_code_for(report) == browser.evaluate("window.kdc.result.exit_code")
    assert browser.evaluate("document.querySelectorAll('#release img').length") == 16
    assert browser.evaluate("document.querySelectorAll('#history circle').length") == 4 * 8
    assert not browser.complaints
