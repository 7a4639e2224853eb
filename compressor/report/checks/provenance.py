"""The line on licences: what went into a student, held against what the recipe and the profile permit."""

from compressor.report.checks.artefact import check_of
from compressor.report.read import Results
from compressor.schema.report import Check, Row

__all__ = ["licence_lines"]


def licence_lines(row: Row, results: Results) -> list[Check]:
    """Whether any teacher, or the weights that the student began with, break a rule. None where there is no rule."""
    bundle = results.bundle
    rules = {"recipe": bundle.student.recipe.licence, f"profile {bundle.profile.name}": bundle.profile.licence}
    rules = {where: rule for where, rule in rules.items() if rule.stated}
    if not rules:
        return []
    ancestors = bundle.student.ancestors
    value = ", ".join(dict.fromkeys(ancestor.licence for ancestor in ancestors))
    limit = "; ".join(
        f"{name} {', '.join(patterns)}"
        for rule in rules.values()
        for name, patterns in (("forbid", rule.forbid), ("require", rule.require))
        if patterns
    )
    for where, rule in rules.items():
        for ancestor in ancestors:
            if (clause := rule.broken_by(ancestor)) is not None:
                reason = f"{where} licence.{clause} rules out {ancestor.named}"
                return [check_of(row, "licence", limit, value, "fail", reason)]
    unknown = [ancestor.named for ancestor in ancestors if ancestor.is_unknown]
    reason = f"none of {len(ancestors)} models that went into it breaks a rule"
    if unknown:
        reason += f"; but no licence is known of {', '.join(unknown)}, which only licence.require would rule out"
    return [check_of(row, "licence", limit, value, "pass", reason)]
