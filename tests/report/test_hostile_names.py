"""Names that others wrote are text in every format, also where a report is about a release diff, layers, a history and
several devices."""

import re
from pathlib import Path
from typing import Any

import junitparser
import numpy as np
import pytest
from rich.cells import cell_len

from compressor.report import devices_summary, release_of, summary, to_junit, to_markdown, to_matrix, trend_table
from compressor.report.devices import OnDevice
from compressor.report.history import entry_of
from compressor.report.read import Results
from compressor.report.release import Baseline, results_beside
from compressor.report.render.head import MOST_LINES
from compressor.schema.device import Device
from compressor.schema.report import Report
from compressor.terminal.console import rendered_text
from tests.report.conftest import N
from tests.report.test_explained import Edit, Make, explain
from tests.report.test_html import VARIANTS
from tests.report.test_html_changes import entry, trend_of
from tests.report.test_report_formats import HOSTILE, acts, before_the_fold, hostile, nothing_acts

ESCAPED = re.compile(r"<details><summary>(?:[^<>&]|&(?:lt|gt|amp|quot|#x27);)*</summary>\n?")
"""A title of kdc's own, with a name in it that is no markup any more."""
Reported = tuple[Path, Results, Report]


@pytest.fixture
def reported(make_bundle: Make, edit_json: Edit) -> Reported:
    """A report that has everything: layers, the ladder, flips beside a baseline; on one of several devices."""
    made: dict[str, Any] = {"digests": np.arange(N, dtype=np.uint64)}
    old = make_bundle({name: {**changes, "wrong": 2} for name, changes in VARIANTS.items()}, **made)
    baseline = Baseline("--baseline old", release_of(old), None)
    bundle = explain(make_bundle(VARIANTS, {"p50_ms": 1.5}, notes=("a note",), **made), edit_json)
    results, report = results_beside(bundle, baseline)
    return bundle, results, report.model_copy(update={"measured_on": Device(name="nano", url="ssh://nano")})


@pytest.mark.slow
def test_names_are_text_wherever_they_stand(reported: Reported) -> None:
    bundle, results, plain = reported
    remembered = entry_of(bundle, plain)
    tables = to_markdown(plain).count("\n| ")
    for kind, name in HOSTILE.items():
        if kind == "half":  # which no JSON that is read can hold
            continue
        report = hostile(plain, name)
        assert report.release is not None
        assert report.release.variants[0].flips[0].sample == name
        markdown = to_markdown(report)
        assert acts(markdown) == [], kind
        assert len(before_the_fold(markdown)) <= MOST_LINES, kind
        assert markdown.count("\n| ") <= tables, f"{kind}: no name begins a row"
        two = [OnDevice(each, f"devices/{each}/", report, results, name) for each in ("nano", name)]
        matrix = to_matrix(two)
        assert [found for found in acts(matrix) if not ESCAPED.fullmatch(found)] == [], kind
        junit = to_junit(report, report, missing=[name, name])
        assert [suite.tests for suite in junitparser.JUnitXml.fromstring(junit.encode())] == [len(report.checks)] * 2
        history = trend_table(trend_of(entry(1, student=name, kdc=name, measured=name, machine=name, winner=name)))
        history += trend_table(trend_of(hostile(remembered, name).model_dump()))
        assert acts(history) == [], kind
        nothing_acts(markdown, matrix, junit, history)
        for shown in (summary(report, "bundle"), devices_summary(two, "bundle")):
            text = rendered_text(shown)
            nothing_acts(text)
            assert max(map(cell_len, text.splitlines())) <= 80, kind
            assert len(text.splitlines()) < 90, kind


def test_what_acts_is_noticed() -> None:
    """Else the test above could not fail."""
    for text in ("<script>alert(1)</script>", "[x](http://evil)", "![i](y)", "*em*", "a\n\n---\n"):
        assert acts(text), text
    for sign in ("\x1b[31m", "\u202e", "\x9b2J"):
        with pytest.raises(AssertionError):
            nothing_acts(sign)
