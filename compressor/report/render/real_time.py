"""Of samples that last a time: what a model takes of it, and what making its input takes."""

from collections.abc import Iterator

from compressor.report.render.markdown import code, fold, table, text
from compressor.report.render.text import estimate, number, spread
from compressor.schema.report import RealTime, Report

__all__ = ["HEAD", "INTERVALS", "made_lines", "real_time_section"]

HEAD = ("seconds read", "ms a second of it", "real-time factor")
INTERVALS = "p50 of a call / the seconds that it reads; [low–high] are 95 % intervals"


def real_time_section(report: Report) -> Iterator[str]:
    """As markdown, folded; nothing where samples last no time."""
    told = report.real_time
    if told is None:
        return
    body = [
        [code(row.variant), number(row.seconds), estimate(row.ms_per_second), estimate(row.factor)] for row in told.rows
    ]
    blocks = [f"**{INTERVALS}**", table(["variant", *HEAD], body, len(HEAD))]
    yield fold("Against real time: below 1 a model keeps up", [*blocks, "  \n".join(map(text, made_lines(told)))])


def made_lines(told: RealTime) -> list[str]:
    """How raw samples became inputs where models were measured, a line each."""
    if told.library is None:
        return [f"Not tried: making inputs of raw samples where models were measured ({told.untried or 'none ship'})."]
    alike = (told.made or 0) - (told.differ or 0)
    largest = "" if told.largest_difference is None else f"; the largest difference is {told.largest_difference:.1g}"
    factor = "" if told.made_factor is None else f"; real-time factor {number(told.made_factor)}"
    return [
        f"Where models were measured, {told.library} made the inputs of training of {alike} of {told.made} raw test "
        f"samples{largest}.",
        f"{told.cut} of them are longer than the student reads and were cut, {told.padded} are shorter and were filled "
        f"up, {told.resampled} had another rate.",
        f"Milliseconds to read one and make its input, which no latency here contains: {spread(told.made_ms)}{factor}.",
    ]
