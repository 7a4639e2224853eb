"""A bundle that was measured on several devices: each one's report, choice and best/, and one verdict over all."""

import itertools
import json
import shutil
import xml.etree.ElementTree as ET
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

import compressor
from compressor import KdcError
from compressor.files.bundle_folder import claim, device_folders, files_of
from compressor.report import (
    build_report,
    check,
    check_each,
    devices_line,
    devices_of,
    devices_summary,
    exit_code_over,
    finish,
    finish_each,
    read_devices,
    refresh,
    refresh_each,
    release_of,
    seal,
    to_matrix,
    verify,
)
from compressor.report.devices import verdict_over
from compressor.report.read import read_results
from compressor.schema.base import parse, read_json
from compressor.schema.devices import Devices
from compressor.schema.manifest import Manifest
from compressor.schema.report import Report
from compressor.schema.side_by_side import SideBySide
from compressor.terminal.console import rendered_text
from tests.kit import Ended
from tests.report.several import A_FIRST, B_FIRST, SLOW, UNREACHABLE, session_of, several
from tests.report.test_report_formats import nothing_acts

Make = Callable[..., Path]
Kdc = Callable[..., Ended]
LOST = session_of(1.0, 2.0, session={"lost": "the connection to nano was lost", "device": "ssh"})


@pytest.fixture
def bundle(make_bundle: Make) -> Path:
    """Sealed: a wins on pi, b on nano."""
    made = several(make_bundle, {"pi": A_FIRST, "nano": B_FIRST})
    finish_each(made)
    return made


def test_each_device_has_its_own_report_winner_and_best(bundle: Path, make_bundle: Make) -> None:
    on = {each.name: each for each in check_each(bundle)}
    assert list(on) == ["nano", "pi"]
    assert {name: each.report.winner for name, each in on.items()} == {"pi": "a", "nano": "b"}
    for name, winner in (("pi", "a"), ("nano", "b")):
        folder = bundle / "devices" / name
        assert read_json(folder / "best" / "manifest.json", Manifest).variant == winner
        assert read_json(folder / "report.json", Report) == on[name].report
        assert (folder / "best" / "model.onnx").read_bytes() == (bundle / winner / "model.onnx").read_bytes()
        assert {"report.md", "report.html", "junit.xml", "README.md"} <= {path.name for path in folder.iterdir()}
        assert f"measured on `{name}`" in (folder / "report.md").read_text(encoding="utf-8").splitlines()[0]
    top = {path.name for path in bundle.iterdir() if path.is_file()}
    assert top == {"bundle.json", "SHA256SUMS", "devices.json", "devices.md", "junit.xml"}, (
        "no report of the one of them"
    )
    assert not (bundle / "best").exists()


def test_figures_are_those_of_a_bundle_that_was_measured_there_alone(make_bundle: Make, tmp_path: Path) -> None:
    made = several(make_bundle, {"pi": A_FIRST, "nano": B_FIRST})
    on = {each.name: each.report for each in read_devices(made)}
    shutil.move(made, tmp_path / "several")
    for name, session in (("pi", A_FIRST), ("nano", B_FIRST)):
        alone = build_report(make_bundle(budget={"p50_ms": 5.0}, **session))
        assert on[name].rows == alone.rows
        assert on[name].checks == alone.checks
        assert (on[name].verdict, on[name].winner, on[name].why) == (alone.verdict, alone.winner, alone.why)


def test_the_matrix_holds_every_figure_of_every_device(bundle: Path) -> None:
    lying = read_json(bundle / "devices.json", Devices)
    assert lying == devices_of(check_each(bundle))
    for device in lying.devices:
        report = read_json(bundle / device.report, Report)
        assert device.machine == "Intel(R) Processor N100"
        rows = {row.name: row for row in report.rows if row.role == "student"}
        assert [cell.variant for cell in device.cells] == list(rows)
        for cell in device.cells:
            row = rows[cell.variant]
            assert (cell.p50_ms, cell.p90_ms, cell.accuracy) == (row.p50_ms, row.p90_ms, row.accuracy)
            assert cell.p50_ms is not None
            assert cell.ships == (cell.variant == report.winner)
            assert (cell.verdict, cell.failed, cell.missing) == ("pass", (), None)
    assert lying.verdict == "pass"


