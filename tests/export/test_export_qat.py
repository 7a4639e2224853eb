"""Students that were trained under fake quantization -> Q/DQ ONNX: the same answers, and int8 all the way."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import timm
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from sklearn.datasets import load_digits
from timm.layers import Conv2dSame, SqueezeExcite
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.export.onnx.qat import qat_model, to_qdq_onnx
from compressor.models import save_run
from compressor.profiles import load_profile
from compressor.quantization.fake_quant import WeightRounding, add_fake_quant, fake_quant_layers
from compressor.quantization.folding import fold_batchnorm
from compressor.quantization.plan import quant_plan
from compressor.quantization.ranges import calibrate
from compressor.schema.quantization import Quantization, Scheme
from compressor.schema.recipe import Recipe
from compressor.schema.student import Accuracy, DataInfo, Environment, Student
from compressor.tasks.image_classification.models.students import create_student
from tests.kept_graphs import KEPT_GRAPHS
from tests.kit import pixels

torch.set_num_threads(1)

pytestmark = pytest.mark.slow  # every test exports networks

SCHEMES = [Scheme(activations="uint8"), Scheme(activations="uint8", weight_bits=7), Scheme(activations="int8")]
ONE_SCALE = Scheme(activations="uint8", per_channel=False)


class Small(nn.Module):
    """Depthwise and "same" convolutions, squeeze-excite, a sum, ReLU, ReLU6, hard-swish, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.clip = Conv2dSame(3, 8, 3, stride=2), nn.ReLU6(inplace=True)
        self.depthwise, self.swish = nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Hardswish()
        self.se, self.project = SqueezeExcite(8, rd_channels=4), nn.Conv2d(8, 8, 1)
        self.left, self.right = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 3, padding=1)
        self.head, self.relu, self.classifier = nn.Conv2d(8, 12, 1), nn.ReLU(), nn.Linear(12, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.clip(self.stem(x))
        x = x + self.project(self.se(self.swish(self.depthwise(x))))
        x = self.left(x) + self.right(x)
        x = self.relu(self.head(x)).mean((2, 3))
        logits: Tensor = self.classifier(x)
        return logits


@pytest.fixture(scope="module")
def digits() -> Tensor:
    """64 real images, float32 [64, 3, 16, 16]."""
    bunch: Any = load_digits()
    pixels = torch.tensor(bunch.images[:64] / 16, dtype=torch.float32)[:, None].repeat(1, 3, 1, 1)
    return nn.functional.interpolate(pixels, (16, 16)) - 0.5


def quantized(network: nn.Module, scheme: Scheme, images: Tensor) -> tuple[nn.Module, Quantization]:
    example = torch.zeros(1, *images.shape[1:])
    folded = fold_batchnorm(network.eval(), (example,))
    quantization = calibrate(folded, quant_plan(folded, (example,)), scheme, [(images,)])
    return add_fake_quant(folded, quantization).eval(), quantization


def small(scheme: Scheme, images: Tensor) -> nn.Module:
    torch.manual_seed(0)
    return quantized(Small(), scheme, images)[0]


Exported = Callable[..., tuple[nn.Module, Path]]


@pytest.fixture(scope="module")
def exported(digits: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """exported(scheme, opset): the small network, and its ONNX for batches of 64. Made once: change neither."""

    @cache
    def made(scheme: Scheme, opset: int) -> tuple[nn.Module, Path]:
        network, path = small(scheme, digits), tmp_path_factory.mktemp("small") / "m.onnx"
        to_qdq_onnx(network, pixels(16, 16), 64, opset, {"licence": "mit"}, path)
        return network, path

    return lambda scheme, opset=18: made(scheme, opset)


def answers(path: Path, images: Tensor, level: str = "ORT_DISABLE_ALL") -> NDArray[np.float32]:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found: NDArray[np.float32] = session.run(None, {"input": images.numpy()})[0]
    return found


def torchs(network: nn.Module, images: Tensor) -> NDArray[np.float32]:
    with torch.no_grad():
        found: NDArray[np.float32] = network(images).numpy()
    return found


@pytest.mark.parametrize("opset", [17, 18, 21])
@pytest.mark.parametrize("scheme", [*SCHEMES, ONE_SCALE], ids=["U8S8", "U8S7", "S8S8", "one-scale"])
def test_onnx_answers_as_torch_does(scheme: Scheme, opset: int, digits: Tensor, exported: Exported) -> None:
    network, path = exported(scheme, opset)
    model = onnx.load(path)
    assert [(row.domain, row.version) for row in model.opset_import] == [("", opset)]
    assert {row.key: row.value for row in model.metadata_props} == {"licence": "mit"}
    wanted, found = torchs(network, digits), answers(path, digits)
    apart = np.abs(wanted - found)
    # A value that lies on the edge of a step may fall to either side: rarely, and by one step.
    assert np.quantile(apart, 0.9) < 1e-4 * np.abs(wanted).max()
    assert apart.max() < 0.02 * np.abs(wanted).max()
    assert np.abs(wanted).max() > 0.1


@pytest.mark.parametrize("scheme", SCHEMES, ids=["U8S8", "U8S7", "S8S8"])
def test_what_is_stored_is_int8(scheme: Scheme, exported: Exported) -> None:
    network, path = exported(scheme)
    graph = onnx.load(path).graph
    constants = {row.name: numpy_helper.to_array(row) for row in graph.initializer}
    maker = {name: node for node in graph.node for name in node.output}
    weights = {}
    for node in graph.node:
        if node.op_type not in ("Conv", "Gemm") or maker[node.input[0]].op_type != "DequantizeLinear":
            continue
        stored = maker[node.input[1]]
        assert stored.op_type == "DequantizeLinear", "its weight is stored in float"
        integers, scales, zeros = (constants[name] for name in stored.input)
        assert integers.dtype == zeros.dtype == np.int8
        assert not zeros.any()
        assert scales.shape == (integers.shape[0],)
        assert [(a.name, a.i) for a in stored.attribute] == [("axis", 0)]
        assert np.abs(integers).max() == (127 if scheme.weight_bits == 8 else 64)
        assert constants[node.input[2]].dtype == np.float32
        weights[integers.shape, int(integers.astype(int).sum())] = integers
    layers = fake_quant_layers(network)
    assert len(weights) == len(layers) == 7
    for layer in layers.values():
        assert isinstance(layer.weight_rounding, WeightRounding)
        assert isinstance(layer.weight, Tensor)
        integers = layer.weight_rounding.integers(layer.weight).numpy()
        assert np.array_equal(weights[integers.shape, int(integers.astype(int).sum())], integers)
    points = [constants[node.input[2]] for node in graph.node if node.op_type == "QuantizeLinear"]
    assert {point.dtype.name for point in points} == {scheme.activations}
    assert any(point != 0 for point in points) == (scheme.activations == "uint8")
    assert len(constants) == len({name for node in graph.node for name in node.input} & constants.keys())


def test_gates_stay_in_float_and_nothing_is_done_twice(exported: Exported) -> None:
    graph = onnx.load(exported(SCHEMES[0])[1]).graph
    count = Counter(node.op_type for node in graph.node)
    maker = {name: node.op_type for node in graph.node for name in node.output}
    assert count["Conv"] == 8
    assert sum(maker[node.input[0]] != "DequantizeLinear" for node in graph.node if node.op_type == "Conv") == 2
    # Inputs of 7 layers, two of which share a value; outputs of stem, depthwise, project, left, right and head.
    assert count["QuantizeLinear"] == 6 + 6
    assert count["Pad"] == 0
    # ReLU6 after the stem and ReLU after the head cut nothing that rounding left; the one in squeeze-excite remains.
    assert (count["Clip"], count["Relu"]) == (0, 1)


def test_symmetric_rounding_leaves_activations_in_place(exported: Exported) -> None:
    count = Counter(node.op_type for node in onnx.load(exported(SCHEMES[2])[1]).graph.node)
    assert (count["Clip"], count["Relu"]) == (1, 2)


def test_onnxruntime_computes_every_quantized_layer_in_int8(digits: Tensor, exported: Exported, tmp_path: Path) -> None:
    network, path = exported(SCHEMES[1])
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    count = Counter(node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node)
    assert count["QLinearConv"] == 6
    assert count["Conv"] + count["FusedConv"] == 2, "squeeze-excite"
    wanted, found = torchs(network, digits), answers(path, digits, "ORT_ENABLE_ALL")
    assert (wanted.argmax(1) == found.argmax(1)).mean() >= 0.98


@pytest.mark.parametrize("scheme", [SCHEMES[0], ONE_SCALE], ids=["U8S8", "one-scale"])
def test_onnxruntime_takes_it_without_vnni_too(scheme: Scheme, digits: Tensor, exported: Exported) -> None:
    """kdc's runner asks for exact sums, for which onnxruntime rewrites the weights on such machines."""
    network, path = exported(scheme)
    options = ort.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = session.run(None, {"input": digits.numpy()})[0]
    assert (torchs(network, digits).argmax(1) == found.argmax(1)).mean() >= 0.98


def test_two_exports_are_the_same_bytes_and_leave_the_network_alone(
    digits: Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEPT_GRAPHS)  # both are really made
    network, paths = small(SCHEMES[0], digits), (tmp_path / "first.onnx", tmp_path / "again.onnx")
    for path in paths:
        to_qdq_onnx(network, pixels(16, 16), 64, 17, {"licence": "mit"}, path)
    assert np.array_equal(torchs(network, digits), torchs(small(SCHEMES[0], digits), digits))
    first, again = (path.read_bytes() for path in paths)
    assert first == again


@pytest.mark.parametrize("name", ["mobilenetv3_small_050", "test_resnet", "test_vit"])
def test_real_networks(name: str, digits: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = nn.functional.interpolate(digits, (32, 32))
    sized = {"img_size": 32} if name == "test_vit" else {}
    network, _ = quantized(timm.create_model(name, num_classes=10, **sized), SCHEMES[1], images)
    to_qdq_onnx(network, pixels(32, 32), 64, 17, {}, tmp_path / "m.onnx")
    wanted, found = torchs(network, images), answers(tmp_path / "m.onnx", images)
    noise = ((wanted - found) ** 2).sum() / (wanted**2).sum()
    assert 10 * np.log10(1 / noise) > 30


def a_run(folder: Path, quantization: Quantization | None, network: nn.Module) -> Path:
    """A run of the network, as `kdc distill` leaves it but for its figures."""
    names = tuple(str(number) for number in range(10))
    loaded = create_student("timm:test_resnet", "random", names, 16, 1.0)
    score = Accuracy(split="test", n=1, correct=1, accuracy=1.0, low=0.0, high=1.0, balanced=1.0)
    record = Student(
        task="image-classification",
        made_by="distill", family="timm", architecture="test_resnet", init="random", weights=loaded.weights,
        class_names=names, preprocess=loaded.preprocess, teacher=loaded.weights,
        data=DataInfo(source="digits", fingerprint="0", class_names=names, counts={}),
        recipe=Recipe.model_validate({"schema": 1, "losses": [{"name": "kd"}]}), kept_epoch=1, kept_rule="last",
        validation=score, test=score, teacher_validation=score, quantization=quantization,
        environment=Environment(kdc="0", python="3", packages={}, platform="", cpu="", device="cpu"),
    )  # fmt: skip
    save_run(folder, replace(loaded, network=network), record)
    return folder


def test_a_run_becomes_all_that_exporters_need(digits: Tensor, tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = timm.create_model("test_resnet", num_classes=10).eval()
    network, quantization = quantized(plain, SCHEMES[1], digits)
    run = a_run(tmp_path / "run", quantization, network)
    made = qat_model(run, load_profile("x86-avx2"), 1, tmp_path / "qat")
    assert made.record == quantization
    assert np.array_equal(torchs(made.network, digits), torchs(network, digits))
    assert not fake_quant_layers(made.float_network)
    np.testing.assert_allclose(torchs(made.float_network, digits), torchs(plain, digits), atol=1e-5)
    one = answers(made.onnx_file, digits[:1])
    np.testing.assert_allclose(one, torchs(network, digits[:1]), atol=1e-4 * np.abs(one).max())


def test_a_run_in_float_is_refused(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run", None, timm.create_model("test_resnet", num_classes=10).eval())
    with pytest.raises(KdcError, match="was not trained under fake quantization"):
        qat_model(run, load_profile("x86-avx2"), 1, tmp_path / "qat")
    assert not (tmp_path / "qat").exists()
