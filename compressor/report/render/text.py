"""Figures as people read them. Everything that a verdict rests on shows its interval and its n."""

import math

from compressor.schema.report import Estimate, Row, Spread

__all__ = [
    "NOT_MEASURED",
    "confidence_percent",
    "estimate",
    "megabytes",
    "number",
    "p_value",
    "points",
    "relative",
    "runtime_and_release",
    "share",
    "spread",
]

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


def confidence_percent(confidence: float) -> str:
    """A confidence as people write it: 95, 99.5, 99.875."""
    return f"{100 * confidence:.5g}"


def relative(ratio: float) -> str:
    """How far a ratio lies from 1, in per cent with its sign: 1.003 is +0.3."""
    return _signed(ratio - 1)


def _signed(part: float) -> str:
    text = f"{100 * part:+.1f}".replace("-", "−")
    return "0.0" if text in ("+0.0", "−0.0") else text


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


def points(figure: Estimate | None) -> str:
    """A difference of two shares in percentage points, `−1.0 [−2.6 to +0.5]`, or `not measured`."""
    if figure is None:
        return NOT_MEASURED
    return f"{_signed(figure.value)} [{_signed(figure.low)} to {_signed(figure.high)}]"


def p_value(value: float | None) -> str:
    """A p-value with two digits; below 0.001 no digits mean anything."""
    if value is None:
        return NOT_MEASURED
    return "< 0.001" if value < 0.001 else number(value, 2)


def spread(figure: Spread | None) -> str:
    """`12.3 [11.9–12.8], n = 5` for median, lowest and highest, or `not measured`."""
    if figure is None:
        return NOT_MEASURED
    return f"{number(figure.median)} [{number(figure.lowest)}–{number(figure.highest)}], n = {figure.n}"


def runtime_and_release(row: Row) -> str:
    """The runtime and its release, e.g. `openvino 2026.4.1`; the whole version stands in measurement.json."""
    return " ".join(filter(None, (row.runtime, (row.runtime_version or "").split("-")[0])))
