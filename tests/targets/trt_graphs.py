"""Small graphs for TensorRT, one that keeps its rules and can be made to break them; and whether it can run here."""

import ctypes
import importlib.util
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

CHANNELS, SIDE = 16, 16


def has_driver() -> bool:
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


needs_rtx = pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="tensorrt_rtx is not installed")
without_gpu = pytest.mark.skipif(has_driver(), reason="there is an NVIDIA driver here")


@dataclass
class Graph:
    """image -> Q "q_in" -> DQ "dq_in" -> Conv "conv" (weights int8 by DQ "dq_w") -> Relu "relu" -> logits
    [1, CHANNELS].
    Change a constant or a node, then `save`."""

    zero_point: NDArray[Any] = field(default_factory=lambda: np.array(0, np.int8))
    batch: int | str = 1
    opset: int = 17

    def __post_init__(self) -> None:
        weights = np.random.default_rng(0).integers(-127, 128, (CHANNELS, 3, 3, 3)).astype(np.int8)
        self.constants: dict[str, NDArray[Any]] = {
            "w_q": weights,
            "w_s": np.full(CHANNELS, 0.01, np.float32),
            "w_z": np.zeros(CHANNELS, np.int8),
            "x_s": np.array(0.02, np.float32),
            "x_z": self.zero_point,
            "bias": np.zeros(CHANNELS, np.float32),
        }
        make = helper.make_node
        self.nodes = {
            "q_in": make("QuantizeLinear", ["image", "x_s", "x_z"], ["x_q"], "q_in"),
            "dq_in": make("DequantizeLinear", ["x_q", "x_s", "x_z"], ["x"], "dq_in"),
            "dq_w": make("DequantizeLinear", ["w_q", "w_s", "w_z"], ["w"], "dq_w", axis=0),
            "conv": make("Conv", ["x", "w", "bias"], ["c"], "conv", pads=[1, 1, 1, 1]),
            "relu": make("Relu", ["c"], ["r"], "relu"),
            "pool": make("GlobalAveragePool", ["r"], ["p"], "pool"),
            "flat": make("Flatten", ["p"], ["logits"], "flat"),
        }

    def quantize_bias(self) -> "Graph":
        """As onnxruntime wants it: int32, with the product of the scales."""
        self.constants["bias"] = np.zeros(CHANNELS, np.int32)
        self.constants["b_s"] = np.full(CHANNELS, 0.0002, np.float32)
        dequantize = helper.make_node("DequantizeLinear", ["bias", "b_s"], ["b"], "dq_b", axis=0)
        self.nodes = {"dq_b": dequantize, **self.nodes}
        self.nodes["conv"].input[2] = "b"
        return self

    def save(self, path: Path, domains: tuple[str, ...] = ()) -> Path:
        image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [self.batch, 3, SIDE, SIDE])
        logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [self.batch, CHANNELS])
        constants = [numpy_helper.from_array(value, name) for name, value in self.constants.items()]
        graph = helper.make_graph(list(self.nodes.values()), "graph", [image], [logits], constants)
        opsets = [helper.make_opsetid("", self.opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), str(path))
        return path
