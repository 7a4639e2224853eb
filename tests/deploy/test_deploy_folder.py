"""BUNDLE/best/: complete, described, the same bytes every time, whole or not there."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from compressor.deploy import write_best
from compressor.errors import KdcError
from compressor.schema.base import read_json
from compressor.schema.manifest import Manifest, ModelInput
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.report import Estimate, Row

if TYPE_CHECKING:
    from tests.deploy.conftest import Tiny

ALWAYS = {
    "README.md", "classify.py", "classify_classes.py", "classify_files.py", "classify_images.py", "labels.txt",
    "manifest.json", "preprocess.json", "sbom.cdx.json",
}  # fmt: skip
NATIVE = {"classify.cpp", "classify_images.hpp", "preprocess.h", "CMakeLists.txt"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("onnxruntime-fp32", ALWAYS | NATIVE | {"model.onnx"}),
        ("openvino-f32", ALWAYS | {"model.xml", "model.bin"}),
    ],
)
def test_everything_is_there_and_listed_with_its_sum(tiny: "Tiny", name: str, expected: set[str]) -> None:
    write_best(tiny.folder, tiny.bundle, tiny.variant(name), why="the only one")
    found = contents(tiny.folder / "best")
    assert set(found) == expected
    manifest = read_json(tiny.folder / "best" / "manifest.json", Manifest)
    sums = {entry.path: (entry.sha256, entry.bytes) for entry in manifest.files}
    assert sums == {
        path: (hashlib.sha256(content).hexdigest(), len(content))
        for path, content in found.items()
        if path != "manifest.json"
    }
    assert found[manifest.model] == (tiny.folder / tiny.variant(name).model).read_bytes()
    assert found["labels.txt"].decode().split() == list("abcd")
    assert (manifest.variant, manifest.chosen, manifest.accuracy) == (name, "the only one", None)


def test_what_was_measured_is_told(tiny: "Tiny") -> None:
    accuracy = Estimate(value=0.847, low=0.84, high=0.854, n=10_000, of="test samples")
    row = Row.model_construct(runtime_version="1.32.0", executed_precision="fp32", accuracy=accuracy)
    write_best(tiny.folder, tiny.bundle, tiny.variant("onnxruntime-fp32"), row=row)
    best = tiny.folder / "best"
    manifest = read_json(best / "manifest.json", Manifest)
    assert (manifest.runtime_version, manifest.executed_precision, manifest.accuracy) == ("1.32.0", "fp32", accuracy)
    assert "84.70% (84.00% to 85.40%) top-1 of 10000 test samples" in (best / "README.md").read_text()
    sbom = json.loads((best / "sbom.cdx.json").read_text())
    assert sbom["components"][0]["purl"] == "pkg:pypi/onnxruntime@1.32.0"
    (metric,) = sbom["metadata"]["component"]["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert (metric["value"], metric["slice"]) == ("0.847000", "10000 test samples")


def test_the_same_bytes_wherever_the_bundle_lies(tiny: "Tiny", tmp_path: Path) -> None:
    moved = Path(shutil.copytree(tiny.folder, tmp_path / "elsewhere" / "bundle"))
    for folder in (tiny.folder, moved):
        write_best(folder, tiny.bundle, tiny.variant("onnxruntime-fp32"))
    first, second = (contents(folder / "best") for folder in (tiny.folder, moved))
    assert first == second
    for path, content in first.items():
        for trace in (str(tmp_path), str(Path.home()), sys.prefix):
            assert trace.encode() not in content, (path, trace)


def test_it_replaces_an_earlier_one_whole(tiny: "Tiny") -> None:
    write_best(tiny.folder, tiny.bundle, tiny.variant("onnxruntime-fp32"))
    write_best(tiny.folder, tiny.bundle, tiny.variant("openvino-f32"))
    assert set(contents(tiny.folder / "best")) == ALWAYS | {"model.xml", "model.bin"}
    assert not list(tiny.folder.glob(".*"))


def test_a_model_that_was_changed_is_refused_and_the_earlier_folder_stays(tiny: "Tiny") -> None:
    write_best(tiny.folder, tiny.bundle, tiny.variant("onnxruntime-fp32"))
    before = contents(tiny.folder / "best")
    (tiny.folder / "openvino-f32" / "model.bin").write_bytes(b"other weights")
    with pytest.raises(KdcError, match=r"model\.bin is not the file that was exported"):
        write_best(tiny.folder, tiny.bundle, tiny.variant("openvino-f32"))
    assert contents(tiny.folder / "best") == before
    assert not list(tiny.folder.glob(".*"))


def test_a_folder_that_cannot_be_written_is_an_error_in_one_line(tiny: "Tiny") -> None:
    (tiny.folder / "model.onnx").unlink()
    with pytest.raises(KdcError, match=r"while writing .*best"):
        write_best(tiny.folder, tiny.bundle, tiny.variant("onnxruntime-fp32"))
    assert not (tiny.folder / "best").exists()


def test_a_variant_that_is_built_on_the_device_brings_its_script(tiny: "Tiny") -> None:
    jetson = tiny.variant("onnxruntime-fp32").model_copy(
        update={"name": "tensorrt-fp16", "runtime": "tensorrt", "precision": "fp16", "build": "build_trt.py"}
    )
    write_best(tiny.folder, tiny.bundle, jetson)
    found = contents(tiny.folder / "best")
    assert set(found) == ALWAYS | NATIVE | {"model.onnx", "build_trt.py", "trt_cuda.py"}
    manifest = read_json(tiny.folder / "best" / "manifest.json", Manifest)
    assert (manifest.source, manifest.build, manifest.model) == ("model.onnx", "build_trt.py", "model.engine")
    assert b"python3 build_trt.py model.onnx --out model.engine" in found["README.md"]
    assert b'model_file = "model.engine"' in found["preprocess.h"]


def test_preprocess_json_says_all_that_preprocess_says(tiny: "Tiny") -> None:
    oblong = ImagePreprocess(
        input_size=(96, 128), resize=(100, 140), interpolation="bilinear", mean=(0.5, 0.4, 0.3), std=(0.25, 0.5, 0.2)
    )
    chosen = tiny.variant("onnxruntime-fp32").model_copy(update={"preprocess": oblong})
    batch = tiny.bundle.profile.model_copy(update={"batch": 2})
    write_best(tiny.folder, tiny.bundle.model_copy(update={"profile": batch}), chosen)
    given = read_json(tiny.folder / "best" / "preprocess.json", ModelInput)
    assert all(getattr(given, key) == value for key, value in oblong)
    assert (given.type, given.layout, given.shape) == ("float32", "NCHW", (2, 3, 96, 128))
    # By hand: (0 - 0.5) / 0.25 and (1 - 0.5) / 0.25, and so on.
    assert given.value_range == ((-2.0, 2.0), (-0.8, 1.2), (-1.5, 3.5))
    assert "height ≥ 100 and width ≥ 140" in given.steps[1]
    header = (tiny.folder / "best" / "preprocess.h").read_text()
    for line in ("int batch = 2;", "height = 96, width = 128;", "mean[3] = {0.5f, 0.4f, 0.3f};", "keep_aspect = true;"):
        assert line in header


def test_a_model_that_takes_pixels_is_described_so(tiny: "Tiny") -> None:
    baked = tiny.variant("onnxruntime-fp32").model_copy(update={"baked": True})
    write_best(tiny.folder, tiny.bundle, baked)
    given = read_json(tiny.folder / "best" / "preprocess.json", ModelInput)
    assert (given.name, given.type, given.layout, given.shape) == ("image", "uint8", "NHWC", (3, 16, 16, 3))
    assert set(given.value_range) == {(0.0, 255.0)}
    assert "takes_pixels = true" in (tiny.folder / "best" / "preprocess.h").read_text()


def test_nothing_heavy_is_imported() -> None:
    """The winner is chosen where a device was measured from, perhaps without torch and without any runtime."""
    heavy = {"torch", "timm", "transformers", "onnx", "onnxruntime", "openvino", "nncf", "executorch", "ai_edge_litert"}
    code = f"import compressor.deploy, json, sys; print(json.dumps(sorted({heavy} & set(sys.modules))))"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(ended.stdout) == []
