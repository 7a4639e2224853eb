"""Whose work a student is made of, a line each, in Markdown."""

from collections.abc import Iterator

from compressor.report.render.markdown import code, text
from compressor.schema.language.report import LanguageReport
from compressor.schema.provenance import NOBODYS, UNKNOWN
from compressor.schema.report import Report

__all__ = ["provenance"]


def provenance(report: Report | LanguageReport) -> Iterator[str]:
    """A line for each model that went into the student, with its licence and, where they are known, its terms. Weights
    that were drawn are no one's."""
    for ancestor in report.ancestors:
        if ancestor.licence.startswith(NOBODYS):
            continue
        model = "" if ancestor.model in (UNKNOWN, ancestor.source) else f" ({text(ancestor.model)})"
        terms = "" if ancestor.terms == UNKNOWN else f", terms: {text(ancestor.terms)}"
        yield f"Made from {code(ancestor.source)}{model}, licence: {text(ancestor.licence)}{terms}"
