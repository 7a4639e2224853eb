"""The runners of phones' runtimes keep the contract that all runners keep, and say what really ran."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import nn

if TYPE_CHECKING:
    from tests.targets.harness import Environment, LoadScript, Runner, StartRunner
    from tests.targets.tiny_bundle import BATCH, CLASSES, IMAGES, MEAN, SIDE, STD
else:
    from harness import Runner
    from tiny_bundle import BATCH, CLASSES, IMAGES, MEAN, SIDE, STD

from compressor.export.base import Source
from compressor.export.mobile.executorch_pte import to_executorch
from compressor.export.mobile.litert_tflite import to_litert
from compressor.profiles import load_profile
from compressor.runtimes import RUNTIMES
from compressor.schema.base import parse
from compressor.schema.measurement import Machine
from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.image_classification.stored import StoredImages

HOW = ImagePreprocess(input_size=(SIDE, SIDE), resize=(SIDE, SIDE), mean=MEAN, std=STD)
PREPROCESS = {"mean": MEAN, "std": STD, "batch": BATCH}
CASES = [("run_litert.py", "litert", "model.tflite"), ("run_et.py", "executorch", "model.pte")]
EACH = pytest.mark.parametrize(("script", "runtime", "model"), CASES, ids=["litert", "et"])


@pytest.fixture
def begin(scripts: Path, bare: "Environment", tmp_path: Path) -> Iterator["StartRunner"]:
    """Starts runners without compressor, but with torch: ExecuTorch's Python depends on it."""
    runners: list[Runner] = []

    def start(script: str) -> Runner:
        environment = bare(never="compressor timm transformers pydantic onnx")
        runners.append(Runner(scripts / script, tmp_path, environment))
        return runners[-1]

    yield start
    for runner in runners:
        runner.process.kill()
        runner.process.communicate()


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, CLASSES)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = self.head(self.conv(images).relu().mean((2, 3)))
        return answer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray, np.ndarray]:
    """A folder with model.tflite, model.pte and images.npy; the images, and what torch answers."""
    pytest.importorskip("executorch")
    pytest.importorskip("litert_torch")
    folder = tmp_path_factory.mktemp("mobile")
    torch.manual_seed(0)
    network = Net().eval()
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, SIDE, SIDE, 3), dtype=np.uint8)
    np.save(folder / "images.npy", images)
    profile = load_profile("android-snapdragon-8gen3", [f"batch={BATCH}"])
    source = Source(network, Path("model.onnx"), HOW, StoredImages(images, HOW), profile)
    for convert in (to_litert, to_executorch):
        artefact = convert(source, "fp32", folder / convert.__name__)
        artefact.model.rename(folder / artefact.model.name)
    normalized = (images.transpose(0, 3, 1, 2) / 255 - np.array(MEAN)[:, None, None]) / np.array(STD)[:, None, None]
    with torch.no_grad():
        logits: np.ndarray = network(torch.from_numpy(normalized.astype(np.float32))).numpy()
    return folder, images, logits


@pytest.mark.slow
@EACH
def test_answers_the_whole_protocol(
    begin: "StartRunner",
    made: tuple[Path, np.ndarray, np.ndarray],
    tmp_path: Path,
    script: str,
    runtime: str,
    model: str,
) -> None:
    folder, _, expected = made
    runner = begin(script)
    loaded = runner.ask("load", model=str(folder / model), threads=2, precision="fp32", streams=2)
    assert loaded["ok"] is True, loaded
    assert loaded["input"]["shape"] == [BATCH, 3, SIDE, SIDE]
    assert loaded["output"]["shape"] == [BATCH, CLASSES]
    assert loaded["load_ms"] > 0
    assert 10 < loaded["idle_rss_mb"] < loaded["rss_mb"]
    inputs = {"path": str(folder / "images.npy"), "distinct": 32, **PREPROCESS}
    assert runner.ask("inputs", **inputs) == {"ok": True, "distinct": IMAGES}
    assert runner.ask("first")["first_ms"] > 0
    block = runner.ask("block", n=9)
    assert [len(block["wall_ms"]), len(block["cpu_ms"])] == [9, 9]
    window = runner.ask("throughput", seconds=0.2)
    assert window["ok"] is True, window
    assert window["calls"] > 0
    timed = runner.ask("profile", n=1)
    assert (timed["ok"], timed["kind"]) == (False, "no-profiler")
    assert ("no per-layer profiler" if runtime == "litert" else "ETDump") in timed["message"]
    out = tmp_path / "logits.npy"
    answer = runner.ask("predict", inputs=str(folder / "images.npy"), out=str(out), **PREPROCESS)
    assert answer == {"ok": True, "n": IMAGES}
    np.testing.assert_allclose(np.load(out), expected, atol=1e-5)
    assert runner.cpu_ticks_in(0.5) <= 10  # asleep between blocks: others measure then
    assert runner.ask("executed")["executed_precision"] == RUNTIMES[runtime].precisions["fp32"]
    assert runner.ask("quit") == {"ok": True}
    assert runner.close() == ""
    assert runner.process.returncode == 0


