"""kdc report, kdc check: what lies in a bundle -> figures, verdicts, an exit code. Runs where torch is not installed.

finish      after an export and its measurement: build the report, write it, seal the bundle
refresh     after a measurement on the device: the same, once everything that was made before is verified
check       verify every file, build the report anew; what `kdc check` turns into an exit code

open_lines  which lines more rounds would decide, of `results_with(read_unmeasured(BUNDLE), measurement)`: asked after
            each look of a session that is still going on, before there are any logits
"""

from pathlib import Path

from compressor.deploy import ship
from compressor.report.build import build_report
from compressor.report.gate import exit_code_for, open_lines
from compressor.report.integrity import REMADE, seal, verify, verify_made
from compressor.report.read import Results, read_unmeasured, results_with
from compressor.report.render import to_json, to_junit, to_markdown, verdict_line
from compressor.spec.base import write_json, write_text
from compressor.spec.report import Report

__all__ = [
    "Results",
    "build_report",
    "check",
    "exit_code_for",
    "finish",
    "open_lines",
    "read_unmeasured",
    "refresh",
    "results_with",
    "seal",
    "to_json",
    "to_junit",
    "to_markdown",
    "verdict_line",
    "verify",
    "verify_made",
    "write_reports",
]


def write_reports(bundle_dir: Path, report: Report, allow_unmeasured: bool = False) -> None:
    """Write report.json and report.md into the bundle. Seal it afterwards."""
    write_json(bundle_dir / "report.json", report)
    write_text(bundle_dir / "report.md", to_markdown(report, allow_unmeasured))


def finish(bundle_dir: Path, allow_unmeasured: bool = False) -> Report:
    """Build the report of a bundle, write it, put what it chose into best/, and seal the bundle."""
    report = build_report(bundle_dir)
    write_reports(bundle_dir, report, allow_unmeasured)
    ship(bundle_dir, report)
    seal(bundle_dir)
    return report


def refresh(bundle_dir: Path, allow_unmeasured: bool = False) -> Report:
    """`finish` for a sealed bundle whose measurements are new; raises KdcError where anything else was changed."""
    verify(bundle_dir, may_change=REMADE)
    return finish(bundle_dir, allow_unmeasured)


def check(bundle_dir: Path) -> Report:
    """The report recomputed from a bundle in which every file is as it was sealed; raises KdcError otherwise."""
    verify(bundle_dir)
    return build_report(bundle_dir)
