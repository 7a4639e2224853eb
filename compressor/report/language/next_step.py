"""What to type next, where the budget of a language model does not hold or cannot be told."""

import shlex

from compressor.report.language.figures import SPEED
from compressor.report.next_step import Step, decisive, first_of_all, measure_again, profile_to_type
from compressor.schema.language.report import LanguageReport

__all__ = ["next_step"]

COSTS = (*SPEED, "size_mb", "peak_rss_mb", "model_rss_mb")
ON_DEVICE = (*SPEED, "peak_rss_mb", "model_rss_mb")
"""Judged on the profile's device alone."""


def next_step(report: LanguageReport, bundle: str = "BUNDLE") -> Step | None:
    """The step that is most likely to lead to a verdict, or to a pass; None where the gate passes. `bundle`: what the
    user called it."""
    if report.verdict == "pass":
        return None
    where = shlex.quote(bundle)
    return first_of_all(report, where) or (
        _for_a_failure(report, where) if report.verdict == "fail" else _for_an_open_verdict(report, where)
    )


def _for_a_failure(report: LanguageReport, where: str) -> Step:
    failed = decisive(report, "fail")
    if "licence" in failed:
        return Step("", "The profile forbids a licence that the student comes with: another teacher, or other data.")
    if failed & set(COSTS):
        return Step("kdc distill … --student layers:N", "a student of fewer layers")
    if "max_drop" in failed:
        precisions = "'generation.precisions=[fp32, int8]'"
        return Step(
            f"kdc export RUN --profile {profile_to_type(report)} --out {where} --overwrite --set {precisions}",
            "weights of more bits lose less",
        )
    return Step("kdc distill … --epochs N", "a longer training; or a larger student")


def _for_an_open_verdict(report: LanguageReport, where: str) -> Step:
    session, undecided, missing = report.session, decisive(report, "inconclusive"), decisive(report, "unmeasured")
    assert session is not None
    again = measure_again(report, where)
    if not report.matches and (undecided | missing) & set(ON_DEVICE):
        return Step("", "Speed and memory are judged on the profile's device alone: carry the bundle there.")
    if undecided & set(SPEED):
        if session.disturbed:
            return Step(again, "while nothing else runs there")
        rounds = 2 * session.rounds
        return Step(f"{again} --rounds {rounds} --seconds 600", f"more than {session.rounds} rounds may decide it")
    if undecided:
        return Step("", f"More test documents would tell: there are {report.student_torch.n}.")
    if "min_retention" in missing and report.teacher_test is None:
        return Step(
            f"kdc export RUN --profile {profile_to_type(report)} --out {where} --overwrite --teacher REFERENCE",
            "min_retention needs a teacher that runs",
        )
    return Step(again, "what was not measured")
