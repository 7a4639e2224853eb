"""A bundle of a tiny net, as `write_best` finds one: files that match their sums, for onnxruntime and for OpenVINO."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from compressor.files.atomic import file_sha256
from compressor.schema.bundle import Bundle, FileEntry, Variant
from tests.targets.tiny_bundle import make_tiny, variant, write_bundle


@dataclass(frozen=True)
class Tiny:
    folder: Path
    bundle: Bundle

    def variant(self, name: str) -> Variant:
        return next(one for one in self.bundle.variants if one.name == name)


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny(tmp_path_factory.mktemp("models")).folder


@pytest.fixture
def tiny(models: Path, tmp_path: Path) -> Tiny:
    folder = Path(shutil.copytree(models, tmp_path / "bundle"))
    (folder / "openvino-f32").mkdir()
    for suffix in ("xml", "bin"):
        (folder / f"f32.{suffix}").rename(folder / "openvino-f32" / f"model.{suffix}")
    variants = (
        _with_files(folder, variant("onnxruntime-fp32", "onnxruntime", "fp32", "model.onnx"), ["model.onnx"]),
        _with_files(
            folder,
            variant("openvino-f32", "openvino", "f32", "openvino-f32/model.xml"),
            ["openvino-f32/model.bin", "openvino-f32/model.xml"],
        ),
    )
    return Tiny(folder, write_bundle(folder, variants))


def _with_files(folder: Path, one: Variant, paths: list[str]) -> Variant:
    entries = [
        FileEntry(path=path, sha256=file_sha256(folder / path), bytes=(folder / path).stat().st_size) for path in paths
    ]
    return one.model_copy(update={"files": tuple(entries)})
