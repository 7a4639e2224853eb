"""bench.py end to end on a tiny bundle, as a plain script in a bare environment."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from tests.targets.conftest import Environment
    from tests.targets.tiny_bundle import BATCH, PICTURES, Tiny, variant, write_bundle
else:
    from tiny_bundle import BATCH, PICTURES, variant, write_bundle

from compressor.spec.base import parse, read_json
from compressor.spec.measurement import Machine, Measurement

ORT = variant("onnxruntime-fp32", "onnxruntime", "fp32", "model.onnx")
TWIN = variant("onnxruntime-twin", "onnxruntime", "fp32", "model.onnx")
OV = variant("openvino-f16", "openvino", "f16", "f16.xml")
BROKEN = variant("broken", "onnxruntime", "fp32", "broken.onnx")

Bench = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def bundle(tiny: "Tiny", tmp_path: Path) -> Path:
    """A folder with the files that variants name, and no bundle.json yet."""
    folder = tmp_path / "bundle"
    shutil.copytree(tiny.folder, folder)
    (folder / "broken.onnx").write_bytes(b"\x08\x07 no model")
    return folder


@pytest.fixture
def bench(scripts: Path, bare: "Environment", tmp_path: Path) -> Bench:
    def run(*arguments: str, missing: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(scripts / "bench.py"), *arguments]
        return subprocess.run(command, cwd=tmp_path, env=bare(missing), capture_output=True, text=True, timeout=60)

    return run


def measured(bundle: Path) -> Measurement:
    return read_json(bundle / "measurements" / "measurement.json", Measurement)


def test_measures_a_bundle(bench: Bench, bundle: Path, scripts: Path, tiny: "Tiny") -> None:
    write_bundle(bundle, (ORT, OV, BROKEN, TWIN))
    done = bench("bundle", "--rounds", "11", "--seed", "5")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("broken: ")
    result = measured(bundle)
    assert (result.batch, result.block_length, result.block_dropped) == (BATCH, 8, 2)
    assert (result.rounds, result.seed, result.distinct_inputs) == (11, 5, PICTURES)
    assert result.started <= result.finished
    assert result.started.endswith("Z")

    ort, ov, broken, twin = result.contestants
    assert [one.variant for one in result.contestants] == [ORT.name, OV.name, BROKEN.name, TWIN.name]
    assert (ort.executed_precision, ov.executed_precision) == ("fp32", "f32")
    assert broken.error
    assert (broken.load_ms, broken.logits) == (None, None)
    for one in (ort, ov, twin):
        assert one.error is None
        assert None not in (one.load_ms, one.first_ms, one.idle_rss_mb, one.peak_rss_mb, one.logits_sha256)
        assert one.peak_rss_mb > one.idle_rss_mb  # type: ignore[operator]
        logits = bundle / "measurements" / f"{one.variant}.npy"
        assert one.logits == logits.name
        assert one.logits_sha256 == hashlib.sha256(logits.read_bytes()).hexdigest()
        np.testing.assert_allclose(np.load(logits), tiny.logits, atol=2e-3)

    assert {block.variant for block in result.blocks} == {ORT.name, OV.name, TWIN.name}
    assert all(len(block.wall_ms) == len(block.cpu_ms) == 6 for block in result.blocks)
    assert [block.round for block in result.blocks] == [number for number in range(11) for _ in range(3)]
    names = {path.name for path in (bundle / "measurements").iterdir()}
    assert names == {"measurement.json", *(f"{one.variant}.npy" for one in (ort, ov, twin))}
    assert not (scripts / "__pycache__").exists()  # compiled scripts would carry this machine's paths in the bundle
    row = next(line for line in done.stdout.splitlines() if line.startswith(ORT.name))
    samples = [ms for block in result.blocks if block.variant == ORT.name for ms in block.wall_ms]
    assert row.split()[1:4] == [f"{np.percentile(samples, 50):.3f}", f"{np.percentile(samples, 90):.3f}", "66"]


def test_the_order_is_random_and_seeded(bench: Bench, bundle: Path) -> None:
    write_bundle(bundle, (ORT, TWIN))

    def order(seed: str) -> list[str]:
        assert bench("bundle", "--rounds", "12", "--seed", seed, "--no-predict").returncode == 0
        return [block.variant for block in measured(bundle).blocks]

    one = order("1")
    assert one == order("1")
    assert one != order("2")
    firsts = one[::2]
    assert 1 <= firsts.count(ORT.name) <= 11
    assert all({*one[start : start + 2]} == {ORT.name, TWIN.name} for start in range(0, 24, 2))


def test_a_p90_is_not_given_for_few_samples(bench: Bench, bundle: Path) -> None:
    write_bundle(bundle, (ORT, TWIN))
    done = bench("bundle", "--rounds", "2", "--no-predict", "--variant", TWIN.name)
    assert done.returncode == 0
    (one,) = measured(bundle).contestants
    assert (one.variant, one.logits) == (TWIN.name, None)
    assert "n < 64" in done.stdout


def test_seconds_cap_the_rounds_but_leave_enough_for_a_p90(bench: Bench, bundle: Path) -> None:
    write_bundle(bundle, (ORT,))
    assert bench("bundle", "--rounds", "100", "--seconds", "0", "--no-predict").returncode == 0
    assert measured(bundle).rounds == 11


def test_a_missing_runtime_stops_its_variant_only(bench: Bench, bundle: Path) -> None:
    write_bundle(bundle, (OV, ORT))
    done = bench("bundle", "--rounds", "1", "--no-predict", "--json", missing="openvino")
    assert done.returncode == 0
    ov, ort = measured(bundle).contestants
    assert (ov.error or "").startswith("pip install openvino (cannot import openvino")
    assert ort.error is None
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[0] == {"progress": 1, "total": 2, "doing": "loading", "variant": OV.name}
    assert lines[-1] == {"progress": 1, "total": 1, "doing": "latency", "variant": ORT.name}


def test_a_runner_that_dies_is_an_error_of_its_variant(bench: Bench, bundle: Path, scripts: Path) -> None:
    dying = ORT.model_copy(update={"name": "dying", "runner": "run_dying.py"})
    write_bundle(bundle, (dying, ORT))
    script = scripts / "run_dying.py"
    script.write_text(
        "import os, sys\nsys.stdin.readline()\nprint('too big', file=sys.stderr, flush=True)\nos.abort()\n"
    )
    try:
        assert bench("bundle", "--rounds", "1", "--no-predict").returncode == 0
    finally:
        script.unlink()
    dead, ort = measured(bundle).contestants
    assert dead.error == f"the runner was ended by signal {signal.SIGABRT.value} during load: too big"
    assert ort.error is None


def test_nothing_that_runs_is_still_a_measurement(bench: Bench, bundle: Path) -> None:
    write_bundle(bundle, (BROKEN,))
    assert bench("bundle").returncode == 0
    result = measured(bundle)
    assert (result.rounds, result.blocks, result.distinct_inputs) == (0, (), 0)


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda values: values.pop("variants"), "KeyError: 'variants'"),
        (lambda values: values.update(schema=9), "schema 9"),
        (lambda values: values["variants"].append(values["variants"][0]), "names that differ"),
        (lambda values: values["variants"][0].update(name="../up"), "'../up'"),
        (lambda values: values["variants"][0].update(runner="../run_ort.py"), "a runner is run_*.py"),
        (lambda values: values["profile"].update(threads="many"), "ValueError"),
    ],
)
def test_a_broken_bundle_is_one_line(
    bench: Bench, bundle: Path, change: Callable[[dict[str, object]], object], fragment: str
) -> None:
    values = json.loads(write_bundle(bundle, (ORT,)).model_dump_json())
    change(values)
    (bundle / "bundle.json").write_text(json.dumps(values))
    done = bench("bundle")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert fragment in done.stderr


@pytest.mark.parametrize(
    ("arguments", "fragment"),
    [
        (["absent"], "cannot read absent/bundle.json: No such file"),
        ([], "which bundle?"),
        (["bundle", "--rounds", "0"], "--rounds"),
        (["bundle", "--rounds", "x"], "--rounds"),
        (["bundle", "--variant", "x"], f"no variant x; it has: {ORT.name}"),
        (["bundle", "--frob"], "--frob"),
    ],
)
def test_wrong_usage_is_one_line(bench: Bench, bundle: Path, arguments: list[str], fragment: str) -> None:
    write_bundle(bundle, (ORT,))
    done = bench(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert fragment in done.stderr


def test_info_is_the_machine(bench: Bench) -> None:
    done = bench("--info")
    machine = parse(Machine, json.loads(done.stdout), "bench.py --info")
    assert 1 <= machine.usable_cores <= machine.cores
    assert os.uname().nodename not in machine.cpu + machine.system


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing(
    scripts: Path, bare: "Environment", bundle: Path, number: signal.Signals
) -> None:
    write_bundle(bundle, (ORT,))
    measurements = bundle / "measurements"
    measurements.mkdir()
    (measurements / "measurement.json").write_text("the one before")
    command = [sys.executable, str(scripts / "bench.py"), str(bundle), "--rounds", "1000000", "--json"]
    # Where pytest itself runs in a shell's background, SIGINT is ignored, and a child would inherit that.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, env=bare(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    signal.signal(signal.SIGINT, before)
    with process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["doing"] == "loading"
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        assert len(children) == 1
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130
    assert errors == "bench.py: interrupted, nothing was written\n"
    assert [path.name for path in measurements.iterdir()] == ["measurement.json"]
    assert (measurements / "measurement.json").read_text() == "the one before"
    assert not Path(f"/proc/{children[0]}").exists()


def test_runners_end_with_a_bench_that_is_killed(
    scripts: Path, bare: "Environment", bundle: Path, bench: Bench
) -> None:
    write_bundle(bundle, (ORT,))
    command = [sys.executable, str(scripts / "bench.py"), str(bundle), "--rounds", "1000000", "--json"]
    with subprocess.Popen(command, env=bare(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        process.stdout.readline()
        child = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().strip()
        process.kill()
    deadline = time.monotonic() + 5
    while Path(f"/proc/{child}/exe").exists() and time.monotonic() < deadline:  # a zombie's is gone
        time.sleep(0.02)
    assert not Path(f"/proc/{child}/exe").exists()
    # What it left behind, its lock too, is cleared by the next session.
    assert (bundle / "measurements" / ".lock").exists()
    assert bench("bundle", "--rounds", "1", "--no-predict").returncode == 0
    assert [path.name for path in (bundle / "measurements").iterdir()] == ["measurement.json"]


def test_two_sessions_do_not_meet(bench: Bench, bundle: Path) -> None:
    write_bundle(bundle, (ORT,))
    measurements = bundle / "measurements"
    measurements.mkdir()
    (measurements / ".lock").write_text(str(os.getpid()))  # this process runs, so the lock is not stale
    done = bench("bundle")
    assert done.returncode == 2
    assert f"is being measured by process {os.getpid()}" in done.stderr
    assert [path.name for path in measurements.iterdir()] == [".lock"]
