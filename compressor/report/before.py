"""What the baseline had of a variant: its predictions for the shared test samples and its size, or why it had none."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from compressor.report.checks.artefact import ran_as_asked
from compressor.report.latency import baseline_of
from compressor.report.read import Results
from compressor.report.shared import predictions_of
from compressor.schema.release import Released

__all__ = ["NO_BASELINE", "Before", "before_of", "has_baseline", "size_before"]

Ints = NDArray[np.int64]
NO_BASELINE = "the bundle has no baseline to be held against: give one with --baseline BUNDLE"
OTHER_VARIANT = "the bundle does not hold the same variant of the baseline"


@dataclass(frozen=True)
class Before:
    """The baseline's top-1 of the samples in the `rows` of this bundle's test, both int [S], and when it was made.
    `instead`: why stored ones stand for those of this session, in which it raced; empty else."""

    rows: Ints
    top1: Ints
    made: Literal["this session", "stored"]
    instead: str = ""


def has_baseline(results: Results, name: str) -> bool:
    """Whether there is a baseline that has the variant `name`, measured or not."""
    return size_before(results, name) is not None


def size_before(results: Results, name: str) -> int | None:
    """Bytes of the same variant of the baseline; None where there is none."""
    raced = baseline_of(results, name)
    if raced is not None:
        return raced.size_bytes
    released = _released(results, name)
    return None if released is None else released.size_bytes


def before_of(results: Results, name: str) -> Before | str:
    """The baseline's predictions beside those of the variant `name`, or why there are none. Those of this session
    first: they were made on the same machine, by the same version of the runtime."""
    raced = baseline_of(results, name)
    contestant = None if raced is None else results.contestants.get(raced.name)
    why, instead = "the same variant of the baseline was not measured", ""
    if raced is not None and contestant is not None and raced.name in results.answers:
        executed = contestant.executed_precision
        verdict, reason = ran_as_asked(raced.runtime, raced.precision, executed, raced.weight_bytes)
        if verdict == "pass":
            answers = results.answers[raced.name].top1
            return Before(np.arange(len(answers)), answers, "this session")
        why = instead = f"the same variant of the baseline did not run as it should: {reason}"
    elif contestant is not None and contestant.error is not None:
        why = instead = f"{why}: {contestant.error}"
    released = _released(results, name)
    if results.shared is not None and released is not None:
        stored = predictions_of(results.shared, released)
        if stored is not None:
            return Before(results.shared.now, stored, "stored", instead)
        return f"{why}, and its release has no predictions of it: it was not measured then, or not in its precision"
    if raced is not None:
        return why
    return NO_BASELINE if results.bundle.baseline is None and results.shared is None else OTHER_VARIANT


def _released(results: Results, name: str) -> Released | None:
    if results.shared is None:
        return None
    variant = next(variant for variant in results.bundle.variants if variant.name == name)
    return results.shared.released(variant.runtime, variant.precision)
