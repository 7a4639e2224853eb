"""ExecuTorch: the same answers as torch, int8 where it says so, the same bytes twice, and every rung."""

import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

if TYPE_CHECKING:
    from tests.export import mobile_kit as kit
else:
    import mobile_kit as kit

from compressor.errors import EXIT_MISSING, KdcError
from compressor.export.base import QatModel
from compressor.export.bundle.sizes import weight_bytes
from compressor.export.mobile.executorch_pte import EXECUTORCH, to_executorch
from compressor.export.mobile.sizes import pte_constants
from compressor.export.mobile.torch_rounding import rounded
from compressor.install import install_line
from compressor.processes.runner import open_runner
from compressor.progress import Silent
from compressor.quantization.fake_quant import add_fake_quant
from compressor.schema.quantization import Scheme

pytest.importorskip("executorch")

WEIGHTS = 3 * 8 * 9 + 8 * 9 + 2 * 8 * 4 + 8 * kit.CLASSES
BIASES = 8 + 8 + 4 + 8 + kit.CLASSES


def executed(model: Path) -> str:
    with open_runner("executorch") as runner:
        runner.ask("load", model=str(model), threads=1, precision="fp32")
        return str(runner.ask("executed")["executed_precision"])


@pytest.fixture(scope="module")
def fp32(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return to_executorch(kit.source(batch=2), "fp32", tmp_path_factory.mktemp("fp32") / "new").model


@pytest.mark.slow
def test_answers_as_torch_does(fp32: Path, tmp_path: Path) -> None:
    judge = kit.judge(tmp_path, batch=2)
    found = judge.logits(fp32, "executorch", "fp32", 64)
    np.testing.assert_allclose(found, kit.logits(kit.images(1, 64)), atol=1e-5)
    assert executed(fp32) == "fp32"
    stored = weight_bytes(pte_constants(fp32))
    assert stored["float32"] >= 4 * (WEIGHTS + BIASES)
    assert "int8" not in stored


@pytest.mark.slow
def test_the_same_bytes_twice_nothing_of_this_machine_nothing_said_and_torch_as_it_was(
    fp32: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    again = to_executorch(kit.source(batch=2), "fp32", tmp_path / "again").model
    assert capfd.readouterr() == ("", "")
    assert torch.get_num_threads() == threads
    assert torch.is_grad_enabled()
    begin = time.process_time()
    time.sleep(0.5)
    assert time.process_time() - begin < 0.1  # no thread spins on
    assert again.read_bytes() == fp32.read_bytes()
    assert [path.name for path in again.parent.iterdir()] == ["model.pte"]
    for trace in (str(tmp_path), "site-packages", str(Path.home()), str(Path(__file__).parent)):
        assert trace.encode() not in fp32.read_bytes()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_rung_is_int8_and_keeps_the_classes(tmp_path: Path) -> None:
    judge = kit.judge(tmp_path)
    made = list(EXECUTORCH.candidates(kit.source(), tmp_path / "rungs", judge, Silent()))
    rungs = [one.rung if one else None for one in made]
    assert rungs == ["ptq", "ptq", None, "bias-correction", None, "fallback", None]
    found = [one.model for one in made if one]
    assert len({model.parent for model in found}) == len(found)
    assert all(judge(model, "executorch", "int8").correct >= 55 for model in found)
    everything, gates, corrected, fallback = (weight_bytes(pte_constants(model))["int8"] for model in found)
    assert everything == WEIGHTS
    assert gates == WEIGHTS - 2 * 8 * 4
    assert corrected in (everything, gates)
    assert 0 < fallback < corrected
    assert executed(found[0]) == "int8"
    assert executed(found[1]) == "mixed fp32+int8"


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_retrained_student_brings_its_ranges(tmp_path: Path) -> None:
    source = kit.source()
    student = rounded(source, Scheme(activations="uint8"))
    network = add_fake_quant(student.network, student.quantization)
    qat = QatModel(network, student.network, Path("model.onnx"), student.quantization)
    assert EXECUTORCH.from_qat is not None
    made = EXECUTORCH.from_qat(source, qat, tmp_path / "own")
    judge = kit.judge(tmp_path)
    close = judge.logits(made.model, "executorch", "int8", 64)
    # Fifty times the range of one layer: its steps are as much coarser, and the answers show it.
    low, high = student.quantization.inputs["deep.0"]
    wide = {**student.quantization.inputs, "deep.0": (low * 50, high * 50)}
    record = student.quantization.model_copy(update={"inputs": wide})
    far = EXECUTORCH.from_qat(source, QatModel(network, student.network, Path("m.onnx"), record), tmp_path / "wide")
    with torch.no_grad():
        expected = network(torch.from_numpy(kit.normalised(kit.images(1, 64)))).numpy()
    assert np.abs(close - expected).mean() < 0.01 * np.abs(expected).max()
    worse = judge.logits(far.model, "executorch", "int8", 64)
    assert np.abs(worse - expected).mean() > 3 * np.abs(close - expected).mean()


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_names_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    monkeypatch.setitem(sys.modules, "executorch", None)
    source, judge = kit.source(), kit.judge(tmp_path)
    rungs = EXECUTORCH.candidates(source, tmp_path, judge, Silent())
    convert = partial(to_executorch, source, precision, tmp_path / "new")
    make: Callable[[], object] = rungs.__next__ if precision == "int8" else convert
    with pytest.raises(KdcError, match="an ExecuTorch export needs executorch") as caught:
        make()
    assert caught.value.exit_code == EXIT_MISSING
    assert caught.value.hint == install_line("executorch")


@pytest.mark.slow
def test_what_cannot_be_converted_is_one_line(tmp_path: Path) -> None:
    class Undecided(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images if images.sum() > 0 else -images

    whole = kit.source()
    source = type(whole)(Undecided(), whole.onnx_file, kit.HOW, whole.calibration, whole.profile)
    with pytest.raises(KdcError, match=r"^ExecuTorch cannot convert the network: \S") as caught:
        to_executorch(source, "fp32", tmp_path / "new")
    assert "\n" not in caught.value.message
    assert not (tmp_path / "new").exists()
