"""torch -> ONNX in a tenth of the time, by tracing: for networks of drawn weights, of which nothing counts but how long
they take. What ships is always exported by `graph.to_onnx`.

Both exporters give onnxruntime and OpenVINO the same convolutions, and the same activations but for GELU: traced, it
comes out as one node, and exported as five, which runtimes fuse in some networks only. Networks with GELU are therefore
not traced. `tests/export/test_export_quick.py` holds the rest to it.
"""

import warnings
from pathlib import Path

import torch
from torch import nn

from compressor.export.onnx.graph import to_onnx
from compressor.schema.preprocess import Preprocess
from compressor.tasks.base import example_inputs

__all__ = ["quick_onnx"]

HIGHEST_TRACED = 20
"""The highest opset that torch's tracing exporter writes."""


def quick_onnx(network: nn.Module, preprocess: Preprocess, batch: int, opset: int, path: Path) -> None:
    """Write `network` to `path`, with inputs and output named as `to_onnx` names them, for that batch alone. Raises
    KdcError where it cannot be exported."""
    if any(isinstance(module, nn.GELU) or type(module).__name__ == "GELU" for module in network.modules()):
        to_onnx(network, preprocess.inputs, batch, opset, {}, path)
        return
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is old, and that shapes become constants: they are
        torch.onnx.export(
            network.eval(),
            example_inputs(preprocess.inputs, batch),
            path,
            dynamo=False,
            opset_version=min(opset, HIGHEST_TRACED),
            input_names=[spec.name for spec in preprocess.inputs],
            output_names=["logits"],
        )
