"""The line on licences: what went into a student, held against what the recipe and the profile permit."""

from compressor.report.read import Results
from compressor.schema.profile import Profile
from compressor.schema.report import Check, Row, Verdict
from compressor.schema.student import Student

__all__ = ["licence_line", "licence_lines"]


def licence_lines(row: Row, results: Results) -> list[Check]:
    """`licence_line` of one row."""
    return licence_line(row.name, results.bundle.student, results.bundle.profile)


def licence_line(name: str, student: Student, profile: Profile) -> list[Check]:
    """Whether any teacher, or the weights that the student began with, break a rule. None where there is no rule."""
    rules = {"recipe": student.recipe.licence, f"profile {profile.name}": profile.licence}
    rules = {where: rule for where, rule in rules.items() if rule.stated}
    if not rules:
        return []
    ancestors = student.ancestors
    value = ", ".join(dict.fromkeys(ancestor.licence for ancestor in ancestors))
    limit = "; ".join(
        f"{clause} {', '.join(patterns)}"
        for rule in rules.values()
        for clause, patterns in (("forbid", rule.forbid), ("require", rule.require))
        if patterns
    )
    for where, rule in rules.items():
        for ancestor in ancestors:
            if (clause := rule.broken_by(ancestor)) is not None:
                reason = f"{where} licence.{clause} rules out {ancestor.named}"
                return [_line(name, limit, value, "fail", reason)]
    unknown = [ancestor.named for ancestor in ancestors if ancestor.is_unknown]
    reason = f"none of {len(ancestors)} models that went into it breaks a rule"
    if unknown:
        reason += f"; but no licence is known of {', '.join(unknown)}, which only licence.require would rule out"
    return [_line(name, limit, value, "pass", reason)]


def _line(name: str, limit: str, value: str, verdict: Verdict, reason: str) -> Check:
    return Check(variant=name, line="licence", limit=limit, value=value, verdict=verdict, reason=reason)
