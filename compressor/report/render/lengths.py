"""Of samples that vary in length: the three numbers that papers on distillation tell side by side, latency and accuracy
by length, tokens a second, and the tokenizer where models were measured."""

from collections.abc import Callable, Iterator

from compressor.report.render.markdown import code, fold, table, text
from compressor.report.render.text import NOT_MEASURED, estimate, number, share, spread
from compressor.schema.report import LengthAccuracy, LengthLatency, Lengths, Report, Row

__all__ = ["as_long", "lengths_section", "smaller", "three_rows", "tokenized"]


def three_rows(report: Report) -> list[Row]:
    """The student's variants, where there is a teacher that runs to hold them against."""
    return [row for row in report.rows if row.role in ("student", "reference")] if teacher_row(report) else []


def teacher_row(report: Report) -> Row | None:
    """The teacher's first."""
    return next((row for row in report.rows if row.role == "teacher"), None)


def smaller(report: Report, row: Row, size: Callable[[Row], int]) -> str:
    """How many times as large the teacher is, and what that is in percent; counted, so without an interval."""
    teacher = teacher_row(report)
    if teacher is None or not size(row) or not size(teacher):
        return "–"
    part = size(row) / size(teacher)
    return f"{number(1 / part)} ({share(abs(1 - part))} % {'less' if part <= 1 else 'more'})"


def as_long(length: int) -> str:
    """0 stands for each sample as long as it is."""
    return f"{length} tokens" if length else "as in the test data"


def tokenized(lengths: Lengths) -> list[str]:
    """How long the test samples are, and what the tokenizer does where models were measured, a line each."""
    tokens = lengths.test_tokens
    said = (
        f"Test samples have {number(tokens.median)} tokens in the median [{tokens.lowest:.0f}–{tokens.highest:.0f}], "
        f"n = {tokens.n}, as many as the student reads."
    )
    if lengths.tokenizer is None:
        return [said, f"Not tried: the tokenizer where models were measured ({lengths.untried})."]
    alike = (lengths.tokenized or 0) - (lengths.differ or 0)
    return [
        said,
        f"Where models were measured, tokenizers {lengths.tokenizer} made the tokens of training of {alike} of "
        f"{lengths.tokenized} test samples.",
        f"{lengths.cut} of them are longer than the student reads, and were cut.",
        f"Milliseconds to tokenize one, which no latency here contains: {spread(lengths.tokenize_ms)}.",
    ]


def lengths_section(report: Report) -> Iterator[str]:
    """As markdown, folded; nothing where samples are all as large."""
    lengths = report.lengths
    if lengths is None:
        return
    blocks = []
    if rows := three_rows(report):
        timed = f" at {lengths.timed} tokens" if lengths.timed else ""
        head = ["variant", "smaller: parameters, times", "smaller: files, times", f"faster, times{timed}", "kept, %"]
        body = [
            [
                code(row.name),
                smaller(report, row, lambda row: row.parameters),
                smaller(report, row, lambda row: row.size_bytes),
                estimate(row.p50_ratio),
                estimate(row.retention, percent=True),
            ]
            for row in rows
        ]
        blocks.append(
            "**Beside the teacher: smaller, faster, kept** (sizes are counted; [low–high] are 95 % intervals)"
        )
        blocks.append(table(head, body, 4))
    if lengths.latency:
        blocks.append(f"**Latency by length, ms: p50; p90; times as fast as the teacher** (n = {_rounds(lengths)})")
        blocks.append(_latency_table(report, lengths))
    if any(row.throughput and row.throughput.tokens_per_s for row in report.rows):
        body = [
            [code(row.name), spread(row.throughput.tokens_per_s if row.throughput else None)] for row in report.rows
        ]
        blocks += ["**Tokens a second at full tilt** (median [lowest–highest] of n windows)"]
        blocks += [table(["variant", "tokens/s"], body, 1)]
    if lengths.accuracy:
        blocks += ["**Accuracy by length, %; of the teacher's, % retained**", _accuracy_table(report, lengths)]
    blocks.append("  \n".join(map(text, tokenized(lengths))))
    yield fold("By length: smaller, faster, kept; latency, tokens a second and accuracy", blocks)


def _rounds(lengths: Lengths) -> str:
    counts = sorted({row.p50_ms.n for row in lengths.latency if row.p50_ms is not None})
    return f"{'–'.join(map(str, dict.fromkeys([*counts[:1], *counts[-1:]]))) or 'too few'} blocks"


def _latency_table(report: Report, lengths: Lengths) -> str:
    stated = list(dict.fromkeys(row.length for row in lengths.latency))
    cells = {(row.variant, row.length): _latency(row) for row in lengths.latency}
    body = [
        [code(row.name), *(cells.get((row.name, length), NOT_MEASURED) for length in stated)] for row in report.rows
    ]
    return table(["variant", *map(as_long, stated)], body, len(stated))


def _latency(row: LengthLatency) -> str:
    ratio = f"; ×{estimate(row.p50_ratio)}" if row.p50_ratio is not None else ""
    return f"{estimate(row.p50_ms)}; {estimate(row.p90_ms)}{ratio}"


def _accuracy_table(report: Report, lengths: Lengths) -> str:
    parts = list(dict.fromkeys((row.low, row.high, row.accuracy.n) for row in lengths.accuracy))
    cells = {(row.variant, row.low): _accuracy(row) for row in lengths.accuracy}
    body = [[code(row.name), *(cells.get((row.name, low), NOT_MEASURED) for low, _, _ in parts)] for row in report.rows]
    return table(["variant", *(f"{low}–{high} tokens, n = {n}" for low, high, n in parts)], body, len(parts))


def _accuracy(row: LengthAccuracy) -> str:
    kept = f"; {estimate(row.retention, percent=True)}" if row.retention is not None else ""
    return f"{estimate(row.accuracy, percent=True)}{kept}"