CODES = {"pass": 0, "fail": 1, "open": 3, "missing": 3}
STATES: dict[str, Any] = {"pass": A_FIRST, "fail": SLOW, "open": LOST, "missing": UNREACHABLE}


@pytest.mark.parametrize("states", list(itertools.combinations_with_replacement(STATES, 2)))
def test_the_exit_code_over_all(make_bundle: Make, kdc: Kdc, states: tuple[str, str]) -> None:
    """1 where one fails, whatever the other does; else 3 where one is open; else 0. The order does not matter."""
    first, second = (STATES[name] for name in states)
    made = several(make_bundle, {"x": first, "y": second})
    codes = {CODES[name] for name in states}
    expected = 1 if 1 in codes else max(codes)
    assert exit_code_over(finish_each(made)) == expected
    checked = kdc("check", made)
    assert checked.code == expected, checked.err
    assert kdc("report", made).code == 0
    assert kdc("check", made, "--json").code == expected


def test_verdicts_over_three() -> None:
    assert verdict_over(["pass", "pass", "pass"]) == "pass"
    assert verdict_over(["pass", "unmeasured", "fail"]) == "fail"
    assert verdict_over(["pass", "unmeasured", "inconclusive"]) == "inconclusive"
    assert verdict_over(["pass", "unmeasured", "pass"]) == "unmeasured"


def test_unmeasured_lines_may_be_allowed_and_a_device_that_was_not_reached_may_not(make_bundle: Make, kdc: Kdc) -> None:
    budget = {"p50_ms": 5.0, "min_retention": 0.5, "max_slowdown": 1.5}  # there is no baseline
    open_lines = several(make_bundle, {"x": A_FIRST, "y": B_FIRST}, budget)
    finish_each(open_lines)
    assert kdc("check", open_lines).code == 3
    assert kdc("check", open_lines, "--allow-unmeasured").code == 0
    missing = several(make_bundle, {"x": A_FIRST, "y": UNREACHABLE}, budget)
    finish_each(missing, allow_unmeasured=True)
    assert kdc("check", missing, "--allow-unmeasured").code == 3


def test_a_device_that_fails_leaves_the_others_whole_and_says_why(make_bundle: Make) -> None:
    made = several(make_bundle, {"nano": UNREACHABLE, "pi": A_FIRST})
    nano, pi = finish_each(made)
    assert (nano.report.session, nano.report.winner, nano.error) == (None, None, UNREACHABLE)
    assert (pi.report.verdict, pi.report.winner, pi.error) == ("pass", "a", None)
    devices = devices_of((nano, pi))
    assert devices.verdict == "unmeasured"
    assert {cell.missing for cell in devices.devices[0].cells} == {UNREACHABLE}
    assert all(cell.p50_ms is None for cell in devices.devices[0].cells)
    assert not (made / "devices" / "nano" / "best").exists()
    text = (made / "devices.md").read_text(encoding="utf-8")
    assert "not measured: the board cannot be reached" in text
    assert "kdc measure BUNDLE --device nano=ssh://nano" in text
    note = f"Nothing was measured on nano: {UNREACHABLE}"
    assert note in nano.report.notes
    assert "nothing was measured" in " ".join(nano.report.notes).lower()


def test_a_session_that_broke_off_is_no_pass(make_bundle: Make) -> None:
    made = several(make_bundle, {"nano": LOST, "pi": A_FIRST})
    measured = finish_each(made)
    assert [each.report.verdict for each in measured] == ["inconclusive", "pass"]
    assert "the session broke off: the connection to nano was lost" in to_matrix(measured)
    assert exit_code_over(measured) == 3


