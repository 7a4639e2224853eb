"""ONNX -> OpenVINO IR, at the precision that was asked for."""

from pathlib import Path

from compressor.errors import KdcError, needs
from compressor.runtimes import RUNTIMES

__all__ = ["to_openvino"]


def to_openvino(onnx_file: Path, precision: str, folder: Path) -> tuple[Path, str]:
    """Write FOLDER/model.xml and model.bin; returns the .xml, and how it was made.

    `precision` "f32" stores f32 weights. "f16" and "bf16" store f16 weights (OpenVINO's compressed format: half the
    size, widened when loaded; docs.openvino.ai, "Convert a Model / FP16 compression"); bf16 is then chosen when the
    model is compiled. Raises KdcError (exit 4) without openvino.
    """
    ov = needs("openvino", RUNTIMES["openvino"].install, "an OpenVINO export")
    try:
        model = ov.convert_model(onnx_file)
    except Exception as error:  # openvino raises plain RuntimeErrors and its own frontends' types
        raise KdcError(f"OpenVINO cannot convert the network: {str(error).strip().splitlines()[0]}") from None
    folder.mkdir(parents=True)
    half = precision != "f32"
    # Said outright: save_model stores f16 unless told otherwise.
    ov.save_model(model, folder / "model.xml", compress_to_fp16=half)
    return folder / "model.xml", f"openvino.convert_model, save_model(compress_to_fp16={half})"
