"""kdc report, kdc check: what lies in a bundle -> figures, verdicts, an exit code. Runs where torch is not installed.

finish      after an export and its measurement: build the report, write it, seal the bundle
refresh     after a measurement on the device: the same, once everything that was made before is verified
check       verify every file and best/, build the report anew; what `kdc check` turns into an exit code
            finish_each, refresh_each, check_each: the same for a bundle that was measured on several devices, too

open_lines  which lines more rounds would decide, of `results_with(read_unmeasured(BUNDLE), measurement)`: asked after
            each look of a session that is still going on, before there are any logits
"""

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from compressor.deploy import problems_of_best, ship
from compressor.errors import KdcError
from compressor.files.atomic import is_temporary, write_text
from compressor.files.bundle_change import next_state, settle
from compressor.files.bundle_folder import (
    MATRIX,
    counted,
    must_hold_a_bundle,
    read_steadily,
    remade_in,
)
from compressor.files.locks import is_lock, locked
from compressor.files.reading import JSON_BYTES, read_text
from compressor.report.build import build_report, report_of
from compressor.report.bundles import (
    baseline_for,
    baselines_for,
    holds_bundles,
    not_measured,
    of_profile,
    read_bundles,
    write_matrix,
)
from compressor.report.devices import OnDevice, devices_of, exit_code_over, read_devices, take_up
from compressor.report.gate import exit_code_for, open_lines
from compressor.report.history import Trend, entry_of, remember, trend_table
from compressor.report.integrity import seal, seal_line, verify, verify_made
from compressor.report.push import push
from compressor.report.read import Results, read_results, read_unmeasured, results_with
from compressor.report.release import (
    Baseline,
    Baselines,
    compared_with,
    read_baseline,
    release_of,
    report_beside,
    require_baseline,
    results_beside,
)
from compressor.report.render.bencher import to_bencher
from compressor.report.render.card import to_card
from compressor.report.render.devices import devices_line, to_matrix
from compressor.report.render.formats import report_schema, to_json, verdict_line
from compressor.report.render.junit import to_junit
from compressor.report.render.page import to_markdown
from compressor.report.render.summary import devices_summary, summary
from compressor.report.side_by_side import side_by_side
from compressor.report.side_by_side import to_table as side_by_side_table
from compressor.schema.report import Report

__all__ = [
    "Baseline",
    "Baselines",
    "OnDevice",
    "Results",
    "Trend",
    "baseline_for",
    "baselines_for",
    "build_report",
    "check",
    "check_each",
    "compared_with",
    "counted",
    "devices_line",
    "devices_of",
    "devices_summary",
    "entry_of",
    "exit_code_for",
    "exit_code_over",
    "finish",
    "finish_each",
    "holds_bundles",
    "matrix_anew",
    "must_hold_a_bundle",
    "not_measured",
    "of_profile",
    "open_lines",
    "push",
    "read_baseline",
    "read_bundles",
    "read_devices",
    "read_unmeasured",
    "refresh",
    "refresh_each",
    "release_of",
    "remember",
    "report_beside",
    "report_schema",
    "require_baseline",
    "results_beside",
    "results_with",
    "seal",
    "seal_line",
    "side_by_side",
    "side_by_side_table",
    "summary",
    "texts_of",
    "to_bencher",
    "to_card",
    "to_html",
    "to_json",
    "to_junit",
    "to_markdown",
    "to_matrix",
    "trend_table",
    "verdict_line",
    "verify",
    "verify_made",
    "write_matrix",
]


WAIT_S = 60.0
"""For a command that writes the same bundle to end. A report takes seconds; a measurement says who measures."""


def texts_of(bundle_dir: Path, report: Report, results: Results, allow_unmeasured: bool = False) -> dict[str, str]:
    """The files that a bundle holds of its report, by name. `results`: what the report was made from."""
    return {
        "report.json": to_json(report),
        "report.md": to_markdown(report, allow_unmeasured),
        "report.html": to_html(bundle_dir, report, results, allow_unmeasured),
        "junit.xml": to_junit(report),
        "README.md": to_card(report, results.bundle),
    }


