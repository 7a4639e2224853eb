"""The first screen: what the model pays for the text, how fast it answers, what it takes, beside the budget."""

import math
from collections import Counter

from markupsafe import Markup

from compressor.report.html.head import Card, against
from compressor.report.html.tables import figure
from compressor.report.language.render import bits, memory, perplexity, shares
from compressor.report.render.text import NOT_MEASURED, estimate, megabytes, number
from compressor.schema.language.report import LanguageReport, LanguageRow

__all__ = ["cards", "subject_of"]


def subject_of(report: LanguageReport) -> LanguageRow | None:
    """The variant that the page is about: the one that ships, else the student that fails the fewest lines, of these
    the fastest; None where there is no student."""
    students = [row for row in report.rows if row.role == "student"]
    failed = Counter(check.variant for check in report.checks if check.verdict == "fail")

    def far(row: LanguageRow) -> tuple[bool, int, float]:
        rate = row.tokens_per_s.value if row.tokens_per_s else -math.inf
        return row.name != report.winner, failed[row.name], -rate

    return min(students, key=far, default=None)


def cards(report: LanguageReport, subject: LanguageRow | None) -> list[Card]:
    """Of the variant `subject`, a card each: a figure, the budget's lines about it, and what stands beside it."""
    if subject is None:
        return []
    at = f"rows/{report.rows.index(subject)}"
    verdicts = {check.line: check for check in report.checks if check.variant == subject.name}
    listed = [
        ("generates", "tokens/s", f"{at}/tokens_per_s", estimate(subject.tokens_per_s), ("min_tokens_per_s",)),
        (
            "reads a prompt",
            "tokens/s",
            f"{at}/prompt_tokens_per_s",
            estimate(subject.prompt_tokens_per_s),
            ("min_prompt_tokens_per_s",),
        ),
        ("bits a byte, test", "", f"{at}/test/bits_per_byte", bits(subject.test), ("parity", "max_drop")),
        ("retention", "%", f"{at}/retention", shares(subject.retention), ("min_retention",)),
        ("size", "MB", f"{at}/size_bytes", number(megabytes(subject.size_bytes)), ("size_mb",)),
        ("memory at its peak", "MB", f"{at}/peak_rss_mb", memory(subject), ("peak_rss_mb", "model_rss_mb")),
    ]
    beside = [
        _speed(subject, at), _prompts(report), _text(report, subject, at), _kept(report, subject, at), [],
        _memory(subject, at),
    ]  # fmt: skip
    return [
        {"title": title, "unit": unit, "value": figure(of, text), "lines": against(lines, verdicts), "beside": facts}
        for (title, unit, of, text, lines), facts in zip(listed, beside, strict=True)
    ]


def _speed(row: LanguageRow, at: str) -> list[Markup]:
    told = [Markup("n = {} answers").format(figure(f"{at}/answers", str(row.answers)))] if row.answers else []
    if row.fp32_ratio is not None:
        times = figure(f"{at}/fp32_ratio", estimate(row.fp32_ratio))
        told.append(Markup("{} times as fast as the same runtime in full precision").format(times))
    return told


def _prompts(report: LanguageReport) -> list[Markup]:
    if report.session is None:
        return []
    length, count = (figure(f"session/{of}", str(getattr(report.session, of))) for of in ("prompt_tokens", "prompts"))
    return [Markup("prompts of {} tokens, {} of them, until the first token of the answer").format(length, count)]


def _text(report: LanguageReport, row: LanguageRow, at: str) -> list[Markup]:
    told = []
    if row.test is not None:
        told.append(Markup("perplexity {}").format(figure(f"{at}/test/perplexity", perplexity(row.test))))
        told.append(Markup("n = {} documents").format(figure(f"{at}/test/n", f"{row.test.n:,}")))
    torch = figure("student_torch/bits_per_byte", bits(report.student_torch))
    told.append(Markup("the student in torch: {}").format(torch))
    return told


def _kept(report: LanguageReport, row: LanguageRow, at: str) -> list[Markup]:
    if report.teacher_test is None:
        return [Markup("there is no teacher that could be run")]
    taught = figure("teacher_test/bits_per_byte", bits(report.teacher_test))
    told = [Markup("the teacher: {} bits a byte").format(taught)]
    if row.retention is not None:
        told.append(Markup("n = {} {}").format(figure(f"{at}/retention/n", f"{row.retention.n:,}"), row.retention.of))
    return told


def _memory(row: LanguageRow, at: str) -> list[Markup]:
    if row.idle_rss_mb is None:
        return [Markup("{}").format(NOT_MEASURED)] if row.peak_rss_mb is None else []
    idle = figure(f"{at}/idle_rss_mb", number(row.idle_rss_mb))
    return [Markup("before the model was loaded: {} MB").format(idle)]
