"""The quick exporter gives the runtime the same work as the one that ships: nodes after onnxruntime's optimisation."""

from collections import Counter
from pathlib import Path

import onnx
import onnxruntime as ort
import pytest
import timm
import torch

from compressor.export.onnx.graph import to_onnx
from compressor.export.onnx.qdq import plan_for
from compressor.export.onnx.quick import quick_onnx
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.quantization import Scheme

PREPROCESS = ImagePreprocess(input_size=(64, 64), resize=(64, 64), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
# The same pooling and flattening before the classifier, written in two ways; layouts that follow from them; and indices
# that are constants when traced.
SCHEME = Scheme(activations="uint8", weight_bits=8)
CHEAP = {
    "GlobalAveragePool", "ReduceMean", "Flatten", "Reshape", "ReorderInput", "ReorderOutput", "Slice", "Squeeze",
    "Transpose", "Gather", "Split", "Identity",
}  # fmt: skip

pytestmark = pytest.mark.slow


def work(path: Path) -> Counter[str]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.optimized_model_filepath = str(path.with_suffix(".optimised.onnx"))
    ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    graph = onnx.load(options.optimized_model_filepath).graph
    kinds = Counter(node.op_type for node in graph.node if node.op_type not in CHEAP)
    # A convolution that adds a fourth input: whether it does depends on the processor's width and the order of inputs.
    kinds["Add"] += sum("Conv" in node.op_type and len(node.input) > 3 and bool(node.input[3]) for node in graph.node)
    return kinds


@pytest.mark.parametrize(
    "name", ["mobilenetv3_small_050", "efficientnet_lite0", "lcnet_050", "ghostnet_050", "mixnet_s"]
)
def test_the_work_is_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=10).eval()
    quick_onnx(network, PREPROCESS, 1, 18, tmp_path / "quick.onnx")
    to_onnx(network, PREPROCESS.inputs, 1, 18, {}, tmp_path / "shipped.onnx")
    assert work(tmp_path / "quick.onnx") == work(tmp_path / "shipped.onnx")
    quick, shipped = (onnx.load(tmp_path / f"{name}.onnx") for name in ("quick", "shipped"))
    layers = [len(plan_for(model, SCHEME, bias_int32=True, gating=True).layers) for model in (quick, shipped)]
    assert layers[0] == layers[1] > 10


def test_networks_with_gelu_are_not_traced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Traced, GELU comes out as one node, and as five in what ships."""
    from compressor.export.onnx import quick

    taken = []
    monkeypatch.setattr(quick, "to_onnx", lambda *arguments: taken.append(arguments))
    quick_onnx(timm.create_model("edgenext_xx_small").eval(), PREPROCESS, 1, 18, tmp_path / "model.onnx")
    assert len(taken) == 1
