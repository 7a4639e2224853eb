"""An ONNX model run in this process by onnxruntime, for quantizing it: its tensors, and the time that its nodes take.

Accuracy and latency that anybody is told come from the runners, never from here.
"""

import json
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from compressor.errors import KdcError, first_line, needs
from compressor.runtimes import RUNTIMES
from compressor.tasks.base import Arrays

__all__ = ["Floats", "TappedSession", "node_times", "open_session"]

Floats = NDArray[np.float32]


class TappedSession:
    """A model of which some tensors are read."""

    def __init__(self, session: Any, tensors: Sequence[str]) -> None:
        self._session, self._tensors = session, list(tensors)

    def run(self, batch: Arrays) -> dict[str, Floats]:
        """The tensors for one batch of inputs."""
        inside = [name for name in self._tensors if name not in batch]
        values = dict(zip(inside, self._session.run(inside, batch) if inside else (), strict=True))
        return {name: batch[name] if name in batch else values[name] for name in self._tensors}


def open_session(model: onnx.ModelProto, tensors: Sequence[str]) -> TappedSession:
    """A session from which `tensors`, float32 ones inside the graph or its input and outputs, can be read."""
    tapped = onnx.ModelProto()
    tapped.CopyFrom(model)
    there = {value.name for value in (*model.graph.output, *model.graph.input)}
    tapped.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in tensors if name not in there
    )
    return TappedSession(_session(tapped, _options()), tensors)


def node_times(model: onnx.ModelProto, inputs: Iterable[Arrays]) -> dict[str, float]:
    """Node -> the median of the microseconds that it took on `inputs`, by onnxruntime's profiler."""
    with tempfile.TemporaryDirectory() as folder:
        options = _options()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "times")
        session = _session(model, options)
        for batch in inputs:
            session.run(None, batch)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    durations: dict[str, list[int]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            durations[event["name"].removesuffix("_kernel_time")].append(event["dur"])
    return {name: float(np.median(times)) for name, times in durations.items()}


def _options() -> Any:
    ort = needs("onnxruntime", RUNTIMES["onnxruntime"].install, "quantization")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.x64quantprecision", "1")  # exact sums, as the runner has them
    options.log_severity_level = 3
    return options


def _session(model: onnx.ModelProto, options: Any) -> Any:
    ort = needs("onnxruntime", RUNTIMES["onnxruntime"].install, "quantization")
    try:
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own types, all derived from RuntimeError or Exception
        raise KdcError(f"onnxruntime cannot load the network: {first_line(error)}") from None
