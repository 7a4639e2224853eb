"""What OpenVINO runs: IR in float, int8 by NNCF, and the normalization inside it."""

from pathlib import Path

from compressor.errors import KdcError, needs
from compressor.export.base import Builder
from compressor.export.onnx.bake import BAKED_INPUT
from compressor.export.openvino.int8 import OPENVINO
from compressor.export.openvino.ir import convert, ir_constants, write
from compressor.runtimes import RUNTIMES
from compressor.schema.preprocess import ImagePreprocess

__all__ = ["BUILDER", "bake_openvino"]


def bake_openvino(model: Path, preprocess: ImagePreprocess, out: Path) -> None:
    """`onnx.bake.bake_preprocessing` for an IR, whatever its precision: writes `out` (.xml) and its .bin beside it.

    OpenVINO may fuse the steps into one, so logits equal those of the model before to about 1e-5 of their range. The
    weights keep the type in which they are stored. Raises KdcError (exit 4) without openvino.
    """
    ov = needs("openvino", RUNTIMES["openvino"].install, "preprocessing in an OpenVINO model")
    given = ov.Core().read_model(model)
    kind, shape = given.input(0).element_type, given.input(0).get_partial_shape()
    if kind != ov.Type.f32 or not shape.compatible(ov.PartialShape([-1, 3, *preprocess.input_size])):
        expected = f"float32 [batch, 3, {preprocess.input_size[0]}, {preprocess.input_size[1]}]"
        raise KdcError(
            f"{model}: the preprocessing goes before an input {expected}; it has: {kind.get_type_name()} {shape}"
        )
    steps = ov.preprocess.PrePostProcessor(given)
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    steps.input().model().set_layout(ov.Layout("NCHW"))
    chain = steps.input().preprocess()
    chain.convert_element_type(ov.Type.f32).convert_layout(ov.Layout("NCHW"))
    chain.scale(255.0).mean(list(preprocess.mean)).scale(list(preprocess.std))
    baked = steps.build()
    baked.input(0).get_tensor().set_names({BAKED_INPUT})
    write(ov, baked, out, half=False)  # as they are stored, which may be f16 already


BUILDER = Builder(convert, ir_constants, OPENVINO, bake_openvino, dynamic_batch=("f32", "f16", "bf16"))
