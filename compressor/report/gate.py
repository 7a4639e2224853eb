"""The gate: every student variant against kdc's own lines and every line of the budget; then one verdict over all.

What is not a student's is not judged: the teacher, the fp32 reference and the baseline only run along. But a teacher
or a reference that ran in another precision than it says is at fault, since ratios and retention rest on it. Absolute
latency and memory are judged only where the machine is the profile's device and ran it as the profile says. What was
not measured is never a pass, and neither is a session that broke off.
"""

from compressor.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_PASS
from compressor.report.checks.accuracy import accuracy_lines, drop_lines
from compressor.report.checks.artefact import REQUIRED_LINES, memory_lines, required_lines, size_lines, standing_lines
from compressor.report.checks.conditions import Grounds, grounds_of
from compressor.report.checks.latency import latency_checks, more_would_tell
from compressor.report.checks.provenance import licence_lines
from compressor.report.checks.release import release_lines
from compressor.report.preprocessing import preprocessing_lines
from compressor.report.read import Results
from compressor.schema.language.report import LanguageReport
from compressor.schema.report import Check, Report, Row, Verdict

__all__ = [
    "base_checks",
    "broken",
    "checks_for",
    "exit_code_for",
    "failed_lines",
    "holding",
    "open_lines",
    "verdict_of",
]

AnyReport = Report | LanguageReport


def checks_for(row: Row, results: Results, grounds: Grounds, teacher: Row | None) -> tuple[Check, ...]:
    """Every line held against one student variant. `teacher`: its row, where the bundle has one."""
    budget = results.bundle.profile.budget
    return (
        *required_lines(row, grounds),
        *licence_lines(row, results),
        *preprocessing_lines(row, results),
        *drop_lines(row, results),
        *size_lines(row, budget),
        *latency_checks(row, results, grounds, teacher),
        *memory_lines(row, budget, grounds),
        *accuracy_lines(row, results, grounds, teacher),
        *release_lines(row, results, grounds),
    )


def base_checks(rows: tuple[Row, ...], teacher: Row | None, grounds: Grounds) -> tuple[Check, ...]:
    """The lines held against what students are compared with: the teacher, and the fp32 reference beside them."""
    bases = [row for row in rows if row.role == "reference" or row is teacher]
    return tuple(check for row in bases for check in standing_lines(row, grounds))


def open_lines(results: Results) -> tuple[str, ...]:
    """`VARIANT LINE` of every line on latency that is open only because its interval straddles the limit, so that more
    rounds could decide it. A line that a disturbance, a loss or another machine leaves open is none of them."""
    grounds = grounds_of(results)
    students = (variant for variant in results.bundle.variants if variant.role == "student")
    return tuple(
        f"{variant.name} {line}" for variant in students for line in more_would_tell(variant, results, grounds)
    )


def broken(checks: tuple[Check, ...]) -> tuple[Check, ...]:
    """The failed lines that no other variant makes up for: an artefact that was asked for is not what it says it is."""
    return tuple(check for check in checks if check.line in REQUIRED_LINES and check.verdict == "fail")


def failed_lines(report: AnyReport) -> tuple[str, ...]:
    """The lines that make it fail: those of the variant to ship, and those that no other variant makes up for. Where
    nothing can be shipped: what every student variant fails, or else whatever one does."""
    failed = {name: set[str]() for name in (row.name for row in report.rows if row.role == "student")}
    for check in report.checks:
        if check.verdict == "fail" and check.variant in failed:
            failed[check.variant].add(check.line)
    lines = {check.line for check in broken(report.checks)}
    if report.winner is not None:
        lines |= failed[report.winner]
    elif failed and all(failed.values()):
        lines |= set.intersection(*failed.values()) or set.union(*failed.values())
    return tuple(sorted(lines))


def verdict_of(
    checks: tuple[Check, ...], variants: tuple[str, ...], winner: str | None
) -> tuple[Verdict, tuple[str, ...]]:
    """The verdict over all student `variants`, and which of them pass every line. `winner`: the one to ship, if any.

    fail: a variant does not run, not at the precision asked for, or not with torch's answers; or the one to ship fails
    a line of the budget, or, where there is none, each does. pass: the one to ship passes every line, or, where there
    is none, at least one. Otherwise what is still open: inconclusive or unmeasured, which it is also where there is no
    student variant at all.
    """
    lines = {name: {check.verdict for check in checks if check.variant == name} for name in variants}
    holds = tuple(name for name, verdicts in lines.items() if verdicts == {"pass"})
    if broken(checks):
        return "fail", holds
    shipped = {winner: lines[winner]} if winner is not None else lines
    if winner in holds or (winner is None and holds):
        return "pass", holds
    still_open = [verdicts for verdicts in shipped.values() if "fail" not in verdicts]
    if shipped and not still_open:
        return "fail", holds
    return ("inconclusive" if any("inconclusive" in verdicts for verdicts in still_open) else "unmeasured"), holds


def holding(report: AnyReport, allow_unmeasured: bool = False) -> tuple[str, ...]:
    """The student variants that hold every judged line; unmeasured lines count as not judged only where allowed."""
    accepted: set[Verdict] = {"pass", "unmeasured"} if allow_unmeasured else {"pass"}
    names = [row.name for row in report.rows if row.role == "student"]
    lines = {name: {check.verdict for check in report.checks if check.variant == name} for name in names}
    return tuple(name for name in names if lines[name] and lines[name] <= accepted)


def _let_through(report: AnyReport) -> bool:
    """Whether what would be shipped holds every line but for unmeasured ones; any variant, where none was chosen."""
    held = holding(report, allow_unmeasured=True)
    return report.winner in held if report.winner is not None else bool(held)


def exit_code_for(report: AnyReport, allow_unmeasured: bool = False) -> int:
    """0, 1 or 3: what `verdict_of` says, pass, fail, or still open.

    `allow_unmeasured` leaves unmeasured lines out; it never makes a failed or an inconclusive line a pass.
    """
    if report.verdict == "fail":
        return EXIT_GATE_FAILED
    return EXIT_PASS if report.verdict == "pass" or (allow_unmeasured and _let_through(report)) else EXIT_INCONCLUSIVE
