"""bench.py builds what has to be built on the device, before it loads anything."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.targets.harness import Bench, LoadScript
    from tests.targets.tiny_bundle import stub, variant, write_bundle
    from tests.targets.trt_graphs import needs_rtx, without_gpu
else:
    from tiny_bundle import stub, variant, write_bundle
    from trt_graphs import needs_rtx, without_gpu

from compressor.schema.base import read_json
from compressor.schema.measurement import Measurement

pytestmark = pytest.mark.slow

LATENCY = ("--no-predict", "--no-throughput", "--rounds", "1")
RTX = variant("rtx", "tensorrt-rtx", "fp32", "model.onnx").model_copy(update={"build": "build_trt.py"})
A = stub("a")

# Makes the "engine" that onnxruntime loads: the model itself, elsewhere. Its answer is build_trt.py's.
BUILD_COPY = """
import json, shutil, sys
model, _, out, *rest = sys.argv[1:]
assert rest == ["--runtime", "onnxruntime", "--batch", "3", "--json"], rest
shutil.copy(model, out)
print(json.dumps({"ok": True, "runtime": "copy", "version": "1", "engine_bytes": 1500000, "seconds": 2.04}))
"""


@pytest.fixture
def build_copy(scripts: Path) -> str:
    (scripts / "build_copy.py").write_text(BUILD_COPY)
    return "build_copy.py"


def events(done: "subprocess.CompletedProcess[str]") -> list[dict[str, Any]]:
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_builds_before_it_loads_and_leaves_the_bundle_alone(bench: "Bench", bundle: Path, build_copy: str) -> None:
    one = variant("built", "onnxruntime", "fp32", "model.onnx").model_copy(update={"build": build_copy})
    write_bundle(bundle, (one, A))
    before = {path.name for path in bundle.iterdir()}
    told = events(bench("bundle", "--rounds", "1", "--window", "0.05", "--json"))
    steps = [event["doing"] for event in told if "progress" in event]
    assert steps[:2] == ["building", "loading"]
    assert {"note": "built: built on this machine in 2.0 s, 1.50 MB, copy 1"} in told
    original, again, _ = read_json(bundle / "measurements" / "measurement.json", Measurement).contestants
    assert (original.error, again.error, again.copy_of) == (None, None, "built")
    assert original.executed_precision == "fp32"
    assert original.throughput
    assert original.logits == "built.npy"  # each process loaded the engine, the one that predicts too
    assert {path.name for path in bundle.iterdir()} == before | {"measurements"}
    assert {path.name for path in (bundle / "measurements").iterdir()} == {"measurement.json", "built.npy", "a.npy"}


def test_it_loads_what_was_built(bench: "Bench", bundle: Path, scripts: Path) -> None:
    (scripts / "build_nothing.py").write_text("import sys\nopen(sys.argv[3], 'wb').write(b'no model')\n")
    one = variant("built", "onnxruntime", "fp32", "model.onnx").model_copy(update={"build": "build_nothing.py"})
    write_bundle(bundle, (A, one))
    told = events(bench("bundle", "--json", *LATENCY))
    assert {"note": "built: built on this machine"} in told
    warning = next(event["warning"] for event in told if "warning" in event)
    assert ".built-" in warning
    assert "built.engine" in warning


@needs_rtx
@without_gpu
def test_an_engine_is_built_here_and_needs_a_gpu_to_run(bench: "Bench", bundle: Path, tmp_path: Path) -> None:
    write_bundle(bundle, (A, RTX), reference="rtx")
    (tmp_path / "out").mkdir()
    told = events(bench("bundle", "--json", "--out", "out", *LATENCY))
    note = next(event["note"] for event in told if "rtx: " in event.get("note", ""))
    assert note.startswith("rtx: built on this machine in ")
    assert " MB, tensorrt-rtx 1." in note
    a, rtx, again = told[-1]["state"]["contestants"]
    assert "error" not in a
    assert "no NVIDIA GPU that can be used" in rtx["error"]
    assert again["error"] == rtx["error"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == []


@needs_rtx
def test_what_cannot_be_built_carries_its_error(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (A, RTX.model_copy(update={"model": "broken.onnx"})), reference="rtx")
    told = events(bench("bundle", "--json", *LATENCY))
    a, rtx, again = told[-1]["state"]["contestants"]
    assert "error" not in a
    assert rtx["error"].startswith("build_trt.py: ")
    assert "Failed to parse the ONNX model" in rtx["error"]
    assert again["error"] == rtx["error"]
    assert sum("warning" in event for event in told) == 1


def test_a_missing_runtime_is_found_before_anything_is_built(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (RTX,))
    done = bench("bundle", *LATENCY, missing="tensorrt_rtx")
    assert done.returncode == 4
    assert done.stderr.startswith("pip install tensorrt-rtx (cannot import tensorrt_rtx: ")


@pytest.mark.parametrize("name", ["../build_trt.py", "run_ort.py", "build_trt.sh", "build_.py; rm", 7])
def test_only_build_scripts_build(bench: "Bench", bundle: Path, name: object) -> None:
    write_bundle(bundle, (A,))
    manifest = json.loads((bundle / "bundle.json").read_text())
    manifest["variants"][0]["build"] = name
    (bundle / "bundle.json").write_text(json.dumps(manifest))
    done = bench("bundle", *LATENCY)
    assert done.returncode == 2
    assert f"what builds a model is build_*.py, found {name!r}" in done.stderr


def test_a_script_that_is_not_there_is_named(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (stub("b"), A.model_copy(update={"build": "build_gone.py"})))
    told = events(bench("bundle", "--json", *LATENCY))
    assert {"warning": "a: build_gone.py does not lie beside bench.py"} in told


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("import time; time.sleep(60)", "build_it.py was not done within 1 s"),
        ("import sys; print('no room', file=sys.stderr); sys.exit(3)", "no room"),
        ("import os; os.abort()", "the model was not built: its process died (signal 6), without a word"),
        ("pass", "the model was not built: exit code 0, without a word"),  # it claims to be done
    ],
)
def test_a_build_that_fails_says_why(
    load: "LoadScript", monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, said: str
) -> None:
    bench_build = load("bench_build")
    monkeypatch.setattr(bench_build, "BUILD_SECONDS", 1.0 if "sleep" in script else 30.0)
    (tmp_path / "build_it.py").write_text(script)
    one = SimpleNamespace(
        name="x",
        script=tmp_path / "run_it.py",
        variant={"build": "build_it.py", "model": "model.onnx", "runtime": "tensorrt"},
    )
    plan = SimpleNamespace(python=sys.executable, bundle=tmp_path, batch=1)
    with pytest.raises(bench_build.RunnerError) as raised:
        bench_build.build(one, plan, tmp_path, None)
    assert str(raised.value) == said
