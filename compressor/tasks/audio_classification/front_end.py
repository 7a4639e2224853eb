"""Log-mel features as an ONNX model: what can be built into a model of sound, which takes the waveform then."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.schema.preprocess import AudioPreprocess

__all__ = ["front_end"]


def front_end(preprocess: AudioPreprocess, opset: int) -> bytes:
    """float32 "input" [batch, samples] -> "features" [batch, 1, mels, frames], as `AudioPreprocess` says: the Fourier
    transform is a convolution with windowed cosines and sines, and triangles are a matrix. In float32: a quiet band
    beside a loud one differs in the fourth digit.

    Args:
        preprocess: of a log-mel model.
        opset: of ONNX.

    Returns:
        The model, serialized.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    waves, mels = _matrices(preprocess)
    constants: dict[str, NDArray[Any]] = {
        "shape": np.array([0, 1, preprocess.samples], np.int64),
        "waves": waves.astype(np.float32),
        "mels": np.concatenate([mels, mels], axis=1).astype(np.float32),
        "floor": np.array(preprocess.floor, np.float32),
        "mean": np.array(preprocess.mean, np.float32),
        "std": np.array(preprocess.std, np.float32),
        "axes": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Reshape", ["input", "shape"], ["sound"]),
        helper.make_node("Conv", ["sound", "waves"], ["transform"], strides=[preprocess.hop]),
        helper.make_node("Mul", ["transform", "transform"], ["power"]),
        helper.make_node("MatMul", ["mels", "power"], ["bands"]),
        helper.make_node("Max", ["bands", "floor"], ["floored"]),
        helper.make_node("Log", ["floored"], ["logarithm"]),
        helper.make_node("Sub", ["logarithm", "mean"], ["centred"]),
        helper.make_node("Div", ["centred", "std"], ["normalized"]),
        helper.make_node("Unsqueeze", ["normalized", "axes"], ["features"]),
    ]
    float32 = TensorProto.FLOAT
    (features,) = preprocess.inputs
    given = helper.make_tensor_value_info("input", float32, ["batch", preprocess.samples])
    made = helper.make_tensor_value_info("features", float32, ["batch", *features.sizes(1)[1:]])
    kept = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "front_end", [given], [made], kept)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


def _matrices(preprocess: AudioPreprocess) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Windowed cosines, then sines [2 * bins, 1, window], of the bins that a triangle reaches; and the triangles [mels,
    bins]."""
    from compressor.tasks.audio_classification.features import mel_filters  # here, since it brings torch along

    times = np.arange(preprocess.window)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * times / preprocess.window)
    mels = mel_filters(preprocess).T
    used = mels.any(axis=0)
    angles = 2 * np.pi * np.flatnonzero(used)[:, None] * times / preprocess.fft
    return np.concatenate([np.cos(angles), np.sin(angles)])[:, None] * window, mels[:, used]
