"""The whole page: what the template is filled with."""

import json
from pathlib import Path
from typing import Any

from markupsafe import Markup

from compressor.report.history import Trend
from compressor.report.html.changes import changes_of
from compressor.report.html.course import history_of, weights_of
from compressor.report.html.explained import layers_of
from compressor.report.html.explorer import explorer
from compressor.report.html.figures import curves, distributions, pareto, sizes, softening
from compressor.report.html.head import cards, failures, subject_of
from compressor.report.html.instrument import instrument, raw_blocks
from compressor.report.html.lengths import length_tables, lengths_drawn, tokens_told
from compressor.report.html.provenance import provenance
from compressor.report.html.real_time import real_time_told
from compressor.report.html.retained import classes_of
from compressor.report.html.samples import disagreements
from compressor.report.html.tables import tables_of
from compressor.report.html.template import WORDS, asset, template
from compressor.report.html.text import shown
from compressor.report.html.trend import history_drawn
from compressor.report.html.unmeasured import not_measured
from compressor.report.next_step import next_step
from compressor.report.read import Results
from compressor.report.render.explained import explained_line
from compressor.report.render.formats import verdict_line
from compressor.report.render.text import confidence_percent
from compressor.schema.report import Report

__all__ = ["to_html"]


def to_html(
    bundle_dir: Path, report: Report, results: Results, allow_unmeasured: bool = False, trend: Trend | None = None
) -> str:
    """The report as one HTML file that needs no network. `results`: what the report was made from, read from the bundle
    in `bundle_dir`; `trend`: of a history, to be drawn. The same bundle gives the same text."""
    subject = subject_of(report)
    raw = raw_blocks(report, results)
    judged = instrument(report, results, allow_unmeasured)
    explored = explorer(bundle_dir, results)
    history = history_of(bundle_dir, results)
    return template("page.html").render(
        report=report,
        student=results.bundle.student,
        profile=results.bundle.profile,
        word=WORDS[report.verdict],
        line=shown(verdict_line(report, allow_unmeasured), 1200),
        subject=subject,
        cards=cards(report, results, subject),
        failures=failures(report, subject),
        changes=changes_of(bundle_dir, report, results),
        step=next_step(report),
        pareto=pareto(report),
        spread=distributions(report, raw),
        sizes=sizes(report) if report.rows else "",
        raw=raw,
        curves=curves(history, weights_of(results.bundle.student.recipe)),
        trend=history_drawn(trend) if trend is not None else None,
        tables=tables_of(report),
        lengths=length_tables(report),
        by_length=lengths_drawn(report),
        tokens=tokens_told(report),
        real_time=real_time_told(report),
        layers=layers_of(report),
        said=shown(explained_line(report), 400),
        classes=classes_of(report, results, subject),
        lost=disagreements(bundle_dir, results, subject.name) if subject else None,
        card=results.bundle.student.teacher_card,
        explored=explored,
        softening=softening(explored),
        provenance=provenance(report, results),
        not_measured=list(not_measured(report, results)),
        confidence=confidence_percent(report.session.confidence) if report.session else "",
        shown=shown,
        data=_embedded({"judge": judged, "raw": raw, "explorer": explored}),
        style=asset("style.css"),
        scripts=Markup("\n").join([asset("judge.js"), asset("frame.js"), asset("page.js")]),
    )


def _embedded(values: dict[str, Any]) -> Markup:
    """JSON that ends no script element and begins no comment, whatever names it holds."""
    text = json.dumps(values, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
