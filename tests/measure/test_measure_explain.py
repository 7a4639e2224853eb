"""`kdc measure --explain`, here and on a device behind a real sshd."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.chain_bundle import NAME, write_chain_bundle
from compressor.measure.machine import this_machine
from compressor.report import build_report, check, seal
from compressor.schema.base import read_json
from compressor.schema.explain import LayerTimes
from compressor.schema.measurement import Measurement
from compressor.schema.profile import Budget
from tests.kit import Ended

pytestmark = pytest.mark.slow
Kdc = Callable[..., Ended]
QUICK = ("--rounds", 11, "--no-throughput", "--quiet")


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    folder = tmp_path / "bundle"
    write_chain_bundle(folder, 3, 1, Budget(p50_ms=1000, size_mb=10), this_machine())
    seal(folder)
    return folder


def times(bundle: Path) -> LayerTimes:
    [ours, again] = read_json(bundle / "measurements/measurement.json", Measurement).contestants
    assert ours.layers == f"{NAME}.layers.json"
    assert again.layers is None
    return read_json(bundle / "measurements" / ours.layers, LayerTimes)


def holds_three_convolutions(bundle: Path) -> None:
    heavy = [node for node in times(bundle).nodes if "Conv" in node.op]
    assert len(heavy) == 3
    assert {len(node.us) for node in heavy} == {30}
    told = build_report(bundle).explained
    assert told is not None
    assert told.timed[0].layers[0].op == heavy[0].op
    assert told.lost == ()
    check(bundle)


def test_here(kdc: Kdc, bundle: Path) -> None:
    assert kdc("measure", bundle, "--explain", *QUICK).code == 0
    holds_three_convolutions(bundle)
    assert kdc("measure", bundle, *QUICK).code == 0
    assert build_report(bundle).explained is None
    assert not (bundle / "measurements" / f"{NAME}.layers.json").exists()


@pytest.mark.usefixtures("ssh_client")
def test_over_ssh(kdc: Kdc, bundle: Path, tmp_path: Path) -> None:
    there = tmp_path / "there"
    done = kdc(
        "measure", bundle, "--explain", "--device", f"ssh://board{there}", "--device-python", sys.executable, *QUICK
    )
    assert done.code == 0, done.err
    assert read_json(bundle / "measurements/measurement.json", Measurement).device == "ssh"
    holds_three_convolutions(bundle)


@pytest.mark.usefixtures("ssh_client")
def test_on_several_devices(kdc: Kdc, bundle: Path, tmp_path: Path) -> None:
    there = f"board=ssh://board{tmp_path / 'there'}"
    both = ("--device", "here=local", "--device", there, "--device-python", sys.executable)
    done = kdc("measure", bundle, "--explain", *both, *QUICK)
    assert done.code == 0, done.err
    assert kdc("check", bundle, "--quiet").code == 0
    for name in ("here", "board"):
        folder = bundle / "devices" / name
        assert (folder / "measurements" / f"{NAME}.layers.json").is_file()
        told = json.loads((folder / "report.json").read_text())["explained"]
        assert [row["variant"] for row in told["timed"]] == [NAME]
        assert told["timed"][0]["missing"] is None
    changed = bundle / "devices/board/measurements" / f"{NAME}.layers.json"
    changed.write_text(changed.read_text().replace("onnxruntime", "another"))
    refused = kdc("check", bundle)
    assert refused.code == 2
    assert f"devices/board/measurements/{NAME}.layers.json was changed" in refused.err
    assert kdc("measure", bundle, *both, *QUICK).code == 0
    assert list((bundle / "devices").rglob("*.layers.json")) == []
