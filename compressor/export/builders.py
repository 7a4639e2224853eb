"""The one table of builders: runtime -> how its artefacts are made. A row here, one in `runtimes`, one runner in
targets/: that is a new runtime."""

from pathlib import Path

from compressor.export import openvino_ir
from compressor.export.executorch_pte import EXECUTORCH, to_executorch
from compressor.export.litert_tflite import LITERT, to_litert
from compressor.export.openvino_int8 import OPENVINO
from compressor.export.ort_fp16 import to_fp16
from compressor.export.ort_int8 import ORT
from compressor.export.source import Artefact, Builder, Source
from compressor.export.tensorrt import TENSORRT, TENSORRT_RTX

__all__ = ["BUILDERS"]


def _onnxruntime(source: Source, precision: str, folder: Path) -> Artefact:
    """ONNX Runtime runs the fp32 reference itself."""
    if precision == "fp16":
        return to_fp16(source, folder)
    return Artefact(source.onnx_file, "torch.onnx.export(dynamo=True)")


BUILDERS: dict[str, Builder] = {
    "onnxruntime": Builder(_onnxruntime, ORT),
    "openvino": Builder(openvino_ir.convert, OPENVINO),
    "executorch": Builder(to_executorch, EXECUTORCH),
    "litert": Builder(to_litert, LITERT),
    "tensorrt": TENSORRT,
    "tensorrt-rtx": TENSORRT_RTX,
}
