"""torch -> ONNX -> OpenVINO: the opset asked for, described, without a trace of this machine, the same bytes twice."""

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import timm
import torch
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.export.bundle.macs import count_macs
from compressor.export.onnx.graph import to_onnx
from tests.kit import pixels

pytestmark = pytest.mark.usefixtures("real_exports")

METADATA = {"licence": "apache-2.0", "class_names": '["cat","dög"]'}


def create(name: str) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = timm.create_model(name, num_classes=3)
    return model.eval()


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return create("test_efficientnet")


@pytest.fixture(scope="module")
def exported(network: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    to_onnx(network, pixels(64, 64), 2, 18, METADATA, path)
    return path


def run(path: Path, images: np.ndarray) -> np.ndarray:
    answers: list[np.ndarray] = ort.InferenceSession(path).run(None, {"input": images})
    return answers[0]


@pytest.mark.parametrize(
    ("name", "opset"), [("mobilenetv3_small_050", 17), ("test_efficientnet", 18), ("test_efficientnet", 20)]
)
def test_the_opset_asked_for_and_torchs_answers(name: str, opset: int, tmp_path: Path) -> None:
    network = create(name)
    to_onnx(network, pixels(64, 64), 2, opset, METADATA, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    assert [(row.domain, row.version) for row in model.opset_import] == [("", opset)]
    images = np.random.default_rng(0).normal(size=(2, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(run(tmp_path / "m.onnx", images), expected, atol=1e-5)


def test_shapes_names_and_metadata(exported: Path) -> None:
    model = onnx.load(exported)
    shape = [d.dim_value for d in model.graph.input[0].type.tensor_type.shape.dim]
    assert (model.graph.input[0].name, shape) == ("input", [2, 3, 64, 64])
    assert [output.name for output in model.graph.output] == ["logits"]
    assert {row.key: row.value for row in model.metadata_props} == METADATA
    assert json.loads(METADATA["class_names"])[1] == "dög"


def test_two_exports_are_the_same_bytes(network: nn.Module, exported: Path, tmp_path: Path) -> None:
    to_onnx(network, pixels(64, 64), 2, 18, METADATA, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx").read_bytes() == exported.read_bytes()


def test_nothing_of_this_machine_inside(exported: Path) -> None:
    content = exported.read_bytes()
    here = (str(Path(torch.__file__).parent.parent), str(Path(__file__).parent.parent.parent), str(Path.home()))
    for trace in (*here, "site-packages", "compressor/", ".py"):
        assert trace.encode() not in content, trace


def test_a_network_that_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    class Branches(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)) if images.sum().item() > 0 else images.amax((2, 3))

    with pytest.raises(KdcError, match="cannot be exported to ONNX"):
        to_onnx(Branches(), pixels(8, 8), 1, 18, {}, tmp_path / "m.onnx")
    assert list(tmp_path.iterdir()) == []


def test_an_opset_that_lacks_an_operator_is_refused(tmp_path: Path) -> None:
    """BitwiseAnd came with opset 18. Another opset than the one asked for is never written instead."""

    class Masked(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images.mean((2, 3)) * torch.bitwise_and((images.amax((2, 3)) > 0).int(), 1)

    with pytest.raises(KdcError, match=r"cannot be written at ONNX opset 17: .*BitwiseAnd") as caught:
        to_onnx(Masked(), pixels(8, 8), 1, 17, {}, tmp_path / "m.onnx")
    assert (caught.value.exit_code, caught.value.hint) == (2, "--set opset=18")
    assert list(tmp_path.iterdir()) == []
    to_onnx(Masked(), pixels(8, 8), 1, 18, {}, tmp_path / "m.onnx")
    assert "BitwiseAnd" in {node.op_type for node in onnx.load(tmp_path / "m.onnx").graph.node}


def test_macs_of_a_convolution_and_a_linear_layer() -> None:
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, groups=4), nn.Flatten(), nn.Linear(4 * 6 * 6, 5)
    )
    by_hand = 3 * 4 * 9 * 64 + 4 * 9 * 36 + 4 * 36 * 5
    assert count_macs(layers, pixels(8, 8)) == by_hand


def test_a_batch_that_varies(network: nn.Module, exported: Path, tmp_path: Path) -> None:
    to_onnx(network, pixels(64, 64), None, 18, METADATA, tmp_path / "m.onnx")
    model = onnx.load(tmp_path / "m.onnx")
    for value, rest in ((model.graph.input[0], [3, 64, 64]), (model.graph.output[0], [3])):
        first, *others = value.type.tensor_type.shape.dim
        assert (first.dim_param, [dim.dim_value for dim in others]) == ("batch", rest)
    assert len(model.graph.node) == len(onnx.load(exported).graph.node)  # no nodes that compute the shape
    images = np.random.default_rng(0).normal(size=(5, 3, 64, 64)).astype(np.float32)
    with torch.no_grad():
        expected = network(torch.from_numpy(images)).numpy()
    for size in (1, 2, 5):
        np.testing.assert_allclose(run(tmp_path / "m.onnx", images[:size]), expected[:size], atol=1e-5)
