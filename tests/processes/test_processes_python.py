"""Programs that kdc starts import nothing from the folder that the user stands in."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from compressor.measure import doctor
from compressor.processes.python import kdc_command, python_command


def planted(folder: Path, *names: str) -> Path:
    """A folder with modules that would be imported in place of the libraries, and the file that they write."""
    marker = folder / "it-ran"
    for name in names:
        (folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'w').close()\n")
    return marker


@pytest.mark.slow
def test_the_trap_works(tmp_path: Path) -> None:
    marker = planted(tmp_path, "sklearn")
    subprocess.run([sys.executable, "-c", "import sklearn"], cwd=tmp_path, check=True)
    assert marker.exists(), "or the tests below prove nothing"


@pytest.mark.slow
def test_code_does_not_import_from_the_current_folder(tmp_path: Path) -> None:
    marker = planted(tmp_path, "sklearn")
    done = subprocess.run(
        python_command("import sklearn; print(sklearn.__version__)"),
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout
    assert not marker.exists()


@pytest.mark.slow
def test_kdc_does_not_import_from_the_current_folder(tmp_path: Path) -> None:
    """As `kdc specialists` starts its trainings, and as launchers start it: also a folder named as the package."""
    (tmp_path / "compressor").mkdir()
    marker = planted(tmp_path, "yaml", "pydantic", "typer", "sklearn", "torch", "compressor/__init__", "compressor/cli")
    done = subprocess.run(
        kdc_command("profiles", "list", "--json"), cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)
    assert not marker.exists()


@pytest.mark.slow
def test_a_module_of_launchers_does_not_import_from_the_current_folder(tmp_path: Path) -> None:
    marker = planted(tmp_path, "yaml", "typer", "sklearn", "torch")
    done = subprocess.run(
        [sys.executable, "-m", "compressor", "profiles", "list", "--json"],
        cwd=tmp_path, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)
    assert not marker.exists()


@pytest.mark.slow
def test_doctor_asks_the_torch_that_is_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = planted(tmp_path, "torch")
    monkeypatch.chdir(tmp_path)
    assert "torch does not start" not in doctor._cuda()
    assert not marker.exists()
