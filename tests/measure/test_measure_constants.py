"""What `kdc profiles new` measures: constants from times by hand, refusals, and a real call."""

import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest

from compressor.errors import KdcError
from compressor.measure import constants as module
from compressor.measure.constants import Constants, crowded, facts_of, measure_constants
from compressor.profiles import load_profile, write_new_profile
from tests.kit import MACHINE

CONSTANTS = Constants(threads=2, core_gflops={"fp32": 98.04, "int8": 401.2}, bandwidth_gbs=31.09, layer_overhead_us=0.8)


def answers(times: dict[str, Sequence[float]]) -> str:
    """What the runner answers: three lines a model, model after model, round after round."""
    rounds = len(next(iter(times.values())))
    lines = []
    for number in range(rounds):
        for series in times.values():
            lines += [{"ok": True}, {"ok": True}, {"ok": True, "wall_ms": [series[number] + 1, series[number]]}]
    return "\n".join(map(json.dumps, lines))


def test_constants_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """The fastest call of all rounds counts."""
    asked: list[str] = []

    def run(script: str, arguments: Sequence[str], stdin: str) -> str:
        asked.extend(stdin.splitlines())
        return answers(
            {"fp32": [9, 10, 9, 9, 9], "int8": [3, 2, 3, 3, 3], "copy": [9, 9, 9, 9, 4], "chain": [0.5, 0.6, 0.6, 1, 1]}
        )

    monkeypatch.setattr(module, "run_script", run)
    found = measure_constants(2)
    # 512 * 1024 * 1024 multiply-accumulates, two operations each, in 9 ms on two threads; 2^24 values of 4 bytes are
    # read and as many written in 4 ms; 200 layers take 0.5 ms.
    assert found.core_gflops == pytest.approx({"fp32": 2**30 / 9e6 / 2, "int8": 2**30 / 2e6 / 2})
    assert found.bandwidth_gbs == pytest.approx(2**27 / 4e6)
    assert found.layer_overhead_us == pytest.approx(2.5)
    loads = [line for line in map(json.loads, asked) if line["op"] == "load"]
    assert [Path(line["model"]).stem for line in loads[:4]] == ["fp32", "int8", "copy", "chain"]
    assert len(loads) == 20
    assert {line["threads"] for line in loads} == {2}


@pytest.mark.parametrize(
    "answer", ['{"ok": false, "kind": "failed", "message": "out of memory"}', "out of memory", '["out of memory"]']
)
def test_what_the_runner_cannot_do_is_an_error(monkeypatch: pytest.MonkeyPatch, answer: str) -> None:
    monkeypatch.setattr(module, "run_script", lambda *_: answer)
    with pytest.raises(KdcError, match=r"could not measure this machine: .*out of memory"):
        measure_constants(1)


def test_facts_say_how_and_when(tmp_path: Path) -> None:
    def facts(threads: int) -> dict[str, object]:
        assert threads == 3  # the profile's, as it was asked for
        return facts_of(CONSTANTS, date(2026, 1, 2))

    available = {"onnxruntime": ["fp32"]}
    asked = ["threads=3", "device.bandwidth_gbs={value: 17, source: 'derived: a datasheet'}"]
    path = write_new_profile("box", tmp_path, MACHINE, available, asked, facts=facts)
    device = load_profile(str(path)).device
    assert device.core_gflops is not None
    assert device.core_gflops.value == {"fp32": 98.0, "int8": 401.0}
    assert device.core_gflops.source == (
        "measured: a product of 512x1024 and 1024x1024 in onnxruntime, 2 threads, the fastest of 50 calls, 2026-01-02, "
        "/ threads"
    )
    assert device.layer_overhead_us is not None
    assert device.layer_overhead_us.value == 0.8
    assert device.bandwidth_gbs is not None
    assert device.bandwidth_gbs.value == 17  # what was asked for stays


def test_a_refused_profile_measures_nothing(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="threads"):
        write_new_profile(
            "box", tmp_path, MACHINE, {"onnxruntime": ["fp32"]}, ["threads=0"], facts=lambda _: pytest.fail("measured")
        )


@pytest.mark.parametrize(
    ("value", "told"),
    [("{fp32: 0}", "core_gflops.fp32 must be from 0.001"), ("{fp64: 10}", "fp64"), ("{fp32: fast}", "number")],
)
def test_peaks_that_cannot_be_are_refused(value: str, told: str) -> None:
    with pytest.raises(KdcError, match=told):
        load_profile("raspberry-pi-5", [f"device.core_gflops.value={value}"])


def test_a_busy_machine_is_told() -> None:
    assert crowded(MACHINE) == ""
    assert crowded(MACHINE.model_copy(update={"load_1m": 2.0})) == ""  # of 4 cores
    assert "load 2.1 on 4 cores" in crowded(MACHINE.model_copy(update={"load_1m": 2.1}))


@pytest.mark.slow
def test_this_machine() -> None:
    """Within what machines are, from a phone's to a server's, however busy."""
    found = measure_constants(1)
    assert 0.1 < found.core_gflops["fp32"] < 2_000
    assert 0.1 < found.core_gflops["int8"] < 20_000
    assert 0.1 < found.bandwidth_gbs < 2_000
    assert 0.05 < found.layer_overhead_us < 1_000
