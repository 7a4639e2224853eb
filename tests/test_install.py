"""The install lines in kdc's hints: they name what pyproject.toml names, and nothing that is on no index."""

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from compressor.install import REQUIREMENTS, install_line

ROOT = Path(__file__).resolve().parent.parent
EXTRAS = ("hf", "openvino", "generate", "tensorrt", "mobile", "text", "gguf", "prune", "audio")
TEXTS = {".py", ".md", ".yaml", ".yml", ".sh"}


def test_a_line_is_ready_for_the_shell() -> None:
    assert install_line("openvino", "nncf") == "pip install 'openvino>=2026.0' 'nncf>=3.4,<4'"


def versions(lines: list[str]) -> dict[str, str]:
    """Package -> versions, without the floors that hold for one Python alone: pip takes the newest release anyway."""
    matches = [re.fullmatch(r"([\w-]+)(.*)", line) for line in lines if ";" not in line]
    return {match[1]: match[2] for match in matches if match}


def test_the_versions_are_those_of_pyproject() -> None:
    toml: Any = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")
    project = toml.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = versions([line for name in EXTRAS for line in project["optional-dependencies"][name]])
    declared = versions(project["dependencies"]) | optional
    assert {name: declared.get(name) for name in REQUIREMENTS} == REQUIREMENTS
    assert optional.keys() <= REQUIREMENTS.keys()


@pytest.mark.parametrize(
    "folder", ["compressor", "targets", "profiles", "examples", "docs", "README.md", "CONTRIBUTING.md"]
)
def test_nothing_tells_people_to_install_kdc_from_an_index(folder: str) -> None:
    """kdc is on no index, and its name there belongs to somebody else."""
    path = ROOT / folder
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.suffix in TEXTS]
    assert files
    pattern = re.compile(r"""(pip|pipx|uv) (install|add)( -\S+)* ['"]?kdc\b(?!/)|['" ]kdc\[""")
    wrong = {str(file): found[0] for file in files if (found := pattern.search(file.read_text(encoding="utf-8")))}
    assert wrong == {}
