"""`profile`: how long each layer takes, by the runtimes' own profilers; and bench.py --explain."""

import json
from datetime import timedelta
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import openvino as ov
import pytest
from onnx import TensorProto, helper, numpy_helper

from compressor.schema.base import parse
from compressor.schema.explain import LayerTimes
from compressor.schema.measurement import Measurement

if TYPE_CHECKING:
    from tests.targets.harness import Bench, LoadScript, StartRunner
    from tests.targets.tiny_bundle import BATCH, MEAN, SIDE, STD, stub, variant, write_bundle
else:
    from harness import Bench, LoadScript, StartRunner
    from tiny_bundle import BATCH, MEAN, SIDE, STD, stub, variant, write_bundle

WIDE = 96
CALLS = 5
INPUTS = {"path": "images.npy", "distinct": 2, "batch": BATCH, "mean": MEAN, "std": STD}
FAST = ("--rounds", "1", "--no-throughput", "--block-length", "3")


def write_uneven(folder: Path) -> Path:
    """A convolution of 5x5 filters on 96 channels between two of 1x1: nothing else takes as long."""
    random = np.random.default_rng(3)
    shapes = {"first": (WIDE, 3, 1, 1), "huge": (WIDE, WIDE, 5, 5), "last": (8, WIDE, 1, 1)}
    weights = [numpy_helper.from_array(random.normal(0, 0.05, s).astype(np.float32), n) for n, s in shapes.items()]
    nodes = [
        helper.make_node("Conv", ["image", "first"], ["a"], "node_first"),
        helper.make_node("Conv", ["a", "huge"], ["b"], "node_huge", pads=[2, 2, 2, 2]),
        helper.make_node("Conv", ["b", "last"], ["c"], "node_last"),
        helper.make_node("GlobalAveragePool", ["c"], ["pooled"], "node_pool"),
        helper.make_node("Flatten", ["pooled"], ["logits"], "node_flatten"),
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [BATCH, 3, SIDE, SIDE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, [BATCH, 8])
    graph = helper.make_graph(nodes, "uneven", [image], [logits], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10), folder / "u.onnx")
    ov.save_model(ov.convert_model(folder / "u.onnx"), folder / "u.xml", compress_to_fp16=False)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "model", "precision"), [("run_ort.py", "u.onnx", "fp32"), ("run_ov.py", "u.xml", "f32")]
)
def test_the_slow_layer_is_the_slowest(
    start: "StartRunner", tmp_path: Path, script: str, model: str, precision: str
) -> None:
    path = write_uneven(tmp_path) / model
    runner = start(script)
    assert runner.ask("load", model=str(path), threads=1, precision=precision)["ok"] is True
    assert runner.ask("profile", n=CALLS)["kind"] == "bad-request", "no inputs yet"
    assert runner.ask("inputs", **INPUTS)["ok"] is True
    reply = runner.ask("profile", n=CALLS)
    assert reply.pop("ok") is True, reply
    told = parse(LayerTimes, reply, "the reply")
    assert len(told.calls_ms) == CALLS
    assert all(len(node.us) == CALLS for node in told.nodes)
    slowest = max(told.nodes, key=lambda node: sum(node.us))
    assert "huge" in slowest.name or "b" in slowest.name.split("_")[0] or "node_huge" in slowest.layers
    assert slowest.precision == precision
    for call, whole in enumerate(told.calls_ms):
        nodes = sum(node.us[call] for node in told.nodes) / 1000
        # Clocks of whole microseconds, and the profiler's own work lies in the call.
        assert 0 < nodes <= whole * 1.02 + 0.01 * len(told.nodes)
    assert runner.ask("block", n=2)["ok"] is True, "the model that is timed goes on as before"
    assert runner.ask("profile", n=0)["kind"] == "bad-request"
    assert runner.close() == ""


