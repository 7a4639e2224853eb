"""NVIDIA's runtimes from the run to the sealed bundle, through the command line, on a machine without a GPU.

Engines for RTX cards are really built, and graphs for the Jetson really go through TensorRT's parser and builder.
Nothing here runs an engine, so that the report has to say `unmeasured` everywhere.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import timm
import torch
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from compressor.export.onnx.graph import to_onnx
from compressor.export.tensorrt import engine
from compressor.export.tensorrt.conformance import violations
from compressor.models import load_run
from compressor.profiles import load_profile
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle, Variant
from compressor.schema.quantization import Scheme
from compressor.tasks.image_classification import normalise
from compressor.tasks.image_classification.preprocessing import of_images
from tests.kit import TRAINING, Ended, call, pixels
from tests.targets.trt_graphs import needs_rtx, without_gpu

pytestmark = [needs_rtx, pytest.mark.slow]

Kdc = Callable[..., Ended]
FAST = ("--rounds", 11, "--no-throughput", "--quiet")


def variants(bundle: Path) -> dict[str, Variant]:
    return {one.name: one for one in read_json(bundle / "bundle.json", Bundle).variants}


def report(bundle: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((bundle / "report.json").read_text())
    return found


def verdicts(bundle: Path, variant: str) -> dict[str, str]:
    return {check["line"]: check["verdict"] for check in report(bundle)["checks"] if check["variant"] == variant}


# An RTX card: the engines


@pytest.fixture(scope="module")
def rtx(tmp_path_factory: pytest.TempPathFactory, student_run: Path) -> Path:
    out = tmp_path_factory.mktemp("rtx") / "bundle"
    assert call("export", student_run, "--profile", "rtx-ada", "--out", out, "--no-qat", *FAST) == 3
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]
    return out


@without_gpu
def test_an_rtx_card_gets_its_engines_from_here(rtx: Path) -> None:
    made = variants(rtx)
    asked = {"tensorrt-rtx-fp32", "tensorrt-rtx-fp16", "tensorrt-rtx-int8"}
    assert set(made) == asked | {"onnxruntime-fp32", "teacher-tensorrt-rtx-fp32"}
    engines = {name: rtx / made[name].model for name in (*asked, "teacher-tensorrt-rtx-fp32")}
    assert {engine.name for engine in engines.values()} == {"model.engine"}
    assert len({engine.read_bytes() for engine in engines.values()}) == len(engines), "each of another graph"
    weights = made["tensorrt-rtx-fp32"].parameters * 4
    assert engines["tensorrt-rtx-fp32"].stat().st_size > 0.9 * weights, "smaller than the weights that it holds"
    # Beside each lies the graph to build it again of, in its precision; fp32's is the bundle's model.onnx.
    kinds = {name: weight_types(engine.with_name("model.onnx")) for name, engine in engines.items() if name in asked}
    assert kinds["tensorrt-rtx-fp16"] == {TensorProto.FLOAT16}
    assert TensorProto.INT8 in kinds["tensorrt-rtx-int8"]
    assert kinds["tensorrt-rtx-fp32"] == set()
    assert (rtx / "model.onnx").is_file()


@without_gpu
def test_what_no_gpu_here_could_run_is_unmeasured_and_not_passed(rtx: Path, kdc: Kdc) -> None:
    found = report(rtx)
    assert (found["verdict"], found["winner"], found["holds"]) == ("unmeasured", None, [])
    assert not (rtx / "best").exists()
    rows = {row["name"]: row for row in found["rows"]}
    for precision in ("fp32", "fp16", "int8"):
        name = f"tensorrt-rtx-{precision}"
        assert (rows[name]["p50_ms"], rows[name]["accuracy"]) == (None, None)
        assert "no NVIDIA GPU" in rows[name]["error"]
        lines = verdicts(rtx, name)
        assert {lines[line] for line in ("runs", "precision", "parity", "p50_ms", "min_retention")} == {"unmeasured"}
        assert lines["size_mb"] == "pass", "which needs no GPU"
    assert rows["onnxruntime-fp32"]["p50_ms"]["n"] >= 11, "the reference ran all the same"
    # int8 was chosen on validation by what computes the same here, and the report says by what.
    assert rows["tensorrt-rtx-int8"]["score"]["stand_in"] == "onnxruntime"
    assert rows["tensorrt-rtx-fp32"]["score"] is None
    assert "(by onnxruntime)" in (rtx / "report.md").read_text()
    assert kdc("check", rtx, "--quiet").code == 3


# A Jetson: what the board builds its engine of


@pytest.fixture(scope="module")
def jetson(tmp_path_factory: pytest.TempPathFactory, student_run: Path) -> Path:
    out = tmp_path_factory.mktemp("jetson") / "bundle"
    easy = ("--set", "budget.min_retention=0.5")  # 24 test images show no 95 %, and that would be inconclusive
    assert call("export", student_run, "--profile", "jetson-orin-nano", "--out", out, "--no-qat", *easy, *FAST) == 3
    assert [path.name for path in out.parent.iterdir()] == ["bundle"]
    return out


def test_a_jetson_gets_graphs_that_keep_tensorrts_rules(jetson: Path) -> None:
    made = variants(jetson)
    for precision in ("fp32", "fp16", "int8"):
        one = made[f"tensorrt-{precision}"]
        assert violations(jetson / one.model, 17) == ()
        assert [row.version for row in onnx.load(jetson / one.model).opset_import] == [17]
        assert (one.runner, one.build) == ("run_trt.py", "build_trt.py")
    assert weight_types(jetson / made["tensorrt-fp16"].model) == {TensorProto.FLOAT16}
    graph = onnx.load(jetson / made["tensorrt-int8"].model).graph
    pairs = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    held = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(pairs) > len(layers) / 2
    assert all(held[node.input[2]].dtype == np.int8 and not held[node.input[2]].any() for node in pairs)
    rounded = {name for node in graph.node if node.op_type == "DequantizeLinear" for name in node.output}
    assert sum(set(node.input[:2]) <= rounded for node in layers) > len(layers) / 2, "most layers compute in int8"


def test_all_that_the_board_needs_is_in_the_bundle(jetson: Path, kdc: Kdc) -> None:
    """bench.py builds the engine there, runs it, and compares with torch's answers; nothing of kdc is there."""
    listed = {entry.path for entry in read_json(jetson / "bundle.json", Bundle).support}
    needed = {f"runners/{name}" for name in ("bench.py", "build_trt.py", "run_trt.py", "trt_cuda.py", "run_ort.py")}
    assert {*needed, "eval/student_inputs.npy", "eval/student_reference.npy", "eval/labels.npy"} <= listed
    one = variants(jetson)["tensorrt-int8"]
    wanted = np.load(jetson / one.reference_logits)
    found = {precision: answers(jetson, f"tensorrt-{precision}") for precision in ("fp32", "fp16", "int8")}
    assert wanted.shape == found["fp32"].shape == (24, 3)
    np.testing.assert_allclose(found["fp32"], wanted, atol=1e-4 * np.abs(wanted).max())
    assert (found["int8"].argmax(axis=1) == wanted.argmax(axis=1)).mean() >= 0.9
    assert 0 < np.abs(found["int8"] - wanted).max() < 0.5 * np.abs(wanted).max(), "rounded, and near"
    assert report(jetson)["verdict"] == "unmeasured"
    assert kdc("check", jetson, "--quiet").code == 3


