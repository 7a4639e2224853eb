"""The one table of builders: runtime -> how its artefacts are made. A row here, one in `runtimes`, one runner in
targets/: that is a new runtime."""

from pathlib import Path

from compressor.export.base import Artefact, Builder, Source
from compressor.export.mobile.executorch_pte import EXECUTORCH, to_executorch
from compressor.export.mobile.litert_tflite import LITERT, to_litert
from compressor.export.onnx.fp16 import to_fp16
from compressor.export.onnx.int8 import ORT
from compressor.export.openvino import ir
from compressor.export.openvino.int8 import OPENVINO
from compressor.export.tensorrt.engine import TENSORRT, TENSORRT_RTX

__all__ = ["BUILDERS"]


def _onnxruntime(source: Source, precision: str, folder: Path) -> Artefact:
    """ONNX Runtime runs the fp32 reference itself."""
    if precision == "fp16":
        return to_fp16(source, folder)
    return Artefact(source.onnx_file, "torch.onnx.export(dynamo=True)")


BUILDERS: dict[str, Builder] = {
    "onnxruntime": Builder(_onnxruntime, ORT),
    "openvino": Builder(ir.convert, OPENVINO),
    "executorch": Builder(to_executorch, EXECUTORCH),
    "litert": Builder(to_litert, LITERT),
    "tensorrt": TENSORRT,
    "tensorrt-rtx": TENSORRT_RTX,
}
