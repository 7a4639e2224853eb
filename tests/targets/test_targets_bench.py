"""bench.py end to end on a tiny bundle, as a plain script in a bare environment."""

import hashlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from tests.targets.harness import Bench, LoadScript, StartBench, assembled, gone
    from tests.targets.tiny_bundle import BATCH, IMAGES, Tiny, stub, variant, write_bundle
else:
    from harness import assembled, gone
    from tiny_bundle import BATCH, IMAGES, stub, variant, write_bundle

from compressor.schema.base import parse, read_json
from compressor.schema.measurement import Machine, Measurement

ORT = variant("onnxruntime-fp32", "onnxruntime", "fp32", "model.onnx")
OV = variant("openvino-f16", "openvino", "f16", "f16.xml")
BROKEN = variant("broken", "onnxruntime", "fp32", "broken.onnx")
A, B = stub("a"), stub("b")
SHORT = ("--window", "0.05")
LATENCY = ("--no-predict", "--no-throughput")


def measured(bundle: Path) -> Measurement:
    return read_json(bundle / "measurements" / "measurement.json", Measurement)


def test_measures_a_bundle(bench: "Bench", bundle: Path, scripts: Path, tiny: "Tiny") -> None:
    write_bundle(bundle, (ORT, OV, BROKEN), threads=2)
    done = bench("bundle", "--rounds", "3", "--seed", "5", "--json", *SHORT)
    assert (done.returncode, done.stderr) == (0, "")
    events = [json.loads(line) for line in done.stdout.splitlines()]
    result = measured(bundle)
    assert assembled(events) == result
    assert "state" in events[-1]
    assert any(event.get("warning", "").startswith("broken: ") for event in events)
    assert (result.batch, result.block_length, result.block_dropped) == (BATCH, 8, 2)
    assert (len(result.rounds), result.seed, result.distinct_inputs) == (3, 5, IMAGES)
    assert result.started <= result.finished
    assert result.with_throughput

    ort, again, ov, broken = result.contestants
    assert [one.variant for one in result.contestants] == [ORT.name, f"{ORT.name}-again", OV.name, BROKEN.name]
    assert (again.copy_of, again.throughput, again.logits, again.error) == (ORT.name, (), None, None)
    assert (ort.executed_precision, again.executed_precision, ov.executed_precision) == ("fp32", "fp32", "f32")
    assert broken.error
    assert (broken.starts, broken.logits) == ((), None)
    for one in (ort, again, ov):
        assert (one.error, len(one.starts)) == (None, 3)
        assert all(start.start_ms > start.load_ms + start.first_ms > 0 for start in one.starts)
        assert one.peak_rss_mb > one.idle_rss_mb  # type: ignore[operator]
    for one in (ort, ov):
        logits = bundle / "measurements" / f"{one.variant}.npy"
        assert (one.copy_of, one.logits) == (None, logits.name)
        assert one.logits_sha256 == hashlib.sha256(logits.read_bytes()).hexdigest()
        np.testing.assert_allclose(np.load(logits), tiny.logits, atol=2e-3)
        assert [(way.streams, way.threads, len(way.windows)) for way in one.throughput] == [(1, 2, 6), (2, 1, 6)]
        assert all(window.seconds >= 0.05 for way in one.throughput for window in way.windows)
        assert sum(window.calls for way in one.throughput for window in way.windows) > 0

    assert {block.variant for block in result.blocks} == {ORT.name, again.variant, OV.name}
    for block in result.blocks:
        assert (len(block.dropped_ms), len(block.wall_ms), len(block.cpu_ms)) == (2, 6, 6)
        assert min(block.dropped_ms + block.wall_ms) > 0
    assert [block.round for block in result.blocks] == [number for number in range(3) for _ in range(3)]
    names = {path.name for path in (bundle / "measurements").iterdir()}
    assert names == {"measurement.json", f"{ORT.name}.npy", f"{OV.name}.npy"}
    assert not (scripts / "__pycache__").exists()  # compiled scripts would carry this machine's paths in the bundle


