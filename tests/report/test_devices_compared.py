"""Several devices or profiles beside a baseline: what changed is shown on each, and a folder of bundles is held against
a folder of bundles."""

import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import compressor
from compressor import KdcError
from compressor.report import check_each, finish, finish_each, refresh_each, seal, to_junit, to_matrix
from compressor.report.render.devices import next_of
from compressor.schema.base import read_json, write_json
from compressor.schema.device import Device
from compressor.schema.devices import Devices
from tests.kit import Ended
from tests.report.conftest import N
from tests.report.several import A_FIRST, UNREACHABLE, several
from tests.report.test_profile_bundles import matrix

Make = Callable[..., Path]
Kdc = Callable[..., Ended]
TEST = {"digests": np.arange(N, dtype=np.uint64)}


def answering(wrong: int) -> dict[str, Any]:
    """A session in which a and the teacher ran; a is wrong on so many samples."""
    return {"variants": {"a": {"wrong": wrong, "repeat": 100}, "teacher": {"role": "teacher", "repeat": 100}}}


@pytest.fixture
def old(make_bundle: Make, tmp_path: Path) -> Path:
    """Sealed: right on all but 2 of 200."""
    made = make_bundle(**answering(2), **TEST)
    finish(made)
    return Path(shutil.move(made, tmp_path / "old bundle"))


@pytest.fixture
def now(make_bundle: Make, old: Path) -> Path:
    """Sealed: on pi right on all but 22, on nano on all but 2."""
    made = several(make_bundle, {"pi": answering(22), "nano": answering(2)}, {"p50_ms": 5.0}, **TEST)
    finish_each(made)
    return made


def test_what_changed_is_shown_on_each_device(now: Path, old: Path, kdc: Kdc) -> None:
    """20 of 200 samples more are wrong on pi: −10 points; on nano nothing changed."""
    markdown = kdc("report", now, "--format", "md", "--baseline", old).out
    of_nano, of_pi = (part.partition("<details><summary>")[2] for part in markdown.split("Against the baseline")[1:])
    assert "**Worse:** accuracy −10.0 [" in markdown
    assert "Right before, wrong now: 20 test samples" in of_pi
    assert "Right before, wrong now" not in of_nano
    assert markdown.count("<details>") == markdown.count("</details>")
    shown = kdc("report", now, "--baseline", old).out
    words = " ".join(shown.split())
    assert "compared nano: the same: size, accuracy, balanced accuracy pi: worse: accuracy −10.0 [" in words
    assert f"kdc report {now} --format md --baseline '{old}'" in words.replace("\\ ", "")
    assert max(map(len, shown.splitlines())) <= 80 or str(now) in shown
    told = json.loads(kdc("report", now, "--format", "json", "--baseline", old).out)
    losses = {
        device["name"]: next(
            change["change"]["value"]
            for change in device["release"]["variants"][0]["changes"]
            if change["figure"] == "accuracy"
        )
        for device in told["devices"]
    }
    assert losses == {"nano": 0.0, "pi": pytest.approx(-0.1)}
    checked = kdc("check", now, "--baseline", old)
    assert "pi against the baseline: worse: accuracy −10.0 [" in checked.out
    without = kdc("report", now).out
    assert "compared" not in without
    assert f"{now}/devices.md" in "".join(without.split())


