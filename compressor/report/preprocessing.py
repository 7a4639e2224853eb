"""Raw samples made to a model's inputs where models were measured: whether these are training's, and of samples that
last a time, how long that and the models take of it."""

from collections.abc import Iterator, Sequence
from statistics import median

from compressor.report.read import Results
from compressor.schema.bundle import Variant
from compressor.schema.measurement import Preprocessing
from compressor.schema.report import Check, Estimate, RealTime, RealTimeRow, Row, Spread
from compressor.tasks.table import shipping_of

__all__ = ["preprocessing_lines", "real_time_of"]


def preprocessing_lines(row: Row, results: Results) -> list[Check]:
    """kdc's own line on what a model is fed: the device makes the tokens, or the features, of training. None where it
    was not tried."""
    variant = _variant(results, row.name)
    told = _tried(results, variant)
    if told is None or told.error is not None or variant.raw is None:
        return []
    shipping = shipping_of(variant.task)
    maker = f"{shipping.maker} {told.version}"
    reason = f"{maker} makes the {shipping.makes} that the student was tested on"
    if told.differ:
        reason = f"what {maker} makes of a {shipping.sample} there is not what the student was tested on"
    if told.largest_difference is not None:
        reason += f"; the largest difference is {told.largest_difference:.1g}"
    return [
        Check(
            variant=row.name,
            line=shipping.makes,
            limit="all as in training",
            value=f"{told.n - told.differ} of {told.n} test {shipping.sample}s",
            verdict="fail" if told.differ else "pass",
            reason=reason,
        )
    ]


def real_time_of(results: Results, rows: Sequence[Row]) -> RealTime | None:
    """Latencies held against how long a sample lasts; None where it lasts no time."""
    figures = RealTime(rows=tuple(_rows(results, rows)))
    student = next((variant for variant in results.bundle.variants if variant.raw is not None), None)
    seconds = student.preprocess.seconds if student is not None else None
    if not figures.rows or student is None or seconds is None:
        return figures if figures.rows else None
    told = _tried(results, student)
    if told is None or told.error is not None:
        why = told.error if told else f"no input was made of a {shipping_of(student.task).sample} there"
        return figures.model_copy(update={"untried": why})
    times = told.wall_ms
    spread = Spread(median=median(times), lowest=min(times), highest=max(times), n=len(times)) if times else None
    update = {
        "library": f"{shipping_of(student.task).maker} {told.version}",
        "made": told.n,
        **{key: getattr(told, key) for key in ("cut", "padded", "resampled", "differ", "largest_difference")},
        "made_ms": spread,
        "made_factor": spread.median / 1000 / seconds if spread is not None else None,
    }
    return figures.model_copy(update=update)


def _rows(results: Results, rows: Sequence[Row]) -> Iterator[RealTimeRow]:
    for row in rows:
        seconds = _variant(results, row.name).preprocess.seconds
        if seconds is not None:
            a_call = seconds * results.bundle.profile.batch
            yield RealTimeRow(
                variant=row.name,
                seconds=seconds,
                ms_per_second=_scaled(row.p50_ms, 1 / a_call),
                factor=_scaled(row.p50_ms, 1 / (1000 * a_call)),
            )


def _scaled(figure: Estimate | None, by: float) -> Estimate | None:
    if figure is None:
        return None
    return figure.model_copy(update={key: getattr(figure, key) * by for key in ("value", "low", "high")})


def _variant(results: Results, name: str) -> Variant:
    return next(variant for variant in results.bundle.variants if variant.name == name)


def _tried(results: Results, variant: Variant) -> Preprocessing | None:
    measurement = results.measurement
    tried = [told for told in measurement.preprocessing if told.inputs == variant.inputs] if measurement else []
    return tried[0] if tried else None
