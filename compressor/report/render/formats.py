"""Report -> JSON, its schema, and the verdict in one line. Strings in, strings out."""

import json
from typing import Any

from compressor import __version__
from compressor.report.gate import broken, holding
from compressor.schema.devices import Devices
from compressor.schema.language.report import LanguageReport
from compressor.schema.report import Report

__all__ = ["report_schema", "to_json", "verdict_line"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def to_json(report: Report | LanguageReport | Devices) -> str:
    """The report as it lies in report.json; or the matrix, as in devices.json."""
    return report.model_dump_json(indent=2) + "\n"


def report_schema() -> str:
    """The JSON Schema (draft 2020-12) of report.json. The number in its `$id` is that of the report's key `schema`:
    while it stays, keys are only added, and none changes its meaning. So it admits keys that it does not know. A report
    whose `task` is that of language models is described apart, in `$defs`."""
    described = Report.model_json_schema(mode="serialization", by_alias=True)
    version = described["properties"]["schema"]["const"]
    described["required"] = ["schema", *described["required"]]
    title = f"report.json of kdc, schema {version}, as kdc {__version__} writes it"
    head = {"$schema": DIALECT, "$id": f"urn:kdc:report:{version}", "title": title}
    of_language = LanguageReport.model_json_schema(mode="serialization", by_alias=True)
    of_language["required"] = ["schema", "task", *of_language["required"]]
    shared = of_language.pop("$defs")
    defined = {**described.pop("$defs"), **shared, "LanguageReport": of_language}
    task = {"properties": {"task": of_language["properties"]["task"]}, "required": ["task"]}
    branches = {"if": task, "then": {"$ref": "#/$defs/LanguageReport"}, "else": {"$ref": "#/$defs/Report"}}
    return json.dumps({**head, **_open({"$defs": {**defined, "Report": described}}), **branches}, indent=2) + "\n"


def _open(part: Any) -> Any:
    """Without `additionalProperties: false`, and without pydantic's titles, which repeat the names of keys."""
    if isinstance(part, dict):
        dropped = ("additionalProperties",) if part.get("additionalProperties") is False else ()
        names = ("title",) if isinstance(part.get("title"), str) else ()
        return {key: _open(value) for key, value in part.items() if key not in (*dropped, *names)}
    return [_open(inner) for inner in part] if isinstance(part, list) else part


def verdict_line(report: Report | LanguageReport, allow_unmeasured: bool = False) -> str:
    """The verdict in one line: who holds, or which lines each variant does not pass."""
    head = f"{report.verdict.upper()} on profile {report.profile}: "
    if faults := broken(report.checks):
        return head + "; ".join(f"{check.variant} fails {check.line} ({check.reason})" for check in faults)
    if report.verdict == "pass":
        all_lines = f"{', '.join(report.holds)} hold{'s' if len(report.holds) == 1 else ''} every line"
        return head + (f"ship {report.winner}; {all_lines}" if report.winner is not None else all_lines)
    if allow_unmeasured and (held := holding(report, allow_unmeasured)):
        return head + f"unmeasured lines are allowed and not judged; {', '.join(held)}: nothing else is missing"
    students = sorted(
        (row.name for row in report.rows if row.role == "student"), key=lambda name: name != report.winner
    )
    return head + ("; ".join(_of_variant(report, name) for name in students) or "the bundle has no student variant")


def _of_variant(report: Report | LanguageReport, name: str) -> str:
    """The lines that a variant does not pass; of the one to ship in words."""
    checks = [check for check in report.checks if check.variant == name]
    lines = {
        verdict: ", ".join(check.line for check in checks if check.verdict == verdict)
        for verdict in ("fail", "inconclusive", "unmeasured")
    }
    missed = {verdict: names for verdict, names in lines.items() if names}
    if not missed:
        return f"{name} holds every line" if checks else f"{name} is held against no line"
    if name == report.winner:
        words = {"fail": "fails", "inconclusive": "is inconclusive on", "unmeasured": "is unmeasured on"}
        return f"{name}, which ships, {' and '.join(f'{words[verdict]} {names}' for verdict, names in missed.items())}"
    return f"{name} ({'; '.join(f'{verdict} {names}' for verdict, names in missed.items())})"
