"""A front end in the graph: waveforms in, the same logits out, to what float32 leaves of them."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.errors import KdcError
from compressor.export.onnx.bake import prepend_front_end
from compressor.export.openvino.builder import prepend_openvino
from compressor.processes.runner import open_runner
from compressor.schema.preprocess import AudioPreprocess
from compressor.tasks.audio_classification.front_end import front_end
from tests.targets.sound_bundle import expected, prompts, spoken

PREPROCESS = AudioPreprocess(
    sample_rate=8000, samples=6000, window=200, hop=80, fft=256, high_hz=4000.0, mels=32, mean=-4.0, std=3.0
)
WIDE = AudioPreprocess(sample_rate=16_000, samples=16_001, mean=-6.0, std=2.0)

Floats = npt.NDArray[np.float32]


def write_net(path: Path, preprocess: AudioPreprocess, batch: int | str = 1) -> Path:
    """A convolution, pooled, with the metadata that kdc writes."""
    kernel = np.random.default_rng(1).normal(0, 0.3, (4, 1, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Conv", ["input", "kernel"], ["conv"]),
        helper.make_node("Relu", ["conv"], ["relu"]),
        helper.make_node("GlobalAveragePool", ["relu"], ["pool"]),
        helper.make_node("Flatten", ["pool"], ["logits"]),
    ]
    sizes = preprocess.inputs[0].sizes(1)[1:]
    source = helper.make_tensor_value_info("input", TensorProto.FLOAT, [batch, *sizes])
    result = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [batch, 4])
    graph = helper.make_graph(nodes, "net", [source], [result], [numpy_helper.from_array(kernel, "kernel")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    helper.set_model_props(model, {"licence": "apache-2.0"})
    onnx.save(model, str(path))
    return path


def waveforms(preprocess: AudioPreprocess) -> tuple[Floats, Floats]:
    """[N, samples], and the features of transformers."""
    before = preprocess.before
    assert before is not None
    rate = preprocess.sample_rate
    sounds = [spoken(rate, seconds, seed=seed) for seed, seconds in enumerate((0.2, 0.75, 3.0, 1.0))]
    return (
        np.stack([expected(sound, rate, before) for sound in sounds]),
        np.stack([expected(sound, rate, preprocess) for sound in sounds]),
    )


def answers(runtime: str, model: Path, inputs: Floats, folder: Path, batch: int = 1) -> Floats:
    """Through the runner."""
    np.save(folder / "x.npy", np.array([(row,) for row in inputs], np.dtype([("input", np.float32, inputs[0].shape)])))
    with open_runner(runtime) as runner:
        runner.ask("load", model=str(model), threads=1, precision="fp32" if runtime == "onnxruntime" else "f32")
        runner.ask("predict", inputs=str(folder / "x.npy"), out=str(folder / "out.npy"), batch=batch)
    logits: Floats = np.load(folder / "out.npy")
    return logits


@pytest.mark.parametrize(("preprocess", "most"), [(PREPROCESS, 1e-4), (WIDE, 3e-4)], ids=["8 kHz", "16 kHz"])
def test_the_graph_makes_the_features_of_transformers(preprocess: AudioPreprocess, most: float) -> None:
    """In float32: where a band of a pure voice is silent beside a loud one, 16 kHz shows a little more."""
    onnxruntime = pytest.importorskip("onnxruntime")
    sounds, features = waveforms(preprocess)
    session = onnxruntime.InferenceSession(front_end(preprocess, 17), providers=["CPUExecutionProvider"])
    made = session.run(None, {"input": sounds})[0]
    assert made.shape == features.shape
    assert np.abs(made - features).max() < most


@pytest.mark.skipif(not list(prompts(1)), reason="Debian's asterisk-core-sounds-*-wav are not installed")
@pytest.mark.parametrize(("preprocess", "most"), [(PREPROCESS, 1e-4), (WIDE, 3e-4)], ids=["8 kHz", "16 kHz"])
def test_the_features_of_recorded_speech(preprocess: AudioPreprocess, most: float) -> None:
    """At 16 kHz the upper half of it is silent."""
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(front_end(preprocess, 17), providers=["CPUExecutionProvider"])
    assert preprocess.before is not None
    for sound in prompts(20):
        made = session.run(None, {"input": expected(sound, 8000, preprocess.before)[None]})[0]
        assert np.abs(made[0] - expected(sound, 8000, preprocess)).max() < most


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "asked"), [(1, 1), (2, 2), ("batch", 3)])
def test_onnx_takes_waveforms(tmp_path: Path, batch: int | str, asked: int) -> None:
    sounds, features = waveforms(PREPROCESS)
    plain = write_net(tmp_path / "plain.onnx", PREPROCESS, batch)
    prepend_front_end(plain, front_end(PREPROCESS, 17), tmp_path / "baked.onnx")
    wanted = answers("onnxruntime", plain, features, tmp_path, asked)
    assert np.ptp(wanted) > 1
    made = answers("onnxruntime", tmp_path / "baked.onnx", sounds, tmp_path, asked)
    np.testing.assert_allclose(made, wanted, atol=1e-4)
    baked = onnx.load(tmp_path / "baked.onnx")
    assert [(prop.key, prop.value) for prop in baked.metadata_props] == [("licence", "apache-2.0")]
    assert [(port.name, baked.opset_import[0].version) for port in baked.graph.input] == [("input", 18)]


@pytest.mark.slow
@pytest.mark.parametrize(("batch", "asked"), [(2, 2), ("batch", 3)])
def test_openvino_takes_waveforms(tmp_path: Path, batch: int | str, asked: int) -> None:
    openvino = pytest.importorskip("openvino")
    sounds, features = waveforms(PREPROCESS)
    plain = write_net(tmp_path / "plain.onnx", PREPROCESS, batch)
    openvino.save_model(openvino.convert_model(str(plain)), tmp_path / "plain.xml", compress_to_fp16=False)
    prepend_openvino(tmp_path / "plain.xml", front_end(PREPROCESS, 17), tmp_path / "baked.xml")
    wanted = answers("openvino", tmp_path / "plain.xml", features, tmp_path, asked)
    np.testing.assert_allclose(answers("openvino", tmp_path / "baked.xml", sounds, tmp_path, asked), wanted, atol=1e-4)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    plain = write_net(tmp_path / "plain.onnx", WIDE)
    with pytest.raises(KdcError, match="what goes before it makes"):
        prepend_front_end(plain, front_end(PREPROCESS, 17), tmp_path / "baked.onnx")
    (tmp_path / "no.onnx").write_bytes(b"\x08\x07 no model")
    with pytest.raises(KdcError, match="it is no ONNX model"):
        prepend_front_end(tmp_path / "no.onnx", front_end(PREPROCESS, 17), tmp_path / "baked.onnx")
