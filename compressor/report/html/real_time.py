"""Of samples that last a time, for the page: what a model takes of it, and what making its input takes."""

from compressor.report.html.tables import Table, figure
from compressor.report.html.text import shown
from compressor.report.render.real_time import HEAD, INTERVALS, made_lines
from compressor.report.render.text import estimate, number
from compressor.schema.report import Report

__all__ = ["real_time_told"]


def real_time_told(report: Report) -> tuple[Table, str] | None:
    """The table, and how raw samples became inputs; None where samples last no time."""
    if report.real_time is None:
        return None
    rows = []
    for index, row in enumerate(report.real_time.rows):
        at = f"real_time/{index}"
        cells = (
            figure(f"{at}/seconds", number(row.seconds)),
            figure(f"{at}/ms_per_second", estimate(row.ms_per_second)),
            figure(f"{at}/factor", estimate(row.factor)),
        )
        rows.append((f"{index + 1}. {shown(row.variant)}", "ships" if row.variant == report.winner else "", cells))
    said = shown(" ".join(made_lines(report.real_time)), 800)
    return Table("Against real time", INTERVALS, HEAD, tuple(rows)), said
