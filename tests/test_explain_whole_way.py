"""--explain from the run to the report: layers timed and compared, files sealed, replaced and removed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compressor.measure.machine import this_machine
from compressor.profiles import write_new_profile
from compressor.report import check
from compressor.schema.base import read_json
from compressor.schema.explain import Explanation, LayerTimes
from compressor.schema.measurement import Measurement
from tests.kit import Ended, call

pytestmark = pytest.mark.slow
Kdc = Callable[..., Ended]
FAST = ("--rounds", 12, "--no-throughput", "--quiet")
INT8 = ("onnxruntime-int8", "openvino-int8")
VARIANTS = ("onnxruntime-fp32", "openvino-f32", *INT8)


@pytest.fixture(scope="module")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    targets = {"onnxruntime": ["fp32", "int8"], "openvino": ["f32", "int8"]}
    return write_new_profile("explained", tmp_path_factory.mktemp("profile"), this_machine(), targets)


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, student_run: Path, profile: Path) -> Path:
    out = tmp_path_factory.mktemp("explained") / "bundle"
    done = call("export", student_run, "--profile", profile, "--out", out, "--no-qat", "--explain", *FAST)
    assert done in (0, 1)
    return out


def explained(bundle: Path) -> dict[str, dict[str, Any]]:
    found = json.loads((bundle / "report.json").read_text())["explained"]
    return {kind: {row["variant"]: row for row in found[kind]} for kind in ("timed", "lost")}


def test_every_variant_is_timed_and_every_int8_one_compared(told: Path) -> None:
    check(told)
    report = explained(told)
    assert set(VARIANTS) <= set(report["timed"])
    assert set(report["lost"]) == set(INT8)
    for name in VARIANTS:
        row = report["timed"][name]
        assert row["missing"] is None
        assert row["calls_ms"]["n"] * row["each"] == 30
        assert row["of"] >= len(row["layers"]) > 5
        assert 0 < row["nodes_ms"]["median"] <= row["calls_ms"]["median"] * 1.05
        assert row["p50_ms"] is not None
        assert any(layer["precision"] for layer in row["layers"])
    for name in INT8:
        row = report["lost"][name]
        assert row["missing"] is None, row["missing"]
        assert row["split"] == "validation"
        assert row["n"] > 0
        assert row["of"] > 20
        # OpenVINO rounds the input, too, and on some processors nothing loses more.
        assert row["most"]["module"] or row["most"]["op"] == "Input"
        assert any(layer["module"] for layer in row["layers"])
        assert any(layer["precision"] == "int8" for layer in report["timed"][name]["layers"])


def test_layers_lead_back_to_the_students_modules(told: Path) -> None:
    report = explained(told)
    graph = read_json(told / "explain/onnxruntime-fp32.json", Explanation).graph
    modules = {layer.module for layer in graph if layer.op == "Conv"}
    assert None not in modules
    assert "conv_stem" in modules
    for name in VARIANTS:
        named = [module for layer in report["timed"][name]["layers"] for module in layer["modules"]]
        assert len(named) > len(report["timed"][name]["layers"]) / 2, name
        assert any("conv" in module for module in named), name
    assert any(layer["fused"] for layer in report["timed"]["openvino-f32"]["layers"])


def test_all_of_it_is_in_the_seal(told: Path) -> None:
    sums = (told / "SHA256SUMS").read_text()
    listed = {entry["path"] for entry in json.loads((told / "bundle.json").read_text())["support"]}
    for name in VARIANTS:
        assert f"  explain/{name}.json\n" in sums
        assert f"explain/{name}.json" in listed
        assert f"  measurements/{name}.layers.json\n" in sums
        read_json(told / f"measurements/{name}.layers.json", LayerTimes)
    assert "explain/onnxruntime-int8.node_data.json" in listed
    assert "explain/teacher-onnxruntime-fp32.json" in listed
    for name, content in (("report.md", "Why slow, why lost"), ("report.html", "Where the time goes")):
        assert content in (told / name).read_text(encoding="utf-8")


def test_measured_anew_without_it_the_times_go_and_the_losses_stay(told: Path, tmp_path: Path, kdc: Kdc) -> None:
    bundle = Path(shutil.copytree(told, tmp_path / "bundle"))
    before = (bundle / "explain/onnxruntime-int8.json").read_bytes()
    assert kdc("measure", bundle, *FAST).code in (0, 1)
    assert list((bundle / "measurements").glob("*.layers.json")) == []
    assert (bundle / "explain/onnxruntime-int8.json").read_bytes() == before
    report = explained(bundle)
    assert report["timed"] == {}
    assert set(report["lost"]) == set(INT8)
    check(bundle)
    assert kdc("measure", bundle, "--explain", *FAST).code in (0, 1)
    assert set(VARIANTS) <= set(explained(bundle)["timed"])
    check(bundle)


def test_exported_over_without_it_nothing_of_it_is_left(
    told: Path, tmp_path: Path, student_run: Path, profile: Path, kdc: Kdc
) -> None:
    bundle = Path(shutil.copytree(told, tmp_path / "bundle"))
    asked = (
        "export",
        student_run,
        "--profile",
        profile,
        "--out",
        bundle,
        "--overwrite",
        "--target",
        "onnxruntime-fp32",
    )
    ended = kdc(*asked, *FAST)
    assert ended.code in (0, 1), ended.err
    assert not (bundle / "explain").exists()
    assert list((bundle / "measurements").glob("*.layers.json")) == []
    report = json.loads((bundle / "report.json").read_text())
    assert report["explained"] is None
    measured = read_json(bundle / "measurements/measurement.json", Measurement)
    assert {row.layers for row in measured.contestants} == {None}
    check(bundle)


def test_the_summary_names_the_slowest_layer_and_the_one_that_loses_most(told: Path, kdc: Kdc) -> None:
    done = kdc("report", told)
    said = " ".join(done.out.split())
    assert "layers slowest of " in said
    assert "most is lost by " in said