def test_people_get_a_table(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (A, stub("broken", "load!")))
    done = bench("bundle", "--rounds", "11", "--no-throughput")
    assert not measured(bundle).with_throughput
    assert (done.returncode, done.stderr) == (0, "broken: no load\n")
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line}
    samples = [ms for block in measured(bundle).blocks if block.variant == "a" for ms in block.wall_ms]
    assert rows["a"] == [f"{np.percentile(samples, 50):.3f}", f"{np.percentile(samples, 90):.3f}", "66", "fp32"]
    assert rows["broken"] == ["not", "measured:", "no", "load"]
    assert "{" not in done.stdout
    assert bench("bundle", "--rounds", "1", *LATENCY).stdout.count("n < 64") == 2  # too few for a p90


def test_blocks_may_have_another_length(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (A,))
    assert bench("bundle", "--rounds", "1", "--block-length", "3", *LATENCY).returncode == 0
    result = measured(bundle)
    assert result.block_length == 3
    assert [(block.dropped_ms, block.wall_ms) for block in result.blocks] == [((0, 1), (2,))] * 2


def test_the_order_is_random_and_seeded(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (A, B))

    def order(seed: str) -> list[str]:
        assert bench("bundle", "--rounds", "12", "--seed", seed, *LATENCY).returncode == 0
        return [block.variant for block in measured(bundle).blocks]

    one = order("1")
    assert one == order("1")
    assert one != order("2")
    rounds = [tuple(one[start : start + 3]) for start in range(0, 36, 3)]
    assert all(set(order) == {"a", "a-again", "b"} for order in rounds)
    assert len(set(rounds)) > 2


def test_only_the_variants_named_are_measured(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (A, B), reference="b")

    def names(*variants: str) -> list[str]:
        assert bench("bundle", "--rounds", "1", "--variant", *variants, *LATENCY).returncode == 0
        return [one.variant for one in measured(bundle).contestants]

    assert names("a") == ["a"]
    assert names("b") == ["b", "b-again"]
    assert names("b", "a") == ["a", "b", "b-again"]


def test_seconds_cap_the_rounds_but_leave_enough_for_a_p90(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (A,))
    assert bench("bundle", "--rounds", "100", "--seconds", "0", *LATENCY).returncode == 0
    assert [one.number for one in measured(bundle).rounds] == list(range(11))


def test_a_runner_that_dies_is_an_error_of_its_variant(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (A, stub("dying", "load!!"), stub("refusing", "memory!")))
    assert bench("bundle", "--rounds", "1", *LATENCY).returncode == 0
    a, again, dead, refused = measured(bundle).contestants
    assert dead.error == f"its process died (signal {signal.SIGABRT.value}) during load: too big"
    assert (refused.error, refused.starts, refused.executed_precision) == ("no memory", (), None)
    assert (a.error, again.error) == (None, None)
    assert {block.variant for block in measured(bundle).blocks} == {"a", "a-again"}


def test_nothing_that_runs_is_still_a_measurement(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (stub("broken", "load!"),))
    done = bench("bundle")
    assert (done.returncode, done.stderr) == (0, "broken: no load\nbroken-again: no load\n")
    result = measured(bundle)
    assert (result.rounds, result.blocks, result.distinct_inputs) == ((), (), 0)


def test_without_a_runtime_to_be_judged_nothing_is_measured(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (ORT, OV))
    done = bench("bundle", missing="openvino")
    assert done.returncode == 4
    assert done.stderr.startswith("pip install openvino (cannot import openvino")
    assert done.stderr.count("\n") == 1
    assert not list((bundle / "measurements").iterdir())


def test_without_the_reference_s_runtime_the_others_are_measured(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (variant("ref", "openvino", "f16", "f16.xml", "reference"), A))
    done = bench("bundle", "--rounds", "1", "--json", *LATENCY, missing="openvino")
    assert done.returncode == 0
    reference, again, a = measured(bundle).contestants
    assert (reference.error or "").startswith("pip install openvino (cannot import openvino")
    assert (again.error, a.error) == (reference.error, None)


def test_without_numpy_nothing_is_measured(bench: "Bench", bundle: Path) -> None:
    write_bundle(bundle, (ORT,))
    done = bench("bundle", missing="numpy")
    assert done.returncode == 4
    assert done.stderr == "pip install numpy (cannot import numpy: No module named 'numpy')\n"