def test_what_is_shown_of_all(bundle: Path, kdc: Kdc) -> None:
    md = kdc("report", bundle, "--format", "md").out
    assert md == (bundle / "devices.md").read_text(encoding="utf-8")
    assert md.startswith("## kdc: PASS – the budget holds on all 2 devices")
    rows = {line.split(" | ")[0].removeprefix("| "): line for line in md.splitlines() if line.startswith("| ")}
    _, nano, pi = rows["`a`"].removesuffix(" |").split(" | ")
    assert float(nano.split()[0]) == pytest.approx(2.0, rel=0.05)
    assert float(pi.split()[0]) == pytest.approx(1.0, rel=0.05)
    assert (nano.endswith("**ships**"), pi.endswith("**ships**")) == (False, True)
    found = json.loads(kdc("report", bundle, "--format", "json").out)
    assert parse(Devices, found, "stdout") == read_json(bundle / "devices.json", Devices)
    assert found == json.loads(kdc("check", bundle, "--json").out)
    suites = ET.fromstring(kdc("report", bundle, "--format", "junit").out)
    assert [suite.get("name") for suite in suites] == ["kdc mini-pc on nano: pass", "kdc mini-pc on pi: pass"]
    assert int(suites.get("tests", "0")) == sum(int(suite.get("tests", "0")) for suite in suites)
    assert {case.get("classname") for case in suites.iter("testcase")} >= {"nano.a", "pi.a", "pi.b"}
    assert (bundle / "junit.xml").read_text(encoding="utf-8") == kdc("report", bundle, "--format", "junit").out
    bencher = json.loads(kdc("report", bundle, "--format", "bencher").out)
    assert {"nano: a", "pi: a", "pi: teacher (teacher)"} <= set(bencher)
    text = kdc("report", bundle).out
    assert text.startswith("PASS  the budget holds on all 2 devices\n")
    assert f"ships{bundle}/devices/nano/best/{bundle}/devices/pi/best/" in "".join(text.split())
    line = kdc("check", bundle).out.splitlines()
    assert line[0] == "PASS on 2 devices: nano pass, ships b; pi pass, ships a"
    assert line[1].startswith("seal ")
    assert kdc("report", bundle, "--quiet").out.splitlines() == line[:1]


def test_what_is_about_one_device_says_so(bundle: Path, kdc: Kdc, tmp_path: Path) -> None:
    for arguments, said in (
        (("--format", "html"), "devices/pi/report.html"),
        (("--out", tmp_path / "x.html"), "devices/pi/report.html"),
        (("--history", tmp_path / "h.jsonl"), "--history is for one report"),
        (("--push", "hf:me/model"), "--push is for one report"),
    ):
        refused = kdc("report", bundle, *arguments)
        assert refused.code == 2
        assert said in refused.err
    assert not (tmp_path / "h.jsonl").exists()
    for read in (build_report, finish, refresh, check):
        with pytest.raises(KdcError, match="measured on several devices, and this is about one: nano, pi"):
            read(bundle)


def test_in_python(bundle: Path) -> None:
    done = compressor.check(bundle)
    assert isinstance(done, compressor.DevicesResult)
    assert (done.verdict, done.exit_code, done.passed) == ("pass", 0, True)
    assert {name: report.winner for name, report in done.devices.items()} == {"nano": "b", "pi": "a"}
    assert done.to_dict() == json.loads((bundle / "devices.json").read_text(encoding="utf-8"))
    with pytest.raises(KdcError, match="`devices` has a report on each"):
        done.report  # noqa: B018
    assert "<table>" in done._repr_html_()
    assert done.summary in repr(done)
    shown = compressor.report(bundle, format="md")
    assert shown.text == done.to_markdown()


