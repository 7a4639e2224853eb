"""`kdc export` with several profiles: two bundles, two sessions, one verdict; and one of them not measured."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from compressor.report import check_each
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from compressor.schema.devices import Devices
from tests.kit import Ended

Kdc = Callable[..., Ended]
FAST = ("--target", "onnxruntime", "--precision", "fp32", "--rounds", 11, "--no-throughput")


@pytest.fixture
def profiles(here: Path, tmp_path: Path) -> tuple[str, ...]:
    """Two of this machine, of which the second has a budget that nothing holds."""
    text = here.read_text(encoding="utf-8")
    (tmp_path / "strict.yaml").write_text(
        text.replace("name: here", "name: strict").replace("size_mb: 20.0", "size_mb: 0.0001"), encoding="utf-8"
    )
    assert "0.0001" in (tmp_path / "strict.yaml").read_text(encoding="utf-8")
    return ("--profile", str(here), "--profile", str(tmp_path / "strict.yaml"))


def test_a_bundle_for_each_profile_and_one_verdict(
    kdc: Kdc, student_run: Path, profiles: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = kdc("export", student_run, *profiles, "--out", out, *FAST)
    assert done.code == 1, done.err
    assert "here, strict are this machine: they are measured one after the other" in done.err
    assert done.out.startswith("FAIL  the budget does not hold on 1 of 2 devices\n")
    assert {path.name for path in out.iterdir()} == {"here", "strict", "devices.json", "devices.md", "junit.xml"}
    for name, verdict in (("here", "pass"), ("strict", "fail")):
        assert read_json(out / name / "bundle.json", Bundle).profile.name == name
        assert check_each(out / name)[0].report.verdict == verdict
        assert kdc("check", out / name).code == (0 if verdict == "pass" else 1)
    assert (out / "here" / "best").exists()
    assert not (out / "strict" / "best").exists()
    assert kdc("check", out).code == 1

    again = kdc("export", student_run, *profiles, "--out", out, *FAST)
    assert (again.code, "--overwrite" in again.err) == (2, True)
    old = Path(shutil.copytree(out, tmp_path / "old"))
    raced = kdc("export", student_run, *profiles, "--out", out, *FAST, "--overwrite", "--baseline", old)
    assert raced.code == 1, raced.err
    assert all(each.report.release is not None for each in check_each(out))


def test_a_device_that_fails_leaves_the_other_profiles_bundle(
    kdc: Kdc, student_run: Path, profiles: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    gone = ("--device", "local", "--device", "ssh://127.0.0.1:9")
    done = kdc("export", student_run, *profiles, "--out", out, *FAST, *gone)
    assert done.code == 1, "the size, which needs no measurement, fails"
    assert "strict was not measured: " in done.err
    assert f"kdc measure {out}/strict finishes it" in done.err
    matrix = {device.name: device for device in read_json(out / "devices.json", Devices).devices}
    assert (matrix["here"].verdict, matrix["here"].error) == ("pass", None)
    assert matrix["strict"].error is not None
    assert kdc("check", out).code == done.code
    assert kdc("measure", out / "strict", "--rounds", 11, "--no-throughput").code == 1
    assert kdc("check", out).code == 1
    assert {device.error for device in read_json(out / "devices.json", Devices).devices} == {None}


def test_where_none_can_be_measured_all_wait(
    kdc: Kdc, student_run: Path, profiles: tuple[str, ...], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done = kdc("export", student_run, *profiles, "--out", out, *FAST, "--device", "ssh://127.0.0.1:9")
    assert done.code == 3, done.err
    assert "exported but not measured: here, strict" in done.err
    assert kdc("check", out).code == 1, "size needs no measurement, and fails for one of them"
    assert kdc("check", out / "here").code == 2, "it is no whole bundle"
