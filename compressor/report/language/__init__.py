"""kdc report, kdc check of a language model's bundle: as `compressor.report`, with figures of its own. No torch."""

import os
from pathlib import Path

from compressor.deploy.language import problems_of_best, ship
from compressor.errors import KdcError
from compressor.files.atomic import write_text
from compressor.files.bundle_change import next_state, settle
from compressor.files.bundle_folder import REMADE, counted, must_hold_a_bundle, read_steadily
from compressor.files.locks import locked
from compressor.files.reading import JSON_BYTES, read_text
from compressor.report.integrity import seal, verify
from compressor.report.language.build import report_of
from compressor.report.language.card import to_card
from compressor.report.language.read import LanguageResults, read_results
from compressor.report.language.render import to_markdown
from compressor.report.language.terminal import to_text
from compressor.report.render.formats import to_json
from compressor.report.render.junit import to_junit
from compressor.schema.language.report import LanguageReport

__all__ = ["check", "finish", "refresh", "report_of", "to_html", "to_json", "to_junit", "to_markdown", "to_text"]

WAIT_S = 60.0
"""For a command that writes the same bundle to end."""


def finish(folder: Path, allow_unmeasured: bool = False) -> LanguageReport:
    """Build the report of a bundle, write it, put what it chose into best/, and seal the bundle. For a bundle that does
    not count yet: a kill on the way leaves one that is nothing."""
    results = read_results(folder)
    report = report_of(results)
    for name, text in _texts(report, results, allow_unmeasured).items():
        if not _holds(folder / name, text):
            write_text(folder / name, text)
    ship(folder, report)
    seal(folder)
    return report


def refresh(bundle_dir: Path, allow_unmeasured: bool = False) -> LanguageReport:
    """The report of a sealed bundle, whose measurement may be new: then it, best/ and the seal are made anew. Nothing
    is written where nothing is new, nor where the bundle cannot be written to. Raises KdcError where anything but the
    measurement was changed."""
    must_hold_a_bundle(bundle_dir)
    done = read_steadily(bundle_dir, lambda: _as_sealed(bundle_dir, allow_unmeasured))
    if done is not None:
        return done
    if not os.access(bundle_dir, os.W_OK):
        verify(bundle_dir, may_change=REMADE)
        return report_of(read_results(counted(bundle_dir)))
    with locked(bundle_dir, "kdc report", wait_s=WAIT_S):
        settle(bundle_dir)
        verify(bundle_dir, may_change=REMADE)
        with next_state(bundle_dir) as following:
            return finish(following, allow_unmeasured)


def check(bundle_dir: Path) -> LanguageReport:
    """The report recomputed from a bundle in which every file is as it was sealed, and best/ is what that report
    chooses; raises KdcError otherwise. Writes nothing."""
    return read_steadily(bundle_dir, lambda: _check(bundle_dir))


def _check(bundle_dir: Path) -> LanguageReport:
    verify(bundle_dir)
    folder = counted(bundle_dir)
    report = report_of(read_results(folder))
    if problems := problems_of_best(folder, report):
        raise KdcError("; ".join(f"{bundle_dir}/{problem}" for problem in problems), f"kdc report {bundle_dir}")
    return report


def to_html(bundle_dir: Path, report: LanguageReport, allow_unmeasured: bool = False) -> str:
    """The report as one HTML file."""
    return _page(report, read_results(counted(bundle_dir)), allow_unmeasured)


def _page(report: LanguageReport, results: LanguageResults, allow_unmeasured: bool) -> str:
    from compressor.report.language.html import to_html as page  # jinja2 is not for `kdc check`

    return page(report, results, allow_unmeasured)


def _texts(report: LanguageReport, results: LanguageResults, allow_unmeasured: bool) -> dict[str, str]:
    return {
        "report.json": to_json(report),
        "report.html": _page(report, results, allow_unmeasured),
        "report.md": to_markdown(report, allow_unmeasured),
        "junit.xml": to_junit(report),
        "README.md": to_card(report, results.bundle),
    }


def _as_sealed(bundle_dir: Path, allow_unmeasured: bool) -> LanguageReport | None:
    """The report, where the bundle is sealed with it; None where there is something to write."""
    folder = counted(bundle_dir)
    if folder != bundle_dir:
        return None
    try:
        verify(bundle_dir)
    except KdcError:
        return None
    results = read_results(folder)
    report = report_of(results)
    written = all(_holds(folder / name, text) for name, text in _texts(report, results, allow_unmeasured).items())
    return report if written and not problems_of_best(folder, report) else None


def _holds(file: Path, content: str) -> bool:
    try:
        return file.is_file() and read_text(file, most=JSON_BYTES) == content
    except KdcError:  # not even text
        return False
