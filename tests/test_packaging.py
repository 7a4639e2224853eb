"""The wheel: one name in site-packages, with profiles and device scripts inside it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked: what pip puts into site-packages."""
    place = tmp_path_factory.mktemp("wheel")
    source = place / "source"
    source.mkdir()
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in ("compressor", "profiles", "targets"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", place, source)
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = place.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(place / "site")
    return place / "site"


def test_one_name_and_everything_in_it(installed: Path) -> None:
    names = {path.name for path in installed.iterdir()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"compressor"}
    packed = {p.relative_to(installed / "compressor").as_posix() for p in (installed / "compressor").rglob("*.py")}
    source = {p.relative_to(ROOT / "compressor").as_posix() for p in (ROOT / "compressor").rglob("*.py")}
    assert source <= packed
    for name, pattern in (("profiles", "*.yaml"), ("targets", "*.py")):
        inside = {path.name for path in (installed / "compressor" / "_data" / name).glob(pattern)}
        assert inside >= {path.name for path in (ROOT / name).glob(pattern)} != set()
    page = installed / "compressor" / "report" / "html"
    assert {path.name for path in page.iterdir()} >= {
        "layout.html", "parts.html", "page.html", "style.css", "judge.js", "frame.js", "page.js",
    }  # fmt: skip
    assert (installed / "compressor" / "report" / "language" / "html" / "language.html").is_file()
    digits = "compressor/tasks/image_classification/sources/digits.npz"
    assert (installed / digits).read_bytes() == (ROOT / digits).read_bytes()
    (info,) = installed.glob("*.dist-info")
    assert list(info.rglob("LICENSE"))


def test_the_installed_package_stands_alone(installed: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(getattr(f, '__module__', f)).lower()]\n"
        "import compressor, importlib.util as util\n"
        f"assert compressor.__file__.startswith({str(installed)!r}), compressor.__file__\n"
        "assert util.find_spec('targets') is None and util.find_spec('profiles') is None\n"
        "from compressor.profiles import list_profiles; print(len(list_profiles()))\n"
        "from compressor.measure.machine import this_machine; print(this_machine().cores)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [int(line) > 0 for line in done.stdout.split()] == [True, True]
