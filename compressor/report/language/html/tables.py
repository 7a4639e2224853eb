"""The tables of the page; a figure's name is its path in report.json."""

from collections.abc import Callable
from typing import NamedTuple

from markupsafe import Markup

from compressor.report.html.tables import Table, checks_table, figure, weights_text
from compressor.report.html.text import shown
from compressor.report.language.render import bits, loss, memory, perplexity, shares
from compressor.report.render.text import NOT_MEASURED, estimate, megabytes, number, spread
from compressor.schema.accuracy import BitsPerByte
from compressor.schema.language.report import LanguageReport, LanguageRow
from compressor.schema.report import Estimate

__all__ = ["tables_of"]


class Column(NamedTuple):
    """What it is called, where its figure stands below a row of report.json, and its text."""

    title: str
    of: str
    text: Callable[[LanguageRow], str]


def tables_of(report: LanguageReport) -> dict[str, Table]:
    """By name, those that there is something to say in."""
    tables = {
        "variants": _table("All variants", _intervals(report), report, COSTS),
        "text": _of_text(report),
        "speed": _table("Speed", _intervals(report), report, SPEEDS),
        "starting": _table("Starting and memory", "median [lowest–highest] of n processes", report, STARTING),
        "weights": _table("Weights", "megabytes are 10^6 bytes", report, WEIGHTS),
        "parity": _table("Parity with torch", PARITY_NOTE, report, PARITY),
    }
    if not any(row.measured for row in report.rows):
        tables = {name: table for name, table in tables.items() if name in ("variants", "text", "weights")}
    return {**tables, "checks": checks_table(report)}


def _table(title: str, note: str, report: LanguageReport, columns: list[Column]) -> Table:
    rows = []
    for index, row in enumerate(report.rows):
        cells = tuple(figure(f"rows/{index}/{column.of}", column.text(row)) for column in columns)
        rows.append((f"{index + 1}. {shown(row.name)}", _tag(row, report), cells))
    return Table(title, note, tuple(column.title for column in columns), tuple(rows))


def _tag(row: LanguageRow, report: LanguageReport) -> str:
    return "ships" if row.name == report.winner else "not asked for" if row.role == "reference" else ""


def _intervals(report: LanguageReport) -> str:
    answers = max((row.answers for row in report.rows), default=0)
    said = ["[low–high] are 95 % intervals", f"text: n = {report.student_torch.n:,} test documents"]
    return "; ".join([*said, *([f"speed: n = {answers} answers at most"] if answers else [])])


def _ran_as(row: LanguageRow) -> str:
    return shown(row.executed_precision or ("failed" if row.error else NOT_MEASURED), 30)


def _or_dash(figure_of: Estimate | None) -> str:
    """Of the same runtime in full precision itself there is no such figure."""
    return "–" if figure_of is None else estimate(figure_of)


COSTS = [
    Column("size, MB", "size_bytes", lambda row: number(megabytes(row.size_bytes))),
    Column("generates, tokens/s", "tokens_per_s", lambda row: estimate(row.tokens_per_s)),
    Column("reads a prompt, tokens/s", "prompt_tokens_per_s", lambda row: estimate(row.prompt_tokens_per_s)),
    Column("peak memory, MB", "peak_rss_mb", memory),
    Column("bits a byte, test", "test/bits_per_byte", lambda row: bits(row.test)),
    Column("perplexity, test", "test/perplexity", lambda row: perplexity(row.test)),
    Column("retention, %", "retention", lambda row: shares(row.retention)),
    Column("weights as", "executed_precision", _ran_as),
]
SPEEDS = [
    Column("generates, tokens/s", "tokens_per_s", lambda row: estimate(row.tokens_per_s)),
    Column("times as fast as fp32", "fp32_ratio", lambda row: _or_dash(row.fp32_ratio)),
    Column("reads a prompt, tokens/s", "prompt_tokens_per_s", lambda row: estimate(row.prompt_tokens_per_s)),
    Column("answers", "answers", lambda row: str(row.answers)),
    Column("threads", "threads", lambda row: NOT_MEASURED if row.threads is None else str(row.threads)),
]
STARTING = [
    Column(
        "runtime", "runtime_version", lambda row: shown(" ".join(filter(None, (row.runtime, row.runtime_version))), 40)
    ),
    Column("start, ms", "start_ms", lambda row: spread(row.start_ms)),
    Column("of which load, ms", "load_ms", lambda row: spread(row.load_ms)),
    Column("first token, ms", "first_ms", lambda row: spread(row.first_ms)),
    Column("RSS before the model, MB", "idle_rss_mb", lambda row: _told(row.idle_rss_mb)),
    Column("at its peak, MB", "peak_rss_mb", memory),
]
WEIGHTS = [
    Column("files, MB", "size_bytes", lambda row: number(megabytes(row.size_bytes))),
    Column("weights, MB by type", "weight_bytes", lambda row: weights_text(row.weight_bytes)),
]
PARITY_NOTE = "of the log-probabilities of the validation tokens that count, in nats; what is lost, on validation"
PARITY = [
    Column("farthest from torch", "parity_max", lambda row: _told(row.parity_max, 2)),
    Column("in the mean", "parity_mean", lambda row: _told(row.parity_mean, 2)),
    Column("bits a byte rise by, %", "loss_share", lambda row: _percent(row.loss_share)),
    Column("tokens without a finite probability", "not_finite", lambda row: str(row.not_finite)),
]


def _told(value: float | None, digits: int = 3) -> str:
    return NOT_MEASURED if value is None else number(value, digits)


def _percent(value: float | None) -> str:
    return NOT_MEASURED if value is None else f"{100 * value:+.2f}".replace("-", "−")


def _of_text(report: LanguageReport) -> Table:
    """What the text costs each: the teacher, the student in torch, the variants."""
    rows: list[tuple[str, str, tuple[Markup | str, ...]]] = []
    if report.teacher_test is not None:
        scores = _scores(None, "", report.teacher_test, "teacher_test")
        rows.append(("the teacher in torch", "teacher", ("–", *scores, "–", "–", "–")))
    scores = _scores(report.student_validation, "student_validation", report.student_torch, "student_torch")
    behind = "–" if report.teacher_test is None else figure("teacher_difference", loss(report.teacher_difference))
    rows.append(("the student in torch, fp32", "", (*scores, "–", behind, "–")))
    for index, row in enumerate(report.rows):
        at = f"rows/{index}"
        cells = (
            *_scores(row.validation, f"{at}/validation", row.test, f"{at}/test"),
            figure(f"{at}/test_loss", loss(row.test_loss)),
            figure(f"{at}/difference", loss(row.difference)),
            figure(f"{at}/retention", shares(row.retention)),
        )
        rows.append((f"{index + 1}. {shown(row.name)}", _tag(row, report), cells))
    head = (
        "bits a byte, validation", "bits a byte, test", "perplexity, test", "less torch's", "less the teacher's",
        "retention, %",
    )  # fmt: skip
    score = report.student_torch
    note = (
        f"test: {score.n:,} documents, {score.bytes:,} bytes, {score.tokens:,} tokens of the student; 95 % intervals "
        "by a bootstrap over documents; differences in bits a byte on test, paired by document"
    )
    return Table("What the text costs", note, head, tuple(rows), "model")


def _scores(validation: BitsPerByte | None, at: str, test: BitsPerByte | None, of_test: str) -> tuple[Markup, ...]:
    told = (figure(f"{of_test}/bits_per_byte", bits(test)), figure(f"{of_test}/perplexity", perplexity(test)))
    return told if not at else (figure(f"{at}/bits_per_byte", bits(validation)), *told)
