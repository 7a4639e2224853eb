"""What the scripts are as files: they travel alone, to old Pythons; and the images that they read."""

import ast
import re
import sys
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

if TYPE_CHECKING:
    from tests.targets.harness import LoadScript

TARGETS = Path(__file__).resolve().parents[2] / "targets"
SCRIPTS = sorted(TARGETS.glob("*.py"))
# What run_NAME, classify_NAME and build_NAME may import; Pillow reads the images that users have.
OWN_RUNTIME = {
    "ort": {"onnxruntime"},
    "ov": {"openvino"},
    "trt": {"tensorrt", "tensorrt_rtx"},
    "trt_rtx": {"tensorrt_rtx"},
    "et": {"executorch"},
    "litert": {"ai_edge_litert"},
    "images": {"PIL"},
    "tokens": {"tokenizers"},
    "texts_ort": {"onnxruntime"},
    "texts_ov": {"openvino"},
    "files": {"soundfile"},
    "sounds_ort": {"onnxruntime"},
    "sounds_ov": {"openvino"},
    "ort_genai": {"onnxruntime_genai"},
    "ov_genai": {"openvino_genai"},
}
ALL_RUNTIMES = set[str]().union(*OWN_RUNTIME.values())


@pytest.mark.parametrize("script", SCRIPTS, ids=[path.name for path in SCRIPTS])
def test_depends_on_nothing_that_does_not_travel(script: Path) -> None:
    kind, _, name = script.stem.partition("_")
    kinds = ("run", "classify", "generate", "build", "text", "sound")
    own = OWN_RUNTIME.get(name, set()) if kind in kinds else set()
    allowed = {*sys.stdlib_module_names, "numpy", *(path.stem for path in SCRIPTS), *own}
    tree = ast.parse(script.read_text(encoding="utf-8"), feature_version=(3, 9))
    # `if TYPE_CHECKING:` names the same scripts by their place in the checkout, and never runs.
    never = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and isinstance(branch.test, ast.Name) and branch.test.id == "TYPE_CHECKING"
        for statement in branch.body
        for node in ast.walk(statement)
    }
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and id(node) not in never
        for name in ([node.module or ""] if isinstance(node, ast.ImportFrom) else [one.name for one in node.names])
    }
    assert imported <= allowed
    if not script.name.startswith(("run", "classify", "generate", "text", "sound")):
        assert not imported & ({"numpy", "runner_common"} | (ALL_RUNTIMES - own))


def test_images_are_normalized_exactly(load: "LoadScript", tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 4, 6, 3), dtype=np.uint8)
    np.save(tmp_path / "x.npy", images)
    mean, std = np.array([0.1, 0.5, 0.9], np.float32), np.array([0.2, 0.3, 0.4], np.float32)
    batch = np.empty((3, 3, 4, 6), np.float32)
    with closing(load("runner_images").Images(str(tmp_path / "x.npy"), mean, std)) as read:
        read.fill(batch, [4, 0, 4])
    expected = ((images.astype(np.float32) / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(batch, expected[[4, 0, 4]])


@pytest.mark.parametrize("values", [np.zeros((2, 4, 4, 3), np.float32), np.zeros((2, 3, 4, 4), np.uint8)])
def test_other_arrays_are_no_images(
    load: "LoadScript", tmp_path: Path, values: np.ndarray[tuple[int, ...], np.dtype[np.generic]]
) -> None:
    np.save(tmp_path / "x.npy", values)
    images = load("runner_images")
    with pytest.raises(images.RequestError, match=r"expected uint8 \[N, H, W, 3\]"):
        images.Images(str(tmp_path / "x.npy"), [0, 0, 0], [1, 1, 1])


def test_precisions_that_differ_are_mixed(load: "LoadScript") -> None:
    mixed = load("runner_common").mixed
    assert mixed(["f32", "bf16", "f32"]) == "mixed bf16+f32"
    assert mixed(["f32", "f32"]) == "f32"


def test_the_readme_knows_every_script_and_operation(load: "LoadScript") -> None:
    readme = (TARGETS / "README.md").read_text(encoding="utf-8")
    operations = load("runner_process").operations
    kinds = load("runner_common").Session, load("runner_language").LanguageSession
    for name in [path.name for path in SCRIPTS] + [name for kind in kinds for name in operations(kind)]:
        assert re.search(rf"`{re.escape(name)}[` ]", readme), name
