"""Sizes that are not fooled: weights by the type that they are stored in, and what compresses away."""

import zlib
from pathlib import Path

import numpy as np
import onnx
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.export.builders import builder_of
from compressor.export.bundle.sizes import compressed_bytes
from compressor.export.bundle.sizes import weight_bytes as total


def weight_bytes(model: Path, runtime: str = "onnxruntime") -> dict[str, int]:
    return total(builder_of(runtime).constants(model))


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 x 60 float weights, and 7 + 8 int8 ones of which one half is a Constant node and the other an initializer."""
    random = np.random.default_rng(0)
    weights = numpy_helper.from_array(random.normal(size=(100, 60)).astype(np.float32), "weights")
    left = numpy_helper.from_array(np.arange(7, dtype=np.int8), "left")
    right = helper.make_node("Constant", [], ["right"], value=numpy_helper.from_array(np.arange(8, dtype=np.int8)))
    nodes = [
        right,
        helper.make_node("MatMul", ["x", "weights"], ["y"]),
        helper.make_node("Concat", ["left", "right"], ["joined"], axis=0),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 100])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 60])
    joined = helper.make_tensor_value_info("joined", TensorProto.INT8, [15])
    graph = helper.make_graph(nodes, "sizes", [x], [y, joined], [weights, left])
    path = tmp_path_factory.mktemp("sizes") / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), path)
    return path


def test_onnx_weights_are_counted_by_their_type(model: Path) -> None:
    assert weight_bytes(model) == {"float32": 24_000, "int8": 15}


def test_types_below_a_byte_are_packed(tmp_path: Path) -> None:
    packed = helper.make_tensor("w", TensorProto.INT4, [5], [1, 2, 3, -4, 5])
    graph = helper.make_graph([], "int4", [], [], [packed])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)]), tmp_path / "model.onnx")
    assert weight_bytes(tmp_path / "model.onnx") == {"int4": 3}


@pytest.mark.slow
def test_openvino_f16_halves_the_weights_and_says_so(model: Path, tmp_path: Path) -> None:
    for half, kind, size in ((False, "float32", 24_000), (True, "float16", 12_000)):
        ov.save_model(ov.convert_model(model), tmp_path / "ir.xml", compress_to_fp16=half)
        found = weight_bytes(tmp_path / "ir.xml", "openvino")
        assert found[kind] == size
        assert next(iter(found)) == kind  # the largest first
        assert sum(found.values()) <= (tmp_path / "ir.bin").stat().st_size


def test_an_engine_counts_as_a_whole(tmp_path: Path) -> None:
    (tmp_path / "model.engine").write_bytes(bytes(7))
    assert weight_bytes(tmp_path / "model.engine", "tensorrt-rtx") == {"engine": 7}


def test_compressed_bytes_are_those_of_one_deflate_stream(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(3_000_000)
    (tmp_path / "noise").write_bytes(noise)
    (tmp_path / "zeros").write_bytes(bytes(3_000_000))
    both = compressed_bytes([tmp_path / "noise", tmp_path / "zeros"])
    assert both == len(zlib.compress(noise + bytes(3_000_000), 6))
    assert 3_000_000 < both < 3_010_000
