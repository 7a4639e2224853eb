"""A small network for the quantization tests, as the exporter would write it, and a judge of it in this process."""

from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compressor.export.base import Rank, Source
from compressor.export.calibration import batches
from compressor.export.onnx.session import open_session
from compressor.profiles import load_profile
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.quantization import Score
from compressor.tasks.image_classification.stored import StoredImages
from tests.kit import score_of

SIDE, CLASSES = 16, 4
PREPROCESS = ImagePreprocess(input_size=(SIDE, SIDE), resize=(SIDE, SIDE), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
GATE = {"reduce", "reduce_relu", "excite", "sigmoid", "pool"}
HEAVY = ["stem", "expand", "project", "depthwise", "head"]


def make_model(opset: int = 18) -> onnx.ModelProto:
    """A stem, a residual block with squeeze-excite, a depthwise convolution, a head: one of each that matters."""
    random = np.random.default_rng(7)
    weights: dict[str, NDArray[np.float32]] = {"low": np.array(0, np.float32), "high": np.array(6, np.float32)}

    def layer(
        op: str, name: str, data: str, shape: tuple[int, ...], bias: bool = True, **how: object
    ) -> onnx.NodeProto:
        fan_in = int(np.prod(shape[1:]))
        weights[f"{name}.weight"] = random.normal(0, 1.6 / np.sqrt(fan_in), shape).astype(np.float32)
        weights[f"{name}.bias"] = random.normal(0, 0.2, shape[0]).astype(np.float32)
        inputs = [data, f"{name}.weight", *([f"{name}.bias"] if bias else [])]
        node = helper.make_node(op, inputs, [f"{name}_out"], name)
        node.attribute.extend(helper.make_attribute(key, value) for key, value in how.items())
        return node

    nodes = [
        layer("Conv", "stem", "input", (16, 3, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["stem_out"], ["x"], "stem_relu"),
        layer("Conv", "expand", "x", (16, 16, 1, 1)),
        helper.make_node("HardSwish", ["expand_out"], ["y"], "swish"),
        helper.make_node("GlobalAveragePool", ["y"], ["mean"], "pool"),
        layer("Conv", "reduce", "mean", (4, 16, 1, 1)),
        helper.make_node("Relu", ["reduce_out"], ["reduced"], "reduce_relu"),
        layer("Conv", "excite", "reduced", (16, 4, 1, 1)),
        helper.make_node("Sigmoid", ["excite_out"], ["gate"], "sigmoid"),
        helper.make_node("Mul", ["y", "gate"], ["gated"], "gating"),
        layer("Conv", "project", "gated", (16, 16, 1, 1), bias=False),
        helper.make_node("Add", ["project_out", "x"], ["sum"], "add"),
        layer("Conv", "depthwise", "sum", (16, 1, 3, 3), group=16, pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["depthwise_out", "low", "high"], ["z"], "relu6"),
        helper.make_node("GlobalAveragePool", ["z"], ["pooled"], "head_pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flatten"),
        layer("Gemm", "head", "flat", (CLASSES, 16), transB=1),
    ]
    nodes[-1].output[0] = "logits"
    weights["head.weight"] *= 4
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, SIDE, SIDE])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, CLASSES])
    del weights["project.bias"]
    constants = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "net", [source], [result], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    helper.set_model_props(model, {"licence": "apache-2.0"})
    onnx.checker.check_model(model, full_check=True)
    return model


def make_source(folder: Path, images: int = 64, profile: str = "x86-avx2", opset: int = 18) -> Source:
    """Its images are smooth and of many colours: noise would all look alike behind the mean."""
    path = folder / "fp32.onnx"
    onnx.save(make_model(opset), str(path))
    coarse = np.random.default_rng(0).integers(0, 256, (images, 4, 4, 3), dtype=np.uint8)
    calibration = coarse.repeat(4, axis=1).repeat(4, axis=2)
    return Source(nn.Identity(), path, PREPROCESS, StoredImages(calibration, PREPROCESS), load_profile(profile))


def logits_of(model: onnx.ModelProto | Path, source: Source) -> NDArray[np.float32]:
    loaded = onnx.load(str(model)) if isinstance(model, Path) else model
    session = open_session(loaded, ["logits"])
    return np.concatenate([session.run(batch)["logits"] for batch in batches(source)])


def ops(model: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in model.graph.node]


class AgreementJudge:
    """Scores by how often the fp32 graph's top-1 is kept, on the calibration images, in this process."""

    def __init__(self, source: Source) -> None:
        self.source, self.asked = source, 0
        self.wanted = logits_of(source.onnx_file, source).argmax(axis=1)

    def logits(self, model: Path, runtime: str, precision: str, most: int) -> NDArray[np.float32]:
        return logits_of(model, self.source)[:most]

    def __call__(self, model: Path, runtime: str, precision: str, network: nn.Module | None = None) -> Score:
        self.asked += 1
        n = len(self.wanted)
        same = int((self.logits(model, runtime, precision, n).argmax(axis=1) == self.wanted).sum())
        return score_of(n, same, n, same=same)

    def holds(self, score: Score) -> bool:
        return False

    def rank(self, score: Score) -> Rank:
        return True, True, score.correct, 0.0, 0.0
