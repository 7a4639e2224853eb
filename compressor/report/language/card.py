"""A language model's report -> README.md of the bundle: a model card as the Hugging Face hub reads it, its figures with
their intervals in the metadata."""

from collections.abc import Iterator
from typing import Any

from compressor.report.language.render import card_body, shipped
from compressor.report.render.card import front_matter, interval, licence, of_ancestors, of_row, plain
from compressor.schema.accuracy import BitsPerByte
from compressor.schema.language.bundle import LanguageBundle
from compressor.schema.language.report import LanguageReport, LanguageRow
from compressor.schema.report import Estimate

__all__ = ["to_card"]

TASK = "text-generation"
"""As the hub calls it."""


def to_card(report: LanguageReport, bundle: LanguageBundle) -> str:
    """The card. Its metadata has an `EvalResult` for each of bits a byte, perplexity, retention and tokens a second of
    the variant that ships, with interval, n and device in `metric_args`; none where nothing is chosen or measured."""
    row = shipped(report)
    metadata = {
        **licence(bundle.student.weights.licence),
        **of_row(row, TASK),
        **of_ancestors(report),
        "model-index": [_index(report, row)] if row is not None and list(_metrics(report, row)) else [],
    }
    return front_matter(metadata) + card_body(report)


def _index(report: LanguageReport, row: LanguageRow) -> dict[str, Any]:
    data = plain(report.data)
    return {
        "name": f"{plain(report.student)}-{plain(row.name)}",
        "results": [
            {
                "task": {"type": TASK, "name": "Text generation"},
                "dataset": {"type": data, "name": data, "split": "test"},
                "metrics": list(_metrics(report, row)),
            }
        ],
    }


def _metrics(report: LanguageReport, row: LanguageRow) -> Iterator[dict[str, Any]]:
    session = report.session
    if session is None:
        return
    where = {"device": plain(session.machine.cpu), "threads": row.threads}
    if row.test is not None:
        score = row.test
        of_bits, of_perplexity = (
            {**_text(score, low, high), "sequence_length": report.max_length, **where}
            for low, high in ((score.low, score.high), (score.perplexity_low, score.perplexity_high))
        )
        yield _metric("bits_per_byte", score.bits_per_byte, "Bits a byte", of_bits)
        yield _metric("perplexity", score.perplexity, "Perplexity, of its own tokens", of_perplexity)
    timed = {
        **where, "prompt_tokens": session.prompt_tokens, "new_tokens": session.new_tokens,
        "runtime": plain(f"{row.runtime} {row.runtime_version or ''}".strip()),
    }  # fmt: skip
    figures: tuple[tuple[str, str, Estimate | None, dict[str, Any]], ...] = (
        ("retention", "The teacher's bits a byte / its own", row.retention, where),
        ("tokens_per_second", "Tokens of an answer a second", row.tokens_per_s, timed),
    )
    for kind, name, figure, arguments in figures:
        if figure is not None:
            yield _metric(kind, figure.value, name, {**interval(figure), **arguments})


def _metric(kind: str, value: float, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": kind, "value": value, "name": name, "args": arguments}


def _text(score: BitsPerByte, low: float | None, high: float | None) -> dict[str, Any]:
    between = {} if low is None or high is None else {"confidence": 0.95, "low": low, "high": high}
    return {**between, "n": score.n, "of": "documents"}
