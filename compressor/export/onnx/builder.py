"""What onnxruntime runs: the fp32 reference itself, fp16, and int8."""

from pathlib import Path

from compressor.export.base import Artefact, Builder, Source
from compressor.export.onnx.bake import bake_normalization, prepend_front_end
from compressor.export.onnx.fp16 import to_fp16
from compressor.export.onnx.graph import onnx_constants
from compressor.export.onnx.int8 import ORT
from compressor.export.onnx.twins import onnx_twins

__all__ = ["BUILDER"]


def _convert(source: Source, precision: str, folder: Path) -> Artefact:
    """ONNX Runtime runs the fp32 reference itself."""
    if precision == "fp16":
        return to_fp16(source, folder)
    return Artefact(source.onnx_file, "torch.onnx.export(dynamo=True)")


BUILDER = Builder(
    _convert,
    onnx_constants,
    ORT,
    bake=bake_normalization,
    prepend=prepend_front_end,
    dynamic_batch=("fp32", "fp16", "int8"),
    twins=onnx_twins,
)
