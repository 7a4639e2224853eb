"""Report -> README.md of the bundle: a model card as the Hugging Face hub reads it
(huggingface.co/docs/hub/model-cards), its figures with their intervals in the metadata."""

from collections.abc import Iterator
from typing import Any

import yaml

from compressor.report.decision import figures, samples, seconds_read, shipped
from compressor.report.render.head import TITLES
from compressor.report.render.markdown import code, table, text
from compressor.report.render.provenance import provenance
from compressor.report.render.text import runtime_and_release
from compressor.schema.bundle import Bundle, Variant
from compressor.schema.language.report import LanguageReport, LanguageRow
from compressor.schema.report import Estimate, Report, Row
from compressor.schema.student import Weights
from compressor.terminal.printable import one_line

__all__ = ["front_matter", "interval", "licence", "of_ancestors", "of_row", "plain", "to_card"]

LONGEST = 200
"""Signs of a name in the metadata."""
MOST_CLASSES = 40

LICENCES = {
    "afl-3.0", "agpl-3.0", "apache-2.0", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc-by-nc-4.0", "cc-by-nc-nd-4.0",
    "cc-by-nc-sa-4.0", "cc-by-sa-4.0", "cc0-1.0", "cdla-permissive-2.0", "gpl-3.0", "lgpl-3.0", "mit", "mpl-2.0",
    "openrail", "unlicense",
}  # fmt: skip
"""As the hub spells those that it knows; another one is "other", and its name stands beside it."""

LIBRARIES = {
    "onnxruntime": "onnx",
    "onnxruntime-genai": "onnx",
    "openvino": "openvino",
    "openvino-genai": "openvino",
    "executorch": "executorch",
    "litert": "litert",
}


def to_card(report: Report, bundle: Bundle) -> str:
    """The card. Its metadata has an `EvalResult` for each of accuracy, balanced accuracy, retention and p50 of the
    variant that ships, with interval, n and device in `metric_args`; none where nothing is chosen or measured."""
    return front_matter(_metadata(report, bundle)) + "\n\n".join(_body(report, bundle)) + "\n"


def front_matter(metadata: dict[str, Any]) -> str:
    """What the hub reads, before the card."""
    return f"---\n{yaml.safe_dump(metadata, allow_unicode=True, sort_keys=False, width=1000)}---\n\n"


def licence(name: str) -> dict[str, str]:
    """Of the student's weights, as the hub has it."""
    if name.lower() in LICENCES:
        return {"license": name.lower()}
    return {"license": "other", "license_name": plain(name)}


def of_row(row: Row | LanguageRow | None, task: str) -> dict[str, Any]:
    """With which library what ships is run, its task as the hub calls it, and its tags."""
    library = {} if row is None or row.runtime not in LIBRARIES else {"library_name": LIBRARIES[row.runtime]}
    tags = ["knowledge-distillation", "kdc", *(() if row is None else map(plain, (row.runtime, row.precision)))]
    return {**library, "pipeline_tag": task, "tags": tags}


def of_ancestors(report: Report | LanguageReport) -> dict[str, Any]:
    """Whose work the student is made of, with their licences."""
    told = [
        {
            "source": plain(ancestor.source),
            "model": plain(ancestor.model),
            "license": plain(ancestor.licence),
            "terms": plain(ancestor.terms),
        }
        for ancestor in report.ancestors
    ]
    teacher = {"source": plain(report.teacher), "license": plain(report.teacher_licence)}
    return {"teacher": teacher, "ancestors": told}


def _metadata(report: Report, bundle: Bundle) -> dict[str, Any]:
    row = shipped(report)
    return {
        **licence(_weights(report, bundle).licence),
        **of_row(row, bundle.student.task),
        **of_ancestors(report),
        "model-index": [_index(report, bundle, row)] if row is not None and list(_metrics(report, row)) else [],
    }


def _weights(report: Report, bundle: Bundle) -> Weights:
    chosen: Variant | None = next((variant for variant in bundle.variants if variant.name == report.winner), None)
    return (chosen.weights if chosen is not None else None) or bundle.student.weights


