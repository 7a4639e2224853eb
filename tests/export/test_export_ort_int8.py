"""The ladder to a Q/DQ graph, the top of it, fp16, and the schemes: what onnxruntime then really fuses."""

from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from torch import nn

from compressor.errors import KdcError
from compressor.export.base import QatModel, Source
from compressor.export.calibration import METHODS, activation_ranges, batches
from compressor.export.onnx.fp16 import half, to_fp16
from compressor.export.onnx.int8 import ORT
from compressor.export.onnx.qdq import plan_for, quantize, write_model
from compressor.export.onnx.qdq_ladder import qdq_candidates
from compressor.export.schemes import onnxruntime_scheme, saturates
from compressor.profiles import load_profile
from compressor.progress import Silent
from compressor.schema.quantization import Quantization, Scheme
from tests.export.ort_kit import GATE, AgreementJudge, logits_of, make_model, make_source, ops

U8S8 = Scheme(activations="uint8")


@pytest.fixture
def source(tmp_path: Path) -> Source:
    return make_source(tmp_path)


def fused(path: Path, folder: Path) -> list[str]:
    """The ops that onnxruntime executes."""
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return ops(onnx.load(str(folder / "optimized.onnx")))


def test_the_rungs_in_order(source: Source, tmp_path: Path) -> None:
    judge = AgreementJudge(source)
    made = list(ORT.candidates(source, tmp_path / "made", judge, Silent()))
    rungs = [one and one.rung for one in made]
    assert rungs[:10] == [*["ptq"] * 3, None, *["ptq"] * 3, None, "bias-correction", None]
    assert rungs[-1] is None
    assert set(rungs[10:-1]) == {"fallback"}
    candidates = [one for one in made if one is not None]
    assert [candidate.description for candidate in candidates[:6]] == [
        *(f"{method} ranges, squeeze-excite and swish too" for method in METHODS),
        *(f"{method} ranges" for method in METHODS),
    ]
    assert len({one.model.parent for one in candidates}) == len(candidates)
    for one in candidates:
        assert one.model.parent.parent == tmp_path / "made"
        assert [path.name for path in one.model.parent.iterdir()] == ["model.onnx"]
        assert judge(one.model, "onnxruntime", "int8").correct > 48  # of 64
    float_layers = [ops(onnx.load(str(one.model))).count("DequantizeLinear") for one in candidates]
    assert float_layers[-1] < float_layers[0]
    assert "1 of 5 layers in float (" in candidates[7].description


def test_nothing_is_made_before_it_is_asked_for(source: Source, tmp_path: Path) -> None:
    judge = AgreementJudge(source)
    ladder = ORT.candidates(source, tmp_path / "made", judge, Silent())
    assert not (tmp_path / "made").exists()
    next(ladder)
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["ptq-minmax-gating"]
    assert judge.asked == 0


def test_two_ladders_are_the_same_bytes(source: Source, tmp_path: Path) -> None:
    judge, folders = AgreementJudge(source), (tmp_path / "a", tmp_path / "b")
    ladders = [ORT.candidates(source, folder, judge, Silent()) for folder in folders]
    for _ in range(9):  # up to bias correction; which layers fall back depends on times
        first, second = (next(ladder) for ladder in ladders)
        if first is not None and second is not None:
            assert first.model.read_bytes() == second.model.read_bytes()
            assert str(tmp_path).encode() not in first.model.read_bytes()


def test_too_few_images_end_the_ladder_before_it_begins(source: Source, tmp_path: Path) -> None:
    few = replace(source, calibration=source.calibration.first(7, tmp_path))
    with pytest.raises(KdcError, match="7 training samples are too few to calibrate with: 32 are needed"):
        next(ORT.candidates(few, tmp_path / "made", AgreementJudge(source), Silent()))


def test_a_network_without_layers_is_refused(source: Source, tmp_path: Path) -> None:
    graph = onnx.load(str(source.onnx_file))
    node = helper.make_node("GlobalAveragePool", ["input"], ["pooled"], "pool")
    flatten = helper.make_node("Flatten", ["pooled"], ["logits"], "flatten")
    result = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, [1, 3])
    graph.graph.CopyFrom(helper.make_graph([node, flatten], "mean", [graph.graph.input[0]], [result]))
    onnx.save(graph, str(source.onnx_file))
    with pytest.raises(KdcError, match="nothing to quantize"):
        next(ORT.candidates(source, tmp_path / "made", AgreementJudge(source), Silent()))


