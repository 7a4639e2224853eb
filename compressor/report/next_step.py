"""What to type next, where the budget does not hold or cannot be told."""

import re
import shlex
from dataclasses import dataclass

from compressor.profiles import profile_names
from compressor.report.answers import IS_A_TABLE
from compressor.report.gate import broken
from compressor.report.render.markdown import command, text
from compressor.schema.language.report import LanguageReport
from compressor.schema.race import Neighbour
from compressor.schema.report import Check, Report
from compressor.terminal.printable import one_line

__all__ = [
    "Step",
    "decisive",
    "device_to_type",
    "first_of_all",
    "measure_again",
    "next_step",
    "profile_to_type",
]

AnyReport = Report | LanguageReport
AGAINST_BASELINE = ("max_slowdown", "max_growth", "max_accuracy_loss", "max_negative_flips")
ON_DEVICE = ("p50_ms", "p90_ms", "peak_rss_mb", "model_rss_mb")
"""Judged on the profile's device alone."""
LATENCY = ("p50_ms", "p90_ms", "min_speedup", "max_slowdown")
LONGEST = 100
DEVICE = re.compile(r"local|ssh://[^\s-]\S*|adb:[^\s-]\S*")
"""As `--device` takes it; nothing that a shell or ssh would take for an option."""
COSTS = (*LATENCY, "size_mb", "peak_rss_mb", "model_rss_mb", "max_growth")


@dataclass(frozen=True)
class Step:
    """A command, empty where none would help, and what it is for."""

    command: str
    why: str

    def in_markdown(self) -> str:
        return f"{command(self.command)}: {text(self.why)}" if self.command else text(self.why)


def next_step(report: Report, bundle: str = "BUNDLE") -> Step | None:
    """The step that is most likely to lead to a verdict, or to a pass; None where the gate passes. `bundle`: what the
    user called it."""
    if report.verdict == "pass":
        return None
    where = shlex.quote(bundle)
    return first_of_all(report, where) or (
        _for_a_failure(report) if report.verdict == "fail" else _for_an_open_verdict(report, where)
    )


def first_of_all(report: AnyReport, where: str) -> Step | None:
    """What no line of the budget can be judged without."""
    if report.session is None:
        return Step(measure_again(report, where), "it was not measured")
    return _without_the_broken(report, where) if broken(report.checks) else None


def _typed(name: str, otherwise: str) -> str:
    """A name as a shell takes it; one that nobody would type is left to the reader."""
    return shlex.quote(name) if one_line(name) == name and len(name) <= LONGEST else otherwise


def measure_again(report: AnyReport, where: str) -> str:
    """What measures it again; of several devices that one alone, and the others stay as they are."""
    device = report.measured_on
    if device is None:
        return f"kdc measure {where}"
    return f"kdc measure {where} --device {device_to_type(device.url, device.name)}"


def device_to_type(url: str, name: str = "") -> str:
    """What `--device` takes; a bundle from anywhere may say anything in the place of a URL."""
    asked = "NAME=URL" if name else "URL"
    return _typed(f"{name}={url}" if name else url, asked) if DEVICE.fullmatch(url) else asked


def profile_to_type(report: AnyReport) -> str:
    """What `--profile` takes: a built-in profile is found by its name anywhere, another one by its path."""
    return report.profile if report.profile in profile_names() else "PROFILE.yaml"


def judged(report: AnyReport) -> list[Check]:
    """What is said of the variant to ship, or of all students where there is none."""
    students = {row.name for row in report.rows if row.role == "student"}
    judged = {report.winner} if report.winner is not None else students
    return [check for check in report.checks if check.variant in judged]


def decisive(report: AnyReport, *verdicts: str) -> set[str]:
    """The lines with these verdicts."""
    return {check.line for check in judged(report) if check.verdict in verdicts}