def test_many_devices_stay_within_25_lines_and_80_columns(make_bundle: Make) -> None:
    names = [f"board-{number:02}-of-a-very-long-name-that-nobody-would-type" for number in range(20)]
    sessions: dict[str, Any] = {name: UNREACHABLE if number % 3 else A_FIRST for number, name in enumerate(names)}
    measured = read_devices(several(make_bundle, sessions))
    for some in (measured[:2], measured[:9], measured):
        top = to_matrix(some).partition("<details>")[0].rstrip("\n")
        assert len(top.split("\n")) <= 25
        assert top.startswith("## kdc: UNMEASURED – the budget is not measured on ")
        for name in [each.name for each in some]:
            assert name in to_matrix(some)
        lines = rendered_text(devices_summary(some, "bundle")).splitlines()
        assert max(map(cell_len, lines)) <= 80
        assert devices_line(some).count("\n") == 0


def test_hostile_texts_are_shown_as_text(make_bundle: Make, kdc: Kdc) -> None:
    evil = "<script>alert(1)</script> | `x` \x1b[31m \u202e @everyone\nPASS on all" + "y" * 5000
    made = several(make_bundle, {"nano": evil, "pi": A_FIRST})
    finish_each(made)
    markdown, junit = (made / "devices.md").read_text(encoding="utf-8"), kdc("report", made, "--format", "junit").out
    for text in (markdown, junit, kdc("report", made).out, kdc("check", made).out):
        nothing_acts(text)
        assert "\nPASS on all" not in text
    assert "<script>" not in markdown.replace("\\<script>", "") + junit
    assert "@everyone" not in markdown
    shown = rendered_text(devices_summary(check_each(made), "bundle"))
    assert max(map(cell_len, shown.splitlines())) <= 80
    assert (made / "devices" / "nano" / "report.html").read_text(encoding="utf-8").count("<script>alert") == 0


def test_the_seal_covers_every_device(bundle: Path, kdc: Kdc) -> None:
    sums = (bundle / "SHA256SUMS").read_text(encoding="utf-8")
    for path in ("devices/pi/measurements/measurement.json", "devices/pi/device.json", "devices/nano/best/model.onnx"):
        assert f"  {path}\n" in sums
        whole = (bundle / path).read_bytes()
        (bundle / path).write_bytes(whole + b" ")
        refused = kdc("check", bundle)
        assert refused.code == 2
        assert f"{path} was changed after it was made" in refused.err
        (bundle / path).write_bytes(whole)
    (bundle / "devices" / "pi" / "notes.txt").write_text("mine", encoding="utf-8")
    assert "devices/pi/notes.txt is not listed" in kdc("check", bundle).err
    with pytest.raises(KdcError, match=r"devices/pi/notes\.txt"):
        claim(bundle, overwrite=True)


def test_a_removed_or_renamed_device_is_noticed(bundle: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(bundle, tmp_path / "other"))
    shutil.rmtree(bundle / "devices" / "nano")
    with pytest.raises(KdcError, match=r"devices/nano/device\.json is missing"):
        verify(bundle)
    (other / "devices" / "nano").rename(other / "devices" / "orin")
    seal(other)
    with pytest.raises(KdcError, match="is of a device called nano, which lies in another folder"):
        check_each(other)


def test_logits_of_a_device_are_held_against_its_own_measurement(bundle: Path) -> None:
    shutil.copyfile(bundle / "eval" / "labels.npy", bundle / "devices" / "pi" / "measurements" / "a.npy")
    seal(bundle)
    with pytest.raises(KdcError, match=r"devices/pi/measurements/a\.npy was changed after it was measured"):
        check_each(bundle)


def test_a_best_that_is_not_what_its_device_chooses_is_noticed(bundle: Path) -> None:
    shutil.rmtree(bundle / "devices" / "pi" / "best")
    shutil.copytree(bundle / "devices" / "nano" / "best", bundle / "devices" / "pi" / "best")
    seal(bundle)
    with pytest.raises(KdcError, match="devices/pi/best is b, but the report chooses a"):
        check_each(bundle)
    refresh_each(bundle)
    check_each(bundle)


