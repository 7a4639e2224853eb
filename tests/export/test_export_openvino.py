"""ONNX -> OpenVINO IR in float: what is stored, the same bytes twice, and clear errors."""

import logging
import sys
from functools import partial
from logging.handlers import BufferingHandler
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from compressor.errors import EXIT_MISSING, KdcError
from compressor.export.base import Source
from compressor.export.bundle.sizes import weight_bytes
from compressor.export.openvino.ir import convert, ir_constants
from compressor.install import install_line
from compressor.profiles import load_profile
from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.image_classification.stored import StoredImages

ov = pytest.importorskip("openvino")

SLOW = partial(pytest.param, marks=pytest.mark.slow)  # each conversion takes most of a second
HOW = ImagePreprocess(input_size=(8, 8), resize=(8, 8), mean=(0.5,) * 3, std=(0.25,) * 3)


def source_of(folder: Path, opset: int = 18, op: str = "Conv") -> Source:
    """A grouped convolution and a linear layer; its shapes make OpenVINO compute constants of its own."""
    random = np.random.default_rng(0)
    kernel = random.normal(size=(6, 1, 3, 3)).astype(np.float32)
    head = random.normal(size=(6 * 36, 4)).astype(np.float32)
    nodes = [
        helper.make_node(op, ["input", "kernel", "bias"], ["conv"], group=3),
        helper.make_node("Flatten", ["conv"], ["flat"]),
        helper.make_node("Gemm", ["flat", "head"], ["logits"]),
    ]
    ends = (("input", [1, 3, 8, 8]), ("logits", [1, 4]))
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)] for name, shape in ends)
    bias = np.linspace(-1, 1, 6).astype(np.float32)
    tensors = {"kernel": kernel, "bias": bias, "head": head}
    weights = [numpy_helper.from_array(value, name) for name, value in tensors.items()]
    graph = helper.make_graph(nodes, "net", inputs, outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), folder / "m.onnx")
    images = np.zeros((1, 8, 8, 3), np.uint8)
    return Source(nn.Identity(), folder / "m.onnx", HOW, StoredImages(images, HOW), load_profile("x86-avx2"))


@pytest.mark.parametrize(("precision", "kind"), [("f32", "float32"), ("f16", "float16"), SLOW("bf16", "float16")])
def test_stores_what_was_asked(tmp_path: Path, precision: str, kind: str) -> None:
    made = convert(source_of(tmp_path), precision, tmp_path / "ir")
    assert sorted(path.name for path in (tmp_path / "ir").iterdir()) == ["model.bin", "model.xml"]
    assert made.model == tmp_path / "ir" / "model.xml"
    stored = weight_bytes(ir_constants(made.model))
    assert {name for name in stored if name.startswith("float")} == {kind}
    assert stored[kind] == (54 + 6 + 6 * 36 * 4) * (4 if precision == "f32" else 2)
    assert made.made == f"openvino.convert_model, save_model(compress_to_fp16={precision != 'f32'})"


def test_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """OpenVINO 2026.0 asks torch first, which warns of a file that is not its own, past the root logger."""
    records = BufferingHandler(1000)
    monkeypatch.setattr(logging.getLogger("torch.export"), "handlers", [records])
    convert(source_of(tmp_path), "f32", tmp_path / "ir")
    assert [record.getMessage() for record in records.buffer if record.levelno >= logging.WARNING] == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("opset", [SLOW(13), 17, SLOW(18), 20])
def test_answers_as_the_onnx_file(tmp_path: Path, opset: int) -> None:
    source = source_of(tmp_path, opset)
    made = convert(source, "f32", tmp_path / "ir")
    image = np.random.default_rng(1).normal(size=(1, 3, 8, 8)).astype(np.float32)
    expected = ort.InferenceSession(source.onnx_file).run(None, {"input": image})[0]
    answer = ov.compile_model(made.model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image)[0]
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_the_same_bytes_twice_and_nothing_of_this_machine(tmp_path: Path, precision: str) -> None:
    source = source_of(tmp_path)
    one, two = (convert(source, precision, tmp_path / name).model for name in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert one.with_suffix(".bin").read_bytes() == two.with_suffix(".bin").read_bytes()
    for trace in (str(tmp_path), "m.onnx", "site-packages", str(Path.home())):
        assert trace not in one.read_text()


@pytest.mark.slow
def test_a_broken_file_and_an_unknown_operation_are_one_line(tmp_path: Path) -> None:
    unknown = source_of(tmp_path, op="Deform")
    with pytest.raises(KdcError, match=r"^OpenVINO cannot convert the network: .*Deform") as caught:
        convert(unknown, "f32", tmp_path / "ir")
    assert "\n" not in caught.value.message
    unknown.onnx_file.write_bytes(b"\x08\x07 no model")
    with pytest.raises(KdcError, match=r"^OpenVINO cannot convert the network: Cannot recognize"):
        convert(unknown, "f32", tmp_path / "ir")
    assert not (tmp_path / "ir").exists()


def test_missing_openvino_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(KdcError, match="needs openvino") as caught:
        convert(source_of(tmp_path), "f32", tmp_path / "ir")
    assert (caught.value.exit_code, caught.value.hint) == (EXIT_MISSING, install_line("openvino", "nncf"))