def _without_the_broken(report: AnyReport, where: str) -> Step:
    """What to do about an artefact that is at fault."""
    at_fault = {check.variant for check in broken(report.checks)}
    students = [row for row in report.rows if row.role == "student"]
    rest = [row for row in students if row.name not in at_fault]
    profile = profile_to_type(report)
    if not rest or len(rest) == len(students):  # what is at fault may be what they are compared with
        return Step(f"kdc doctor --profile {profile}", "what works on this machine, and what does not")
    targets = " ".join(f"--target {shlex.quote(f'{row.runtime}-{row.precision}')}" for row in rest)
    return Step(f"kdc export RUN --profile {profile} --out {where} --overwrite {targets}", "without what is at fault")


def _for_a_failure(report: Report) -> Step:
    failed, profile = decisive(report, "fail"), profile_to_type(report)
    contenders = report.race.contenders if report.race is not None else ()
    raced = next((each for each in contenders if report.race is not None and each.student == report.race.winner), None)
    if failed & set(COSTS):
        if raced is not None and raced.smaller is not None:
            return _another(raced.smaller, "the next smaller student")
        return Step(
            f"kdc students --profile {profile}", "which students the budget admits, measured before any training"
        )
    if "max_drop" in failed:
        return Step(f"kdc distill … --profile {profile} --qat", "a student that has learned to round as int8 does")
    if raced is not None and raced.larger is not None and not raced.larger.over:
        return _another(raced.larger, "the next larger student, which the budget admits")
    return Step(
        "kdc distill … --epochs N", f"a longer training; or a larger student, of `kdc students --profile {profile}`"
    )


def _another(other: Neighbour, why: str) -> Step:
    return Step(f"kdc distill … --student {_typed(other.student, 'STUDENT')}", why)


def _without_what_a_table_lacks(report: Report, where: str) -> Step | None:
    """No measurement judges lines that need of the teacher what a table of answers has not: they are to be taken
    out."""
    lacking = [
        check for check in judged(report) if check.verdict == "unmeasured" and check.reason.startswith(IS_A_TABLE)
    ]
    if not lacking:
        return None
    lines, why = (list(dict.fromkeys(getattr(check, name) for check in lacking)) for name in ("line", "reason"))
    other = "; p50_ms can" if "min_speedup" in lines else ""
    sets = " ".join(f"--set budget.{line}=null" for line in lines)
    return Step(
        f"kdc export RUN --profile {profile_to_type(report)} --out {where} --overwrite {sets}",
        f"{', '.join(lines)} cannot be judged, since {' and '.join(why)}{other}",
    )


def _for_an_open_verdict(report: Report, where: str) -> Step:
    session, undecided, missing = report.session, decisive(report, "inconclusive"), decisive(report, "unmeasured")
    assert session is not None
    if (step := _without_what_a_table_lacks(report, where)) is not None:
        return step
    again = measure_again(report, where)
    if session.lost is not None:
        return Step(again, "the session broke off")
    if not report.matches and (undecided | missing) & set(ON_DEVICE):
        if report.measured_on is not None:
            name, profile = report.measured_on.name, report.profile
            return Step(
                "", f"{name} is not the device of profile {profile}: latency and memory are judged there alone."
            )
        return Step(f"{again} --device ssh://USER@HOST", "latency and memory are judged on the profile's device alone")
    # A baseline is for all devices of a bundle.
    against = again if report.measured_on is None else f"kdc measure {where} --device … --device …"
    if missing & set(AGAINST_BASELINE) and report.release is None:
        return Step(f"{against} --baseline EARLIER_BUNDLE", "there is no baseline to be held against")
    if "max_slowdown" in missing and not any(row.role == "baseline" for row in report.rows):
        return Step(f"{against} --baseline EARLIER_BUNDLE", "the baseline did not race in this session")
    if undecided & set(LATENCY):
        if session.disturbed:
            return Step(again, "while nothing else runs there")
        rounds = 2 * session.rounds
        return Step(f"{again} --rounds {rounds} --seconds 600", f"more than {session.rounds} rounds may decide it")
    if undecided:
        return Step("", f"More test samples would tell: there are {report.test_n}.")
    return Step(again, "what was not measured")