def weight_types(path: Path) -> set[int]:
    """The types of a graph's tensors, but for scalars and shapes; of no graph, none."""
    graph = onnx.load(path).graph if path.exists() else onnx.GraphProto()
    return {tensor.data_type for tensor in graph.initializer if len(tensor.dims) > 1}


def answers(bundle: Path, variant: str) -> NDArray[np.float32]:
    """What onnxruntime makes of a graph, on the bundle's own test images: it widens fp16 by itself on CPUs."""
    one = variants(bundle)[variant]
    session = onnxruntime.InferenceSession(bundle / one.model, providers=["CPUExecutionProvider"])
    [given] = session.get_inputs()
    kind = np.float16 if given.type == "tensor(float16)" else np.float32
    images = normalise(np.load(bundle / one.inputs), of_images(one.preprocess)).astype(kind)
    rows = [session.run(None, {given.name: images[row : row + 1]})[0] for row in range(len(images))]
    return np.concatenate(rows).astype(np.float32)


# Graphs that no engine can be built of, on the way that an export takes


class Determined(nn.Module):
    """An activation that TensorRT has no operator for: x plus the determinant of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        determinant: Tensor = torch.linalg.det(x)
        return x + determinant[..., None, None]


default_cfgs = timm.models.generate_default_cfgs(
    {"kdc_test_determined": dict(timm.get_pretrained_cfg("test_efficientnet").to_dict())}
)
"""Where timm looks for it."""


@timm.models.register_model  # type: ignore[untyped-decorator]
def kdc_test_determined(pretrained: bool = False, **options: Any) -> nn.Module:
    network: nn.Module = timm.create_model("test_efficientnet", pretrained=pretrained, **options)
    network.bn2.act = Determined()  # type: ignore[union-attr]
    return network


@pytest.fixture(scope="module")
def determined(tmp_path_factory: pytest.TempPathFactory, teacher_run: Path, colours: Path) -> Path:
    out = tmp_path_factory.mktemp("determined") / "run"
    training = (
        "distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}", "--student",
        "timm:kdc_test_determined", "--student-init", "random", "--epochs", 1, "--out", out, *TRAINING, "--quiet",
    )  # fmt: skip
    assert call(*training) == 0
    return out


@pytest.mark.parametrize("profile", ["jetson-orin-nano", "rtx-ada"])
def test_a_network_that_tensorrt_does_not_know_is_refused_with_the_node(
    profile: str, determined: Path, tmp_path: Path, kdc: Kdc
) -> None:
    network, opset = load_run(determined)[0].network, load_profile(profile).opset
    to_onnx(network, pixels(32, 32), 1, opset, {}, tmp_path / "it.onnx")
    [node] = [node.name for node in onnx.load(tmp_path / "it.onnx").graph.node if node.op_type == "Det"]
    ended = kdc("export", determined, "--profile", profile, "--precision", "fp32", "--out", tmp_path / "bundle", *FAST)
    refused(ended, f"model.onnx is not fit for TensorRT: node {node} (Det): not supported (checkDet)", "--target")
    assert [path.name for path in tmp_path.iterdir()] == ["it.onnx"], "nothing is left of the bundle"


@pytest.fixture
def wrong_scheme(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if whoever changes the quantizer made activations uint8, which TensorRT's parser reads as int8."""
    monkeypatch.setattr(engine, "SCHEME", Scheme(activations="uint8"))


@pytest.mark.usefixtures("wrong_scheme")
@pytest.mark.parametrize(("profile", "target"), [("jetson-orin-nano", "tensorrt"), ("rtx-ada", "tensorrt-rtx")])
def test_zero_points_that_tensorrt_would_misread_are_refused_with_the_node(
    profile: str, target: str, student_run: Path, tmp_path: Path, kdc: Kdc
) -> None:
    out = tmp_path / "bundle"
    ended = kdc("export", student_run, "--profile", profile, "--target", f"{target}-int8", "--out", out, *FAST)
    refused(ended, "model.onnx is not fit for TensorRT: node ", "(QuantizeLinear): its zero point is UINT8")
    assert list(tmp_path.iterdir()) == []


def refused(ended: Ended, *texts: str) -> None:
    assert (ended.code, ended.out) == (2, ""), ended
    assert ended.err.count("error:") == 1, ended.err
    assert "Traceback" not in ended.err
    assert all(text in ended.err for text in texts), ended.err
