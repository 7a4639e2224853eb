"""report.html: one file that needs no network. It is what report.md says, drawn, and limits of the budget can be moved.

page         the whole page, from a template and the parts below
figures      the drawings, plain SVG; svg: what they are made of
instrument   what the browser judges with (judge.js), and the raw samples
tables       the tables, with a name for every figure; head: the first screen; retained: class by class
samples      what the student gets wrong and the teacher right; explorer: the teacher's answers at a temperature
unmeasured   what was not measured, and why; provenance: where it comes from; course: of the training
"""

from compressor.report.html.page import to_html

__all__ = ["to_html"]