def to_html(
    bundle_dir: Path, report: Report, results: Results | None = None, allow_unmeasured: bool = False,
    trend: Trend | None = None,
) -> str:  # fmt: skip
    """The report as one HTML file. `results`: what it was made from; read from the bundle where they are not given.
    `trend`: of a history, to be drawn."""
    from compressor.report.html import to_html as page  # jinja2 is not for `kdc check`

    folder = counted(bundle_dir)
    return page(folder, report, read_results(folder) if results is None else results, allow_unmeasured, trend)


def _holds(file: Path, content: str) -> bool:
    try:
        return file.is_file() and read_text(file, most=JSON_BYTES) == content
    except KdcError:  # not even text
        return False


def finish(bundle_dir: Path, allow_unmeasured: bool = False) -> Report:
    """Build the report of a bundle, write it, put what it chose into best/, and seal the bundle. For a bundle that does
    not count yet (see bundle_change): a kill on the way leaves one that is nothing."""
    return _alone(finish_each(bundle_dir, allow_unmeasured))


def finish_each(bundle_dir: Path, allow_unmeasured: bool = False) -> tuple[OnDevice, ...]:
    """`finish`, also for a bundle that was measured on several devices: each with its own report and best/."""
    take_up(bundle_dir)
    measured = _measured(bundle_dir)
    for name, text in _texts(bundle_dir, measured, allow_unmeasured).items():
        if not _holds(bundle_dir / name, text):
            write_text(bundle_dir / name, text)
    for each in measured:
        ship(bundle_dir, each.report, each.folder)
    seal(bundle_dir)
    return measured


def _measured(folder: Path, baseline: Baseline | None = None) -> tuple[OnDevice, ...]:
    """What was measured, on each of several devices; where there is one session, that alone, without a name."""
    if devices := read_devices(folder, baseline):
        return devices
    if baseline is not None:
        results, report = results_beside(folder, baseline)
    else:
        results = read_results(folder)
        report = report_of(results)
    return (OnDevice("", "", report, results),)


def _alone(measured: tuple[OnDevice, ...]) -> Report:
    if measured[0].folder:
        names = ", ".join(each.name for each in measured)
        raise KdcError(f"the bundle was measured on several devices, and this is about one: {names}")
    return measured[0].report


def _texts(folder: Path, measured: tuple[OnDevice, ...], allow_unmeasured: bool) -> dict[str, str]:
    """The files that the bundle in `folder` holds of its reports, by path."""
    texts = {
        f"{each.folder}{name}": text
        for each in measured
        for name, text in texts_of(folder, each.report, each.results, allow_unmeasured).items()
    }
    if not measured[0].folder:
        return texts
    matrix = (to_json(devices_of(measured)), to_matrix(measured, allow_unmeasured))
    junit = to_junit(*(each.report for each in measured), missing=[each.error for each in measured])
    return texts | dict(zip(MATRIX, matrix, strict=True)) | {"junit.xml": junit}


def refresh(bundle_dir: Path, allow_unmeasured: bool = False) -> Report:
    """The report of a sealed bundle, whose measurements may be new: then it, best/ and the seal are made anew.

    Nothing is written where nothing is new, nor where the bundle cannot be written to. Raises KdcError where anything
    but the measurements was changed, and where another command writes the bundle for longer than a minute.
    """
    return _alone(refresh_each(bundle_dir, allow_unmeasured))


