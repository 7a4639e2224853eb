"""int8 graphs for screening: made in a moment, and computed in int8 by the runtime that they are for."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import numpy_helper

if TYPE_CHECKING:
    from tests.export import mobile_kit as kit
else:
    import mobile_kit as kit

from compressor.export.base import Builder, Source
from compressor.export.builders import builder_of
from compressor.export.tensorrt.conformance import violations
from compressor.processes.runner import open_runner
from compressor.profiles import load_profile
from compressor.runtimes import RUNTIMES
from tests.export.ort_kit import make_source

pytestmark = pytest.mark.slow


def skeleton(builder: Builder, source: Source, folder: Path) -> Path:
    assert builder.quantizer is not None
    assert builder.quantizer.skeleton is not None
    folder.mkdir(parents=True)
    return builder.quantizer.skeleton(source, folder)


def executed(runtime: str, model: Path) -> str:
    with open_runner(runtime) as runner:
        runner.ask("load", model=str(model.resolve()), threads=1, precision="int8")
        return str(runner.ask("executed")["executed_precision"])


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("runtime", ["executorch", "litert"])
def test_a_phone_computes_it_in_int8(runtime: str, batch: int, tmp_path: Path) -> None:
    for module in RUNTIMES[runtime].exports_with + RUNTIMES[runtime].quantizes_with:
        pytest.importorskip(module)
    builder, source = builder_of(runtime), replace(kit.source(batch), onnx_file=tmp_path / "model.onnx")
    in_float = builder.convert(source, "fp32", tmp_path / f"{runtime}-fp32").model
    alone = skeleton(builder, source, tmp_path / "alone" / f"{runtime}-int8")
    assert RUNTIMES[runtime].ran_as_asked("int8", executed(runtime, alone))
    beside = skeleton(builder, source, tmp_path / f"{runtime}-int8")
    assert [path.name for path in beside.parent.iterdir()] == [beside.name]
    assert beside.stat().st_size == pytest.approx(alone.stat().st_size, rel=0.05)
    assert in_float.is_file()
    # As fast as what ships: the same layers in 8 bits as on the first rung.
    assert executed(runtime, beside) == executed(runtime, alone)
    judge = kit.judge(tmp_path, batch=batch)
    assert judge(beside, runtime, "int8").not_finite == 0


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx"])
def test_a_gpu_gets_a_graph_by_its_rules(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    profile = {"tensorrt": "jetson-orin-nano", "tensorrt-rtx": "rtx-ada"}[runtime]
    source = make_source(tmp_path, profile=profile, opset=load_profile(profile).opset)
    made = skeleton(builder_of(runtime), source, tmp_path / f"{runtime}-int8")
    graph = onnx.load(made.with_name("model.onnx"))
    pairs = [node for node in graph.graph.node if node.op_type == "QuantizeLinear"]
    assert pairs
    points = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.graph.initializer}
    zeros = [points[node.input[2]] for node in pairs if len(node.input) > 2 and node.input[2] in points]
    assert all((point == 0).all() for point in zeros), "symmetric"
    assert violations(made.with_name("model.onnx"), load_profile(profile).opset) == ()
    assert made.suffix == (".engine" if runtime == "tensorrt-rtx" else ".onnx")
