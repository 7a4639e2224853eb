"""Why int8 loses: the layers of every variant, and what int8 costs each of them, into BUNDLE/explain/ (--explain).

The same samples go through the network in float and in int8, and each layer's outputs are compared: samples of
validation, never of the test. Reading a layer keeps a runtime from fusing it, so this is the arithmetic that the
model's file asks for, and not the kernels that run on a device.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from compressor.errors import KdcError
from compressor.export.base import QatModel, Source, Twins
from compressor.export.builders import builder_of
from compressor.export.judge import ValidationJudge
from compressor.export.onnx.qdq_strip import strip
from compressor.export.onnx.twins import INPUT
from compressor.progress import Progress
from compressor.schema.base import write_json
from compressor.schema.explain import Explanation, GraphLayer, LayerError
from compressor.stats import sqnr_db
from compressor.tasks.base import Arrays

__all__ = ["FOLDER", "SAMPLES", "Subject", "explain", "layer_errors"]

FOLDER = "explain"
SAMPLES = 64
"""Of validation, at most: a layer's SQNR over that many differs little from that over all."""
AT_A_TIME = 16
"""Layers that are read in one pass, for memory: at 224 px, a layer has megabytes a sample."""
WORST, BEST = "#d2504b", "#f5f5f0"
"""Colours of the overlay."""


@dataclass(frozen=True)
class Subject:
    """A variant as it was made, before anything was built into it. `source`: the float network that it was made from,
    or `qat`: the retrained student."""

    variant: str
    runtime: str
    precision: str
    model: Path
    source: Source
    qat: QatModel | None


def explain(subject: Subject, judge: ValidationJudge | None, root: Path, work: Path, progress: Progress) -> None:
    """Write explain/VARIANT.json into the bundle `root`, and of an int8 ONNX graph an overlay for Model Explorer.
    `work`: what does not ship. What cannot be compared is said there, and stops nothing."""
    explanation = Explanation(variant=subject.variant, graph=())
    try:
        against, float_file, modules = _reference(subject, work)
        model = onnx.load(float_file, load_external_data=False)
        explanation = explanation.model_copy(update={"graph": _graph(model.graph, modules)})
        if subject.precision == "int8" and judge is not None:
            explanation = explanation.model_copy(update=_compared(subject, judge, float_file, against, progress))
    except KdcError as error:
        progress.warn(f"{subject.variant}: its layers are not compared with those in float: {error.message}")
        explanation = explanation.model_copy(update={"missing": error.message})
    folder = root / FOLDER
    folder.mkdir(exist_ok=True)
    write_json(folder / f"{subject.variant}.json", explanation)
    if explanation.errors and subject.model.suffix == ".onnx":
        text = json.dumps(_overlay(explanation), indent=1, allow_nan=False)
        (folder / f"{subject.variant}.node_data.json").write_text(text + "\n", encoding="utf-8")


def _reference(subject: Subject, work: Path) -> tuple[str, Path, Mapping[str, str]]:
    """What in float an int8 model is held against, in words; its ONNX file, and the modules of its nodes."""
    if subject.qat is None:
        return "the student in fp32", subject.source.onnx_file, subject.source.modules
    path = work / f"{subject.variant}-float.onnx"
    onnx.save(strip(onnx.load(subject.qat.onnx_file)).model, path)
    return "the retrained student, its activations in float", path, subject.qat.modules


def _graph(graph: onnx.GraphProto, modules: Mapping[str, str]) -> tuple[GraphLayer, ...]:
    nodes = [node for node in graph.node if node.output]
    made = {name for node in nodes for name in node.output}
    return tuple(
        GraphLayer(
            name=node.name,
            op=node.op_type,
            output=node.output[0],
            reads=tuple(name for name in node.input if name in made),
            module=modules.get(node.name),
        )
        for node in nodes
    )


def _compared(
    subject: Subject, judge: ValidationJudge, float_file: Path, against: str, progress: Progress
) -> dict[str, object]:
    twins_of = builder_of(subject.runtime).twins
    if twins_of is None:
        return {"missing": f"kdc does not read the layers of {subject.runtime}'s models"}
    batches = list(judge.batches(SAMPLES))
    errors = layer_errors(twins_of(float_file, subject.model), batches, progress, f"{subject.variant}, layers")
    n = sum(len(next(iter(batch.values()))) for batch in batches)
    return {"against": against, "split": "validation", "n": n, "batch": n // len(batches), "errors": errors}


def layer_errors(
    twins: Twins, batches: Iterable[Arrays], progress: Progress, doing: str = "layers"
) -> tuple[LayerError, ...]:
    """Signal and noise of every layer on every batch. Raises KdcError where the two cannot be compared."""
    if not twins.layers:
        raise KdcError("the network in float and in int8 have no layer of the same name")
    sums: dict[str, list[tuple[float, float]]] = {layer.name: [] for layer in twins.layers}
    groups = [list(sums)[start : start + AT_A_TIME] for start in range(0, len(sums), AT_A_TIME)]
    listed = list(batches)
    for names in progress.track(groups, len(groups), doing):
        compared = twins.compared(names)
        for batch in listed:
            for name, wanted, actual in compared(batch):
                sums[name].append(_sums(name, wanted, actual))
    return tuple(
        LayerError(
            name=layer.name,
            op=layer.op,
            reads=layer.reads,
            signal=tuple(signal for signal, _ in sums[layer.name]),
            noise=tuple(noise for _, noise in sums[layer.name]),
        )
        for layer in twins.layers
    )


def _sums(name: str, wanted: NDArray[np.float32], actual: NDArray[np.float32]) -> tuple[float, float]:
    """Σx² and Σ(x − x̂)²."""
    if wanted.shape != actual.shape:
        raise KdcError(f"layer {name} gives {list(wanted.shape)} in float and {list(actual.shape)} in int8")
    values = wanted.astype(np.float64)
    signal, noise = float(np.square(values).sum()), float(np.square(values - actual).sum())
    if not np.isfinite([signal, noise]).all():
        raise KdcError(f"layer {name} gives values that are not finite")
    return signal, noise


def _overlay(explanation: Explanation) -> dict[str, object]:
    """The SQNR of each layer in dB, by its node's name, as Model Explorer's "custom node data" (GraphNodeData in
    node_data_builder.py of google-ai-edge/model-explorer)."""
    results = {error.name: {"value": round(ratio, 2)} for error, ratio in _ratios(explanation) if error.op != INPUT}
    return {"results": results, "gradient": [{"stop": 0, "bgColor": WORST}, {"stop": 1, "bgColor": BEST}]}


def _ratios(explanation: Explanation) -> Iterator[tuple[LayerError, float]]:
    for error in explanation.errors:
        signal, noise = sum(error.signal), sum(error.noise)
        ratio = sqnr_db(signal, noise) if signal else None
        if ratio is not None:
            yield error, ratio
