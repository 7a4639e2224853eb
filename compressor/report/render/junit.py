"""Report -> JUnit XML, which every CI shows: a case a line of the budget and variant."""

import xml.etree.ElementTree as ET
from collections.abc import Iterator

from compressor.schema.report import Report
from compressor.terminal.printable import printable

__all__ = ["to_junit"]


def to_junit(report: Report) -> str:
    """The checks as JUnit XML, a test case each: fail is a failure; inconclusive and unmeasured are skipped, so a CI
    that reads only this file must also look at the exit code."""
    failures = sum(check.verdict == "fail" for check in report.checks)
    skipped = sum(check.verdict in ("inconclusive", "unmeasured") for check in report.checks)
    counts = {"tests": str(len(report.checks)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}
    suites = ET.Element("testsuites", counts)
    suite = ET.SubElement(suites, "testsuite", {"name": printable(f"kdc {report.profile}: {report.verdict}"), **counts})
    properties = ET.SubElement(suite, "properties")
    for name, value in _properties(report):
        ET.SubElement(properties, "property", {"name": name, "value": printable(value)})
    for check in report.checks:
        case = ET.SubElement(suite, "testcase", {"classname": printable(check.variant), "name": printable(check.line)})
        said = printable(f"{check.verdict}: {check.value}, limit: {check.limit}. {check.reason}")
        if check.verdict == "fail":
            ET.SubElement(case, "failure", {"message": said, "type": "budget"}).text = said
        elif check.verdict != "pass":
            ET.SubElement(case, "skipped", {"message": said})
        else:
            ET.SubElement(case, "system-out").text = said
    ET.indent(suites)
    # References in place of signs beyond ASCII: the file is the same one on a stdout that has not got them.
    text = str(ET.tostring(suites, encoding="us-ascii"), "ascii")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _properties(report: Report) -> Iterator[tuple[str, str]]:
    yield "verdict", report.verdict
    yield "ships", report.winner or "nothing"
    yield "profile", report.profile
    if report.session is not None:
        yield "measured on", report.session.machine.cpu
        yield "measured", report.session.started
    yield "kdc", report.kdc
