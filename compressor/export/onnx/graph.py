"""torch -> ONNX: checked, described, without a trace of this machine, and the same bytes every time."""

import ast
import contextlib
import hashlib
import inspect
import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx.helper import tensor_dtype_to_np_dtype
from torch import nn

from compressor.errors import KdcError, first_line, os_error
from compressor.schema.tensors import TensorSpec
from compressor.tasks.base import example_inputs

__all__ = ["LOWEST_EXPORTED", "onnx_constants", "to_onnx"]

LOWEST_EXPORTED = 18
"""The lowest opset that torch's dynamo exporter writes; lower ones are converted down from it."""

SCOPES = "pkg.torch.onnx.name_scopes"
"""Where torch's exporter notes the modules that a node lies in, from the outermost to the fx node itself."""

NO_MODULE = "_empty_nn_module_stack_from_metadata_hook"
"""What stands there for a node that torch itself puts in, as of a dimension that varies."""

SHARED_BYTES = 4096
LARGEST = 2_000_000_000
"""Bytes of weights in one file: protobuf ends at 2 GiB, and the graph needs some of it."""


def to_onnx(
    network: nn.Module,
    inputs: Sequence[TensorSpec],
    batch: int | None,
    opset: int,
    metadata: Mapping[str, str],
    path: Path,
) -> dict[str, str]:
    """Write `network` as ONNX: `inputs` by their names, output "logits" [batch, classes]. Returns the module of the
    network that each node comes from, by the node's name, as far as the exporter tells.

    With `batch` None it may vary from call to call; it is called "batch" in the graph, and what varies in `inputs`
    as it is called there. `metadata` goes into the model's metadata_props. Raises KdcError where the network cannot be
    exported, or not at that opset: another one is never written instead.
    """
    weight_bytes = sum(t.numel() * t.element_size() for t in (*network.parameters(), *network.buffers()))
    if weight_bytes > LARGEST:
        raise KdcError(f"the network's weights take {weight_bytes / 1e9:.1f} GB; an ONNX file holds 2 GB")
    # torch.export takes an example of one image as a promise that there will never be more.
    example = example_inputs(inputs, 2 if batch is None else batch)
    varying = _varying(network, inputs, batch is None)
    try:
        with _quiet():
            program = torch.onnx.export(
                network.eval(),
                example,
                dynamo=True,
                opset_version=max(opset, LOWEST_EXPORTED),
                input_names=[spec.name for spec in inputs],
                output_names=["logits"],
                dynamic_shapes=varying,
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise KdcError(f"the network cannot be exported to ONNX: {first_line(error.__cause__ or error)}") from None
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    modules = _strip(model)
    if opset < LOWEST_EXPORTED:
        model = _converted_down(model, opset)
    opsets = {row.domain or "ai.onnx": row.version for row in model.opset_import}
    if opsets.get("ai.onnx") != opset:
        raise KdcError(f"the network exports to ONNX opset {opsets.get('ai.onnx')}, not to the {opset} of the profile")
    model.producer_name, model.producer_version = "kdc", ""
    onnx.helper.set_model_props(model, dict(sorted(metadata.items())))
    onnx.checker.check_model(model, full_check=True)
    try:
        path.write_bytes(model.SerializeToString(deterministic=True))
    except OSError as error:
        raise os_error(error, f"writing {path}") from error
    return modules


def _varying(network: nn.Module, inputs: Sequence[TensorSpec], batch: bool) -> tuple[Any, ...] | None:
    """The dimensions that vary, by argument of the network; None where none does. Those of one name vary together."""
    names = {name for spec in inputs for number, name in spec.varying.items() if number or batch}
    dimensions = {name: torch.export.Dim(name) for name in sorted(names)}
    by_input = tuple(
        {number: dimensions[name] for number, name in spec.varying.items() if name in dimensions} for spec in inputs
    )
    if not names:
        return None
    kinds = [parameter.kind for parameter in inspect.signature(network.forward).parameters.values()]
    return (by_input,) if inspect.Parameter.VAR_POSITIONAL in kinds else by_input


def metadata_json(value: object) -> str:
    """A value as compact JSON with sorted keys, for metadata."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def _modules(graph: onnx.GraphProto) -> dict[str, str]:
    """By whose weight a node reads: a convolution with a BatchNorm folded into it is noted as that one. Else by the
    scopes that the exporter notes on it, "['', 'blocks.0', 'blocks.0.act', 'relu']"."""
    named = [tensor.name for tensor in graph.initializer if tensor.name.endswith(".weight")]
    weights = {name: name.removesuffix(".weight") for name in named}
    modules = {}
    for node in graph.node:
        notes = {note.key: note.value for note in node.metadata_props}
        read = next((weights[name] for name in node.input if weights.get(name)), "")
        modules[node.name] = read or _innermost(notes.get(SCOPES, ""))
    return {name: module for name, module in modules.items() if name and module}


def _innermost(scopes: str) -> str:
    try:
        listed = ast.literal_eval(scopes)
    except (ValueError, SyntaxError):
        return ""
    scope = str(listed[-2]) if isinstance(listed, list) and len(listed) > 1 else ""
    return "" if scope == NO_MODULE else scope


def _strip(model: onnx.ModelProto) -> dict[str, str]:
    """Take out what the exporter notes for debugging: stack traces with this machine's paths, module names; and
    constants that are there already. Returns the modules by the nodes' names."""
    graph, modules = model.graph, _modules(model.graph)
    _share(graph)
    del model.metadata_props[:]
    del graph.metadata_props[:]
    model.doc_string = graph.doc_string = ""
    for node in graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del value.metadata_props[:]
        value.doc_string = ""
    return modules


def _share(graph: onnx.GraphProto) -> None:
    """Make one constant of large ones that are equal. The exporter transposes the weight of each linear layer anew, so
    that layers which share a weight, as all of ALBERT's do, would have one each."""
    first: dict[tuple[object, ...], str] = {}
    instead: dict[str, str] = {}
    for tensor in graph.initializer:
        if len(tensor.dims) > 1 and len(tensor.raw_data) >= SHARED_BYTES:
            digest = hashlib.sha256(tensor.raw_data).digest()
            kept = first.setdefault((tensor.data_type, *tensor.dims, digest), tensor.name)
            if kept != tensor.name:
                instead[tensor.name] = kept
    for node in graph.node if instead else ():
        for slot, name in enumerate(node.input):
            node.input[slot] = instead.get(name, name)
    for number in reversed(range(len(graph.initializer) if instead else 0)):
        if graph.initializer[number].name in instead:
            del graph.initializer[number]


def _converted_down(model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    for node in model.graph.node:
        # Its default since opset 18; the attribute itself does not exist below, and the converter keeps it.
        kept = [a for a in node.attribute if not (a.name == "noop_with_empty_axes" and a.i == 0)]
        if len(kept) != len(node.attribute):
            del node.attribute[:]
            node.attribute.extend(kept)
    try:
        return onnx.version_converter.convert_version(model, opset)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise KdcError(
            f"the network cannot be written at ONNX opset {opset}: {reason}", f"--set opset={LOWEST_EXPORTED}"
        ) from None


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter logs and warns about its own internals, and prints; none of that helps the user."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(None):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


def onnx_constants(model: Path) -> Iterator[tuple[str, int]]:
    """(type, bytes) of each initializer and Constant of an ONNX file."""
    graph = onnx.load(model).graph
    attributes = [attribute for node in graph.node if node.op_type == "Constant" for attribute in node.attribute]
    tensors = [
        attribute.t for attribute in attributes if attribute.HasField("t")
    ]  # some hold a plain number or a list of them
    for tensor in [*graph.initializer, *tensors]:
        kind = tensor_dtype_to_np_dtype(tensor.data_type)
        count = int(np.prod(tensor.dims, dtype=np.int64))
        # Types below a byte are packed, two (or more) to a byte.
        bits = {"int4": 4, "uint4": 4}.get(kind.name, 8 * kind.itemsize)
        yield kind.name, (count * bits + 7) // 8
