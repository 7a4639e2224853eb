"""Figures as people read them. Everything that a verdict rests on shows its interval and its n."""

import math

from compressor.spec.report import Estimate, Row

__all__ = ["NOT_MEASURED", "estimate", "megabytes", "number", "runtime_and_release", "share"]

NOT_MEASURED = "not measured"


def number(value: float, digits: int = 3) -> str:
    """`value` with `digits` significant digits and no exponent; whole numbers keep all of theirs."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    return f"{value:.{max(0, digits - 1 - math.floor(math.log10(abs(value))))}f}"


def share(value: float) -> str:
    """A share as a percentage with one decimal, without the sign, e.g. 97.5; 99.97 is not rounded up to 100.0."""
    percent = 100 * value
    text = f"{percent:.1f}"
    return f"{percent:.3f}".rstrip("0") if text == "100.0" and percent != 100 else text


def megabytes(size: int) -> float:
    """Bytes in MB (10^6 bytes), the unit of budgets."""
    return size / 1e6


def estimate(figure: Estimate | None, percent: bool = False) -> str:
    """`12.3 [11.9–12.8]`, or `not measured`."""
    if figure is None:
        return NOT_MEASURED
    parts = (figure.value, figure.low, figure.high)
    value, low, high = (share(part) if percent else number(part) for part in parts)
    return f"{value} [{low}–{high}]"


def runtime_and_release(row: Row) -> str:
    """The runtime and its release, e.g. `openvino 2026.4.1`; the whole version stands in measurement.json."""
    return " ".join(filter(None, (row.runtime, (row.runtime_version or "").split("-")[0])))