def test_sessions_that_were_copied_from_a_device_are_taken_up(bundle: Path, make_bundle: Make) -> None:
    """As bench.py leaves them, run on the device by hand: then nano is slow, and pi as it was."""
    before = (bundle / "devices" / "pi" / "report.json").read_bytes()
    kept = bundle.parent / "bundle-kept"
    shutil.move(bundle, kept)
    slow = make_bundle(budget={"p50_ms": 5.0}, **SLOW)
    shutil.rmtree(kept / "devices" / "nano" / "measurements")
    shutil.move(slow / "measurements", kept / "devices" / "nano" / "measurements")
    with pytest.raises(KdcError, match="kdc report") as caught:
        verify(kept)
    assert "takes that up" in caught.value.hint
    measured = refresh_each(kept)
    assert {each.name: each.report.verdict for each in measured} == {"nano": "fail", "pi": "pass"}
    assert (kept / "devices" / "pi" / "report.json").read_bytes() == before
    assert not (kept / "devices" / "nano" / "best").exists(), "what is too slow does not ship"
    assert exit_code_over(check_each(kept)) == 1


def test_a_session_that_completes_a_device_that_had_failed_counts(make_bundle: Make) -> None:
    made = several(make_bundle, {"nano": UNREACHABLE, "pi": A_FIRST})
    finish_each(made)
    shutil.copytree(made / "devices" / "pi" / "measurements", made / "devices" / "nano" / "measurements")
    nano, _ = refresh_each(made)
    assert (nano.error, nano.report.verdict) == (None, "pass")
    assert "Nothing was measured" not in " ".join(nano.report.notes)


def test_a_session_of_no_device_is_not_taken_for_one(bundle: Path) -> None:
    """As bench.py leaves it where nobody told it of devices."""
    shutil.copytree(bundle / "devices" / "pi" / "measurements", bundle / "measurements")
    for gate in (verify, refresh_each, check_each):
        with pytest.raises(KdcError, match=r"measurements/measurement\.json is not listed"):
            gate(bundle)


def test_a_report_with_nothing_new_writes_nothing(bundle: Path) -> None:
    before = {path: (bundle / path).stat().st_mtime_ns for path in files_of(bundle)}
    refresh_each(bundle)
    assert {path: (bundle / path).stat().st_mtime_ns for path in files_of(bundle)} == before


def test_a_bundle_of_several_is_a_baseline_with_each_variant_once(
    bundle: Path, make_bundle: Make, tmp_path: Path
) -> None:
    release = release_of(bundle)
    pi = read_results(bundle, "devices/pi/")
    assert pi.measurement is not None
    assert release.measured == pi.measurement.finished
    assert [variant.top1 is not None for variant in release.variants] == [True, True]
    old = tmp_path / "old"
    shutil.move(bundle, old)
    new = several(make_bundle, {"pi": A_FIRST, "nano": UNREACHABLE})
    finish_each(new)
    done = compressor.check(new, baseline=old)
    assert isinstance(done, compressor.DevicesResult)
    diff = done.devices["pi"].release
    assert diff is not None
    assert [variant.predictions for variant in diff.variants] == ["stored", "stored"]
    nano = done.devices["nano"].release
    assert nano is not None
    assert all(variant.predictions is None or variant.missing for variant in nano.variants)


def test_each_device_is_a_column_side_by_side(bundle: Path, make_bundle: Make, tmp_path: Path, kdc: Kdc) -> None:
    old = tmp_path / "old"
    shutil.move(bundle, old)
    other = make_bundle(**A_FIRST)
    finish(other)
    told = parse(SideBySide, json.loads(kdc("report", old, other, "--format", "json").out), "stdout")
    assert [column.bundle for column in told.columns] == [f"{old} (nano)", f"{old} (pi)", str(other)]
    assert [column.shipped.name for column in told.columns if column.shipped is not None] == ["b", "a", "a"]


def test_folders_that_a_kill_left_are_no_devices(bundle: Path) -> None:
    left = bundle / "devices" / ".kdc-tmp.x"
    left.mkdir()
    (left / "device.json").write_text("{}", encoding="utf-8")
    assert device_folders(bundle) == ["devices/nano/", "devices/pi/"]
