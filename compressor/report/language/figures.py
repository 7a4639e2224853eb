"""The figures of each variant of a language model: what it pays for the text, how fast it answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from compressor.report.checks.conditions import bias, changes, machine_differences, of_the_machine, thread_differences
from compressor.report.checks.interference import CROWDED_SHARE, crowding
from compressor.report.language.read import LanguageResults
from compressor.report.latency import told
from compressor.schema.accuracy import BitsPerByte
from compressor.schema.estimate import Estimate, Spread
from compressor.schema.language.bundle import LanguageVariant
from compressor.schema.language.measurement import GeneratedBlock
from compressor.schema.language.report import LanguageRow
from compressor.stats import Interval, look_confidence, paired_ratio, percentile
from compressor.stats.intervals import CONFIDENCE
from compressor.stats.language import Costs, bits_difference, bits_per_byte, bits_ratio, document_costs

__all__ = [
    "SPEED",
    "SpeedGrounds",
    "costs_of",
    "estimate_of",
    "of_documents",
    "row_for",
    "speed_at",
    "speed_grounds",
    "torch_costs",
]

SPEED = {"min_tokens_per_s": "tokens_per_s", "min_prompt_tokens_per_s": "prompt_tokens_per_s"}
"""Lines of the budget, and the figures that they are about."""


@dataclass(frozen=True)
class SpeedGrounds:
    """What verdicts on speed and memory rest on: see `conditions.Grounds`."""

    differences: tuple[str, ...]
    disturbed: tuple[str, ...]
    slower: bool
    confidence: float
    aa: Interval | None


def speed_grounds(results: LanguageResults) -> SpeedGrounds:
    """Without a measurement nothing speaks against it, and nothing for it."""
    measurement, profile = results.measurement, results.bundle.profile
    confidence = look_confidence(1)
    if measurement is None:
        return SpeedGrounds((), (), True, confidence, None)
    aa = _aa(results, confidence)
    shifts = (*changes(measurement.machine_before, measurement.machine_after), *bias(aa))
    return SpeedGrounds(
        (*machine_differences(profile, measurement), *thread_differences(profile, measurement)),
        (*of_the_machine(measurement), *bias(aa)),
        not shifts,
        confidence,
        aa,
    )


def torch_costs(results: LanguageResults, split: str) -> Costs:
    """What the documents of a split cost the student in torch."""
    corpus = results.corpora[split]
    return document_costs(corpus.torch, corpus.documents, corpus.bytes)


def costs_of(results: LanguageResults, name: str, split: str) -> Costs | None:
    """What they cost a variant; None where it was not scored, or a token has no probability."""
    scores, corpus = results.scores.get((name, split)), results.corpora[split]
    if scores is None or not _finite(results, name, split):
        return None
    return document_costs(scores, corpus.documents, corpus.bytes)


def _finite(results: LanguageResults, name: str, split: str) -> bool:
    return _not_finite(results, name, split) == 0


def _not_finite(results: LanguageResults, name: str, split: str) -> int:
    scores = results.scores.get((name, split))
    if scores is None:
        return 0
    return int((~np.isfinite(scores[results.corpora[split].documents >= 0])).sum())


def blocks_of(results: LanguageResults, name: str) -> dict[int, GeneratedBlock]:
    """round -> the answer of a variant that ran to its end, or of a second copy."""
    measurement = results.measurement
    if measurement is None:
        return {}
    ran = {contestant.variant for contestant in measurement.contestants if contestant.error is None}
    return {block.round: block for block in measurement.blocks if block.variant == name and name in ran}


def speed_at(results: LanguageResults, name: str, figure: str, confidence: float) -> Interval | None:
    """Tokens a second, in the median over answers, with its interval; None where they are too few."""
    blocks = list(blocks_of(results, name).values())
    if figure == "tokens_per_s":
        values = [1000 * len(block.token_ms) / sum(block.token_ms) for block in blocks if sum(block.token_ms) > 0]
    else:
        values = [1000 * results.bundle.answers.prompt_tokens / block.prompt_ms for block in blocks]
    return told(lambda: percentile([[value] for value in values], 0.5, confidence))


def _ratio(results: LanguageResults, above: str, below: str, confidence: float) -> Interval | None:
    first, second = (
        {number: block.token_ms for number, block in blocks_of(results, name).items()} for name in (above, below)
    )
    measurement = results.measurement
    share = CROWDED_SHARE if measurement is not None and crowding(measurement) else 0.5
    return told(lambda: paired_ratio(first, second, confidence=confidence, share=share))


def _aa(results: LanguageResults, confidence: float) -> Interval | None:
    contestants = results.measurement.contestants if results.measurement is not None else ()
    copy = next((each for each in contestants if each.copy_of is not None), None)
    return None if copy is None or copy.copy_of is None else _ratio(results, copy.variant, copy.copy_of, confidence)


def row_for(variant: LanguageVariant, results: LanguageResults) -> LanguageRow:
    """All the figures of one variant."""
    contestant, name = results.contestants.get(variant.name), variant.name
    error = contestant.error if contestant is not None else None
    starts = contestant.starts if contestant is not None else ()
    tested, validated = (costs_of(results, name, split) for split in ("test", "validation"))
    compared = next((each.name for each in results.bundle.variants if _is_full(each, variant)), None)
    speeds = {figure: estimate_of(speed_at(results, name, figure, CONFIDENCE), "answers") for figure in SPEED.values()}
    ratio = None if compared in (None, name) else _ratio(results, str(compared), name, CONFIDENCE)
    parity = _parity(results, name)
    return LanguageRow(
        name=name,
        role=variant.role,
        runtime=variant.runtime,
        precision=variant.precision,
        executed_precision=contestant.executed_precision if contestant is not None else None,
        runtime_version=contestant.runtime_version if contestant is not None else None,
        threads=contestant.threads if contestant is not None and error is None else None,
        measured=contestant is not None and error is None,
        error=error,
        size_bytes=variant.size_bytes,
        weight_bytes=variant.weight_bytes,
        answers=len(blocks_of(results, name)),
        **speeds,
        fp32_ratio=estimate_of(ratio, "rounds"),
        start_ms=_spread([start.start_ms for start in starts]),
        load_ms=_spread([start.load_ms for start in starts]),
        first_ms=_spread([start.first_ms for start in starts]),
        idle_rss_mb=contestant.idle_rss_mb if contestant is not None else None,
        peak_rss_mb=contestant.peak_rss_mb if contestant is not None else None,
        validation=_score(validated, "validation"),
        test=_score(tested, "test"),
        validation_loss=_less(validated, torch_costs(results, "validation")),
        loss_share=None if validated is None else _share_of(validated, torch_costs(results, "validation")),
        test_loss=_less(tested, torch_costs(results, "test")),
        difference=_less(tested, results.teacher),
        retention=_retention(results.teacher, tested),
        parity_max=None if parity is None else parity[0],
        parity_mean=None if parity is None else parity[1],
        not_finite=sum(_not_finite(results, name, split) for split in ("validation", "test")),
    )


def _is_full(each: LanguageVariant, variant: LanguageVariant) -> bool:
    return each.runtime == variant.runtime and each.precision in ("fp32", "f32")


def _score(costs: Costs | None, split: str) -> BitsPerByte | None:
    return None if costs is None else bits_per_byte(costs, split)


def _less(costs: Costs | None, others: Costs | None) -> Estimate | None:
    if costs is None or others is None:
        return None
    return of_documents(bits_difference(costs, others))


def _share_of(costs: Costs, torch: Costs) -> float:
    return float(costs.nats.sum() / torch.nats.sum() - 1)


def _retention(teacher: Costs | None, costs: Costs | None) -> Estimate | None:
    if teacher is None or costs is None:
        return None
    interval = told(lambda: bits_ratio(teacher, costs))
    return None if interval is None else of_documents(interval)


def of_documents(interval: Interval) -> Estimate | None:
    """A figure with its interval over documents; None where there is but one document."""
    return estimate_of(interval if interval.n > 1 else None, "documents")


def estimate_of(interval: Interval | None, of: str) -> Estimate | None:
    if interval is None:
        return None
    return Estimate(value=interval.value, low=interval.low, high=interval.high, n=interval.n, of=of)


def _parity(results: LanguageResults, name: str) -> tuple[float, float] | None:
    """The largest and the mean difference to torch of the log-probabilities that count, on validation."""
    scores, corpus = results.scores.get((name, "validation")), results.corpora["validation"]
    if scores is None or not _finite(results, name, "validation"):
        return None
    counts = corpus.documents >= 0
    apart = np.abs(scores[counts] - corpus.torch[counts])
    return float(apart.max()), float(apart.mean())


def _spread(values: Sequence[float]) -> Spread | None:
    if not values:
        return None
    return Spread(median=median(values), lowest=min(values), highest=max(values), n=len(values))