def test_onnxruntime_fuses_every_layer(source: Source, tmp_path: Path) -> None:
    made = ORT.candidates(source, tmp_path / "made", AgreementJudge(source), Silent())
    gating, plain = (one for one in islice(made, 5) if one is not None and "minmax" in one.description)
    for candidate, convolutions, sigmoids in ((gating, 6, 1), (plain, 4, 0)):
        found = fused(candidate.model, tmp_path)
        assert {op: found.count(op) for op in ("QLinearConv", "QLinearAdd", "QGemm", "QLinearSigmoid")} == {
            "QLinearConv": convolutions,
            "QLinearAdd": 1,
            "QGemm": 1,
            "QLinearSigmoid": sigmoids,
        }
        assert not {"Clip", "Add", "Gemm"} & set(found)
        assert sum("Conv" in op for op in found) == 6  # the gate's two are in float on the second rung


def test_swish_in_8_bits(source: Source, tmp_path: Path) -> None:
    """x * sigmoid(x), as torch's exporter writes SiLU."""
    model = make_model()
    for node in model.graph.node:
        if node.op_type == "HardSwish":
            node.CopyFrom(helper.make_node("Mul", ["expand_out", "sigmoid_of_it"], ["y"], "swish"))
    model.graph.node.insert(3, helper.make_node("Sigmoid", ["expand_out"], ["sigmoid_of_it"], "swish_sigmoid"))
    ranges = dict.fromkeys(plan_for(model, U8S8, bias_int32=True, gating=True).activations, (-4.0, 4.0))
    write_model(quantize(model, ranges, U8S8, gating=True), tmp_path / "model.onnx")
    found = fused(tmp_path / "model.onnx", tmp_path)
    assert (found.count("QLinearSigmoid"), found.count("QLinearMul"), found.count("Mul")) == (2, 2, 0)
    plain = plan_for(model, U8S8, bias_int32=True).nodes
    assert not {"swish", "swish_sigmoid", "sigmoid", "gating"} & set(plain)


def test_a_linear_layer_of_tokens_is_computed_in_8_bits(tmp_path: Path) -> None:
    """As torch's exporter writes it: MatMul, then Add of the bias, which onnxruntime fuses into a float Gemm."""
    random = np.random.default_rng(0)
    constants = {"w": random.normal(0, 1, (16, 16)), "b": random.normal(0, 1, 16), "head": random.normal(0, 1, (16, 4))}
    nodes = [
        helper.make_node("MatMul", ["tokens", "w"], ["product"], "linear"),
        helper.make_node("Add", ["product", "b"], ["sum"], "bias"),
        helper.make_node("Softmax", ["sum"], ["y"], "softmax"),
        helper.make_node("MatMul", ["y", "head"], ["logits"], "head"),
    ]
    ends = [
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 8, width])
        for name, width in (("tokens", 16), ("logits", 4))
    ]
    values = [numpy_helper.from_array(value.astype(np.float32), name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], values)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    chosen = plan_for(model, U8S8, bias_int32=True)
    assert (chosen.nodes, chosen.activations) == (("linear",), ("tokens", "product"))  # the logits stay in float
    write_model(quantize(model, dict.fromkeys(chosen.activations, (-9.0, 9.0)), U8S8), tmp_path / "model.onnx")
    found = fused(tmp_path / "model.onnx", tmp_path)
    assert (found.count("QLinearMatMul"), found.count("Gemm"), found.count("MatMul")) == (1, 0, 1)


def test_a_network_without_gates_has_one_rung_less(source: Source, tmp_path: Path) -> None:
    graph = onnx.load(str(source.onnx_file))
    kept = [node for node in graph.graph.node if node.name not in {*GATE, "gating"}]
    for node in kept:
        for slot, name in enumerate(node.input):
            node.input[slot] = "y" if name == "gated" else name
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)
    onnx.save(graph, str(source.onnx_file))
    made = islice(ORT.candidates(source, tmp_path / "made", AgreementJudge(source), Silent()), 4)
    assert [one and one.description for one in made] == [*(f"{method} ranges" for method in METHODS), None]


@pytest.mark.parametrize("opset", [17, 18])
def test_tensorrts_ladder_at_both_opsets(tmp_path: Path, opset: int) -> None:
    source = make_source(tmp_path, opset=opset)
    scheme = Scheme(activations="int8")
    judge = AgreementJudge(source)
    ladder = qdq_candidates(source, tmp_path / "made", judge, Silent(), scheme=scheme, bias_int32=False)
    candidate = next(ladder)
    assert candidate is not None
    graph = onnx.load(str(candidate.model))
    assert [(row.domain, row.version) for row in graph.opset_import] == [("", opset)]
    zeros = [numpy_helper.to_array(one) for one in graph.graph.initializer if one.name.endswith("_zero_point")]
    assert {zero.dtype for zero in zeros} == {np.dtype(np.int8)}
    assert not any(zero.any() for zero in zeros)


