"""Whose scripts are run: kdc's own, and nothing of a bundle's lies where Python would take it for a part of them."""

from pathlib import Path

import pytest

from compressor import __version__
from compressor.assets import asset_dir, runner_scripts
from compressor.errors import KdcError
from compressor.files.atomic import file_sha256
from compressor.measure.devices.remote import travelling
from compressor.measure.runners import require_own_runners
from compressor.schema.bundle import Bundle, FileEntry
from tests.measure.sshd import write_bundle


def entry(path: str, sha256: str = "0" * 64) -> FileEntry:
    return FileEntry(path=path, sha256=sha256, bytes=0)


def shipped() -> dict[str, FileEntry]:
    return {name: entry(f"runners/{name}", file_sha256(path)) for name, path in runner_scripts().items()}


def manifest(*support: FileEntry, kdc: str = "0.0.7") -> Bundle:
    return Bundle.model_construct(kdc=kdc, support=support, variants=())


def test_a_bundle_of_this_kdc_has_its_runners(tmp_path: Path) -> None:
    names = set(runner_scripts())
    assert {"bench.py", "run_ort.py", "runner_environment.py", "device_agent.py", "README.md"} <= names
    assert not any(name.startswith("classify") for name in names)
    assert {path.name for path in asset_dir("targets").glob("run_*.py")} <= names
    require_own_runners(tmp_path, manifest(*shipped().values()))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"bench.py": entry("runners/bench.py")}, "(bench.py)"),
        ({"bench.py": None}, "(bench.py)"),
        ({"numpy.py": entry("runners/numpy.py")}, "(numpy.py)"),
        ({"run_ort.py": None, "run_ov.py": None, "run_trt.py": None, "run_et.py": None}, "and 1 more)"),
    ],
)
def test_other_runners_are_refused_with_the_version_that_made_them(
    tmp_path: Path, change: dict[str, FileEntry | None], named: str
) -> None:
    found = {**shipped(), **change}
    with pytest.raises(KdcError) as caught:
        require_own_runners(tmp_path, manifest(*(one for one in found.values() if one is not None)))
    assert "was made by kdc 0.0.7" in caught.value.message
    assert f"this kdc {__version__}" in caught.value.message
    assert named in caught.value.message
    assert "kdc export" in caught.value.hint


def test_what_travels_to_a_device_are_kdcs_own_scripts(tmp_path: Path) -> None:
    parcels = travelling(tmp_path, write_bundle(tmp_path))
    scripts = {there.path: path for path, there in parcels if there.path.startswith("runners/")}
    assert set(scripts) == {f"runners/{name}" for name in runner_scripts() if name.endswith(".py")}
    assert all(path.parent == asset_dir("targets") for path in scripts.values())
    assert not {"eval/labels.npy", "eval/reference.npy"} & {there.path for _, there in parcels}


@pytest.mark.parametrize("path", ["runners/bench_plan.py", "Runners/numpy.so", "bundle.json", "out/x.npy"])
@pytest.mark.parametrize("as_inputs", [True, False])
def test_no_file_of_a_model_travels_among_the_scripts(tmp_path: Path, path: str, as_inputs: bool) -> None:
    """A file beside bench.py would be imported by it, on the device."""
    bundle = write_bundle(tmp_path)
    (variant,) = bundle.variants
    update = {"inputs": path} if as_inputs else {"files": (*variant.files, entry(path))}
    changed = bundle.model_copy(
        update={"variants": (variant.model_copy(update=update),), "support": (*bundle.support, entry(path))}
    )
    with pytest.raises(KdcError, match="which is refused: that place is kdc's own"):
        travelling(tmp_path, changed)
