"""Report -> JSON, GitHub markdown that fits a pull request, and JUnit XML. Strings in, strings out."""

import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable

from compressor.report.gate import broken, holding
from compressor.report.text import NOT_MEASURED, estimate, megabytes, number, runtime_and_release, share
from compressor.spec.report import Check, Report, Row

__all__ = ["to_json", "to_junit", "to_markdown", "verdict_line"]

LONGEST_CELL = 200
# XML 1.0 permits no other control characters, not even escaped; runtimes' error messages hold colours and NULs.
NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def to_json(report: Report) -> str:
    """The report as it lies in report.json."""
    return report.model_dump_json(indent=2) + "\n"


def verdict_line(report: Report, allow_unmeasured: bool = False) -> str:
    """The verdict in one line: who holds, or which lines each variant does not pass."""
    head = f"{report.verdict.upper()} on {report.profile}: "
    if faults := broken(report.checks):
        return head + "; ".join(f"{check.variant} fails {check.line} ({check.reason})" for check in faults)
    if report.holds:
        return head + f"{', '.join(report.holds)} hold{'s' if len(report.holds) == 1 else ''} every line"
    if allow_unmeasured and (held := holding(report, allow_unmeasured)):
        return head + f"unmeasured lines are allowed and not judged; {', '.join(held)}: nothing else is missing"
    parts = []
    for name in [row.name for row in report.rows if row.role == "student"]:
        open_lines = [(check.verdict, check.line) for check in report.checks if check.variant == name]
        said = [
            f"{verdict} {', '.join(line for found, line in open_lines if found == verdict)}"
            for verdict in ("fail", "inconclusive", "unmeasured")
            if any(found == verdict for found, _ in open_lines)
        ]
        parts.append(f"{name} ({'; '.join(said)})")
    return head + ("; ".join(parts) or "the bundle has no student variant")


def to_markdown(report: Report, allow_unmeasured: bool = False) -> str:
    """The report as GitHub markdown. `allow_unmeasured`: say that unmeasured lines were let through."""
    parts = [
        *_head(report, allow_unmeasured),
        "### What it costs and keeps",
        *_rows_table(report),
        "### The budget, line by line",
        _table(["variant", "line", "limit", "measured", "verdict", "reason"], map(_check_cells, report.checks)),
        *_details(report),
        "### Facts",
        "\n".join(f"- {fact}" for fact in _facts(report)),
    ]
    return "\n\n".join(parts) + "\n"


