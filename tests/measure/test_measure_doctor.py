import json
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from compressor import __version__
from compressor.errors import EXIT_MISSING, KdcError
from compressor.install import install_line
from compressor.measure import doctor
from compressor.measure.doctor import diagnose, missing_for, to_text
from compressor.measure.machine import RuntimeInfo
from compressor.profiles import load_profile
from compressor.runtimes import NOT_YET, RUNTIMES
from compressor.schema.base import parse
from compressor.schema.doctor import Diagnosis
from tests.kit import MACHINE as BOARD

MACHINE = BOARD.model_copy(
    update={
        "arch": "x86_64",
        "system": "Linux 6.6",
        "cpu": "Test CPU",
        "isa": ("avx2", "fma"),
        "cores": 8,
        "usable_cores": 4,
        "memory_gb": 15.64,
        "python": "3.12.1",
    }
)


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine where onnxruntime works, OpenVINO has no bf16, and torch and timm are installed."""
    versions = {"torch": "2.14.1", "timm": "1.0.31"}

    def version(package: str) -> str:
        if package not in versions:
            raise metadata.PackageNotFoundError(package)
        return versions[package]

    answers = {
        "onnxruntime": RuntimeInfo("onnxruntime", "1.32.0", ("fp32", "fp16", "int8")),
        "openvino": RuntimeInfo("openvino", "2026.4.1-22982-abc", ("f32", "f16", "int8")),
    }
    monkeypatch.setattr(doctor, "RUNTIMES", {name: RUNTIMES[name] for name in answers})
    monkeypatch.setattr(doctor, "this_machine", lambda: MACHINE)
    monkeypatch.setattr(doctor, "runtime_info", answers.__getitem__)
    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(doctor, "ASK_TORCH", "print('')")


OPENVINO = install_line("openvino", "nncf")


def without_openvino(runtime: str) -> RuntimeInfo:
    if runtime == "openvino":
        raise KdcError("openvino does not work here: cannot import it", OPENVINO, EXIT_MISSING)
    return RuntimeInfo(runtime, "1.32.0", ("fp32", "fp16", "int8"))


def test_diagnose() -> None:
    diagnosis = diagnose()
    assert (diagnosis.kdc, diagnosis.machine, diagnosis.hub) == (__version__, MACHINE, "not checked")
    ort, ov = diagnosis.runtimes
    assert (ort.name, ort.works, ort.version, ort.precisions) == (
        "onnxruntime",
        True,
        "1.32.0",
        ("fp32", "fp16", "int8"),
    )
    assert ort.unavailable == {}
    assert ov.precisions == ("f32", "f16", "int8")
    assert ov.unavailable == {"bf16": "needs avx512_bf16 or amx_bf16, which this CPU does not have"}
    assert {check.name: check.version for check in diagnosis.packages} == {
        "torch": "2.14.1",
        "timm": "1.0.31",
        "transformers": None,
        "datasets": None,
        "pyarrow": None,
        "soundfile": None,
        "tokenizers": None,
        "onnxruntime": None,  # these three by the rows of the two runtimes
        "openvino": None,
        "nncf": None,
    }
    assert [check.install for check in diagnosis.packages] == [install_line(check.name) for check in diagnosis.packages]
    assert diagnosis.not_yet == NOT_YET


def test_a_precision_that_the_cpu_would_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "this_machine", lambda: MACHINE.model_copy(update={"isa": ("amx_bf16",)}))
    assert diagnose().runtimes[1].unavailable == {"bf16": "the runtime does not offer it on this machine"}


def test_a_runtime_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "runtime_info", without_openvino)
    diagnosis = diagnose()
    ov = diagnosis.runtimes[1]
    assert (ov.works, ov.version, ov.precisions, ov.unavailable) == (False, None, (), {})
    assert ov.problem == "openvino does not work here: cannot import it"
    assert ov.install == OPENVINO
    assert missing_for(load_profile("x86-avx2"), diagnosis) == (OPENVINO,)
    assert missing_for(load_profile("raspberry-pi-5"), diagnosis) == ()


def test_nothing_is_missing() -> None:
    assert missing_for(load_profile("x86-avx2"), diagnose()) == ()


@pytest.mark.parametrize(
    ("script", "answer"),
    [
        ("print('NVIDIA H100 80GB HBM3, NVIDIA H100 80GB HBM3')", "cuda: NVIDIA H100 80GB HBM3, NVIDIA H100 80GB HBM3"),
        ("print('')", "no CUDA device"),
        ("raise ImportError('libcudnn.so.9')", "unknown: torch does not start: ImportError: libcudnn.so.9"),
        ("import time; time.sleep(60)", "unknown: torch did not answer within 0.5 s"),
    ],
)
def test_cuda(monkeypatch: pytest.MonkeyPatch, script: str, answer: str) -> None:
    monkeypatch.setattr(doctor, "ASK_TORCH", script)
    monkeypatch.setattr(doctor, "TORCH_TIMEOUT_S", 0.5 if "sleep" in script else 60)
    assert diagnose().cuda == answer


def test_cuda_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(package: str) -> str:
        raise metadata.PackageNotFoundError(package)

    monkeypatch.setattr(metadata, "version", version)
    assert diagnose().cuda == "not checked: torch is not installed"


def test_json_round_trips() -> None:
    diagnosis = diagnose()
    assert parse(Diagnosis, json.loads(diagnosis.model_dump_json()), "doctor") == diagnosis


def test_text(monkeypatch: pytest.MonkeyPatch) -> None:
    text = to_text(diagnose())
    assert text.startswith(
        f"kdc {__version__}, Python 3.12.1, Linux 6.6\n"
        "cpu   Test CPU (x86_64), 8 cores, 4 usable, 15.6 GiB\n"
        "isa   avx2 fma\n"
        "cuda  no CUDA device\n"
        "hub   not checked\n"
        "\n"
        "runtimes\n"
        "  onnxruntime  works, 1.32.0                 fp32, fp16, int8\n"
        "  openvino     works, 2026.4.1               f32, f16, int8; "
        "bf16 not: needs avx512_bf16 or amx_bf16, which this CPU does not have\n"
        "  ncnn         kdc has no runner for it yet  by hand: pip install ncnn"
    )
    assert "\n  torch         2.14.1   teach, distill and export\n" in text
    assert "\n  transformers  missing  teachers hf:…: pip install 'transformers>=4.56'\n" in text
    assert not [line for line in text.splitlines() if line != line.rstrip()]
    monkeypatch.setattr(doctor, "runtime_info", without_openvino)
    assert (
        "  openvino     does not work                 openvino does not work here: cannot import it; "
        "pip install 'openvino>=2026.0' 'nncf>=3.4,<4'\n"
    ) in to_text(diagnose())


def test_precisions_that_lack_the_same_are_one_part() -> None:
    gpu = "needs an NVIDIA GPU and its driver"
    found = diagnose()
    none = found.runtimes[0].model_copy(update={"precisions": (), "unavailable": {"fp32": gpu, "int8": gpu}})
    text = to_text(found.model_copy(update={"runtimes": (none,)}))
    assert f"works, 1.32.0                 fp32, int8 not: {gpu}\n" in text


def test_the_real_question_to_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The line that asks torch, against a torch of three lines: the real one takes seconds to import."""
    (tmp_path / "torch.py").write_text(
        "class cuda:\n"
        "    device_count = staticmethod(lambda: 2)\n"
        "    get_device_name = staticmethod(lambda i: f'GPU {i}')\n",
        encoding="utf-8",
    )
    monkeypatch.undo()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert doctor._cuda() == "cuda: GPU 0, GPU 1"


def test_nothing_heavy_is_imported() -> None:
    heavy = "{'torch', 'timm', 'transformers', 'datasets', 'onnx', 'onnxruntime', 'openvino', 'numpy'}"
    script = f"import sys, compressor.measure.doctor, compressor.profiles; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