@pytest.mark.slow
def test_openvino_says_what_it_fused(start: "StartRunner", tiny: Any) -> None:
    runner = start("run_ov.py")
    runner.ask("load", model="f32.xml", threads=1, precision="f32")
    runner.ask("inputs", **INPUTS)
    reply = runner.ask("profile", n=2)
    heavy = [node for node in reply["nodes"] if node["op"] == "Convolution"]
    assert len(heavy) == 1
    assert len(heavy[0]["layers"]) >= 2, "the convolution and its relu"
    assert "f32" in heavy[0]["kernel"].lower()


def test_openvinos_means_are_taken_apart(load: "LoadScript") -> None:
    """A counter of OpenVINO's CPU plugin tells the mean of all its calls, rounded down; the first ones took long."""
    script = load("run_ov")
    status = type("Status", (), {"EXECUTED": 2})
    copies: list[Any] = []

    class Request:
        def __init__(self) -> None:
            self.total = self.calls = 0

        def start_async(self) -> None:
            self.calls += 1
            self.total += 9000 if self.calls == 1 else 70 + len(copies)

        def wait(self) -> None: ...

        def get_profiling_info(self) -> list[Any]:
            took = timedelta(microseconds=self.total // self.calls)
            names = {"node_name": "conv", "node_type": "Convolution", "exec_type": "jit_avx2_I8"}
            idle = {**names, "node_name": "folded", "status": 1, "real_time": took}
            return [SimpleNamespace(**names, status=2, real_time=took), SimpleNamespace(**idle)]

    class Compiled:
        def create_infer_request(self) -> Request:
            copies.append(Request())
            request: Request = copies[-1]
            return request

        def get_runtime_model(self) -> Any:
            return SimpleNamespace(get_ops=list)

    core = SimpleNamespace(compile_model=lambda path, device, chosen: Compiled() if chosen["PERF_COUNT"] else None)
    fake = ModuleType("openvino")
    fake.__dict__.update(Core=lambda: core, ProfilingInfo=SimpleNamespace(Status=status))
    told = script.profile(fake, "x.xml", {}, [], lambda number: {}, 50).told()
    assert (len(told["calls_ms"]), told["each"], len(copies)) == (5, 10, 5)
    [conv] = told["nodes"]
    assert (conv["name"], conv["precision"]) == ("conv", "int8")
    assert conv["us"] == pytest.approx([71, 72, 73, 74, 75], abs=1), "not 760, and not what the first call took"


def test_calls_are_told_apart_by_their_times(load: "LoadScript") -> None:
    script = load("run_ort")

    def node(name: str, ts: int, dur: int, kind: str = "float") -> dict[str, Any]:
        args = {"op_name": "Conv", "node_index": "3", "input_type_shape": [{kind: [1, 3]}]}
        return {"cat": "Node", "name": f"{name}_kernel_time", "ts": ts, "dur": dur, "args": args}

    def run(ts: int, dur: int) -> dict[str, Any]:
        return {"cat": "Session", "name": "model_run", "ts": ts, "dur": dur, "args": {}}

    events = [
        node("before all", 5, 99),
        *(run(100 * number, 50) for number in range(1, 5)),
        *(node("conv", 100 * number + 10, 10 * number, "uint8") for number in range(1, 5)),
        node("conv", 430, 1, "uint8"),
        node("once", 440, 7),
        {"cat": "Node", "name": "conv_fence_before", "ts": 401, "dur": 1, "args": {"op_name": "Conv"}},
    ]
    told = script.of_events(events).told()
    assert told["calls_ms"] == [0.05], "after three that do not count"
    assert [(row["name"], row["precision"], row["us"]) for row in told["nodes"]] == [
        ("conv", "int8", [41.0]),
        ("once", "fp32", [7.0]),
    ]


def test_a_runtime_without_a_profiler_says_so(load: "LoadScript") -> None:
    common = load("runner_common")
    session = common.Session(common.Runtime("none", "", ("fp32",), list, lambda *_: None))
    session.model = common.Loaded(lambda batch: batch, [], lambda: "fp32", "input", [1], "logits", [1])
    reply, done = load("runner_process").answer(session, b'{"op": "profile", "n": 3}')
    assert reply == {"ok": False, "kind": "no-profiler", "message": "this runtime has no per-layer profiler"}
    assert not done


# bench.py --explain


def measured(bundle: Path) -> Measurement:
    return parse(Measurement, json.loads((bundle / "measurements/measurement.json").read_text()), "it")


@pytest.mark.slow
def test_bench_leaves_the_times_beside_the_logits(bench: "Bench", bundle: Path) -> None:
    write_bundle(
        bundle, (variant("ort", "onnxruntime", "fp32", "model.onnx"), variant("ov", "openvino", "f32", "f32.xml"))
    )
    done = bench(str(bundle), "--explain", str(CALLS), *FAST)
    assert done.returncode == 0, done.stderr
    told = {row.variant: row for row in measured(bundle).contestants}
    assert told["ort-again"].layers is None, "the same artefact twice"
    for name in ("ort", "ov"):
        assert told[name].layers == f"{name}.layers.json"
        assert told[name].no_layers is None
        times = parse(LayerTimes, json.loads((bundle / f"measurements/{name}.layers.json").read_text()), name)
        assert len(times.calls_ms) == CALLS
    assert bench(str(bundle), *FAST).returncode == 0
    assert {row.layers for row in measured(bundle).contestants} == {None}
    assert bench(str(bundle), "--explain", "-1").returncode == 2


@pytest.mark.slow
@pytest.mark.parametrize(("model", "warned"), [("profile?", False), ("profile!", True), ("profile!!", True)])
def test_what_cannot_be_timed_costs_nothing_else(bench: "Bench", bundle: Path, model: str, warned: bool) -> None:
    write_bundle(bundle, (stub("good"), stub("bad", model)))
    done = bench(str(bundle), "--explain", "2", *FAST)
    assert done.returncode == 0, done.stderr
    told = {row.variant: row for row in measured(bundle).contestants}
    assert told["good"].layers == "good.layers.json"
    assert told["bad"].error is None
    assert told["bad"].layers is None
    assert told["bad"].no_layers
    assert told["bad"].logits is not None
    assert ("bad: no times of layers" in done.stderr) == warned


def test_tensorrt_is_read_as_its_inspector_and_profiler_tell(load: "LoadScript") -> None:
    """TensorRT runs nowhere without its GPU: in its place stands what NVIDIA documents of both."""
    script = load("run_trt")
    text = json.dumps({"Layers": [
        {"Name": "conv + relu", "LayerType": "CaskConvolution", "TacticName": "sm80_xmma_int8", "Inputs": [
            {"Format/Datatype": "Int8 NC/32HW32"}],
         "Metadata": "[ONNX Layer: node_conv2d]\u001e[ONNX Layer: node_relu]"},
        "a layer without details",
    ]})  # fmt: skip

    class Profiler:
        pass

    class Lane:
        def __init__(self) -> None:
            self.context = type("Context", (), {"profiler": None})()

        def __call__(self, batch: int) -> None:
            self.context.profiler.report_layer_time("conv + relu", 0.25 * batch)
            self.context.profiler.report_layer_time("reformat", 0.5)

    inspector = type("Inspector", (), {"get_engine_information": lambda self, form: text})()
    engine = type("Engine", (), {"create_engine_inspector": lambda self: inspector})()
    trt = type("trt", (), {"IProfiler": Profiler, "LayerInformationFormat": type("F", (), {"JSON": 1})})
    told = script.profile(trt, engine, Lane, [1, 1, 1, 2, 4].__getitem__, 2).told()
    assert told["profiler"] == "TensorRT, IProfiler"
    assert len(told["calls_ms"]) == 2
    conv, reformat = told["nodes"]
    assert (conv["name"], conv["op"], conv["kernel"]) == ("conv + relu", "CaskConvolution", "sm80_xmma_int8")
    assert (conv["precision"], conv["layers"]) == ("int8", ["node_conv2d", "node_relu"])
    assert conv["us"] == [500.0, 1000.0]
    assert (reformat["precision"], reformat["layers"], reformat["us"]) == (None, [], [500.0, 500.0])


def test_tensorrt_has_what_the_profile_asks_of_it() -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    assert hasattr(trt.IProfiler, "report_layer_time")
    assert hasattr(trt.IExecutionContext, "profiler")
