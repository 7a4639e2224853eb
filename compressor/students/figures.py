"""What a session measured of an entrant, as the figures that are kept; or the reason why there are none."""

from collections.abc import Sequence
from datetime import date

from compressor.schema.measurement import Contestant, Measurement
from compressor.schema.report import Estimate
from compressor.schema.students import Entrant, Figures, Skeleton, Wish
from compressor.stats import percentile

__all__ = ["failures", "figures_of"]


def failures(skeleton: Skeleton) -> list[Figures]:
    return [
        _nothing(skeleton.wish, *variant, reason)
        for variant in skeleton.wish.variants
        if (reason := skeleton.failures.get("-".join(variant))) is not None
    ]


def _nothing(wish: Wish, runtime: str, precision: str, reason: str) -> Figures:
    return Figures(
        student=wish.student, family=wish.family, input_size=wish.input_size, classes=wish.classes,
        runtime=runtime, runtime_version=None, precision=precision, executed_precision=None, parameters=None, macs=None,
        size_mb=None, p50_ms=None, p90_ms=None, peak_rss_mb=None, model_rss_mb=None, error=reason,
        measured=date.today().isoformat(),
    )  # fmt: skip


def figures_of(wish: Wish, entrant: Entrant, measurement: Measurement) -> Figures:
    contestant = next(row for row in measurement.contestants if row.variant == entrant.name)
    nothing = _nothing(wish, entrant.runtime, entrant.precision, contestant.error or "")
    facts = {
        "parameters": entrant.parameters,
        "macs": entrant.macs,
        "size_mb": sum(file.bytes for file in entrant.files) / 1e6,
        "runtime_version": contestant.runtime_version,
        "executed_precision": contestant.executed_precision,
    }
    if contestant.error is not None:
        return nothing.model_copy(update=facts)
    blocks = [block.wall_ms for block in measurement.blocks if block.variant == entrant.name]
    p50 = _estimate(blocks, 0.5)
    if p50 is None:  # it would pass for one that holds every line
        return nothing.model_copy(update=facts | {"error": f"measured in {len(blocks)} blocks, too few to tell"})
    return nothing.model_copy(
        update=facts
        | {
            "p50_ms": p50,
            "p90_ms": _estimate(blocks, 0.9),
            "peak_rss_mb": contestant.peak_rss_mb,
            "model_rss_mb": _above_idle(contestant),
            "error": None,
        }
    )


def _above_idle(contestant: Contestant) -> float | None:
    peak, idle = contestant.peak_rss_mb, contestant.idle_rss_mb
    return None if peak is None or idle is None else round(peak - idle, 3)


def _estimate(blocks: Sequence[Sequence[float]], q: float) -> Estimate | None:
    try:
        interval = percentile(blocks, q)
    except ValueError:  # the session was cut short
        return None
    return Estimate(value=interval.value, low=interval.low, high=interval.high, n=interval.n, of="blocks")
