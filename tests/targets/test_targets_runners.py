"""The contract that every runner keeps, as a plain script in a bare environment."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from tests.targets.harness import Environment, StartRunner
    from tests.targets.tiny_bundle import BATCH, CLASSES, IMAGES, MEAN, SIDE, STD, Tiny
else:
    from tiny_bundle import BATCH, CLASSES, IMAGES, MEAN, SIDE, STD

from compressor.runtimes import RUNTIMES
from compressor.schema.base import parse
from compressor.schema.measurement import Machine

PREPROCESS = {"mean": MEAN, "std": STD, "batch": BATCH}
INPUTS = {"path": "images.npy", "distinct": 32, **PREPROCESS}

# runner, its runtime, a model, the precision asked for
CASES = [
    ("run_ort.py", "onnxruntime", "model.onnx", "fp32"),
    ("run_ov.py", "openvino", "f32.xml", "f32"),
    ("run_ov.py", "openvino", "f16.xml", "f16"),
]
EACH = pytest.mark.parametrize(("script", "runtime", "model", "precision"), CASES, ids=["ort", "ov-f32", "ov-f16"])
RUNNERS = pytest.mark.parametrize(("script", "runtime", "model", "precision"), CASES[:2], ids=["ort", "ov"])


@EACH
def test_answers_the_whole_protocol(
    start: "StartRunner", tiny: "Tiny", tmp_path: Path, script: str, runtime: str, model: str, precision: str
) -> None:
    runner = start(script)
    loaded = runner.ask("load", model=model, threads=2, precision=precision)
    assert loaded["ok"] is True
    assert loaded["input"] == {"name": "image", "shape": [BATCH, 3, SIDE, SIDE]}
    assert loaded["output"] == {"name": "logits", "shape": [BATCH, CLASSES]}
    assert loaded["load_ms"] > 0
    assert 10 < loaded["idle_rss_mb"] < loaded["rss_mb"]
    assert runner.ask("inputs", **INPUTS) == {"ok": True, "distinct": IMAGES}  # batches of 3 from 7, wrapping round
    assert runner.ask("first")["first_ms"] > 0
    block = runner.ask("block", n=9)
    assert [len(block["wall_ms"]), len(block["cpu_ms"])] == [9, 9]
    assert min(block["wall_ms"]) > 0
    memory = runner.ask("memory")
    assert loaded["rss_mb"] <= memory["peak_rss_mb"] < 1000
    assert memory["rss_mb"] <= memory["peak_rss_mb"]

    out = tmp_path / "logits.npy"
    assert runner.ask("predict", inputs="images.npy", out=str(out), **PREPROCESS) == {"ok": True, "n": IMAGES}
    logits = np.load(out)
    assert (logits.dtype, logits.shape) == (np.float32, (IMAGES, CLASSES))
    # f16 weights have 11 bits: 2^-11 of each of the terms of a sum. f32 sums are equal to rounding.
    np.testing.assert_allclose(logits, tiny.logits, atol=2e-3 if precision == "f16" else 1e-5)
    assert [path.name for path in tmp_path.iterdir()] == ["logits.npy"]

    # Asked last, as bench.py does it: reading it may disturb what is timed.
    executed = runner.ask("executed")["executed_precision"]
    assert executed == RUNTIMES[runtime].precisions[precision]
    assert runner.ask("quit") == {"ok": True}
    assert runner.close() == ""
    assert runner.process.returncode == 0


@RUNNERS
def test_info_names_the_machine(start: "StartRunner", script: str, runtime: str, model: str, precision: str) -> None:
    info = start(script).ask("info")
    assert info["runtime"] == runtime
    assert info["version"][:1].isdigit()
    assert precision in info["precisions"]
    assert set(info["precisions"]) <= set(RUNTIMES[runtime].precisions)
    parse(Machine, info["machine"], "info")


def test_bf16_is_reported_as_what_ran(start: "StartRunner") -> None:
    runner = start("run_ov.py")
    able = "bf16" in runner.ask("info")["precisions"]
    assert runner.ask("load", model="f32.xml", threads=1, precision="bf16")["ok"] is True
    executed = runner.ask("executed")["executed_precision"]
    if able:
        assert "bf16" in executed
    else:  # OpenVINO falls back without a word; the runner must not repeat what was asked
        assert executed == "f32"


@RUNNERS
def test_errors_are_answers(
    start: "StartRunner", tmp_path: Path, script: str, runtime: str, model: str, precision: str
) -> None:
    broken = tmp_path / Path(model).name
    broken.write_bytes(b"\x08\x07 no model")
    runner = start(script)

    def refused(kind: str, fragment: str, reply: dict[str, object]) -> None:
        assert (reply["ok"], reply["kind"]) == (False, kind)
        message = str(reply["message"])
        assert fragment in message
        assert "\n" not in message

    refused("bad-request", "not JSON", runner.send("garbage"))
    refused("bad-request", "not JSON", runner.send("[" * 3))
    refused("bad-request", "one of: block, executed", runner.send("[1]"))
    refused("bad-request", "one of: block, executed", runner.ask("explode"))
    refused("bad-request", "needs model", runner.ask("load"))
    refused("bad-request", "threads", runner.ask("load", model=model, threads=0, precision=precision))
    refused("bad-request", "fp8", runner.ask("load", model=model, threads=1, precision="fp8"))
    refused("bad-request", "streams", runner.ask("load", model=model, threads=1, precision=precision, streams=0))
    refused("bad-request", "no model is loaded", runner.ask("inputs", **INPUTS))
    refused("bad-request", "no model is loaded", runner.ask("executed"))
    refused("bad-request", "no inputs", runner.ask("block", n=1))
    refused("failed", "absent.onnx", runner.ask("load", model="absent.onnx", threads=1, precision=precision))
    refused("failed", "", runner.ask("load", model=str(broken), threads=1, precision=precision))

    assert runner.ask("load", model=model, threads=1, precision=precision)["ok"] is True
    refused("bad-request", "three numbers", runner.ask("inputs", **{**INPUTS, "mean": [0.5]}))
    refused("failed", "absent.npy", runner.ask("inputs", **{**INPUTS, "path": "absent.npy"}))
    refused("failed", "the model takes", runner.ask("inputs", **{**INPUTS, "batch": BATCH + 1}))
    assert runner.ask("inputs", **INPUTS)["ok"] is True
    assert runner.ask("block", n=1)["ok"] is True
    refused("bad-request", "has run already", runner.ask("first"))
    refused("bad-request", "between 0 and 1000", runner.ask("throughput", seconds=0))
    refused("bad-request", "needs seconds, a float", runner.ask("throughput", seconds="1"))
    out = tmp_path / "none" / "logits.npy"
    refused("failed", "", runner.ask("predict", inputs="images.npy", out=str(out), **PREPROCESS))


@RUNNERS
def test_a_missing_runtime_is_named(
    start: "StartRunner", script: str, runtime: str, model: str, precision: str
) -> None:
    runner = start(script, runtime)
    for reply in (runner.ask("info"), runner.ask("load", model=model, threads=1, precision=precision)):
        assert (reply["ok"], reply["kind"]) == (False, "missing")
        assert reply["message"].startswith(f"pip install {runtime}")


@RUNNERS
def test_missing_numpy_is_named(start: "StartRunner", script: str, runtime: str, model: str, precision: str) -> None:
    runner = start(script, "numpy")
    reply = runner.ask("info")
    assert (reply["ok"], reply["kind"]) == (False, "missing")
    assert reply["message"] == "pip install numpy (cannot import numpy: No module named 'numpy')"


@RUNNERS
def test_two_streams_run_at_a_time(start: "StartRunner", script: str, runtime: str, model: str, precision: str) -> None:
    runner = start(script)
    assert runner.ask("load", model=model, threads=1, precision=precision, streams=2)["ok"] is True
    assert runner.ask("throughput", seconds=0.1)["kind"] == "bad-request"  # no inputs yet
    runner.ask("inputs", **INPUTS)
    for _ in range(2):
        window = runner.ask("throughput", seconds=0.1)
        assert (window["ok"], set(window)) == (True, {"ok", "seconds", "calls", "joules"})
        assert window["seconds"] >= 0.1
        assert isinstance(window["calls"], int)
        assert window["calls"] > 0
    assert runner.ask("block", n=3)["ok"] is True
    assert runner.cpu_ticks_in(0.5) <= 10  # the streams have ended: one that went on would use 50


@RUNNERS
def test_an_idle_runner_sleeps(start: "StartRunner", script: str, runtime: str, model: str, precision: str) -> None:
    runner = start(script)
    runner.ask("load", model=model, threads=2, precision=precision)
    runner.ask("inputs", **INPUTS)
    runner.ask("block", n=50)
    # One thread that spins, as onnxruntime's do unless told otherwise, would use 80.
    assert runner.cpu_ticks_in(0.8) <= 16


def test_only_replies_reach_stdout(scripts: Path, bare: "Environment", tmp_path: Path) -> None:
    """A runtime that prints, from Python and from below it, must not break the protocol."""
    (tmp_path / "onnxruntime.py").write_text(
        'import os\nprint("hello")\nos.write(1, b"from C\\n")\n__version__ = "0"\n'
    )
    environment = bare()
    environment["PYTHONPATH"] += f":{tmp_path}"
    done = subprocess.run(
        [sys.executable, str(scripts / "run_ort.py")],
        input='{"op": "info"}\n',
        env=environment,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    assert [json.loads(line)["version"] for line in done.stdout.splitlines()] == ["0"]
    assert "hello\nfrom C" in done.stderr or "from C\nhello" in done.stderr


def test_a_runner_ends_with_its_parent(start: "StartRunner") -> None:
    runner = start("run_ort.py")
    runner.ask("memory")
    begin = time.monotonic()
    assert runner.close() == ""
    assert runner.process.returncode == 0
    assert time.monotonic() - begin < 5
