"""A bundle for each of several profiles, in one folder: one verdict over all of them."""

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import compressor
from compressor import KdcError
from compressor.files.bundle_folder import UNMEASURED, files_of
from compressor.profile_bundles import _claim
from compressor.report import check_each, finish, holds_bundles, of_profile, write_matrix
from compressor.schema.base import read_json
from compressor.schema.devices import Devices
from tests.kit import Ended
from tests.report.several import A_FIRST, B_FIRST, SLOW

Make = Callable[..., Path]
Kdc = Callable[..., Ended]


@pytest.fixture
def out(make_bundle: Make, tmp_path: Path) -> Path:
    """Two sealed bundles: a wins for profile board, b for profile desk."""
    folder = tmp_path / "out"
    for name, session in (("board", A_FIRST), ("desk", B_FIRST)):
        put(make_bundle, folder, name, session)
    matrix(folder)
    return folder


def put(make_bundle: Make, folder: Path, name: str, session: dict[str, object]) -> None:
    made = make_bundle(budget={"p50_ms": 5.0}, profile_changes={"name": name}, **session)
    finish(made)
    shutil.rmtree(folder / name, ignore_errors=True)
    folder.mkdir(exist_ok=True)
    shutil.move(made, folder / name)


def matrix(folder: Path, names: tuple[str, ...] = ("board", "desk")) -> None:
    """As kdc export leaves it."""
    measured = [of_profile(check_each(folder / name)[0], name, f"ssh://{name}") for name in names]
    write_matrix(folder, measured)


def test_one_verdict_over_the_bundles_of_all_profiles(out: Path, kdc: Kdc) -> None:
    assert holds_bundles(out)
    assert not holds_bundles(out / "board")
    done = compressor.check(out)
    assert isinstance(done, compressor.DevicesResult)
    assert {name: report.winner for name, report in done.devices.items()} == {"board": "a", "desk": "b"}
    assert (done.verdict, done.exit_code) == ("pass", 0)
    told = read_json(out / "devices.json", Devices)
    assert [(each.name, each.profile, each.url, each.report) for each in told.devices] == [
        ("board", "board", "ssh://board", "board/report.json"),
        ("desk", "desk", "ssh://desk", "desk/report.json"),
    ]
    assert done.to_dict() == json.loads((out / "devices.json").read_text(encoding="utf-8"))
    checked = kdc("check", out)
    assert checked.code == 0
    assert checked.out.splitlines()[0] == "PASS on 2 devices: board pass, ships a; desk pass, ships b"
    assert [line.startswith("seal ") for line in checked.out.splitlines()] == [False, True, True]
    suites = ET.fromstring((out / "junit.xml").read_text(encoding="utf-8"))
    assert [suite.get("name") for suite in suites] == ["kdc board: pass", "kdc desk: pass"]
    assert {case.get("classname") for case in suites.iter("testcase")} >= {"board.a", "desk.b"}
    assert f"{out}/desk/best/" in "".join(kdc("report", out).out.split())


def test_one_that_is_measured_again_counts_as_it_is_now(out: Path, make_bundle: Make, kdc: Kdc) -> None:
    put(make_bundle, out, "desk", SLOW)
    assert kdc("check", out).code == 1
    assert read_json(out / "devices.json", Devices).verdict == "pass", "checking writes nothing"
    assert kdc("report", out).code == 0
    told = read_json(out / "devices.json", Devices)
    assert (told.verdict, told.devices[1].verdict, told.devices[1].failed) == ("fail", "fail", ("p50_ms",))


def test_one_that_waits_to_be_measured_is_open(out: Path, kdc: Kdc) -> None:
    """Its bundle of before, if it has one, does not stand for it."""
    waiting = out / "desk" / UNMEASURED
    shutil.copytree(out / "desk", waiting)
    for name in ("SHA256SUMS", "report.json"):
        (waiting / name).unlink()
    shutil.rmtree(waiting / "measurements")
    ended = kdc("check", out)
    assert ended.code == 3
    assert "desk unmeasured (not measured: it was exported, and not measured)" in ended.out
    shown = kdc("report", out).out
    assert f"kdc measure {out}/desk" in " ".join(shown.replace("\\", " ").split())
    assert "--device ssh://desk" in " ".join(shown.split())
    assert kdc("check", out, "--allow-unmeasured").code == 3


