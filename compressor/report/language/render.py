"""A language model's report as GitHub markdown, as a text for terminals, and as the card of its bundle."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from compressor.report.gate import broken, holding
from compressor.report.language.next_step import next_step
from compressor.report.render.head import TITLES
from compressor.report.render.markdown import code, fold, table, text
from compressor.report.render.provenance import provenance
from compressor.report.render.text import (
    NOT_MEASURED,
    confidence_percent,
    estimate,
    megabytes,
    number,
    relative,
    share,
    spread,
)
from compressor.schema.accuracy import BitsPerByte
from compressor.schema.language.report import LanguageReport, LanguageRow, LanguageSession
from compressor.schema.report import Check, Estimate

__all__ = ["MOST_LINES", "card_body", "figures", "shipped", "to_markdown"]

MOST_LINES = 25
"""Before what is folded."""
MOST_OPEN = 3
DEFINED = "Retention is the teacher's bits a byte / the student's: 100 % is as good as the teacher"


class Figure(NamedTuple):
    """A figure of the variant that ships, its limit, and the same of the student in torch and of the teacher."""

    name: str
    measured: str
    limit: str
    torch: str
    teacher: str
    verdict: str


def shipped(report: LanguageReport) -> LanguageRow | None:
    """The row of the variant to ship, where one was chosen."""
    return next((row for row in report.rows if row.name == report.winner), None)


def figures(report: LanguageReport) -> list[Figure]:
    """Of the variant that ships: what it pays for the text, how fast it answers, what it takes."""
    row = shipped(report)
    if row is None:
        return []
    checks = {check.line: check for check in report.checks if check.variant == row.name}
    torch, teacher = report.student_torch, report.teacher_test
    lines = [
        ("bits a byte, test", "", bits(row.test), bits(torch), bits(teacher)),
        ("perplexity, test", "", perplexity(row.test), perplexity(torch), perplexity(teacher)),
        ("retention, %", "min_retention", shares(row.retention), "", "100" if teacher else ""),
        ("generates, tokens/s", "min_tokens_per_s", estimate(row.tokens_per_s), "", ""),
        ("reads a prompt, tokens/s", "min_prompt_tokens_per_s", estimate(row.prompt_tokens_per_s), "", ""),
        ("size, MB", "size_mb", number(megabytes(row.size_bytes)), "", ""),
        (
            "peak memory, MB",
            "peak_rss_mb",
            NOT_MEASURED if row.peak_rss_mb is None else number(row.peak_rss_mb),
            "",
            "",
        ),
    ]
    return [
        Figure(name, measured, _limit(checks.get(line)), in_torch, taught, _verdict(checks.get(line)))
        for name, line, measured, in_torch, taught in lines
    ]


def _limit(check: Check | None) -> str:
    return "" if check is None else " ".join(check.limit.split()[:2])


def _verdict(check: Check | None) -> str:
    return "" if check is None else check.verdict


def bits(score: BitsPerByte | None) -> str:
    if score is None:
        return NOT_MEASURED
    between = "" if score.low is None or score.high is None else f" [{score.low:.3f}–{score.high:.3f}]"
    return f"{score.bits_per_byte:.3f}{between}"


def perplexity(score: BitsPerByte | None) -> str:
    if score is None:
        return NOT_MEASURED
    low, high = score.perplexity_low, score.perplexity_high
    return number(score.perplexity) + ("" if low is None or high is None else f" [{number(low)}–{number(high)}]")


def memory(row: LanguageRow) -> str:
    return NOT_MEASURED if row.peak_rss_mb is None else number(row.peak_rss_mb)


def shares(figure: Estimate | None) -> str:
    return NOT_MEASURED if figure is None else f"{share(figure.value)} [{share(figure.low)}–{share(figure.high)}]"


def loss(figure: Estimate | None) -> str:
    if figure is None:
        return NOT_MEASURED
    return f"{figure.value:+.4f} [{figure.low:+.4f} to {figure.high:+.4f}]".replace("-", "−")


def to_markdown(report: LanguageReport, allow_unmeasured: bool = False) -> str:
    """The report as GitHub markdown: what decides first, the rest folded."""
    return "\n\n".join([*_head(report, allow_unmeasured), *_folds(report)]) + "\n"


def _head(report: LanguageReport, allow_unmeasured: bool) -> Iterator[str]:
    said = "an artefact is at fault on" if broken(report.checks) else TITLES[report.verdict]
    yield f"## kdc: {report.verdict.upper()} – {said} {code(report.profile)}"
    yield "  \n".join(_decision(report, allow_unmeasured))
    if (row := shipped(report)) is not None:
        rows = [[each.name, *(text(cell or "–") for cell in each[1:])] for each in figures(report)]
        yield table(["", code(row.name), "budget", "student in torch, fp32", "the teacher", "verdict"], rows, 5)
        yield text(counted(report)) + "."
    missed, step = [check for check in report.checks if check.verdict != "pass"], next_step(report)
    if missed:
        room = MOST_OPEN if step is None else MOST_OPEN - 1
        shown = missed if len(missed) <= room else missed[: room - 1]
        rows = [
            [code(c.variant), c.line, text(c.limit), text(c.value), f"**{c.verdict}**", text(c.reason)] for c in shown
        ]
        if len(shown) < len(missed):
            rows.append([f"{len(missed) - len(shown)} more, below", *[""] * 5])
        yield table(["variant", "line", "limit", "measured", "verdict", "reason"], rows)
    if step is not None:
        yield f"**Next:** {step.in_markdown()}"


def _decision(report: LanguageReport, allow_unmeasured: bool) -> Iterator[str]:
    chosen = code(report.winner) if report.winner is not None else "none can be chosen"
    yield f"**To ship:** {chosen}: {text(report.why)}."
    for trouble in troubles(report):
        yield f"**{text(trouble)}.**"
    if report.not_judged:
        yield f"**Not for language models, and not judged:** {', '.join(map(code, report.not_judged))}."
    if allow_unmeasured and any(check.verdict == "unmeasured" for check in report.checks):
        held = ", ".join(map(code, holding(report, allow_unmeasured))) or "no variant"
        yield (
            "**Unmeasured lines were allowed** (`--allow-unmeasured`): they are not judged, and are no pass. "
            f"Every judged line is held by: {held}."
        )


def troubles(report: LanguageReport) -> list[str]:
    """What figures of speed and memory rest on that is not as it should be."""
    said = []
    if report.session is not None and report.differences:
        said.append(f"Not measured on the profile's device: {'; '.join(report.differences)}")
    if report.session is not None and report.session.disturbed:
        said.append(f"Disturbed: {'; '.join(report.session.disturbed)}")
    return said


def counted(report: LanguageReport) -> str:
    """What the figures are of, in words."""
    score, session = report.student_torch, report.session
    parts = [
        f"95 % intervals; text: n = {score.n:,} test documents, {score.bytes:,} bytes, {score.tokens:,} tokens in "
        f"blocks of {report.max_length}, documents drawn anew"
    ]
    if session is not None and (row := shipped(report)) is not None:
        parts.append(
            f"speed: n = {row.answers} answers of {session.new_tokens} tokens to prompts of {session.prompt_tokens}, "
            f"on {row.threads} thread{'s' if row.threads != 1 else ''} of {session.machine.cpu}"
        )
    return "; ".join(parts)


def _folds(report: LanguageReport) -> Iterator[str]:
    yield fold("Every variant: what it costs and keeps", _variants(report))
    yield fold(f"The budget, line by line: {_count(report.checks)}", [_lines(report.checks)])
    yield fold("How it was made and measured", ["\n".join(f"- {line}" for line in _made(report))])


def _count(checks: Sequence[Check]) -> str:
    verdicts = [check.verdict for check in checks]
    counts = {verdict: verdicts.count(verdict) for verdict in ("fail", "inconclusive", "unmeasured", "pass")}
    return ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count) or "none"


def _lines(checks: Sequence[Check]) -> str:
    rows = [
        [code(check.variant), check.line, text(check.limit), text(check.value), check.verdict, text(check.reason)]
        for check in checks
    ]
    return table(["variant", "line", "limit", "measured", "verdict", "reason"], rows)


def _variants(report: LanguageReport) -> Iterator[str]:
    told = [row for row in report.rows if row.error is None]
    names = [code(row.name) + ("" if row.role == "student" else " (not asked for)") for row in told]
    yield table(
        ["variant", "size, MB", "generates, tokens/s", "× fp32", "reads, tokens/s", "loading, ms", "peak memory, MB"],
        [
            [
                name,
                number(megabytes(row.size_bytes)),
                estimate(row.tokens_per_s),
                "–" if row.fp32_ratio is None else estimate(row.fp32_ratio),
                estimate(row.prompt_tokens_per_s),
                spread(row.load_ms),
                memory(row),
            ]
            for name, row in zip(names, told, strict=True)
        ],
        6,
    )
    torch = ["student in torch, fp32", bits(report.student_validation), bits(report.student_torch), "0", "", ""]
    torch[4] = loss(report.teacher_difference) if report.teacher_test is not None else ""
    yield table(
        ["variant", "bits a byte, validation", "test", "less torch's", "less the teacher's", "retention, %"],
        [
            ["the teacher in torch", "", bits(report.teacher_test), "", "0", "100"],
            torch,
            *(
                [name, bits(row.validation), bits(row.test), loss(row.test_loss), loss(row.difference),
                 shares(row.retention)]
                for name, row in zip(names, told, strict=True)
            ),
        ][0 if report.teacher_test is not None else 1 :],
        5,
    )  # fmt: skip
    for row in report.rows:
        if row.error is not None:
            yield f"{code(row.name)} did not run: {text(row.error)}"
    yield f"{DEFINED}. In int8 and int4 the weights alone are so; all that is computed is in float."


def _made(report: LanguageReport) -> Iterator[str]:
    yield (
        f"Student {code(report.student)} (start: {text(report.student_init)}), {report.parameters:,} parameters, "
        f"teacher {code(report.teacher)}, licence: {text(report.teacher_licence)}"
    )
    if report.session is None:
        yield f"Profile {code(report.profile)} ({text(report.device)}). Nothing was measured."
    else:
        yield from _measured(report, report.session)
    yield f"Data: {code(report.data)}"
    yield from map(text, report.data_notes)
    yield from provenance(report)
    yield f"Student weights kept: {text(report.kept)}"
    yield from map(text, report.notes)
    yield f"Made by kdc {text(report.kdc)} from the raw samples in the bundle."


def _measured(report: LanguageReport, session: LanguageSession) -> Iterator[str]:
    machine = session.machine
    where = f"{text(machine.cpu)} ({text(machine.arch)}, {machine.cores} cores, {text(machine.system)})"
    device = "which is" if report.matches else "**not**"
    yield f"Measured {text(session.started)} on {where}, {device} the device of profile {code(report.profile)}"
    yield (
        f"{session.rounds} rounds, in each one answer of every variant to the same prompt, in random order; "
        f"{session.prompts} prompts of {session.prompt_tokens} tokens, from the validation split; "
        f"{session.new_tokens} tokens each, greedily"
    )
    if session.aa is None or session.smallest_effect is None:
        yield "A/A: not measured"
    else:
        low, high = relative(session.aa.low), relative(session.aa.high)
        yield (
            f"A/A: the same artefact twice differs by {relative(session.aa.value)} % [{low} to {high}] "
            f"({confidence_percent(session.confidence)} % interval, n = {session.aa.n} rounds); effects below "
            f"{number(100 * session.smallest_effect, 2)} % cannot be told from noise here"
        )


def card_body(report: LanguageReport) -> str:
    """README.md of the bundle, below its metadata."""
    row = shipped(report)
    lines = [
        f"# {text(report.student)}{'' if row is None else f', {text(row.name)}'}",
        f"{code(report.student)}, a language model of {report.parameters:,} parameters, distilled from "
        f"{code(report.teacher)} by kdc {text(report.kdc)}: {TITLES[report.verdict]} {code(report.profile)} "
        f"(**{report.verdict}**).",
    ]
    if row is None:
        lines.append(f"Nothing ships: {text(report.why)}.")
    else:
        lines.append(f"What ships lies in `best/`, with a program and its own README: {code(row.name)}.")
        rows = [[each.name, *(text(cell or "–") for cell in each[1:-1])] for each in figures(report)]
        lines.append(table(["", code(row.name), "budget", "student in torch, fp32", "the teacher"], rows, 4))
        lines.append(f"{text(counted(report))}. {DEFINED}.")
    facts = [
        f"- Teacher: {code(report.teacher)}, licence: {text(report.teacher_licence)}",
        *(f"- {line}" for line in provenance(report)),
        f"- Data: {code(report.data)}",
        "- Every figure, also of what does not ship: `report.md`",
    ]
    return "\n\n".join([*lines, "\n".join(facts)]) + "\n"
