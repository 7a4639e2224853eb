"""`kdc measure` on this machine, to the end: what a measurement says belongs to the files that it ran."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.chain_bundle import NAME, write_chain_bundle
from compressor.measure.machine import this_machine
from compressor.report import seal
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from compressor.schema.measurement import Measurement
from compressor.schema.profile import Budget
from compressor.schema.report import Report
from tests.kit import Ended, attach

Kdc = Callable[..., Ended]
QUICK = ("--rounds", 11, "--no-throughput", "--quiet")


@pytest.fixture
def bundles(tmp_path: Path) -> dict[str, Path]:
    """Sealed bundles of chains of 2, 3 and 4 convolutions, the first with a budget that it holds."""
    found = {name: tmp_path / name for name in ("new", "old", "older")}
    for blocks, place in enumerate(found.values(), 2):
        write_chain_bundle(place, blocks, 1, Budget(p50_ms=1000, max_slowdown=5), this_machine())
        seal(place)
    return found


def test_a_baseline_that_was_not_measured_is_not_judged_by_another_ones_samples(
    kdc: Kdc, bundles: dict[str, Path]
) -> None:
    done = kdc("measure", bundles["new"], "--baseline", bundles["old"], *QUICK)
    assert done.code == 0, done.err
    told = read_json(bundles["new"] / "measurements" / "measurement.json", Measurement)
    variants = {one.name: one.artefact_sha256 for one in read_json(bundles["new"] / "bundle.json", Bundle).variants}
    assert len(set(variants.values())) == 2
    assert all(one.artefact_sha256 == variants[one.copy_of or one.variant] for one in told.contestants)
    # As an interrupted `kdc measure --baseline older` leaves it.
    attach(bundles["new"], bundles["older"])
    seal(bundles["new"])
    refused = kdc("check", bundles["new"])
    assert refused.code == 2
    assert f"measures other files of baseline-{NAME} than those that bundle.json lists" in refused.err
    assert "kdc measure" in refused.err
    assert kdc("measure", bundles["new"], *QUICK).code == 0


def test_a_baseline_that_was_changed_is_refused_before_anything_is_done(kdc: Kdc, bundles: dict[str, Path]) -> None:
    before = (bundles["new"] / "bundle.json").read_bytes()
    (bundles["old"] / "model.onnx").write_bytes(b"another")
    done = kdc("measure", bundles["new"], "--baseline", bundles["old"], *QUICK)
    assert done.code == 2
    assert "model.onnx was changed" in done.err
    assert (bundles["new"] / "bundle.json").read_bytes() == before


def test_a_bundle_that_was_changed_before_it_was_sealed_is_not_run(kdc: Kdc, bundles: dict[str, Path]) -> None:
    place = bundles["new"]
    (place / "SHA256SUMS").unlink()  # as an interrupted export leaves it
    assert kdc("measure", place, *QUICK).code == 3
    (place / "SHA256SUMS").unlink()
    runner, model = place / "runners" / "run_ort.py", place / "model.onnx"
    for changed in (runner, model, place / "runners" / "numpy.py"):
        before = changed.read_bytes() if changed.exists() else None
        changed.write_bytes((before or b"") + b"# edited")
        refused = kdc("measure", place, *QUICK)
        assert refused.code == 2
        assert changed.name in refused.err
        assert not (place / "SHA256SUMS").exists()
        if before is None:
            changed.unlink()
        else:
            changed.write_bytes(before)


def test_measuring_again_replaces_a_damaged_measurement(kdc: Kdc, bundles: dict[str, Path]) -> None:
    place = bundles["old"]
    assert kdc("measure", place, *QUICK).code == 3
    (place / "measurements" / "measurement.json").write_text("{")
    assert kdc("check", place).code == 2
    assert kdc("measure", place, *QUICK).code == 3
    assert kdc("check", place).code == 3


def test_a_lone_interpreter_is_for_devices(kdc: Kdc, tmp_path: Path) -> None:
    for command in (("doctor",), ("measure", tmp_path)):
        done = kdc(*command, "--device-python", tmp_path / "python")
        assert done.code == 2
        assert "there is no --device" in done.err


def test_a_measurement_of_another_model_is_refused(kdc: Kdc, bundles: dict[str, Path]) -> None:
    """The model was exchanged after the measurement, and everything sealed again."""
    place = bundles["new"]
    assert kdc("measure", place, *QUICK).code == 3  # max_slowdown, without a baseline
    stale = (place / "measurements" / "measurement.json").read_bytes()
    shutil.copyfile(bundles["old"] / "bundle.json", place / "bundle.json")
    for name in ("model.onnx", "eval/reference.npy", "eval/labels.npy"):
        shutil.copyfile(bundles["old"] / name, place / name)
    (place / "measurements" / "measurement.json").write_bytes(stale)
    seal(place)
    refused = kdc("report", place)
    assert refused.code == 2
    assert f"other files of {NAME}" in refused.err


def test_a_baseline_with_another_test_set_races_and_is_compared_on_what_both_have(
    kdc: Kdc, bundles: dict[str, Path], tmp_path: Path
) -> None:
    """32 images before; now 36, of which 24 are among them. The very same model: nothing is lost, whatever the new
    images do; and the baseline's latency is measured on its own images."""
    old, new = bundles["old"], bundles["new"]
    assert kdc("measure", old, *QUICK).code == 3  # max_slowdown, without a baseline
    budget = Budget(max_slowdown=5, max_accuracy_loss=0.2, max_negative_flips=0.3, max_growth=1.0)
    write_chain_bundle(new, 3, 1, budget, this_machine(), range(8, 44))
    seal(new)
    done = kdc("measure", new, "--baseline", old, *QUICK)
    assert done.code == 0, done.err + done.out
    assert "24 test samples that both have, of 36" in done.out
    report = read_json(new / "report.json", Report)
    assert report.release is not None
    assert (report.release.shared, report.release.added, report.release.removed) == (24, 12, 8)
    [diff] = report.release.variants
    assert (diff.predictions, diff.negative_flips is not None and diff.negative_flips.value) == ("stored", 0.0)
    assert {change.figure for change in diff.changes} == {"size_bytes", "p50_ms", "accuracy", "balanced_accuracy"}
    assert {check.verdict for check in report.checks if check.line.startswith("max_")} == {"pass"}
    assert kdc("check", new, "--baseline", old).code == 0
    release = tmp_path / "release.json"
    assert kdc("report", old, "--format", "release", "--out", release).code == 0
    again = kdc("measure", new, "--baseline", release, *QUICK)
    assert (again.code, "the baseline did not race in this session" in again.out) == (3, True)