def test_a_damaged_bundle_a_missing_one_and_one_that_is_not_listed_are_noticed(out: Path, kdc: Kdc) -> None:
    with (out / "desk" / "report.md").open("a") as file:
        file.write(" ")
    refused = kdc("check", out)
    assert (refused.code, "desk/report.md was changed" in refused.err) == (2, True)
    shutil.copytree(out / "board", out / "third")
    assert "third is a bundle that" in kdc("check", out).err
    shutil.rmtree(out / "third")
    shutil.rmtree(out / "desk")
    assert "desk does not exist" in kdc("check", out).err


def test_a_listing_cannot_lead_out_of_the_folder(out: Path) -> None:
    path = out / "devices.json"
    text = path.read_text(encoding="utf-8")
    for evil in ("../board/report.json", "/etc/report.json", "Board/report.json", "board"):
        path.write_text(text.replace("desk/report.json", evil), encoding="utf-8")
        with pytest.raises(KdcError, match="which lies in no bundle of a profile"):
            check_each(out)


def test_what_is_about_one_bundle_says_so(out: Path, kdc: Kdc, tmp_path: Path) -> None:
    for arguments in (
        ("--format", "html"),
        ("--format", "release"),
        ("--push", "hf:a/b"),
        ("--history", tmp_path / "h"),
    ):
        refused = kdc("report", out, *arguments)
        assert refused.code == 2
        assert "several profiles" in refused.err
    measured = kdc("measure", out)
    assert (measured.code, f"name one of them: {out}/PROFILE" in measured.err) == (2, True)


def test_a_baseline_for_all(out: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(out / "board", tmp_path / "old"))
    done = compressor.check(out, baseline=old)
    assert isinstance(done, compressor.DevicesResult)
    assert all(report.release is not None for report in done.devices.values())
    shown = compressor.report(out, baseline=old, format="json")
    assert json.loads(shown.text) == done.to_dict()


def test_where_bundles_of_several_profiles_may_be_made(out: Path, tmp_path: Path) -> None:
    _claim(tmp_path / "new", ["board", "desk"], overwrite=False)
    with pytest.raises(KdcError, match="holds a bundle"):
        _claim(out, ["board", "desk"], overwrite=False)
    _claim(out, ["board", "desk"], overwrite=True)
    with pytest.raises(KdcError, match="holds desk, which is of none of these profiles"):
        _claim(out, ["board", "other"], overwrite=True)
    with pytest.raises(KdcError, match="holds the bundle of one profile"):
        _claim(out / "board", ["board", "desk"], overwrite=True)
    (out / "notes.txt").touch()
    with pytest.raises(KdcError, match=r"holds notes\.txt"):
        _claim(out, ["board", "desk"], overwrite=True)
    (tmp_path / "file").touch()
    with pytest.raises(KdcError, match="no folder"):
        _claim(tmp_path / "file", ["board", "desk"], overwrite=True)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"profile": ["x86-avx2", "x86-avx2"]}, "profile x86-avx2 is named twice"),
        ({"profile": ["x86-avx2", "raspberry-pi-5"], "device": ["a=ssh://a", "ssh://b", "ssh://c"]}, "3 times"),
        ({"profile": []}, "profile names none"),
        ({"profile": ["x86-avx2", "raspberry-pi-5"], "device": "shh://x"}, "shh://x"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_any_work(
    arguments: dict[str, object], said: str, tmp_path: Path
) -> None:
    with pytest.raises(KdcError, match=said) as caught:
        compressor.export(tmp_path / "run", out=tmp_path / "out", **arguments)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_plan_is_for_one(tmp_path: Path) -> None:
    with pytest.raises(KdcError, match="is for one profile"):
        compressor.plan_export(run=tmp_path, profile=["x86-avx2", "raspberry-pi-5"], out=tmp_path / "out")


def test_a_name_of_a_profile_on_several_devices(out: Path) -> None:
    each = check_each(out / "board")[0]
    assert of_profile(replace(each, name="pi", folder="devices/pi/"), "board", "").name == "board/pi"
    assert files_of(out / "board")
