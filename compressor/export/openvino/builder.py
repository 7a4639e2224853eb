"""What OpenVINO runs: IR in float, int8 by NNCF, and the normalization, or a front end, inside it."""

from pathlib import Path

from compressor.errors import KdcError, needs
from compressor.export.base import Builder
from compressor.export.openvino.int8 import OPENVINO
from compressor.export.openvino.ir import convert, core, ir_constants, write
from compressor.export.openvino.twins import openvino_twins
from compressor.runtimes import RUNTIMES
from compressor.schema.tensors import Normalization

__all__ = ["BUILDER", "bake_openvino", "prepend_openvino"]


def bake_openvino(model: Path, normalization: Normalization, out: Path) -> None:
    """`onnx.bake.bake_normalization` for an IR, whatever its precision: writes `out` (.xml) and its .bin beside it.

    OpenVINO may fuse the steps into one, so logits equal those of the model before to about 1e-5 of their range. The
    weights keep the type in which they are stored. Raises KdcError (exit 4) without openvino.
    """
    ov = needs("openvino", RUNTIMES["openvino"].install, "preprocessing in an OpenVINO model")
    given = core().read_model(model)
    kind, shape = given.input(0).element_type, given.input(0).get_partial_shape()
    sizes, raw = normalization.network_sizes, normalization.raw
    if kind != ov.Type.f32 or not shape.compatible(ov.PartialShape([-1, *sizes])):
        expected = f"float32 [batch, {', '.join(map(str, sizes))}]"
        raise KdcError(
            f"{model}: the preprocessing goes before an input {expected}; it has: {kind.get_type_name()} {shape}"
        )
    steps = ov.preprocess.PrePostProcessor(given)
    inner = "".join("HWD"[number] for number in range(len(sizes) - 1))
    channels_first, channels_last = ov.Layout(f"NC{inner}"), ov.Layout(f"N{inner}C")
    steps.input().tensor().set_element_type(ov.Type.u8).set_layout(channels_last)
    steps.input().model().set_layout(channels_first)
    chain = steps.input().preprocess()
    chain.convert_element_type(ov.Type.f32).convert_layout(channels_first)
    chain.scale(normalization.divisor).mean(list(normalization.mean)).scale(list(normalization.std))
    baked = steps.build()
    baked.input(0).get_tensor().set_names({raw.name})
    write(ov, baked, out, half=False)  # as they are stored, which may be f16 already


def prepend_openvino(model: Path, front_end: bytes, out: Path) -> None:
    """`onnx.bake.prepend_front_end` for an IR: writes `out` (.xml) and its .bin beside it. Raises KdcError (exit 4)
    without openvino."""
    ov = needs("openvino", RUNTIMES["openvino"].install, "preprocessing in an OpenVINO model")
    given, before = core().read_model(model), core().read_model(front_end)
    before.reshape(ov.PartialShape([given.input(0).get_partial_shape()[0], *before.input(0).get_partial_shape()[1:]]))
    old, made = given.get_parameters()[0], before.get_results()[0].input_value(0)
    makes, takes = made.get_partial_shape(), old.get_partial_shape()
    if not makes.compatible(takes):
        raise KdcError(f"{model}: what goes before it makes {makes}; it takes {takes}")
    for reader in list(old.output(0).get_target_inputs()):
        reader.replace_source_output(made)
    given.add_parameters(before.get_parameters())
    given.remove_parameter(old)
    given.validate_nodes_and_infer_types()
    write(ov, given, out, half=False)


BUILDER = Builder(
    convert,
    ir_constants,
    OPENVINO,
    bake=bake_openvino,
    prepend=prepend_openvino,
    dynamic_batch=("f32", "f16", "bf16"),
    twins=openvino_twins,
)
