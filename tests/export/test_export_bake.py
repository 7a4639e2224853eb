"""Preprocessing in the graph: pixels in, the same logits out."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import openvino as ov
import pytest
from onnx import TensorProto, helper

from compressor.errors import KdcError
from compressor.export.onnx.bake import bake_normalization
from compressor.export.openvino.builder import bake_openvino
from compressor.processes.runner import open_runner
from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.image_classification import normalise

HOW = ImagePreprocess(input_size=(12, 16), resize=(12, 16), mean=(0.48, 0.45, 0.40), std=(0.22, 0.23, 0.24))
IMAGES = np.random.default_rng(0).integers(0, 256, (5, 12, 16, 3), dtype=np.uint8)


def write_net(path: Path, batch: int | str = 1, shape: tuple[int, ...] = (3, 12, 16)) -> Path:
    """A convolution, pooled, with the metadata that kdc writes."""
    kernel = np.random.default_rng(1).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["logits"]),
    ]
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, *shape])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])
    graph = helper.make_graph(nodes, "net", [source], [result], [onnx.numpy_helper.from_array(kernel, "kernel")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    helper.set_model_props(model, {"licence": "apache-2.0"})
    onnx.save(model, str(path))
    return path


def answers(runtime: str, model: Path, precision: str, folder: Path, batch: int = 1) -> npt.NDArray[np.float32]:
    """Through the runner, which sees for itself whether the model takes pixels."""
    np.save(folder / "x.npy", IMAGES)
    how = {"mean": HOW.mean, "std": HOW.std, "batch": batch}
    with open_runner(runtime) as runner:
        runner.ask("load", model=str(model), threads=1, precision=precision)
        runner.ask("predict", inputs=str(folder / "x.npy"), out=str(folder / "out.npy"), **how)
        runner.ask("inputs", path=str(folder / "x.npy"), distinct=2, **how)
        assert len(runner.ask("block", n=2)["wall_ms"]) == 2
        assert runner.ask("executed")["executed_precision"] == precision
    logits: npt.NDArray[np.float32] = np.load(folder / "out.npy")
    return logits


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "asked"), [(1, 1), (2, 2), ("batch", 3)])
def test_onnx_answers_the_same_to_the_last_bit(tmp_path: Path, batch: int | str, asked: int) -> None:
    plain = write_net(tmp_path / "plain.onnx", batch)
    bake_normalization(plain, HOW.normalization, tmp_path / "baked.onnx")
    expected = answers("onnxruntime", plain, "fp32", tmp_path, asked)
    np.testing.assert_array_equal(answers("onnxruntime", tmp_path / "baked.onnx", "fp32", tmp_path, asked), expected)


def test_the_graph_normalizes_as_kdc_does(tmp_path: Path) -> None:
    """The baked steps alone, by ONNX's own reference."""
    from onnx.reference import ReferenceEvaluator

    bake_normalization(write_net(tmp_path / "plain.onnx", 5), HOW.normalization, tmp_path / "baked.onnx")
    model = onnx.load(tmp_path / "baked.onnx")
    steps = [node for node in model.graph.node if node.name.startswith("kdc_preprocess_")]
    del model.graph.node[len(steps) :], model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("input", TensorProto.FLOAT, [5, 3, 12, 16]))
    (found,) = ReferenceEvaluator(model).run(None, {"image": IMAGES})
    np.testing.assert_array_equal(found, normalise(IMAGES, HOW))


def test_onnx_keeps_what_it_was(tmp_path: Path) -> None:
    for name in ("first", "second"):
        bake_normalization(write_net(tmp_path / "plain.onnx", "batch"), HOW.normalization, tmp_path / f"{name}.onnx")
    model = onnx.load(tmp_path / "first.onnx")
    assert {row.key: row.value for row in model.metadata_props} == {"licence": "apache-2.0"}
    assert [(row.domain, row.version) for row in model.opset_import] == [("", 17)]
    (image,) = model.graph.input
    kind = image.type.tensor_type
    assert (image.name, kind.elem_type) == ("image", TensorProto.UINT8)
    assert [dim.dim_param or dim.dim_value for dim in kind.shape.dim] == ["batch", 12, 16, 3]
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()


def test_a_model_that_takes_something_else_is_refused(tmp_path: Path) -> None:
    write_net(tmp_path / "plain.onnx", shape=(3, 20, 20))
    with pytest.raises(KdcError, match=r"float32 \[batch, 3, 12, 16\]; it has: input float \[1, 3, 20, 20\]"):
        bake_normalization(tmp_path / "plain.onnx", HOW.normalization, tmp_path / "out.onnx")
    bake_normalization(write_net(tmp_path / "plain.onnx"), HOW.normalization, tmp_path / "baked.onnx")
    with pytest.raises(KdcError, match=r"it has: image uint8 \[1, 12, 16, 3\]"):
        bake_normalization(tmp_path / "baked.onnx", HOW.normalization, tmp_path / "twice.onnx")
    assert not (tmp_path / "out.onnx").exists()
    assert not (tmp_path / "twice.onnx").exists()


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match=r"while reading .*none\.onnx"):
        bake_normalization(tmp_path / "none.onnx", HOW.normalization, tmp_path / "out.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"\x08\x07 no model")
    with pytest.raises(KdcError, match=r"broken\.onnx is damaged"):
        bake_normalization(tmp_path / "broken.onnx", HOW.normalization, tmp_path / "out.onnx")


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_openvino_answers_the_same(tmp_path: Path, precision: str) -> None:
    converted = ov.convert_model(write_net(tmp_path / "plain.onnx"))
    ov.save_model(converted, tmp_path / "plain.xml", compress_to_fp16=precision == "f16")
    bake_openvino(tmp_path / "plain.xml", HOW.normalization, tmp_path / "baked.xml")
    np.save(tmp_path / "x.npy", IMAGES)
    found = {}
    for name in ("plain", "baked"):
        with open_runner("openvino") as runner:
            runner.ask("load", model=str(tmp_path / f"{name}.xml"), threads=1, precision=precision)
            out = str(tmp_path / f"{name}.npy")
            runner.ask("predict", inputs=str(tmp_path / "x.npy"), mean=HOW.mean, std=HOW.std, batch=1, out=out)
        found[name] = np.load(out)
    np.testing.assert_allclose(found["baked"], found["plain"], rtol=1e-4, atol=1e-5)
    # f16 stays f16: the .bin grows by the three means and deviations, not by a half of the weights.
    sizes = {name: (tmp_path / f"{name}.bin").stat().st_size for name in found}
    assert 0 <= sizes["baked"] - sizes["plain"] < 100


def test_openvino_refuses_another_input(tmp_path: Path) -> None:
    ov.save_model(ov.convert_model(write_net(tmp_path / "plain.onnx", shape=(3, 20, 20))), tmp_path / "plain.xml")
    with pytest.raises(KdcError, match=r"it has: f32 \[1,3,20,20\]"):
        bake_openvino(tmp_path / "plain.xml", HOW.normalization, tmp_path / "baked.xml")
