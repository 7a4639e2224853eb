"""OpenVINO in int8: the rungs of NNCF, the layers taken back, and a retrained student's Q/DQ graph."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compressor.errors import EXIT_MISSING, KdcError
from compressor.export.base import Candidate, QatModel, Source
from compressor.export.bundle.sizes import weight_bytes
from compressor.export.judge import ValidationJudge
from compressor.export.openvino.fallback import Layers, fallback, fewest, logits
from compressor.export.openvino.int8 import OPENVINO, openvino_scheme
from compressor.export.openvino.ir import converted, ir_constants
from compressor.export.openvino.nncf_int8 import Ranges, batch, biases, quantized, save_packed
from compressor.install import install_line
from compressor.processes.runner import open_runner
from compressor.profiles import load_profile
from compressor.progress import Silent
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.quantization import Quantization
from compressor.tasks.image_classification import normalise
from compressor.tasks.image_classification.stored import StoredImages

pytest.importorskip("nncf")
ov = pytest.importorskip("openvino")

SIDE, CLASSES = 16, 5
HOW = ImagePreprocess(input_size=(SIDE, SIDE), resize=(SIDE, SIDE), mean=(0.5,) * 3, std=(0.25,) * 3)


def write_onnx(path: Path, batch: int = 1, opset: int = 18, spread: float = 1000) -> Path:
    """Convolution, hard-swish, a second convolution, hard-swish, pooled, a linear layer. Channel 0 between the two is
    `spread` times as large as the others and multiplied by nothing: one scale for all leaves the others no levels."""
    random = np.random.default_rng(1)
    first = random.normal(0, 0.3, (16, 3, 3, 3)).astype(np.float32)
    first[0] *= spread
    second = random.normal(0, 0.3, (16, 16, 3, 3)).astype(np.float32)
    second[:, 0] = 0
    tensors = {
        "w1": first,
        "b1": random.normal(0, 0.1, 16).astype(np.float32),
        "w2": second,
        "b2": random.normal(0, 0.1, 16).astype(np.float32),
        "w3": random.normal(0, 1, (CLASSES, 16)).astype(np.float32),
        "b3": random.normal(0, 0.1, CLASSES).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "w1", "b1"], ["c1"], name="first", pads=[1] * 4, strides=[2, 2]),
        helper.make_node("HardSwish", ["c1"], ["h1"], name="swish1"),
        helper.make_node("Conv", ["h1", "w2", "b2"], ["c2"], name="second", pads=[1] * 4),
        helper.make_node("HardSwish", ["c2"], ["h2"], name="swish2"),
        helper.make_node("GlobalAveragePool", ["h2"], ["pooled"], name="pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], name="flatten"),
        helper.make_node("Gemm", ["flat", "w3", "b3"], ["logits"], name="head", transB=1),
    ]
    ends = (("input", [batch, 3, SIDE, SIDE]), ("logits", [batch, CLASSES]))
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in ends)
    weights = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def source_of(onnx_file: Path, profile: str = "x86-avx2", *overrides: str) -> Source:
    images = np.random.default_rng(2).integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8)
    return Source(nn.Identity(), onnx_file, HOW, StoredImages(images, HOW), load_profile(profile, overrides))


class CountingJudge(ValidationJudge):
    asked = 0

    def logits(self, model: Path, runtime: str, precision: str, most: int) -> NDArray[np.float32]:
        self.asked += 1
        return super().logits(model, runtime, precision, most)


def judge_of(source: Source, folder: Path, needed: float) -> CountingJudge:
    """200 images with the float model's answers as labels, so that it is right on all of them."""
    images = np.random.default_rng(3).integers(0, 256, (200, SIDE, SIDE, 3), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    stored = StoredImages(images, HOW, folder / "images.npy")
    session = ort.InferenceSession(source.onnx_file)
    answers = np.concatenate([session.run(None, {"input": normalise(images[i : i + 1], HOW)})[0] for i in range(200)])
    labels = answers.argmax(axis=1)
    how: dict[str, Any] = {"batch": 1, "threads": 1, "max_drop": 1.0}
    return CountingJudge(stored, labels, answers, **how, needed=needed)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    return source_of(write_onnx(tmp_path_factory.mktemp("onnx") / "model.onnx"))


@pytest.fixture(scope="module")
def corrected(source: Source) -> Any:
    """Quantized with full bias correction, its weights not packed."""
    return quantized(converted(source.onnx_file), source, "performance", Silent(), fast=False)


@pytest.fixture(scope="module")
def packed(corrected: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_packed(corrected, tmp_path_factory.mktemp("packed"))


@pytest.fixture(scope="module")
def climbed(source: Source, tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Candidate | None], CountingJudge]:
    """All rungs, for a judge whom none satisfies."""
    folder = tmp_path_factory.mktemp("rungs")
    judge = judge_of(source, folder, needed=1000)
    return list(OPENVINO.candidates(source, folder, judge, Silent())), judge


def executed(model: Path) -> str:
    with open_runner("openvino") as runner:
        runner.ask("load", model=str(model), threads=1, precision="int8")
        answer: str = runner.ask("executed")["executed_precision"]
    return answer


def run(model: Any, source: Source) -> NDArray[np.float32]:
    return logits(model, [batch(source, number) for number in range(8)])


@pytest.mark.parametrize(("profile", "bits"), [("x86-avx2", 7), ("x86-avx512-vnni", 8), ("raspberry-pi-5", 8)])
def test_the_scheme_follows_the_instruction_set(profile: str, bits: int) -> None:
    scheme = openvino_scheme(load_profile(profile))
    assert (scheme.activations, scheme.weight_bits, scheme.per_channel) == ("uint8", bits, True)


@pytest.mark.slow
def test_the_rungs_in_order_each_in_a_folder_of_its_own(
    climbed: tuple[list[Candidate | None], CountingJudge],
) -> None:
    made, judge = climbed
    assert [one and one.rung for one in made] == [
        "ptq", "ptq", "ptq", None, "bias-correction", None, "fallback", None,
    ]  # fmt: skip
    artefacts = [one for one in made if one is not None]
    assert len({one.model.parent for one in artefacts}) == 5
    for one in artefacts:
        assert sorted(path.name for path in one.model.parent.iterdir()) == ["model.bin", "model.xml"]
    assert [one.description.split(", 7-bit")[0] for one in artefacts[:3]] == [
        "NNCF, preset performance, mean ranges", "NNCF, preset mixed, mean ranges", "NNCF, preset mixed, minmax ranges",
    ]  # fmt: skip
    assert "which is still not enough" in artefacts[4].description
    assert judge.asked <= 25


def test_weights_are_int8_the_rest_is_f32_and_int8_is_what_runs(packed: Path) -> None:
    sizes = weight_bytes(ir_constants(packed))
    assert sizes["int8"] == 16 * 3 * 9 + 16 * 16 * 9 + CLASSES * 16
    assert set(sizes) <= {"int8", "float32", "int64"}
    assert executed(packed) == "int8"


def test_nothing_of_this_machine_in_the_file(packed: Path) -> None:
    for trace in (str(packed.parent), str(Path.home()), "site-packages", ".py", ".onnx"):
        assert trace not in packed.read_text()


@pytest.mark.parametrize(
    ("profile", "most"),
    [("x86-avx2", 64), ("x86-avx512-vnni", 128), pytest.param("raspberry-pi-5", 128, marks=pytest.mark.slow)],
)
def test_weights_use_half_of_the_range_where_kernels_saturate(
    source: Source, profile: str, most: int, tmp_path: Path
) -> None:
    made = quantized(converted(source.onnx_file), source_of(source.onnx_file, profile), "mixed", Silent(), fast=True)
    model = constants(save_packed(made, tmp_path))
    largest = max(int(np.abs(one.data.astype(int)).max()) for one in model if one.data.dtype == np.int8)
    assert most - 1 <= largest <= most


def constants(path: Path) -> list[Any]:
    return [one for one in ov.Core().read_model(path).get_ops() if one.get_type_name() == "Constant"]


def test_bias_correction_changes_biases(source: Source, corrected: Any) -> None:
    before, after = biases(converted(source.onnx_file)), biases(corrected)
    assert len(before) == 3
    assert set(after) == set(before)
    assert not any(np.array_equal(after[name], before[name]) for name in before)


def test_what_mean_ranges_clip_minmax_ranges_keep(tmp_path: Path) -> None:
    """Four images of 24 have all contrasts, the others hardly any."""
    images = np.random.default_rng(2).integers(0, 256, (24, SIDE, SIDE, 3), dtype=np.uint8)
    images[4:] = images[4:] // 16 + 120
    onnx_file = write_onnx(tmp_path / "model.onnx", spread=1)
    source = Source(nn.Identity(), onnx_file, HOW, StoredImages(images, HOW), load_profile("x86-avx2"))
    model, strong = converted(onnx_file), [batch(source, number) for number in range(4)]
    expected = logits(model, strong)
    ways: tuple[Ranges, ...] = ("mean", "minmax")
    mean, minmax = (
        ((logits(quantized(model, source, "mixed", Silent(), fast=True, ranges=way), strong) - expected) ** 2).mean()
        for way in ways
    )
    assert minmax < mean / 10


@pytest.mark.slow
def test_how_tells_what_was_corrected(climbed: tuple[list[Candidate | None], CountingJudge]) -> None:
    corrected = climbed[0][4]
    assert corrected is not None
    assert "7-bit weights" in corrected.description
    assert "full bias correction (changed " in corrected.description
    assert "changed 0 of" not in corrected.description


@pytest.mark.slow
def test_the_same_bytes_twice_and_nothing_said(
    source: Source, packed: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    again = quantized(converted(source.onnx_file), source, "performance", Silent(), fast=False)
    save_packed(again, tmp_path)
    for file in ("model.xml", "model.bin"):
        assert (packed.parent / file).read_bytes() == (tmp_path / file).read_bytes()
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")


@pytest.mark.slow
def test_batches_and_old_opsets(tmp_path: Path) -> None:
    source = source_of(write_onnx(tmp_path / "m.onnx", batch=5, opset=17), "x86-avx2", "batch=5")
    made = save_packed(quantized(converted(source.onnx_file), source, "mixed", Silent(), fast=False), tmp_path / "ir")
    assert list(ov.Core().read_model(made).input(0).shape) == [5, 3, SIDE, SIDE]
    assert executed(made) == "int8"
    np.testing.assert_array_equal(
        batch(source, 4)["input"][4], batch(source, 0)["input"][0]
    )  # 24 images fill five batches of five


@pytest.mark.slow
def test_all_layers_taken_back_are_the_float_model(source: Source, corrected: Any) -> None:
    model = converted(source.onnx_file)
    layers = Layers(model, corrected)
    expected = run(model, source)
    np.testing.assert_allclose(run(layers.without(layers.groups), source), expected, rtol=1e-4, atol=1e-4)
    assert np.abs(run(layers.without([]), source) - expected).max() > 0.1


@pytest.mark.slow
def test_the_layer_that_costs_most_comes_first(source: Source, corrected: Any) -> None:
    model = converted(source.onnx_file)
    layers = Layers(model, corrected)
    order = layers.ranked([batch(source, number) for number in range(8)], Silent())
    assert len(order) == len(layers.groups) > 2
    assert any("second" in operation.node_name for operation in order[0].operations)
    expected = run(model, source)
    errors = [((run(layers.without([group]), source) - expected) ** 2).mean() for group in order]
    assert errors == sorted(errors)
    assert errors[0] < errors[1] / 4


@pytest.mark.slow
def test_the_fallback_keeps_the_accuracy_with_one_layer_in_float(
    source: Source, corrected: Any, packed: Path, tmp_path: Path
) -> None:
    judge = judge_of(source, tmp_path, needed=180)
    assert not judge.holds(judge(packed, "openvino", "int8"))
    found = fallback(source, Layers(converted(source.onnx_file), corrected), "NNCF", tmp_path, judge, Silent())
    assert found is not None
    assert judge.holds(judge(found.model, "openvino", "int8"))
    assert found.description.startswith("NNCF; ")
    assert "back in f32 (" in found.description
    assert "second" in found.description
    assert found.description.endswith("which is enough")
    assert executed(found.model) == "mixed f32+int8"
    assert {"int8", "float32"} <= set(weight_bytes(ir_constants(found.model)))


@pytest.mark.parametrize(
    ("most", "first"), [(1, 1), (32, 1), (32, 2), (32, 7), (32, 32), (31, 31), (5, None), (1, None)]
)
def test_fewest_finds_the_least_that_holds(most: int, first: int | None) -> None:
    asked: list[int] = []

    def holds(count: int) -> bool:
        asked.append(count)
        return first is not None and count >= first

    assert fewest(most, holds) == first
    assert len(asked) == len(set(asked)) <= 2 * max(1, most.bit_length())
    assert max(asked) <= most


class Reader:
    """Calibration images for onnxruntime's quantizer."""

    def __init__(self, source: Source) -> None:
        self._rows: Iterator[int] = iter(range(8))
        self._source = source

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        return next((batch(self._source, row) for row in self._rows), None)


@pytest.mark.slow
@pytest.mark.parametrize("bias", [True, False], ids=["int32-bias", "float-bias"])
def test_a_retrained_students_graph_keeps_its_weights_and_ranges(source: Source, bias: bool, tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    made = tmp_path / "qdq.onnx"
    quantize_static(
        source.onnx_file,
        made,
        Reader(source),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        extra_options={"QuantizeBias": bias},
    )
    record = Quantization(scheme=openvino_scheme(source.profile), inputs={})
    (tmp_path / "ir").mkdir()
    qat = QatModel(nn.Identity(), nn.Identity(), made, record)
    assert OPENVINO.from_qat is not None
    one = OPENVINO.from_qat(source, qat, tmp_path / "ir")
    assert (one.rung, one.model) == ("qat", tmp_path / "ir" / "model.xml")
    assert weight_bytes(ir_constants(one.model))["int8"] == 16 * 3 * 9 + 16 * 16 * 9 + CLASSES * 16
    stored = {tensor.name: tensor for tensor in onnx.load(made).graph.initializer}
    kernel = numpy_helper.to_array(stored["w2_quantized"])
    assert any(np.array_equal(kernel, constant.data) for constant in constants(one.model))
    assert executed(one.model) == "int8"


def test_a_student_without_int8_weights_is_refused(source: Source, tmp_path: Path) -> None:
    record = Quantization(scheme=openvino_scheme(source.profile), inputs={})
    qat = QatModel(nn.Identity(), nn.Identity(), source.onnx_file, record)
    assert OPENVINO.from_qat is not None
    with pytest.raises(KdcError, match="no int8 weights"):
        OPENVINO.from_qat(source, qat, tmp_path)


@pytest.mark.parametrize("module", ["openvino", "nncf"])
def test_what_is_missing_is_named(module: str, source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    judge = judge_of(source, tmp_path, needed=0)
    with pytest.raises(KdcError, match=f"needs {module}") as caught:
        next(OPENVINO.candidates(source, tmp_path, judge, Silent()))
    assert (caught.value.exit_code, caught.value.hint) == (EXIT_MISSING, install_line("openvino", "nncf"))


def test_a_network_that_nncf_refuses_is_one_line(
    source: Source,
) -> None:
    assert isinstance(source.calibration, StoredImages)
    narrow = Source(
        source.network, source.onnx_file, HOW, StoredImages(source.calibration.pixels[:, :8], HOW), source.profile
    )
    with pytest.raises(KdcError, match=r"^NNCF cannot quantize the network: .*shape=\[1,3,16,16\]") as caught:
        quantized(converted(source.onnx_file), narrow, "mixed", Silent(), fast=True)
    assert "\n" not in caught.value.message
