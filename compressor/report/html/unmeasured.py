"""What was not measured, and why."""

from collections.abc import Iterator

from compressor.report.html.text import shown
from compressor.report.read import Results
from compressor.schema.language.report import LanguageReport
from compressor.schema.report import Report

__all__ = ["few", "not_measured", "unmeasured_lines"]


def not_measured(report: Report, results: Results) -> Iterator[tuple[str, str]]:
    """What was not, and why: figures and lines, those of several variants in one."""
    yield from unmeasured_lines(report)
    if report.session is None:
        device = report.measured_on
        why = device.error if device is not None and device.error else "the bundle holds no measurement"
        yield "latency, memory, accuracy on the device", shown(why, 300)
        return
    for row in report.rows:
        if row.error is not None:
            yield f"everything of {shown(row.name)}", shown(row.error, 300)
    if report.session.aa is None:
        yield "how far two runs of the same artefact differ (A/A)", "the session had no second copy of the reference"
    if not report.session.with_throughput:
        yield "throughput", "it was left out on request"
    measured = [row for row in report.rows if row.measured]
    if measured and not any(row.throughput and row.throughput.joules_per_image for row in measured):
        yield "energy", "the machine has no counter that can be read, or throughput was left out"
    untold = [row.name for row in measured if row.p90_ms is None]
    if untold:
        yield f"p90 of {few(untold)}", "too few timed calls"
    if results.bundle.student.gain is None:
        yield "what distillation gained over labels alone", "no control was trained (kdc distill --control)"


def unmeasured_lines(report: Report | LanguageReport) -> Iterator[tuple[str, str]]:
    """The lines of the budget that were not, those of several variants in one."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for check in report.checks:
        if check.verdict == "unmeasured":
            reasons.setdefault((check.line, check.reason), []).append(check.variant)
    for (line, reason), names in reasons.items():
        yield f"{line} of {few(names)}", shown(reason, 300)


def few(names: list[str]) -> str:
    """At most four of the names."""
    listed = ", ".join(shown(name, 60) for name in names[:4])
    return f"{listed} and {len(names) - 4} more" if len(names) > 4 else listed
