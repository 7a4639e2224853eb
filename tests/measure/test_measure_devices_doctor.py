"""`kdc doctor --device …`: through a stand-in adb that runs the phone's command here, with scripts that stand in for
those of targets/. The numpy, the machine's nouns and the pipe are real."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from compressor import __version__
from compressor.assets import asset_dir
from compressor.errors import EXIT_MISSING, KdcError
from compressor.measure.devices import DeviceUrl, diagnose_device, doctor, missing_on, to_text
from compressor.profiles import load_profile
from compressor.progress import Silent
from compressor.runtimes import RUNTIMES
from compressor.schema.base import parse
from compressor.schema.doctor import DeviceDiagnosis
from tests.kit import MACHINE
from tests.measure.sshd import scripts_in, wrap

ORT = {"ok": True, "version": "1.22.0", "precisions": ["fp32", "fp16", "int8"]}
OV = {"ok": True, "version": "2026.4.1-22982-abc", "precisions": ["f32", "f16", "int8"]}
NO_OV = {
    "ok": False,
    "kind": "missing",
    "message": "pip install openvino (cannot import openvino: No module named 'openvino')",
}


@pytest.fixture
def scripts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scripts"
    folder.mkdir()
    machine = repr(MACHINE.model_dump_json())
    (folder / "bench.py").write_text(
        f"import sys\nassert sys.argv[1:] == ['--info']\nprint({machine})\n", encoding="utf-8"
    )
    (folder / "machine_info.py").write_text(f"import json\ndef machine():\n    return json.loads({machine})\n")
    runner(folder, "run_ort.py", ORT)
    runner(folder, "run_ov.py", OV)
    monkeypatch.setattr(doctor, "runner_scripts", scripts_in(folder))
    monkeypatch.setattr(doctor, "RUNTIMES", {name: RUNTIMES[name] for name in ("onnxruntime", "openvino")})
    wrap(tmp_path / "bin", "adb", 'exec sh -c "$5"', monkeypatch)
    return folder


def runner(folder: Path, name: str, reply: object) -> None:
    question = "import json, sys\nassert json.loads(sys.stdin.readline()) == {'op': 'info'}\n"
    (folder / name).write_text(f"{question}print({json.dumps(reply)!r})\n", encoding="utf-8")


def diagnosis(place: Path, python: str = sys.executable) -> DeviceDiagnosis:
    url = DeviceUrl("adb", serial="PHONE", folder=str(place))
    found = diagnose_device(url, python=python, progress=Silent())
    assert list(place.iterdir()) == []
    return found


def test_everything_works(scripts: Path, tmp_path: Path) -> None:
    found = diagnosis(tmp_path / "card")
    assert (found.kdc, found.device, found.python) == (__version__, "PHONE", sys.executable)
    assert found.machine == MACHINE
    assert found.free_bytes > 0
    assert (found.numpy.version or "")[:1].isdigit()
    ort, ov = found.runtimes
    assert (ort.works, ort.version, ort.precisions, ort.problem) == (True, "1.22.0", ("fp32", "fp16", "int8"), None)
    assert ov.unavailable == {"bf16": "needs avx512_bf16 or amx_bf16, which this CPU does not have"}
    assert missing_on(load_profile("x86-avx2"), found) == ()
    assert parse(DeviceDiagnosis, json.loads(found.model_dump_json()), "doctor") == found


def test_a_runtime_is_missing(scripts: Path, tmp_path: Path) -> None:
    runner(scripts, "run_ov.py", NO_OV)
    (scripts / "run_ort.py").write_text("import os\nos.kill(os.getpid(), 11)\n")
    found = diagnosis(tmp_path / "card")
    ort, ov = found.runtimes
    assert ov.problem == "cannot import openvino: No module named 'openvino'"
    assert ov.install == f"{sys.executable} -m pip install openvino"
    assert ort.problem == "it said nothing"
    assert missing_on(load_profile("x86-avx2"), found) == (ort.install, ov.install)
    assert missing_on(load_profile("raspberry-pi-5"), found) == (ort.install,)


def test_a_python_without_numpy(scripts: Path, tmp_path: Path) -> None:
    """The agent says so, the machine is told nevertheless, and what the system keeps for itself is left alone."""
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    (scripts / "bench.py").write_text("import numpy\n")
    python = str(bare / "bin" / "python")
    found = diagnosis(tmp_path / "card", python)
    assert found.machine == MACHINE
    assert found.numpy.version is None
    assert not found.externally_managed
    assert missing_on(load_profile("raspberry-pi-5"), found) == (f"{python} -m pip install numpy",)
    assert f"numpy   missing; on the device: {python} -m pip install numpy" in to_text(found)


def test_a_machine_that_does_not_say_what_it_is(scripts: Path, tmp_path: Path) -> None:
    (scripts / "bench.py").write_text("raise SystemExit('no /proc')\n")
    (scripts / "machine_info.py").unlink()
    with pytest.raises(KdcError, match=r"^PHONE does not say what it is: no /proc$") as caught:
        diagnosis(tmp_path / "card")
    assert caught.value.exit_code == EXIT_MISSING


def test_text(scripts: Path, tmp_path: Path) -> None:
    runner(scripts, "run_ov.py", NO_OV)
    found = diagnosis(tmp_path / "card").model_copy(update={"free_bytes": 12_340_000_000, "python": "python3"})
    version = found.numpy.version
    assert to_text(found) == (
        "device  PHONE, Linux 6.6\n"
        "cpu     Cortex-A76 (aarch64), 4 cores, 4 usable\n"
        "isa     asimd\n"
        "memory  7.9 GiB, 6.5 available\n"
        "disk    12.3 GB free\n"
        "python  3.11.2 (python3)\n"
        f"numpy   {version}\n"
        "\n"
        "runtimes\n"
        "  onnxruntime  works, 1.22.0: fp32, fp16, int8\n"
        "  openvino     does not work: cannot import openvino: No module named 'openvino'; "
        f"on the device: {sys.executable} -m pip install openvino\n"
    )


def test_a_python_that_the_system_keeps_for_itself(scripts: Path, tmp_path: Path) -> None:
    """Debian's refuses pip; where there is such a one here, it is asked, otherwise only the lines are looked at."""
    lines = [doctor._install("python3", managed, "numpy") for managed in (True, False)]
    assert lines == ["python3 -m venv ~/kdc-venv && ~/kdc-venv/bin/pip install numpy", "python3 -m pip install numpy"]
    found = diagnosis(tmp_path / "card")
    broken = found.model_copy(
        update={"externally_managed": True, "numpy": found.numpy.model_copy(update={"version": None})}
    )
    assert to_text(broken).endswith("then measure with --device-python '~/kdc-venv/bin/python'\n")
    assert "--device-python" not in to_text(found)


@pytest.mark.skipif(not Path("/usr/bin/python3").exists(), reason="a system's own Python is needed")
def test_the_systems_own_python(scripts: Path, tmp_path: Path) -> None:
    asked = (
        "import sysconfig, pathlib; print(pathlib.Path(sysconfig.get_path('stdlib'), 'EXTERNALLY-MANAGED').exists())"
    )
    managed = subprocess.run(
        ["/usr/bin/python3", "-c", asked], capture_output=True, text=True, check=True
    ).stdout.strip()
    there = subprocess.run(["/usr/bin/python3", "-c", "import numpy"], capture_output=True, check=False).returncode == 0
    found = diagnosis(tmp_path / "card", "/usr/bin/python3")
    assert str(found.externally_managed) == managed
    assert (found.numpy.version is not None) == there


def test_what_travels_are_the_scripts() -> None:
    parcels = doctor._scripts()
    names = {path.name for path in asset_dir("targets").glob("*.py")}
    assert {entry.path for _, entry in parcels} == {
        f"runners/{name}" for name in names if not name.startswith(("device_", "classify_", "generate_"))
    }