def test_of_too_many_flips_the_line_stays(now: Path, old: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.report import baselines_for
    from compressor.report.render import devices

    measured = check_each(now, baselines_for(old, now))
    whole = to_matrix(measured)
    monkeypatch.setattr(devices, "LONGEST", len(whole) - 1)
    shorter = to_matrix(measured)
    assert "Right before, wrong now" not in shorter
    assert "**Against the baseline:** worse: accuracy −10.0" in shorter
    monkeypatch.setattr(devices, "LONGEST", len(shorter) - 1)
    assert "would not fit into a comment" in to_matrix(measured)


def test_a_session_beside_the_devices_is_told_where_it_belongs(now: Path) -> None:
    shutil.copytree(now / "devices" / "pi" / "measurements", now / "measurements")
    for gate in (check_each, refresh_each):
        with pytest.raises(KdcError, match=r"measurements/measurement\.json is not listed") as caught:
            gate(now)
        assert "(nano, pi)" in caught.value.hint
        assert f"{now}/devices/NAME/measurements" in caught.value.hint
        assert "kdc export" not in caught.value.hint
    shutil.rmtree(now / "devices" / "nano" / "measurements")
    shutil.move(now / "measurements", now / "devices" / "nano" / "measurements")
    nano, _ = refresh_each(now)
    assert nano.report.rows[0].accuracy is not None
    assert nano.report.rows[0].accuracy.value == pytest.approx(1 - 22 / 200), "the hint was followed"


def test_why_a_device_had_failed_is_forgotten_when_its_session_counts(make_bundle: Make) -> None:
    made = several(make_bundle, {"nano": UNREACHABLE, "pi": A_FIRST})
    finish_each(made)
    path = made / "devices" / "nano" / "device.json"
    assert read_json(path, Device).error == UNREACHABLE
    shutil.copytree(made / "devices" / "pi" / "measurements", made / "devices" / "nano" / "measurements")
    refresh_each(made)
    told = read_json(path, Device)
    assert (told.error, told.exit_code, told.url) == (None, None, "ssh://nano")
    assert UNREACHABLE not in (made / "devices" / "nano" / "report.json").read_text(encoding="utf-8")
    check_each(made)


@pytest.fixture
def folders(make_bundle: Make, tmp_path: Path) -> Callable[..., Path]:
    """folders(name, board, desk): a folder with a bundle for each of two profiles, wrong on so many samples."""

    def make(folder: str, **wrong: int) -> Path:
        for name, count in wrong.items():
            made = make_bundle(budget={"p50_ms": 5.0}, profile_changes={"name": name}, **answering(count), **TEST)
            finish(made)
            (tmp_path / folder).mkdir(exist_ok=True)
            shutil.move(made, tmp_path / folder / name)
        matrix(tmp_path / folder, tuple(wrong))
        return tmp_path / folder

    return make


def test_a_folder_of_bundles_is_held_against_another(folders: Callable[..., Path], kdc: Kdc) -> None:
    """Each against the one for its own profile; and one of them against the folder, too."""
    before, after = folders("before", board=2, desk=42), folders("after", board=22, desk=22)
    checked = kdc("check", after, "--baseline", before)
    assert "board against the baseline: worse: accuracy −10.0 [" in checked.out
    assert "desk against the baseline: better: accuracy +10.0 [" in checked.out
    assert checked.code == 1
    shown = json.loads(kdc("report", after, "--format", "json", "--baseline", before).out)
    assert [device["release"]["measured"] for device in shown["devices"]] == ["2026-11-24T07:01:00Z"] * 2
    alone = kdc("check", after / "desk", "--baseline", before)
    assert alone.code == 0
    assert "against the baseline: better: accuracy +10.0 [" in alone.out
    assert "−10.0 [" in kdc("report", after / "board", "--format", "md", "--baseline", before).out
    itself = kdc("check", after, "--baseline", after)
    assert (itself.code, "is the folder of bundles itself" in itself.err) == (2, True)


def test_a_folder_without_that_profile_says_what_it_has(folders: Callable[..., Path], kdc: Kdc, tmp_path: Path) -> None:
    before, after = folders("before", board=2), folders("after", board=2, desk=2)
    seals = {path: path.read_bytes() for path in after.rglob("*") if path.is_file()}
    for command in ("check", "report", "measure"):
        where = after / "desk" if command == "measure" else after
        refused = kdc(command, where, "--baseline", before)
        assert refused.code == 2
        assert f"--baseline {before} holds no bundle for profile desk; it has: board" in refused.err
    assert {path: path.read_bytes() for path in after.rglob("*") if path.is_file()} == seals


def test_junit_of_several_profiles_says_why_nothing_was_measured(folders: Callable[..., Path], kdc: Kdc) -> None:
    out = folders("out", board=2, desk=2)
    for name in ("SHA256SUMS", "report.json", "report.md", "report.html", "junit.xml", "README.md"):
        (out / "desk" / name).unlink()
    shutil.rmtree(out / "desk" / "measurements")
    shutil.rmtree(out / "desk" / "best")
    path = out / "devices.json"
    text = path.read_text(encoding="utf-8").replace('"error": null', '"error": "the board \\u001b[31m is off <now>"')
    path.write_text(text, encoding="utf-8")
    assert kdc("report", out).code == 0
    for junit in ((out / "junit.xml").read_text(encoding="utf-8"), kdc("report", out, "--format", "junit").out):
        board, desk = ET.fromstring(junit)
        told = {found.get("name"): found.get("value") for found in desk.iter("property")}
        assert told["not measured"] == "the board \\x1b[31m is off <now>"
        assert "not measured" not in {found.get("name") for found in board.iter("property")}
        skipped = [found.get("message") for found in desk.iter("skipped")]
        assert skipped
        assert all(str(message).endswith(" (the board \\x1b[31m is off <now>)") for message in skipped)


def test_of_a_device_the_reason_stands_there_as_before(make_bundle: Make) -> None:
    made = several(make_bundle, {"nano": UNREACHABLE, "pi": A_FIRST})
    nano, pi = finish_each(made)
    for junit in (to_junit(nano.report, pi.report), (made / "junit.xml").read_text(encoding="utf-8")):
        first, second = ET.fromstring(junit)
        assert {found.get("value") for found in first.iter("property") if found.get("name") == "not measured"} == {
            UNREACHABLE
        }
        assert not [found for found in second.iter("property") if found.get("name") == "not measured"]


@pytest.mark.parametrize("option", ["--history", "--out"])
def test_nothing_is_put_among_bundles(option: str, folders: Callable[..., Path], old: Path, kdc: Kdc) -> None:
    """A file there would stop the next export, and break the seal of another bundle."""
    out = folders("out", board=2)
    for place, kind in (
        (out / "h.json", f"folder of bundles {out}"),
        (out / "new" / "h.json", f"folder of bundles {out}"),
        (out / "board" / "h.json", f"bundle {out / 'board'}"),
        (old / "h.json", f"bundle {old}"),
    ):
        refused = kdc("report", out / "board", option, place)
        assert refused.code == 2, place
        assert f"{option} {place} lies in the {kind}" in refused.err
        assert not place.exists()
    beside = kdc("report", out / "board", option, out.parent / "h.json")
    assert beside.code == 0
    assert (out.parent / "h.json").is_file()


@pytest.mark.parametrize(
    ("url", "typed"),
    [
        ("ssh://me@desk:22/tmp", "--device ssh://me@desk:22/tmp"),
        ("ssh://desk/a b", "--device URL"),
        ("ssh://desk/$(touch x)", "--device URL"),
        ("ssh://desk/$(x)", "--device 'ssh://desk/$(x)'"),
        ("ssh://-oProxyCommand=x", "--device URL"),
        ("--explain", "--device URL"),
        ("; rm -rf ~", "--device URL"),
        ("ssh://x\x1b[31m", "--device URL"),
        ("ssh://" + "x" * 200, "--device URL"),
    ],
)
def test_a_url_that_anybody_may_have_written_is_typed_only_as_one(
    url: str, typed: str, folders: Callable[..., Path]
) -> None:
    out = folders("out", board=2, desk=2)
    (out / "desk" / "SHA256SUMS").unlink()
    shutil.rmtree(out / "desk" / "measurements")
    told = read_json(out / "devices.json", Devices)
    desk = told.devices[1].model_copy(update={"url": url, "error": "it is off"})
    write_json(out / "devices.json", told.model_copy(update={"devices": (told.devices[0], desk)}))
    step = next_of(compressor.check(out).measured, "OUT")  # type: ignore[union-attr]
    assert step is not None
    assert step.command == f"kdc measure OUT/desk {typed}"


def test_a_url_of_a_device_in_a_bundle_too(make_bundle: Make) -> None:
    for url, typed in (("ssh://nano", "nano=ssh://nano"), ("x; reboot", "NAME=URL"), ("ssh://-oX=y", "NAME=URL")):
        made = several(make_bundle, {"nano": UNREACHABLE, "pi": A_FIRST})
        path = made / "devices" / "nano" / "device.json"
        write_json(path, read_json(path, Device).model_copy(update={"url": url}))
        step = next_of(finish_each(made), "B")
        assert step is not None
        assert step.command == f"kdc measure B --device {typed}"


def test_what_is_for_one_report_is_refused_before_anything_is_done(now: Path, kdc: Kdc, tmp_path: Path) -> None:
    """Though there is a session to take up."""
    shutil.copy(now / "devices/pi/measurements/measurement.json", now / "devices/pi/measurements/again.json")
    before = {path: path.read_bytes() for path in now.rglob("*") if path.is_file()}
    for arguments in (("--format", "html"), ("--history", tmp_path / "h.jsonl"), ("--push", "hf:me/model")):
        refused = kdc("report", now, *arguments)
        assert refused.code == 2
        assert len([line for line in refused.err.splitlines() if "error:" in line]) == 1
        assert "measured on several devices" in refused.err
    assert {path: path.read_bytes() for path in now.rglob("*") if path.is_file()} == before
    assert not (tmp_path / "h.jsonl").exists()
    seal(now)