def refresh_each(bundle_dir: Path, allow_unmeasured: bool = False) -> tuple[OnDevice, ...]:
    """`refresh`, also for a bundle that was measured on several devices, and for the bundles of several profiles."""
    if holds_bundles(bundle_dir):
        return _refresh_bundles(bundle_dir, allow_unmeasured)
    must_hold_a_bundle(bundle_dir)
    done = read_steadily(bundle_dir, lambda: _as_sealed(bundle_dir, allow_unmeasured))
    if done is not None:
        _tidy(bundle_dir)
        return done
    if not os.access(bundle_dir, os.W_OK):
        verify(bundle_dir, may_change=remade_in(counted(bundle_dir)))
        return _measured(counted(bundle_dir))
    with locked(bundle_dir, "kdc report", wait_s=WAIT_S):
        settle(bundle_dir)
        verify(bundle_dir, may_change=remade_in(bundle_dir))
        with next_state(bundle_dir) as following:
            measured = finish_each(following, allow_unmeasured)
    return measured


def _refresh_bundles(folder: Path, allow_unmeasured: bool) -> tuple[OnDevice, ...]:
    measured = read_bundles(folder, lambda bundle: refresh_each(bundle, allow_unmeasured))
    if os.access(folder, os.W_OK):
        with locked(folder, "kdc report", wait_s=WAIT_S):
            write_matrix(folder, measured, allow_unmeasured)
    return measured


def matrix_anew(bundle_dir: Path, url: str, allow_unmeasured: bool = False) -> None:
    """Write anew what is said of all the bundles in the folder of `bundle_dir`, which was measured at `url` just now.
    The bundles stay as they are. Raises KdcError, also where one of them is not as it was sealed."""
    folder, name = bundle_dir.parent, bundle_dir.name
    with locked(folder, "kdc measure", wait_s=WAIT_S):
        read = read_bundles(folder, check_each)
        measured = [replace(each, url=url) if each.name == name else each for each in read]
        write_matrix(folder, measured, allow_unmeasured)


def _tidy(bundle_dir: Path) -> None:
    """Remove what a kill has left, unless it is what another command is making just now, or nothing may be removed."""
    left = any(is_temporary(path.name) or is_lock(path.name) for path in bundle_dir.iterdir())
    if left and os.access(bundle_dir, os.W_OK):
        with suppress(KdcError), locked(bundle_dir, "kdc report"):
            settle(bundle_dir)


def _as_sealed(bundle_dir: Path, allow_unmeasured: bool) -> tuple[OnDevice, ...] | None:
    """What was measured, where the bundle is sealed with its reports; None where there is something to write."""
    folder = counted(bundle_dir)
    if folder != bundle_dir:
        return None
    try:
        verify(bundle_dir)
    except KdcError:
        return None
    measured = _measured(folder)
    written = all(_holds(folder / name, text) for name, text in _texts(folder, measured, allow_unmeasured).items())
    return measured if written and not _problems(folder, measured) else None


def _problems(folder: Path, measured: tuple[OnDevice, ...]) -> list[str]:
    """What keeps each best/ from being what the report on it chooses."""
    return [problem for each in measured for problem in problems_of_best(folder, each.report, each.folder)]


def check(bundle_dir: Path, baseline: Baseline | None = None) -> Report:
    """The report recomputed from a bundle in which every file is as it was sealed, and best/ is what that report
    chooses; raises KdcError otherwise. Writes nothing. `baseline`: another one to be held against."""
    return _alone(check_each(bundle_dir, baseline))


def check_each(bundle_dir: Path, baseline: Baseline | Baselines | None = None) -> tuple[OnDevice, ...]:
    """`check`, also for a bundle that was measured on several devices, and for the bundles of several profiles."""
    if holds_bundles(bundle_dir):
        return read_bundles(bundle_dir, lambda bundle: check_each(bundle, baseline))
    if isinstance(baseline, Baselines):
        baseline = baseline.of_profile[bundle_dir.name]
    return read_steadily(bundle_dir, lambda: _check(bundle_dir, baseline))


def _check(bundle_dir: Path, baseline: Baseline | None) -> tuple[OnDevice, ...]:
    verify(bundle_dir)
    folder = counted(bundle_dir)
    measured = _measured(folder, baseline)
    if problems := _problems(folder, measured):
        raise KdcError("; ".join(f"{bundle_dir}/{problem}" for problem in problems), f"kdc report {bundle_dir}")
    return measured
