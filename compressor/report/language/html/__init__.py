"""report.html of a language model: what report.md says, drawn. The frame, the style and what drawings and tables are
made of are `compressor.report.html`'s. A figure's name is its path in report.json.

page     the whole page, from its template and the parts below
head     the first screen; tables, drawings; told: what was not measured, and where it comes from
"""

from compressor.report.language.html.page import to_html

__all__ = ["to_html"]