def trained(source: Source, tmp_path: Path) -> QatModel:
    """Q/DQ as a retrained student has it: what layers read, 7-bit weights, biases in float."""
    scheme, model = Scheme(activations="uint8", weight_bits=7), make_model()
    tensors = plan_for(model, scheme, bias_int32=False).activations
    ranges = activation_ranges(model, tensors, partial(batches, source))["percentile"]
    write_model(quantize(model, ranges, scheme, bias_int32=False), tmp_path / "qat.onnx")
    return QatModel(nn.Identity(), nn.Identity(), tmp_path / "qat.onnx", Quantization(scheme=scheme, inputs={}))


def test_a_retrained_student_is_fused_and_keeps_what_it_learned(source: Source, tmp_path: Path) -> None:
    assert ORT.from_qat is not None
    qat = trained(source, tmp_path)
    candidate = ORT.from_qat(source, qat, tmp_path / "made")
    assert (candidate.rung, candidate.model) == ("qat", tmp_path / "made" / "model.onnx")
    assert "3 ranges between layers" in candidate.description  # expand_out, project_out, z
    found = fused(candidate.model, tmp_path)
    assert (found.count("QLinearConv"), found.count("QLinearAdd"), found.count("QGemm")) == (4, 1, 1)
    before = {one.name: numpy_helper.to_array(one) for one in onnx.load(str(qat.onnx_file)).graph.initializer}
    after = {one.name: numpy_helper.to_array(one) for one in onnx.load(str(candidate.model)).graph.initializer}
    np.testing.assert_array_equal(
        before["stem.weight_quantized"], after["stem.weight_DequantizeLinear_Output_quantized"]
    )
    np.testing.assert_allclose(before["gated_scale"], after["gated_scale"], rtol=2e-7)
    wanted, logits = logits_of(qat.onnx_file, source), logits_of(candidate.model, source)
    assert np.square(wanted - logits).sum() < 0.01 * np.square(wanted - wanted.mean(axis=0)).sum()


def test_a_retrained_student_without_quantization_is_refused(source: Source, tmp_path: Path) -> None:
    assert ORT.from_qat is not None
    qat = replace(trained(source, tmp_path), onnx_file=source.onnx_file)
    with pytest.raises(KdcError, match="holds no QuantizeLinear"):
        ORT.from_qat(source, qat, tmp_path / "made")


@pytest.mark.parametrize("opset", [17, 18])
def test_fp16_is_half_the_size_and_close(tmp_path: Path, opset: int) -> None:
    source = make_source(tmp_path, opset=opset)
    artefact = to_fp16(source, tmp_path / "half")
    again = to_fp16(source, tmp_path / "again")
    assert artefact.model.read_bytes() == again.model.read_bytes()
    graph = onnx.load(str(artefact.model))
    assert [(row.domain, row.version) for row in graph.opset_import] == [("", opset)]
    kinds = {tensor.data_type for tensor in graph.graph.initializer}
    assert kinds == {onnx.TensorProto.FLOAT16}
    for value in (*graph.graph.input, *graph.graph.output):
        assert value.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    assert (graph.graph.input[0].name, graph.graph.output[0].name) == ("input", "logits")
    wanted = logits_of(source.onnx_file, source)
    difference = np.abs(logits_of(artefact.model, source) - wanted).max()
    assert 0 < difference < 0.01 * np.abs(wanted).max()


def test_fp16_refuses_a_weight_that_is_too_large() -> None:
    model = make_model()
    tensor = next(one for one in model.graph.initializer if one.name == "head.bias")
    tensor.CopyFrom(numpy_helper.from_array(np.array([1e5, 0, 0, 0], np.float32), tensor.name))
    with pytest.raises(KdcError, match=r"weight head\.bias reaches 100000, and fp16 ends at 65504"):
        half(model)


def test_fp16_narrows_casts_and_constants() -> None:
    model = make_model()
    constant = numpy_helper.from_array(np.array(0.5, np.float32), "")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["offset"], "constant", value=constant))
    model.graph.node.insert(1, helper.make_node("Cast", ["input"], ["cast"], "cast", to=onnx.TensorProto.FLOAT))
    model.graph.node.insert(2, helper.make_node("Add", ["cast", "offset"], ["moved"], "moving"))
    stem = next(node for node in model.graph.node if node.name == "stem")
    stem.input[0] = "moved"
    onnx.checker.check_model(half(model), full_check=True)


@pytest.mark.parametrize(
    ("profile", "bits"),
    [("x86-avx2", 7), ("x86-avx512-vnni", 8), ("raspberry-pi-5", 8), ("android-snapdragon-8gen3", 8)],
)
def test_schemes_of_the_profiles(profile: str, bits: Literal[7, 8]) -> None:
    loaded = load_profile(profile)
    assert onnxruntime_scheme(loaded) == Scheme(activations="uint8", weight_bits=bits)
    assert saturates(loaded) is (bits == 7)