def _line(value: object) -> str:
    """Anything as one line, without control characters and other unprintable ones."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in str(value)).split())


def _text(value: object) -> str:
    """Anything as one line of markdown that cannot break out of its table cell."""
    line = _line(value)
    line = line if len(line) <= LONGEST_CELL else line[: LONGEST_CELL - 1] + "…"
    return re.sub(r"([\\`*|<]|\](?=[(\[:]))", r"\\\1", line)


def _code(value: object) -> str:
    """A name in code style; within it only the bar needs escaping, and only in tables."""
    return "`" + _line(value).replace("`", "'").replace("|", "\\|") + "`"


def _table(header: list[str], rows: Iterable[list[str]], figures: int = 0) -> str:
    """A markdown table; its last `figures` columns are aligned to the right."""
    rule = ["---"] * (len(header) - figures) + ["---:"] * figures
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def _head(report: Report, allow_unmeasured: bool) -> list[str]:
    titles = {
        "pass": f"holds on {_code(report.profile)}",
        "fail": f"does not hold on {_code(report.profile)}",
        "inconclusive": f"cannot be told yet on {_code(report.profile)}",
        "unmeasured": f"is not measured on {_code(report.profile)}",
    }
    faults = broken(report.checks)
    title = f"an artefact for {_code(report.profile)} is at fault" if faults else f"the budget {titles[report.verdict]}"
    parts = [f"## kdc: {report.verdict.upper()} – {title}"]
    parts += [f"**At fault:** {_code(check.variant)}, {check.line}: {_text(check.reason)}" for check in faults]
    if report.holds:
        parts.append(f"**Holds every line:** {', '.join(map(_code, report.holds))}")
    if allow_unmeasured and any(check.verdict == "unmeasured" for check in report.checks):
        held = ", ".join(map(_code, holding(report, allow_unmeasured))) or "no variant"
        judged = any(check.verdict != "unmeasured" for check in report.checks)
        parts.append(
            "**Unmeasured lines were allowed** (`--allow-unmeasured`): they are not judged, and are no pass. "
            + (f"Every judged line is held by: {held}." if judged else "No line at all was judged.")
        )
    start = _text(report.student_init)
    student = f"Student {_code(report.student)} (start: {start}), teacher {_code(report.teacher)}"
    return [*parts, f"{student}.  \n{_how_measured(report)}"]


def _how_measured(report: Report) -> str:
    if report.session is None:
        return f"Profile {_code(report.profile)} ({_text(report.device)}). Nothing was measured."
    session, machine = report.session, report.session.machine
    threads = sorted({row.threads for row in report.rows if row.measured and row.threads is not None})
    where = f"{_text(machine.cpu)} ({_text(machine.arch)}, {machine.cores} cores, {_text(machine.system)})"
    if report.matches:
        which = f"which is the device of profile {_code(report.profile)}"
    else:
        why = "; ".join(map(_text, report.differences))
        which = f"**not the device of profile {_code(report.profile)}** as it describes it ({why})"
    counted = " and ".join(map(str, threads)) or "unknown"
    return (
        f"Measured {_text(session.started)} on {where}, {which}.  \n"
        f"{counted} thread{'s' if threads != [1] else ''}, batch {session.batch}; {session.rounds} rounds, in each "
        f"one block a variant in random order; {session.block_length} calls a block, the first "
        f"{session.block_dropped} dropped; {session.distinct_inputs} distinct inputs."
    )


def _rows_table(report: Report) -> list[str]:
    two_classes = len(report.class_names) == 2
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("params (M)", lambda row: number(row.parameters / 1e6)),
        ("MACs (M)", lambda row: number(row.macs / 1e6)),
        ("size (MB)", lambda row: number(megabytes(row.size_bytes))),
        ("p50 ms", lambda row: estimate(row.p50_ms)),
        ("p90 ms", lambda row: estimate(row.p90_ms)),
        ("times as fast", lambda row: "1" if _is_base(row, report) else estimate(row.p50_ratio)),
        ("accuracy %", lambda row: estimate(row.accuracy, percent=True)),
        ("balanced %", lambda row: estimate(row.balanced_accuracy, percent=True)),
        *([("AUC", lambda row: estimate(row.auc))] if two_classes else []),
        ("retention %", lambda row: "100" if _is_base(row, report) else estimate(row.retention, percent=True)),
        ("ran as", lambda row: _text(row.executed_precision or ("failed" if row.error else NOT_MEASURED))),
    ]
    body = [[_name(row), *(figure(row) for _, figure in columns)] for row in report.rows]
    return [_table(["variant", *(title for title, _ in columns)], body, len(columns)), _sample_sizes(report)]


def _name(row: Row) -> str:
    return f"{_code(row.name)} (teacher)" if row.role == "teacher" else _code(row.name)


def _is_base(row: Row, report: Report) -> bool:
    """Whether the others are compared with this row (it alone is a measured teacher without a ratio to another)."""
    return row.role == "teacher" and row.measured and row.accuracy is not None and row.retention is None


def _sample_sizes(report: Report) -> str:
    """Every figure says its n: here for all variants that have the same, and one by one where they differ."""
    parts = []
    for what, field in (("p50 and p90", "p50_ms"), ("times as fast", "p50_ratio"), ("accuracy", "accuracy")):
        sizes = {row.name: getattr(row, field) for row in report.rows if getattr(row, field) is not None}
        said = {name: f"n = {figure.n} {figure.of}" for name, figure in sizes.items()}
        if len(set(said.values())) == 1:
            parts.append(f"{what}: {next(iter(said.values()))}")
        elif said:
            parts.append(f"{what}: " + ", ".join(f"{_code(name)} {text}" for name, text in said.items()))
    return f"[low–high] are 95 % intervals. Samples: {'; '.join(parts) or 'nothing was measured'}."


def _check_cells(check: Check) -> list[str]:
    verdict = check.verdict if check.verdict == "pass" else f"**{check.verdict}**"
    return [_code(check.variant), check.line, *map(_text, (check.limit, check.value)), verdict, _text(check.reason)]


def _details(report: Report) -> list[str]:
    """Starting, memory, and likeness to torch and to the teacher; folded, since no pull request turns on them."""
    if not any(row.measured for row in report.rows):
        return []
    header = ["variant", "runtime", "load ms", "first call ms", "peak RSS MB"]
    header += ["lowest cosine to torch", "top-1 as torch %", "top-1 as the teacher %"]
    body = [
        [
            _name(row),
            _text(runtime_and_release(row)),
            *(
                NOT_MEASURED if value is None else number(value)
                for value in (row.load_ms, row.first_ms, row.peak_rss_mb)
            ),
            NOT_MEASURED if row.parity_cosine is None else f"{row.parity_cosine:.6f}",
            NOT_MEASURED if row.parity_agreement is None else share(row.parity_agreement),
            "–" if _is_base(row, report) else estimate(row.agreement, percent=True),
        ]
        for row in report.rows
    ]
    summary = "Starting, memory, parity with torch (n = 1 start; "
    summary += f"n = {report.test_n} test samples)"
    return [f"<details><summary>{summary}</summary>", _table(header, body, len(header) - 2), "</details>"]


def _facts(report: Report) -> Iterable[str]:
    classes = len(report.class_names)
    yield f"Test: n = {report.test_n} samples of the {_text(report.test_split)} split, {classes} classes."
    yield f"Data: {_code(report.data)}"
    yield from map(_text, report.data_notes)
    for row in report.rows:
        if row.worst_class is not None:
            recall = row.worst_class.recall
            named = f"{_text(row.worst_class.class_name)}: recall {estimate(recall, percent=True)} %"
            yield f"Worst class of {_code(row.name)}: {named} (n = {recall.n})"
    yield f"Teacher: {_code(report.teacher)}, licence: {_text(report.teacher_licence)}"
    yield f"Student weights kept: {_text(report.kept)}"
    yield from map(_text, report.notes)
    yield f"Made by kdc {_text(report.kdc)} from the raw samples in the bundle."


def to_junit(report: Report) -> str:
    """The checks as JUnit XML, a test case each: fail is a failure; inconclusive and unmeasured are skipped, so a CI
    that reads only this file must also look at the exit code."""
    failures = sum(check.verdict == "fail" for check in report.checks)
    skipped = sum(check.verdict in ("inconclusive", "unmeasured") for check in report.checks)
    counts = {"tests": str(len(report.checks)), "failures": str(failures), "errors": "0", "skipped": str(skipped)}
    suites = ET.Element("testsuites", counts)
    suite = ET.SubElement(suites, "testsuite", {"name": _xml(f"kdc {report.profile}: {report.verdict}"), **counts})
    for check in report.checks:
        case = ET.SubElement(suite, "testcase", {"classname": _xml(check.variant), "name": _xml(check.line)})
        said = _xml(f"{check.verdict}: {check.value}, limit: {check.limit}. {check.reason}")
        if check.verdict == "fail":
            ET.SubElement(case, "failure", {"message": said, "type": "budget"}).text = said
        elif check.verdict != "pass":
            ET.SubElement(case, "skipped", {"message": said})
        else:
            ET.SubElement(case, "system-out").text = said
    ET.indent(suites)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ET.tostring(suites, encoding="unicode") + "\n"


def _xml(text: str) -> str:
    return NOT_XML.sub("�", text)
