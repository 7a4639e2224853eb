"""build_trt.py and the runners of TensorRT as scripts, as far as a machine without a GPU takes them.

Engines are built for real, by TensorRT for RTX. Nothing here runs one: that needs an NVIDIA GPU.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from tests.targets.harness import Environment, StartRunner
    from tests.targets.trt_graphs import Graph, needs_rtx, without_gpu
else:
    from trt_graphs import Graph, needs_rtx, without_gpu

from compressor.runtimes import RUNTIMES

pytestmark = pytest.mark.slow

Build = Callable[..., tuple[int, str, str]]


@pytest.fixture
def build(scripts: Path, bare: "Environment", tmp_path: Path) -> Build:
    """Runs build_trt.py; its exit code, its answer, and stderr."""

    def run(*arguments: str, missing: str = "") -> tuple[int, str, str]:
        command = [sys.executable, str(scripts / "build_trt.py"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=bare(missing), capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout, done.stderr

    return run


RTX = ("--runtime", "tensorrt-rtx")


@needs_rtx
def test_builds_an_engine_without_a_gpu(build: Build, tmp_path: Path) -> None:
    Graph().save(tmp_path / "model.onnx")
    code, said, errors = build("model.onnx", "--out", "a.engine", *RTX, "--sm", "89", "--json")
    assert (code, errors) == (0, "")
    told = json.loads(said)
    engine = (tmp_path / "a.engine").read_bytes()
    assert (told["ok"], told["sm"], told["runtime"]) == (True, [89], "tensorrt-rtx")
    assert told["engine_bytes"] == len(engine) > Graph().constants["w_q"].nbytes
    assert told["network_layers"] >= len(Graph().nodes) - 1
    assert told["version"][:2] == "1."
    # The same graph gives the same bytes, and nothing is left beside them.
    code, said, _ = build("model.onnx", "--out", "b.engine", *RTX, "--sm", "89")
    assert (code, said.startswith(f"{len(engine) / 1e6:.2f} MB with tensorrt-rtx ")) == (0, True)
    assert (tmp_path / "b.engine").read_bytes() == engine
    assert {path.name for path in tmp_path.iterdir()} == {"model.onnx", "a.engine", "b.engine"}


@needs_rtx
def test_a_batch_that_may_vary_is_fixed(build: Build, tmp_path: Path) -> None:
    Graph(batch="n").save(tmp_path / "model.onnx")
    assert build("model.onnx", "--check", *RTX, "--batch", "4")[0] == 0
    code, _, errors = build("model.onnx", "--check", *RTX)
    assert (code, "say how many images a call with --batch" in errors) == (2, True)


def graph_with(op: str) -> Graph:
    graph = Graph()
    graph.nodes["relu"].op_type = op
    return graph


REFUSED = {
    "operator": (graph_with("Unique"), "relu", "Unique", "not supported (checkUnique)"),
    "no-onnx-operator": (graph_with("Frobnicate"), "relu", "Frobnicate", "Plugin not found"),
    "zero-point": (Graph(np.array(3, np.int8)), "q_in", "QuantizeLinear", "Non-zero zero point is not supported"),
    "bias": (Graph().quantize_bias(), "dq_b", "DequantizeLinear", "input has type Int32"),
}


@needs_rtx
@pytest.mark.parametrize("case", REFUSED)
def test_a_graph_that_cannot_be_built_is_refused_with_its_node(build: Build, tmp_path: Path, case: str) -> None:
    graph, node, op, reason = REFUSED[case]
    graph.save(tmp_path / "model.onnx")
    code, said, errors = build("model.onnx", "--out", "a.engine", *RTX, "--json")
    assert code == 2
    assert errors.startswith(f"build_trt.py: node {node} ({op}): ")
    assert reason in errors
    assert len(errors.splitlines()) == 1
    told = json.loads(said)
    assert (told["ok"], told["problems"][0]["node"], told["problems"][0]["op"]) == (False, node, op)
    assert not (tmp_path / "a.engine").exists()


@needs_rtx
def test_a_uint8_zero_point_is_no_warning(build: Build, tmp_path: Path) -> None:
    """The parser reads it as INT8 and says so in passing; ONNX means something else."""
    Graph(np.array(0, np.uint8)).save(tmp_path / "model.onnx")
    code, _, errors = build("model.onnx", "--check", *RTX)
    assert code == 2
    assert "would read a UINT8 zero point as INT8" in errors


@needs_rtx
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("model.onnx", "--out", "a", "--sm", "87"), "cannot build for SM 87; it can for: 75, 80, 86, 89"),
        (("model.onnx", "--out", "no/such/a"), "cannot write no/such/a: No such file or directory"),
        (("none.onnx", "--check"), "cannot read none.onnx: No such file or directory"),
        (("broken.onnx", "--check"), "Failed to parse the ONNX model"),
        (("model.onnx", "--check", "--batch", "2"), "input image has a batch of 1, and --batch is 2"),
        (("model.onnx", "--check", "--out", "a"), "give either --out ENGINE or --check"),
        (("model.onnx",), "give either --out ENGINE or --check"),
        (("model.onnx", "--check", "--batch", "0"), "--batch needs at least 1"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    build: Build, tmp_path: Path, arguments: tuple[str, ...], said: str
) -> None:
    Graph().save(tmp_path / "model.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    code, answer, errors = build(*arguments, *RTX)
    assert (code, answer) == (2, "")
    assert errors.startswith("build_trt.py: ")
    assert said in errors
    assert len(errors.splitlines()) == 1


def test_tensorrt_builds_for_its_own_gpu_only(build: Build) -> None:
    code, _, errors = build("model.onnx", "--check", "--sm", "87")
    assert code == 2
    assert "--sm goes with --runtime tensorrt-rtx" in errors


@pytest.mark.parametrize("runtime", ["tensorrt", "tensorrt-rtx"])
def test_a_missing_runtime_begins_with_the_line_that_installs_it(build: Build, runtime: str) -> None:
    module = RUNTIMES[runtime].module
    code, said, errors = build("model.onnx", "--check", "--runtime", runtime, "--json", missing=module)
    install = {"tensorrt": "sudo apt-get install python3-libnvinfer", "tensorrt-rtx": "pip install tensorrt-rtx"}[
        runtime
    ]
    assert code == 4
    assert errors.startswith(f"{install} (cannot import {module}: ")
    assert json.loads(said)["ok"] is False


# The runners


@pytest.mark.parametrize(("script", "runtime"), [("run_trt.py", "tensorrt"), ("run_trt_rtx.py", "tensorrt-rtx")])
def test_a_runner_without_its_runtime_says_how_to_install_it(start: "StartRunner", script: str, runtime: str) -> None:
    module = RUNTIMES[runtime].module
    for op, fields in (("info", {}), ("load", {"model": "model.onnx", "threads": 1, "precision": "fp16"})):
        reply = start(script, module).ask(op, **fields)
        assert (reply["ok"], reply["kind"]) == (False, "missing")
        assert f" (cannot import {module}: " in reply["message"]


@needs_rtx
@without_gpu
def test_without_a_gpu_the_runner_says_so(start: "StartRunner", tmp_path: Path) -> None:
    runner = start("run_trt_rtx.py")
    info = runner.ask("info")
    assert (info["ok"], info["runtime"], info["precisions"]) == (True, "tensorrt_rtx", [])
    (tmp_path / "a.engine").write_bytes(b"anything")
    reply = runner.ask("load", model=str(tmp_path / "a.engine"), threads=1, precision="fp16")
    assert (reply["ok"], reply["kind"]) == (False, "failed")
    assert reply["message"] == "no NVIDIA GPU that can be used: libcuda.so.1 of its driver cannot be loaded"
    reply = runner.ask("load", model="model.onnx", threads=1, precision="fp16")
    assert "model.onnx is no engine: build one of it first, python3 build_trt.py" in reply["message"]
    reply = runner.ask("load", model="model.onnx", threads=1, precision="bf16")
    assert (reply["kind"], reply["message"]) == (
        "bad-request",
        "tensorrt_rtx has no precision bf16; known: fp32, fp16, int8",
    )
