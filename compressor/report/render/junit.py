"""Report -> JUnit XML, which every CI shows: a case a line of the budget and variant."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from itertools import zip_longest

from compressor.schema.language.report import LanguageReport
from compressor.schema.report import Check, Report
from compressor.terminal.printable import printable

__all__ = ["labels_of", "to_junit"]


def to_junit(*reports: Report | LanguageReport, missing: Sequence[str | None] = ()) -> str:
    """The checks as JUnit XML, a test case each, and a suite for each of several devices: fail is a failure;
    inconclusive and unmeasured are skipped, so a CI that reads only this file must also look at the exit code.
    `missing`: for each report, why nothing was measured there, where the report itself does not say it."""
    suites = ET.Element("testsuites", _counts([check for report in reports for check in report.checks]))
    for report, why in zip_longest(reports, missing[: len(reports)]):
        of_device = report.measured_on.error if report.measured_on is not None else None
        told = (why or of_device) if report.session is None else None
        _add_suite(suites, report, ".".join((*labels_of(report, reports), "")), told)
    ET.indent(suites)
    # References in place of signs beyond ASCII: the file is the same one on a stdout that has not got them.
    text = str(ET.tostring(suites, encoding="us-ascii"), "ascii")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _counts(checks: Sequence[Check]) -> dict[str, str]:
    failures = sum(check.verdict == "fail" for check in checks)
    skipped = sum(check.verdict in ("inconclusive", "unmeasured") for check in checks)
    return {"tests": str(len(checks)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}


def labels_of(report: Report | LanguageReport, reports: Sequence[Report | LanguageReport]) -> list[str]:
    """What tells it apart from the others: its profile, its device."""
    profile = [report.profile] if len({each.profile for each in reports}) > 1 else []
    return [*profile, *([] if report.measured_on is None else [report.measured_on.name])]


def _add_suite(suites: ET.Element, report: Report | LanguageReport, prefix: str, missing: str | None) -> None:
    name = report.profile if report.measured_on is None else f"{report.profile} on {report.measured_on.name}"
    title = {"name": printable(f"kdc {name}: {report.verdict}")}
    suite = ET.SubElement(suites, "testsuite", title | _counts(report.checks))
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(report, missing):
        ET.SubElement(properties, "property", {"name": name, "value": printable(value)})
    for check in report.checks:
        named = {"classname": printable(f"{prefix}{check.variant}"), "name": printable(check.line)}
        case = ET.SubElement(suite, "testcase", named)
        why = f" ({missing})" if missing is not None and check.verdict == "unmeasured" else ""
        said = printable(f"{check.verdict}: {check.value}, limit: {check.limit}. {check.reason}{why}")
        if check.verdict == "fail":
            ET.SubElement(case, "failure", {"message": said, "type": "budget"}).text = said
        elif check.verdict != "pass":
            ET.SubElement(case, "skipped", {"message": said})
        else:
            ET.SubElement(case, "system-out").text = said


def _properties(report: Report | LanguageReport, missing: str | None) -> Iterator[tuple[str, str]]:
    yield "verdict", report.verdict
    yield "ships", report.winner or "nothing"
    yield "profile", report.profile
    if report.measured_on is not None:
        yield "device", report.measured_on.name
    if missing is not None:
        yield "not measured", missing
    if report.session is not None:
        yield "measured on", report.session.machine.cpu
        yield "measured", report.session.started
    yield "kdc", report.kdc