@pytest.mark.parametrize(
    ("change", "fragment"),
    [
        (lambda values: values.pop("variants"), "KeyError: 'variants'"),
        (lambda values: values.update(schema=1), "schema 1, this script reads schema 2"),
        (lambda values: values["variants"].append(values["variants"][0]), "names that differ"),
        (lambda values: values["variants"][0].update(name="../up"), "'../up'"),
        (lambda values: values["variants"][0].update(runner="../run_ort.py"), "a runner is run_*.py"),
        (lambda values: values["profile"].update(threads="many"), "ValueError"),
        (lambda values: values.update(reference="c"), "the reference 'c' is no variant"),
        (lambda values: values["variants"].append({**values["variants"][0], "name": "a-again"}), "'a-again' is one"),
    ],
)
def test_a_broken_bundle_is_one_line(
    bench: "Bench", bundle: Path, change: Callable[[dict[str, object]], object], fragment: str
) -> None:
    values = json.loads(write_bundle(bundle, (A,)).model_dump_json())
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
        (["bundle", "--wait", "-1"], "--wait"),
        (["bundle", "--first-round", "-1"], "--first-round"),
        (["bundle", "--block-length", "2"], "at least 3"),
        (["bundle", "--ask"], "need --json"),
        (["bundle", "--out", "."], "need --json"),
        (["bundle", "--json", "--out", "absent"], "--out absent: there is no such folder"),
        (["bundle", "--variant", "x"], "no variant x; it has: a"),
        (["bundle", "--frob"], "--frob"),
    ],
)
def test_wrong_usage_is_one_line(bench: "Bench", bundle: Path, arguments: list[str], fragment: str) -> None:
    write_bundle(bundle, (A,))
    done = bench(*arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert fragment in done.stderr


@pytest.mark.parametrize("missing", ["", "numpy"])
def test_info_is_the_machine(bench: "Bench", missing: str) -> None:
    done = bench("--info", missing=missing)
    machine = parse(Machine, json.loads(done.stdout), "bench.py --info")
    assert 1 <= machine.usable_cores <= machine.cores
    assert machine.affinity == tuple(sorted(os.sched_getaffinity(0)))
    assert os.uname().nodename not in done.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_nothing(begin: "StartBench", bundle: Path, number: signal.Signals) -> None:
    write_bundle(bundle, (ORT,))
    measurements = bundle / "measurements"
    measurements.mkdir()
    (measurements / "measurement.json").write_text("the one before")
    session = begin("bundle", "--rounds", "1000000")
    session.until("round")
    runners = session.runners()
    assert len(runners) == 2
    session.process.send_signal(number)
    assert session.end() == (130, "bench.py: interrupted, nothing was written\n")
    assert [path.name for path in measurements.iterdir()] == ["measurement.json"]
    assert (measurements / "measurement.json").read_text() == "the one before"
    assert all(gone(pid, 0) for pid in runners)


def test_what_a_killed_bench_left_is_cleared(begin: "StartBench", bundle: Path, bench: "Bench") -> None:
    write_bundle(bundle, (ORT,))
    session = begin("bundle", "--rounds", "1000000")
    session.until("round")
    runners = session.runners()
    session.process.kill()
    session.process.wait()
    assert len(runners) == 2
    assert all(gone(pid) for pid in runners)
    (left,) = (bundle / "measurements").iterdir()
    assert left.name.startswith(".kdc-tmp.session-")
    assert bench("bundle", "--rounds", "1", *LATENCY).returncode == 0
    assert [path.name for path in (bundle / "measurements").iterdir()] == ["measurement.json"]


def test_what_a_session_before_left_goes_with_it(
    load: "LoadScript", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its layer times would be sealed in, though no measurement names them."""
    script = load("bench_session")
    monkeypatch.setattr(script.signal, "signal", lambda *_: None)
    folder = tmp_path / "measurements" / ".kdc-tmp.session-1"
    folder.mkdir(parents=True)
    for name in ("old.npy", "old.layers.json", "new.npy"):
        (folder.parent / name).write_text("before")
    (folder / "new.npy").write_text("now")
    (folder.parent / "notes.txt").write_text("the user's")
    path = script.publish({"contestants": [{"logits": "new.npy", "layers": None}, {"error": "gone"}]}, folder)
    assert sorted(each.name for each in folder.parent.iterdir() if each.is_file()) == [
        "measurement.json", "new.npy", "notes.txt",
    ]  # fmt: skip
    assert (folder.parent / "new.npy").read_text() == "now"
    assert json.loads(path.read_text())["contestants"][1] == {"error": "gone"}
