"""Latency figures from the raw blocks, at whatever confidence is asked for, and who is compared with whom."""

from collections.abc import Callable, Mapping
from typing import Literal

from compressor.report.checks.interference import block_share
from compressor.report.consistency import BASELINE
from compressor.report.read import Results
from compressor.schema.bundle import Variant
from compressor.schema.measurement import Measurement
from compressor.stats import MIN_BLOCKS, Interval, paired_ratio, percentile

__all__ = [
    "LatencyFigure",
    "aa_of",
    "baseline_of",
    "common_rounds",
    "cpu_blocks",
    "figure_at",
    "no_aa",
    "ran",
    "teacher_of",
    "told",
    "wall_blocks",
]

Blocks = Mapping[int, tuple[float, ...]]
LatencyFigure = Literal["p50_ms", "p90_ms", "cpu_p50_ms", "p50_ratio", "fp32_ratio", "slowdown"]


def ran(results: Results, name: str) -> bool:
    """Whether a runner ran the variant without an error."""
    contestant = results.contestants.get(name)
    return contestant is not None and contestant.error is None


def teacher_of(results: Results) -> Variant | None:
    """The variant that the others are compared with: the first of role "teacher" that ran, else the first of all."""
    teachers = [variant for variant in results.bundle.variants if variant.role == "teacher"]
    return next(iter([*(variant for variant in teachers if ran(results, variant.name)), *teachers]), None)


def baseline_of(results: Results, name: str) -> Variant | None:
    """The baseline's variant of the same runtime and precision as the variant `name`."""
    baselines = (variant for variant in results.bundle.variants if variant.role == "baseline")
    return next((variant for variant in baselines if variant.name == BASELINE + name), None)


def wall_blocks(results: Results, name: str) -> Blocks:
    """round -> wall times of a variant that ran to its end; of one that broke off, none count."""
    if results.measurement is None or not ran(results, name):
        return {}
    return {block.round: block.wall_ms for block in results.measurement.blocks if block.variant == name}


def cpu_blocks(results: Results, name: str) -> Blocks:
    """round -> CPU times of all threads, as `wall_blocks`."""
    if results.measurement is None or not ran(results, name):
        return {}
    return {block.round: block.cpu_ms for block in results.measurement.blocks if block.variant == name}


def told(figure: Callable[[], Interval]) -> Interval | None:
    """The figure, or None where the samples are too few (or too one-sided) to tell it."""
    try:
        return figure()
    except ValueError:
        return None


def figure_at(figure: LatencyFigure, results: Results, name: str, confidence: float) -> Interval | None:
    """A figure of Row for the variant `name`, with its interval at `confidence`; None where it cannot be told."""
    if figure == "p50_ms" or figure == "p90_ms":
        blocks, q = list(wall_blocks(results, name).values()), 0.5 if figure == "p50_ms" else 0.9
        return told(lambda: percentile(blocks, q, confidence=confidence))
    if figure == "cpu_p50_ms":
        return told(lambda: percentile(list(cpu_blocks(results, name).values()), 0.5, confidence=confidence))
    reference = _compared_with(figure, results, name)
    if reference is None or reference == name:
        return None
    ours, theirs = wall_blocks(results, name), wall_blocks(results, reference)
    pair = (ours, theirs) if figure == "slowdown" else (theirs, ours)
    share = block_share(results.measurement) if results.measurement is not None else 0.5
    return told(lambda: paired_ratio(*pair, confidence=confidence, share=share))


def _compared_with(figure: LatencyFigure, results: Results, name: str) -> str | None:
    if figure == "fp32_ratio":
        return results.bundle.reference
    variant = teacher_of(results) if figure == "p50_ratio" else baseline_of(results, name)
    return variant.name if variant is not None else None


def common_rounds(results: Results, variant: str, reference: str) -> int:
    """In how many rounds both variants ran."""
    return len(wall_blocks(results, variant).keys() & wall_blocks(results, reference).keys())


def aa_of(measurement: Measurement, confidence: float) -> Interval | None:
    """How many times longer the second copy of the reference took than the first (A/A): 1 but for noise. None where
    there is no second copy, or too few rounds of both."""
    if no_aa(measurement):
        return None
    copy, first = _aa_blocks(measurement)
    return told(lambda: paired_ratio(copy, first, confidence=confidence, share=block_share(measurement)))


def no_aa(measurement: Measurement) -> str:
    """Why a session has no A/A comparison; empty where it has one."""
    contestants = {contestant.variant: contestant for contestant in measurement.contestants}
    copy = next((candidate for candidate in measurement.contestants if candidate.copy_of is not None), None)
    if copy is None or copy.copy_of not in contestants:
        return "no A/A: the session ran no second copy of the reference, so noise cannot be told from effects"
    if failed := copy.error or contestants[copy.copy_of].error:
        return f"no A/A: the reference did not run twice: {failed}"
    copied, first = _aa_blocks(measurement)
    if (count := len(copied.keys() & first.keys())) < MIN_BLOCKS:
        return f"no A/A: it needs {MIN_BLOCKS} rounds, found {count}"
    return ""


def _aa_blocks(measurement: Measurement) -> tuple[Blocks, Blocks]:
    """round -> wall times of the second copy of the reference, and of the first."""
    copy = next(contestant for contestant in measurement.contestants if contestant.copy_of is not None)
    copied = {block.round: block.wall_ms for block in measurement.blocks if block.variant == copy.variant}
    return copied, {block.round: block.wall_ms for block in measurement.blocks if block.variant == copy.copy_of}
