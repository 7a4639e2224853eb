"""The whole page: what the template is filled with."""

from compressor.report.html.head import failures
from compressor.report.html.template import WORDS, asset, template
from compressor.report.html.text import shown
from compressor.report.language.html.drawings import against_speed, sizes
from compressor.report.language.html.head import cards, subject_of
from compressor.report.language.html.tables import tables_of
from compressor.report.language.html.told import not_measured, provenance
from compressor.report.language.next_step import next_step
from compressor.report.language.read import LanguageResults
from compressor.report.language.render import DEFINED, counted
from compressor.report.render.formats import verdict_line
from compressor.schema.language.report import LanguageReport

__all__ = ["to_html"]


def to_html(report: LanguageReport, results: LanguageResults, allow_unmeasured: bool = False) -> str:
    """The report as one HTML file that needs no network. `results`: what the report was made from. The same bundle
    gives the same text."""
    subject = subject_of(report)
    return template("language.html", __package__).render(
        report=report,
        word=WORDS[report.verdict],
        line=shown(verdict_line(report, allow_unmeasured), 1200),
        allowed=allow_unmeasured and any(check.verdict == "unmeasured" for check in report.checks),
        figures="speed, memory or the text's costs",
        subject=subject,
        cards=cards(report, subject),
        failures=failures(report, subject),
        step=next_step(report),
        counted=shown(counted(report), 600),
        defined=DEFINED,
        drawn=against_speed(report),
        sizes=sizes(report) if report.rows else "",
        tables=tables_of(report),
        licences=[
            check for check in report.checks if check.line == "licence" and subject and check.variant == subject.name
        ],
        provenance=list(provenance(report, results)),
        not_measured=list(not_measured(report, results)),
        shown=shown,
        style=asset("style.css"),
        scripts=asset("frame.js"),
    )
