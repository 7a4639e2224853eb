"""What distillation gained over labels alone, from the student's record in the bundle."""

from compressor.schema.accuracy import Advantage, Gain
from compressor.schema.report import Estimate, Gained
from compressor.stats import gained_interval, wilson_interval

__all__ = ["gained"]


def gained(gain: Gain | None) -> Gained | None:
    """The figures, their intervals computed anew from the counts; None where the student has no control. Which samples
    each had right stays in the run: nothing of the control is in a bundle."""
    if gain is None:
        return None
    control = wilson_interval(gain.control_test.correct, gain.control_test.n)
    accuracy = Estimate(
        value=control.value, low=control.low, high=control.high, n=control.n, of=f"{gain.control_test.split} samples"
    )
    return Gained(
        validation=_paired(gain.validation),
        test=_paired(gain.test),
        control_accuracy=accuracy,
        steps=gain.steps,
        samples=gain.samples,
    )


def _paired(counted: Advantage) -> Estimate:
    gap = gained_interval(counted)
    return Estimate(value=gap.value, low=gap.low, high=gap.high, n=gap.n, of=f"{counted.split} samples, paired")
