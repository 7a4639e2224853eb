"""The example programs of the phones' runtimes, on a net that was really converted for them."""

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from compressor.deploy import write_best
from compressor.export.base import Source
from compressor.files.atomic import file_sha256
from compressor.profiles import load_profile
from compressor.schema.bundle import FileEntry
from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.image_classification.stored import StoredImages
from tests.forked import python

if TYPE_CHECKING:
    from tests.deploy.conftest import Tiny


@pytest.fixture(scope="module")
def source() -> Source:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    how = ImagePreprocess(input_size=(16, 16), resize=(16, 16), mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    images = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), dtype=np.uint8)
    return Source(network.eval(), Path("unused.onnx"), how, StoredImages(images, how), load_profile("x86-avx2"))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the converters' own
@pytest.mark.parametrize(
    ("runtime", "module"), [("litert", "litert_torch"), ("executorch", "executorch")], ids=["litert", "executorch"]
)
def test_the_program_prints_what_torch_answers(
    tiny: "Tiny", source: Source, tmp_path: Path, runtime: str, module: str
) -> None:
    pytest.importorskip(module)
    from compressor.export.mobile.executorch_pte import to_executorch
    from compressor.export.mobile.litert_tflite import to_litert

    convert = {"litert": to_litert, "executorch": to_executorch}[runtime]
    model = convert(source, "fp32", tiny.folder / f"{runtime}-fp32").model
    path = model.relative_to(tiny.folder).as_posix()
    entry = FileEntry(path=path, sha256=file_sha256(model), bytes=model.stat().st_size)
    update = {"runtime": runtime, "model": path, "files": (entry,), "preprocess": source.preprocess}
    profile = tiny.bundle.profile.model_copy(update={"batch": 1})
    bundle = tiny.bundle.model_copy(update={"profile": profile})
    write_best(tiny.folder, bundle, tiny.variant("onnxruntime-fp32").model_copy(update=update))
    assert isinstance(source.calibration, StoredImages)
    for begin, image in zip(([sys.executable], python()), source.calibration.pixels, strict=True):
        Image.fromarray(image).save(tmp_path / "it.png")
        command = [*begin, str(tiny.folder / "best" / "classify.py"), str(tmp_path / "it.png")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
        assert ended.returncode == 0, ended.stderr
        with torch.no_grad():
            logits = source.network((torch.from_numpy(image).permute(2, 0, 1)[None] / 255 - 0.5) / 0.25)
        shares = torch.softmax(logits[0], dim=0)
        rows = [line.split() for line in ended.stdout.splitlines()]
        assert [label for _, label in rows] == ["abcd"[int(at)] for at in shares.argsort(descending=True)]
        found = [float(share.rstrip("%")) / 100 for share, _ in rows]
        np.testing.assert_allclose(found, shares.sort(descending=True).values, atol=1e-4)