@pytest.mark.slow
@EACH
def test_info_names_the_machine_and_errors_are_answers(
    begin: "StartRunner", tmp_path: Path, script: str, runtime: str, model: str
) -> None:
    pytest.importorskip(RUNTIMES[runtime].module)
    runner = begin(script)
    info = runner.ask("info")
    assert info["runtime"] == runtime
    assert info["version"][:1].isdigit()
    assert info["precisions"] == ["fp32", "int8"]
    parse(Machine, info["machine"], "info")
    broken = tmp_path / model
    broken.write_bytes(b"\x08\x07 no model, but long enough to look like one" * 4)
    refused = runner.ask("load", model=str(broken), threads=1, precision="fp32")
    assert (refused["ok"], refused["kind"]) == (False, "failed")
    refused = runner.ask("load", model=str(broken), threads=1, precision="bf16")
    assert (refused["kind"], refused["message"]) == (
        "bad-request",
        f"{runtime} has no precision bf16; known: fp32, int8",
    )


@EACH
def test_the_missing_runtime_has_an_install_line(start: "StartRunner", script: str, runtime: str, model: str) -> None:
    package = {"litert": "ai_edge_litert", "executorch": "executorch"}[runtime]
    runner = start(script, package)
    refused = runner.ask("info")
    assert (refused["ok"], refused["kind"]) == (False, "missing")
    assert refused["message"].startswith(f"pip install {RUNTIMES[runtime].package} (cannot import {package}")


@pytest.mark.parametrize(
    ("types", "precision"),
    [
        ("NHWC, F32", "fp32"),
        ("NC, F16", "fp16"),
        ("NC, QS8, QC8W", "int8"),
        ("NHWC, QC8", "int8"),
        ("NC, QD8, F32, QC8W", "dynamic int8"),
        ("NC, X99", "unknown"),
    ],
)
def test_precision_is_that_of_the_data_in_the_kernels_name(load: "LoadScript", types: str, precision: str) -> None:
    assert load("run_et").of_kernel(types) == precision


def test_kernels_are_found_in_a_trace(load: "LoadScript") -> None:
    script = load("run_et")
    trace = b"\x00Convolution (NHWC, QC8) DWConv #1\x00\x07Fully Connected (NC, F32) GEMM\x00Add (ND) #1\x00"
    assert [script.of_kernel(kind.decode()) for kind in script.KERNEL.findall(trace)] == ["int8", "fp32"]
    assert script.PORTABLE.findall(b"native_call_convolution.out\x00native_call_add.out") == [
        b"native_call_convolution"
    ]


class Interpreter:
    """The one thing that `executed` asks of LiteRT's."""

    def __init__(self, *operands: tuple[str, type, type]) -> None:
        self.operands = operands

    def _get_ops_details(self) -> list[dict[str, object]]:
        return [{"op_name": name, "operand_types": kinds} for name, *kinds in self.operands]


def test_operand_types_tell_the_precision(load: "LoadScript") -> None:
    read = load("run_litert").executed
    float32, int8 = np.float32, np.int8
    heavy, light = ("CONV_2D", int8, int8), ("ADD", float32, float32)
    assert read(Interpreter(heavy, light)) == "int8"
    assert read(Interpreter(heavy, ("FULLY_CONNECTED", float32, float32))) == "mixed fp32+int8"
    assert read(Interpreter(("FULLY_CONNECTED", float32, int8))) == "dynamic int8"
    assert read(Interpreter(light)) == "unknown"
