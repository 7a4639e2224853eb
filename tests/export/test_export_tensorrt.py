"""TensorRT's artefacts: graphs that pass the conformance check for a Jetson, engines for RTX cards."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.errors import KdcError
from compressor.export.base import Builder, Candidate, QatModel, Source
from compressor.export.tensorrt.conformance import violations
from compressor.export.tensorrt.engine import TENSORRT, TENSORRT_RTX
from compressor.profiles import load_profile
from compressor.progress import Silent
from compressor.schema.quantization import Quantization, Scheme
from tests.export.ort_kit import HEAVY, AgreementJudge, logits_of, make_source, ops
from tests.targets.trt_graphs import Graph

pytest.importorskip("tensorrt_rtx")

JETSON, RTX = "jetson-orin-nano", "rtx-ada"
EITHER = pytest.mark.parametrize(
    ("profile", "builder"), [(JETSON, TENSORRT), (RTX, TENSORRT_RTX)], ids=["jetson", "rtx"]
)


def source_for(profile: str, folder: Path) -> Source:
    return make_source(folder, profile=profile, opset=load_profile(profile).opset)


def candidates(builder: Builder, source: Source, folder: Path) -> Iterator[Candidate | None]:
    assert builder.quantizer is not None
    return builder.quantizer.candidates(source, folder, AgreementJudge(source), Silent())


def test_a_jetson_gets_the_graph(tmp_path: Path) -> None:
    """fp32 is the reference itself, so that it does not lie in the bundle twice."""
    source = source_for(JETSON, tmp_path)
    assert TENSORRT.convert(source, "fp32", tmp_path / "fp32").model == source.onnx_file
    assert not (tmp_path / "fp32").exists()
    half = TENSORRT.convert(source, "fp16", tmp_path / "fp16").model
    assert [path.name for path in half.parent.iterdir()] == ["model.onnx"]
    model = onnx.load(half)
    assert model.opset_import[0].version == 17
    assert {tensor.data_type for tensor in model.graph.initializer} == {TensorProto.FLOAT16}
    assert [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_an_rtx_card_gets_an_engine(tmp_path: Path, precision: str) -> None:
    source = source_for(RTX, tmp_path)
    made = TENSORRT_RTX.convert(source, precision, tmp_path / precision)
    assert made.model == tmp_path / precision / "model.engine"
    assert made.made.endswith(", build_trt.py")
    # The graph lies beside it, to build it again; fp32's is the reference, which the bundle has.
    assert (made.model.with_name("model.onnx")).exists() == (precision == "fp16")
    again = TENSORRT_RTX.convert(source, precision, tmp_path / "again").model
    assert again.read_bytes() == made.model.read_bytes()


@EITHER
def test_int8_is_symmetric_and_follows_the_placement_rules(tmp_path: Path, profile: str, builder: Builder) -> None:
    source = source_for(profile, tmp_path)
    made = next(candidates(builder, source, tmp_path / "int8"))
    assert made is not None
    assert made.stand_in == made.model.with_name("model.onnx")
    assert made.model.name == ("model.onnx" if builder is TENSORRT else "model.engine")
    assert made.model.stat().st_size > 0
    model = onnx.load(str(made.stand_in))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    rounded = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    by_name = {node.name: node for node in model.graph.node}
    for layer in HEAVY:  # every weighted layer reads integers by way of two DequantizeLinear; its bias is float
        reads = [next(node for node in model.graph.node if name in node.output) for name in by_name[layer].input[:2]]
        assert [node.op_type for node in reads] == ["DequantizeLinear"] * 2
        assert constants[reads[1].input[0]].data_type == TensorProto.INT8
        assert all(constants[name].data_type == TensorProto.FLOAT for name in by_name[layer].input[2:])
    # No pair between a convolution and what is fused into it, and what gains nothing stays in float.
    assert not {"stem_out", "expand_out", "depthwise_out"} & rounded
    assert [ops(model).count(op) for op in ("HardSwish", "Sigmoid", "Add")] == [1, 1, 1]
    # The Add reads its shortcut rounded, as the layer at its other end does, and its convolution's sum in float.
    assert set(by_name["add"].input) == {"project_out", "x_DequantizeLinear_Output"}
    wanted = logits_of(source.onnx_file, source)
    error = logits_of(made.stand_in, source) - wanted
    assert 10 * np.log10((wanted**2).mean() / (error**2).mean()) > 20  # SQNR, dB


@pytest.mark.slow
@EITHER
def test_every_rung_is_fit_for_tensorrt(tmp_path: Path, profile: str, builder: Builder) -> None:
    source = source_for(profile, tmp_path)
    all_of_them = list(candidates(builder, source, tmp_path / "int8"))
    assert all_of_them[-1] is None
    made = [one for one in all_of_them if one is not None]
    assert list(dict.fromkeys(one.rung for one in made)) == ["ptq", "bias-correction", "fallback"]
    assert len({one.model.parent for one in made}) == len(made)
    for one in made:
        assert one.stand_in is not None
        assert violations(one.stand_in, source.profile.opset) == ()


def trained() -> Graph:
    """As training rounds: what the convolution reads, and what it writes too."""
    graph = Graph()
    graph.constants["c_s"] = np.array(0.05, np.float32)
    nodes = dict(graph.nodes)
    nodes["relu"].input[0] = "c_rounded"
    pair = {
        "q_out": helper.make_node("QuantizeLinear", ["c", "c_s", "x_z"], ["c_q"], "q_out"),
        "dq_out": helper.make_node("DequantizeLinear", ["c_q", "c_s", "x_z"], ["c_rounded"], "dq_out"),
    }
    before = ("q_in", "dq_in", "dq_w", "conv")
    graph.nodes = {name: nodes.pop(name) for name in before} | pair | nodes
    return graph


@EITHER
def test_a_retrained_student_keeps_its_integers_and_ranges(tmp_path: Path, profile: str, builder: Builder) -> None:
    source = source_for(profile, tmp_path)
    record = Quantization(scheme=Scheme(activations="int8"), inputs={})
    graph = trained()
    qat = QatModel(cast(Any, None), cast(Any, None), graph.save(tmp_path / "qat.onnx"), record)
    (tmp_path / "out").mkdir()
    assert builder.quantizer is not None
    assert builder.quantizer.from_qat is not None
    assert builder.quantizer.scheme(source.profile) == record.scheme
    made = builder.quantizer.from_qat(source, qat, tmp_path / "out")
    assert made.stand_in is not None
    assert (made.rung, made.model.parent, made.stand_in.parent) == ("qat", tmp_path / "out", tmp_path / "out")
    model = onnx.load(str(made.stand_in))
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    [rounding] = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]  # none behind the convolution
    assert rounding.input[0] == "image"
    assert held[rounding.input[1]] == pytest.approx(graph.constants["x_s"])
    assert sum(np.array_equal(value, graph.constants["w_q"]) for value in held.values()) == 1
    assert violations(made.stand_in, source.profile.opset) == ()


def test_a_student_that_was_not_retrained(tmp_path: Path) -> None:
    source = source_for(JETSON, tmp_path)
    record = Quantization(scheme=Scheme(activations="int8"), inputs={})
    assert TENSORRT.quantizer is not None
    assert TENSORRT.quantizer.from_qat is not None
    with pytest.raises(KdcError, match="holds no int8 weights"):
        TENSORRT.quantizer.from_qat(
            source, QatModel(cast(Any, None), cast(Any, None), source.onnx_file, record), tmp_path
        )


@EITHER
@pytest.mark.parametrize(
    ("zero", "said"), [(np.uint8, "its zero point is UINT8"), (np.int8, "not supported (checkDet)")]
)
def test_a_wrong_graph_fails_the_export(
    tmp_path: Path, profile: str, builder: Builder, zero: type[np.generic], said: str
) -> None:
    graph = Graph(np.zeros((), zero))
    if zero is np.int8:
        graph.nodes["relu"].op_type = "Det"
    source = source_for(profile, tmp_path)
    shutil.copy(graph.save(tmp_path / "wrong.onnx"), source.onnx_file)
    with pytest.raises(KdcError, match=r"fp32\.onnx is not fit for TensorRT: node (q_in|relu) ") as raised:
        builder.convert(source, "fp32", tmp_path / "out")
    assert said in raised.value.message
    assert not (tmp_path / "out" / "model.engine").exists()


def test_an_engine_needs_to_know_its_gpu(tmp_path: Path) -> None:
    source = source_for(RTX, tmp_path)
    device = source.profile.device.model_copy(update={"sm": None})
    source = replace(source, profile=source.profile.model_copy(update={"device": device}))
    with pytest.raises(KdcError, match="profile rtx-ada asks for engines, and does not say of which GPU") as raised:
        TENSORRT_RTX.convert(source, "fp32", tmp_path / "out")
    assert "device.sm" in raised.value.hint


@pytest.mark.slow
@pytest.mark.parametrize("profile", ["rtx-ampere", "rtx-blackwell"])
def test_engines_for_the_other_cards(tmp_path: Path, profile: str) -> None:
    assert TENSORRT_RTX.convert(source_for(profile, tmp_path), "fp16", tmp_path / "out").model.stat().st_size > 0
