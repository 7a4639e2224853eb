"""A bundle's report as `import compressor` returns it, and as a notebook shows it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

import compressor
from compressor import KdcError
from compressor.api.results import BundleResult
from compressor.report import finish
from compressor.schema.report import Report
from tests.kit import MARKUP, MARKUP_SHOWN, Ended

Make = Callable[..., Path]
Kdc = Callable[..., Ended]


def test_a_bundle_is_checked_as_the_command_does(make_bundle: Make, kdc: Kdc, tmp_path: Path) -> None:
    """A small bundle that no training made."""
    bundle = make_bundle()
    finish(bundle)
    done = compressor.check(bundle)
    typed = kdc("check", bundle, "--json")
    assert (done.exit_code, done.to_dict()) == (typed.code, json.loads(typed.out))
    assert done.summary == kdc("check", bundle).out.splitlines()[0]
    assert done.passed == (typed.code == 0)
    assert done.verdict == done.report.verdict
    assert compressor.report(bundle).text == kdc("report", bundle).out == done.to_text()
    for name in ("text", "md", "json", "html", "junit", "bencher"):
        assert compressor.report(bundle, format=name).text == kdc("report", bundle, "--format", name).out
    made = compressor.report(bundle, out=tmp_path / "report.md")
    assert (tmp_path / "report.md").read_text(encoding="utf-8") == made.text
    with pytest.raises(KdcError) as caught:
        compressor.report(bundle, out=str(tmp_path / "report.md"))
    assert caught.value.hint == "overwrite=True to replace it, or another out"


@pytest.mark.parametrize(
    ("name", "form", "hint"),
    [
        ("report.html", "md", "--format html"),
        ("report.json", "md", "--format json"),
        ("report.XML", "json", "--format junit"),
        ("report.md", "junit", "--format md"),
        ("report.html", "json", "--format html"),
        ("report.pdf", "json", "--out {}.json"),
    ],
)
def test_a_file_holds_what_its_name_says(
    make_bundle: Make, kdc: Kdc, tmp_path: Path, name: str, form: str, hint: str
) -> None:
    bundle, out = make_bundle(), tmp_path / name
    finish(bundle)
    ended = kdc("report", bundle, "--format", form, "--out", out)
    assert ended.code == 2
    assert f"{name} does not hold a report in the format {form}" in ended.err
    for pair in (
        ".txt (text)",
        ".md (md)",
        ".markdown (md)",
        ".txt (md)",
        ".json (json)",
        ".html (html)",
        ".xml (junit)",
    ):
        assert pair in ended.err.partition("permitted: ")[2]
    assert hint.format(out.with_suffix("")) in ended.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("name", "begins"),
    [
        ("report", "PASS  the budget"),
        ("report.TXT", "PASS  the budget"),
        (".hidden", "PASS  the budget"),
        ("report.md", "## kdc: PASS"),
        ("report.Markdown", "## kdc: PASS"),
        ("junit.xml", "<?xml"),
        ("report.json", "{\n"),
    ],
)
def test_without_a_format_the_name_of_the_file_says_it(
    make_bundle: Make, kdc: Kdc, tmp_path: Path, name: str, begins: str
) -> None:
    bundle = make_bundle()
    finish(bundle)
    ended = kdc("report", bundle, "--out", tmp_path / name)
    assert (ended.code, ended.out) == (0, "")
    assert (tmp_path / name).read_text(encoding="utf-8").startswith(begins)


def test_what_is_no_file_gets_the_summary(make_bundle: Make, kdc: Kdc) -> None:
    bundle = make_bundle()
    finish(bundle)
    assert kdc("report", bundle, "--out", "/dev/null").code == 0


def test_a_notebook_shows_a_bundle_and_nothing_in_it_is_markup(make_bundle: Make) -> None:
    bundle = make_bundle()
    finish(bundle)
    done = compressor.report(bundle)
    shown = done._repr_html_()
    rows = done.report.rows
    assert shown.count("<tr>") == 1 + len(rows)
    assert all(f"<td>{row.name}" in shown for row in rows)
    student = next(row for row in rows if row.role == "student" and row.accuracy is not None)
    assert student.accuracy is not None
    assert f"(n={student.accuracy.n})" in shown
    values = done.report.model_dump(mode="json")
    values["rows"][0]["name"] = values["profile"] = MARKUP
    evil = BundleResult(Path(MARKUP), Report.model_validate(values))
    assert "<script" not in evil._repr_html_()
    assert evil._repr_html_().count(MARKUP_SHOWN) == 2
    assert "\u202e" not in repr(evil)