def _index(report: Report, bundle: Bundle, row: Row) -> dict[str, Any]:
    return {
        "name": f"{plain(report.student)}-{plain(row.name)}",
        "results": [
            {
                "task": {"type": bundle.student.task, "name": bundle.student.task.replace("-", " ").capitalize()},
                "dataset": {
                    "type": plain(report.data),
                    "name": plain(report.data),
                    "split": plain(report.test_split),
                },
                "metrics": list(_metrics(report, row)),
            }
        ],
    }


def _metrics(report: Report, row: Row) -> Iterator[dict[str, Any]]:
    session = report.session
    where = {} if session is None else {"device": plain(session.machine.cpu), "threads": row.threads}
    tokens, seconds = report.lengths.timed if report.lengths is not None else None, seconds_read(report, row)
    long = {"sequence_length": tokens} if tokens else {"seconds": seconds} if seconds else {}
    runtime = plain(runtime_and_release(row))
    of_latency = {} if session is None else {**where, "batch": session.batch, **long, "runtime": runtime}
    for kind, name, figure, arguments in (
        ("accuracy", "Top-1 accuracy", row.accuracy, where),
        ("balanced_accuracy", "Balanced accuracy", row.balanced_accuracy, where),
        ("retention", "Accuracy / the teacher's accuracy", row.retention, where),
        ("latency", "p50 latency of one call, ms", row.p50_ms, of_latency),
    ):
        if figure is not None:
            yield {"type": kind, "value": figure.value, "name": name, "args": {**interval(figure), **arguments}}


def interval(figure: Estimate) -> dict[str, Any]:
    """The arguments of a metric: what its figure rests on."""
    return {"confidence": 0.95, "low": figure.low, "high": figure.high, "n": figure.n, "of": plain(figure.of)}


def plain(value: object) -> str:
    """A name as metadata has it: one line, in which nothing acts."""
    line = one_line(value) or "unknown"
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


def _body(report: Report, bundle: Bundle) -> Iterator[str]:
    row, name = shipped(report), code(report.student)
    yield f"# {text(report.student)}{'' if row is None else f', {text(row.name)}'}"
    n = len(report.class_names)
    yield f"{name}, distilled from {code(report.teacher)} for {n} classes, by kdc {text(report.kdc)}: " + (
        f"{TITLES[report.verdict]} {code(report.profile)} (**{report.verdict}**)."
    )
    if row is None:
        yield f"Nothing ships: {text(report.why)}."
    else:
        ships = "What ships lies in `best/`, with labels, an example and its own README"
        yield f"{ships}: {code(row.name)}, {text(report.why)}."
        rows = [
            [
                f"{figure.name} {figure.unit}".strip(),
                *(text(cell or "–") for cell in (figure.measured, figure.limit, figure.teacher)),
            ]
            for figure in figures(report)
        ]
        yield table(["", code(row.name), "budget", "the teacher"], rows, 3)
        yield text(f"{samples(report)[0].upper()}{samples(report)[1:]}.")
    yield "\n".join(_facts(report, bundle))


def _facts(report: Report, bundle: Bundle) -> Iterator[str]:
    yield f"- Teacher: {code(report.teacher)}, licence: {text(report.teacher_licence)}"
    yield f"- Licence of the student's weights, before it was trained: {text(_weights(report, bundle).licence)}"
    yield from (f"- {line}" for line in provenance(report))
    split = f"the {report.test_n} samples of its {text(report.test_split)} split"
    yield f"- Data: {code(report.data)}; accuracy is of {split}"
    shown = report.class_names[:MOST_CLASSES]
    more = (
        f", and {len(report.class_names) - len(shown)} more (`labels.txt`)"
        if len(shown) < len(report.class_names)
        else ""
    )
    yield f"- Classes: {', '.join(map(code, shown))}{more}"
    if report.session is not None:
        yield f"- Measured {text(report.session.started)} on {text(report.session.machine.cpu)}"
    yield "- Every figure, also of what does not ship: `report.md`"
