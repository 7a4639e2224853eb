"""`kdc measure` on a bundle that was measured before, on one device or on several: what stays, what goes, what counts.

What each device measures is prepared; how a session goes is a matter of test_measure_session and
test_measure_ssh_devices.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import compressor
from compressor import KdcError, sessions
from compressor.files.bundle_folder import UNMEASURED, counted, device_folders, files_of
from compressor.measure import devices, session
from compressor.progress import Progress
from compressor.report import (
    check_each,
    exit_code_over,
    finish,
    finish_each,
    of_profile,
    refresh_each,
    seal,
    write_matrix,
)
from compressor.schema.base import read_json
from compressor.schema.device import Device
from compressor.schema.devices import Devices
from compressor.schema.measurement import Measurement
from tests.kit import Ended, Hearing
from tests.report.several import A_FIRST, B_FIRST, SLOW, several
from tests.report.test_bundle_change import KILLER, contents, killed_at, work_in

Make = Callable[..., Path]
Kdc = Callable[..., Ended]
TOP = ("report.json", "report.md", "report.html", "README.md")


class Prepared:
    """What each device does when it is measured: a folder of measurements, or an exception."""

    def __init__(self, make_bundle: Make, folder: Path) -> None:
        self.answers: dict[str, Path | BaseException] = {}
        self.asked: list[str] = []
        self._make, self._folder = make_bundle, folder

    def will(self, name: str, what: dict[str, Any] | BaseException) -> None:
        if isinstance(what, BaseException):
            self.answers[name] = what
            return
        aside = self._folder / "aside"  # `make_bundle` has one place for all that it makes
        if (self._folder / "bundle").exists():
            shutil.move(self._folder / "bundle", aside)
        bundle = self._make(budget={"p50_ms": 5.0}, **what)
        kept = self._folder / f"will-{len(self.answers)}-{name}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(bundle / "measurements", kept)
        shutil.rmtree(bundle)
        if aside.exists():
            shutil.move(aside, bundle)
        self.answers[name] = kept

    def measure(
        self, bundle: Path, url: devices.DeviceUrl, *, progress: Progress, undecided: session.Undecided,
        into: Path | None = None, **_: object,
    ) -> Measurement:  # fmt: skip
        self.asked.append(url.name)
        answer = self.answers[url.name]
        if isinstance(answer, BaseException):
            raise answer
        progress.at("latency", 1, 2)
        to = (into or bundle) / "measurements"
        shutil.rmtree(to, ignore_errors=True)  # never through a link into the bundle before
        shutil.copytree(answer, to)
        measurement = read_json(to / "measurement.json", Measurement)
        undecided(measurement)
        return measurement


@pytest.fixture
def there(make_bundle: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepared:
    """Devices that are machines of their own: this one and pi prefer a, nano prefers b, snail is slow."""
    made = Prepared(make_bundle, tmp_path)
    for name, what in (("this machine", A_FIRST), ("pi", A_FIRST), ("nano", B_FIRST), ("snail", SLOW)):
        made.will(name, what)
    monkeypatch.setattr(session, "measure_bundle", made.measure)
    monkeypatch.setattr(devices, "same_machines", lambda urls: [[], *([number] for number in range(len(urls)))])
    return made


@pytest.fixture
def bundle(there: Prepared, make_bundle: Make) -> Path:
    """Sealed, with one session: as `kdc measure` on this machine leaves it."""
    made = make_bundle(budget={"p50_ms": 5.0}, **A_FIRST)
    finish(made)
    return made


def measure(bundle: Path, *named: str, **more: Any) -> Any:
    return compressor.measure(bundle, device=named or None, progress=more.pop("progress", Hearing()), **more)


def sessions_of(bundle: Path) -> dict[str, str | None]:
    """Device -> what wins there; the bundle is sound."""
    return {each.name: each.report.winner for each in check_each(bundle)}


def only_one(bundle: Path) -> bool:
    return not (bundle / "devices").exists() and not (bundle / "devices.json").exists()


def test_from_one_to_several_and_back(bundle: Path, kdc: Kdc) -> None:
    alone = contents(bundle)
    done = measure(bundle, "ssh://pi", "ssh://nano")
    assert isinstance(done, compressor.DevicesResult)
    assert sessions_of(bundle) == {"nano": "b", "pi": "a"}
    assert not any((bundle / name).exists() for name in (*TOP, "best", "measurements"))
    assert work_in(bundle) == []
    told = Hearing()
    with pytest.raises(KdcError, match=r"was measured on .*, and not on this machine") as caught:
        measure(bundle)
    assert "device here=local" in caught.value.hint
    again = measure(bundle, "here=local", progress=told)
    assert isinstance(again, compressor.BundleResult)
    assert told.warnings == [f"what {bundle} holds of nano, pi gives way to this session"]
    assert only_one(bundle)
    assert contents(bundle) == alone, "as if it had never been measured elsewhere"
    assert kdc("check", bundle).code == 0


def test_several_take_the_place_of_several(bundle: Path) -> None:
    measure(bundle, "ssh://pi", "ssh://nano")
    told = Hearing()
    done = measure(bundle, "ssh://nano", "ssh://snail", progress=told)
    assert told.warnings == [f"what {bundle} holds of pi gives way to this session"]
    assert sessions_of(bundle) == {"nano": "b", "snail": None}
    assert (done.verdict, done.exit_code) == ("fail", 1)
    assert not (bundle / "devices" / "pi").exists()
    told = Hearing()
    measure(bundle, "ssh://nano", "ssh://snail", progress=told)
    assert told.warnings == []


@pytest.mark.parametrize("named", ["ssh://nano", "nano=ssh://nano", "nano=ssh://10.0.0.9"])
def test_one_of_several_is_measured_again_and_the_others_stay(there: Prepared, bundle: Path, named: str) -> None:
    measure(bundle, "ssh://pi", "ssh://nano")
    before = {path: data for path, data in contents(bundle).items() if path.startswith("devices/pi/")}
    there.will("nano", SLOW)
    there.answers["10.0.0.9"] = there.answers["nano"]
    there.asked.clear()
    told = Hearing()
    done = measure(bundle, named, progress=told)
    assert there.asked == [named.rpartition("/")[2]]
    assert any(note.startswith(f"pi, on which {bundle} was measured too, stays as before") for note in told.notes)
    assert isinstance(done, compressor.DevicesResult)
    assert {name: report.verdict for name, report in done.devices.items()} == {"nano": "fail", "pi": "pass"}
    assert done.exit_code == 1, "over all, and not over the one that was named"
    assert {path: data for path, data in contents(bundle).items() if path.startswith("devices/pi/")} == before
    assert read_json(bundle / "devices" / "nano" / "device.json", Device).url == named.removeprefix("nano=")
    assert sessions_of(bundle) == {"nano": None, "pi": "a"}
    assert read_json(bundle / "devices.json", Devices).verdict == "fail"


def test_a_verdict_of_the_others_is_kept_when_one_passes_again(there: Prepared, bundle: Path) -> None:
    measure(bundle, "ssh://snail", "ssh://nano")
    done = measure(bundle, "ssh://nano")
    assert (done.verdict, done.exit_code) == ("fail", 1)


@pytest.mark.parametrize(
    ("named", "said", "hint"),
    [
        ("other=ssh://nano", "ssh://nano is called nano in this bundle", "--device nano=ssh://nano"),
        ("ssh://root@nano", "may be nano, which in this bundle is ssh://nano", "--device nano=ssh://root@nano"),
        ("ssh://nano:23", "may be nano", "--device nano=ssh://nano:23"),
    ],
)
def test_what_may_be_one_of_several_is_asked_for(bundle: Path, named: str, said: str, hint: str) -> None:
    measure(bundle, "ssh://pi", "ssh://nano")
    before = contents(bundle)
    with pytest.raises(KdcError, match=said) as caught:
        measure(bundle, named)
    assert hint.replace("--device ", "device ") in caught.value.hint.replace("--device ", "device ")
    assert contents(bundle) == before


def test_a_baseline_is_for_all_of_them(bundle: Path, tmp_path: Path) -> None:
    old = Path(shutil.copytree(bundle, tmp_path / "old"))
    measure(bundle, "ssh://pi", "ssh://nano")
    before = contents(bundle)
    with pytest.raises(KdcError, match="is for all devices") as caught:
        measure(bundle, "ssh://nano", baseline=old)
    assert f"kdc measure {bundle} --device nano=ssh://nano --device pi=ssh://pi --baseline {old}" in caught.value.hint
    assert contents(bundle) == before


GONE = KdcError("nano cannot be reached: nothing was measured", "is it on?", 3)
NO_RUNTIME = KdcError("nano: pip install onnxruntime (cannot import it)", "", 4)
STRANGER = KdcError("the host key of nano is unknown here", "connect once by hand", 2)


@pytest.mark.parametrize("error", [GONE, NO_RUNTIME, STRANGER])
def test_one_that_fails_leaves_the_others_and_nothing_of_its_own(
    there: Prepared, bundle: Path, error: KdcError, kdc: Kdc
) -> None:
    """Also where it had been measured before: an old figure does not stand for one that could not be had."""
    measure(bundle, "ssh://pi", "ssh://nano")
    there.will("nano", error)
    told = Hearing()
    done = measure(bundle, "ssh://pi", "ssh://nano", progress=told)
    assert (done.verdict, done.exit_code) == ("unmeasured", 3)
    assert done.devices["pi"].verdict == "pass"
    device = read_json(bundle / "devices" / "nano" / "device.json", Device)
    assert device.exit_code == error.exit_code
    assert device.error is not None
    assert device.error.startswith(error.message)
    assert told.warnings == [f"nano was not measured: {device.error}"]
    assert not any((bundle / "devices" / "nano" / name).exists() for name in ("best", "measurements"))
    assert kdc("check", bundle).code == 3
    there.will("nano", B_FIRST)
    assert measure(bundle, "ssh://nano").exit_code == 0, "and then it is measured alone"
    assert sessions_of(bundle) == {"nano": "b", "pi": "a"}


def test_a_budget_that_fails_outweighs_a_device_that_does(there: Prepared, bundle: Path) -> None:
    there.will("nano", NO_RUNTIME)
    done = measure(bundle, "ssh://snail", "ssh://nano")
    assert (done.verdict, done.exit_code) == ("fail", 1)


@pytest.mark.parametrize(
    ("pi", "nano", "code"),
    [
        (GONE, GONE, 3),
        (NO_RUNTIME, NO_RUNTIME, 4),
        (STRANGER, STRANGER, 2),
        (NO_RUNTIME, STRANGER, 3),
        (GONE, NO_RUNTIME, 3),
    ],
)
def test_where_none_is_measured_nothing_changes(
    there: Prepared, bundle: Path, pi: KdcError, nano: KdcError, code: int
) -> None:
    before = contents(bundle)
    there.will("pi", pi)
    there.will("nano", nano)
    with pytest.raises(KdcError) as caught:
        measure(bundle, "ssh://pi", "ssh://nano")
    assert caught.value.exit_code == code
    same = pi.message == nano.message
    assert ("pi: " in caught.value.message) != same
    assert ("pi, nano: " in caught.value.message) == same
    assert "nano: " in caught.value.message
    assert caught.value.message.count(pi.message) == 1, "the same is said once"
    assert contents(bundle) == before
    assert work_in(bundle) == []


def test_one_of_several_that_fails_alone_changes_nothing(there: Prepared, bundle: Path) -> None:
    measure(bundle, "ssh://pi", "ssh://nano")
    before = contents(bundle)
    there.will("nano", NO_RUNTIME)
    with pytest.raises(KdcError) as caught:
        measure(bundle, "ssh://nano")
    assert caught.value.exit_code == 4
    assert contents(bundle) == before


def test_an_interruption_leaves_what_was_there(there: Prepared, bundle: Path) -> None:
    before = contents(bundle)

    class Interrupted(Hearing):
        def at(self, doing: str, done: int, total: int) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(bundle, "ssh://pi", "ssh://nano", progress=Interrupted())
    assert contents(bundle) == before
    assert work_in(bundle) == []


def test_a_bug_in_one_session_is_no_device_that_fails(there: Prepared, bundle: Path) -> None:
    before = contents(bundle)
    there.will("nano", ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError):
        measure(bundle, "ssh://pi", "ssh://nano")
    assert contents(bundle) == before


def test_an_export_that_waits_is_measured_on_several_and_takes_its_place(bundle: Path, tmp_path: Path) -> None:
    measure(bundle, "ssh://pi", "ssh://snail")
    new = Path(shutil.copytree(bundle, tmp_path / "new"))
    for name in ("devices", "devices.json", "devices.md", "junit.xml", "SHA256SUMS"):
        shutil.rmtree(new / name) if (new / name).is_dir() else (new / name).unlink()
    shutil.move(new, bundle / UNMEASURED)
    measure(bundle, "ssh://pi", "ssh://nano")
    assert sessions_of(bundle) == {"nano": "b", "pi": "a"}
    assert work_in(bundle) == []


def test_names_and_python_are_told_to_each_session(
    there: Prepared, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pythons = {}

    def watched(folder: Path, url: devices.DeviceUrl, *, python: str | None, **more: Any) -> Measurement:
        pythons[url.name] = python
        return there.measure(folder, url, **more)

    monkeypatch.setattr(session, "measure_bundle", watched)
    told = Hearing()
    measure(bundle, "desk=local", "board=ssh://pi", device_python="/opt/python", progress=told)
    assert pythons == {"this machine": None, "pi": "/opt/python"}
    assert sessions_of(bundle) == {"board": "a", "desk": "a"}
    assert f"measuring {bundle} on board (ssh://pi)" in told.notes


def test_those_of_one_machine_are_said_and_measured_in_turn(
    there: Prepared, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "same_machines", lambda urls: [[1], [0, 2]])
    told = Hearing()
    measure(bundle, "ssh://pi", "local", "ssh://nano", progress=told)
    assert "pi, nano are one machine: they are measured one after the other" in told.notes
    assert any(note.startswith("local: this machine, which is measured first") for note in told.notes)
    assert there.asked == ["this machine", "pi", "nano"]


def test_the_command_says_all_and_ends_by_all(there: Prepared, bundle: Path, kdc: Kdc) -> None:
    done = kdc("measure", bundle, "--device", "ssh://pi", "--device", "quick=ssh://nano", "--device", "ssh://snail")
    assert done.code == 1
    assert done.out.startswith("FAIL  the budget does not hold on 1 of 3 devices\n")
    assert {line.split()[0] for line in done.out.splitlines() if "pass" in line.split()} == {"pi", "quick"}
    assert f"{bundle.name}/devices.md" in done.out.replace("\n", "")
    as_json = kdc("measure", bundle, "--device", "ssh://pi", "--device", "ssh://nano", "--json", "--quiet")
    assert as_json.code == 0
    assert '"kind": "devices"' in as_json.out
    refused = kdc("measure", bundle, "--device", "ssh://pi", "--device", "ssh://pi")
    assert (refused.code, "named twice" in refused.err) == (2, True)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("way", ["to several", "to one"])
def test_killed_at_some_calls_the_old_or_the_new_counts(
    there: Prepared, bundle: Path, tmp_path: Path, make_bundle: Make, way: str
) -> None:
    """From one session to several and back: as `_take_over` puts a state in the place of another."""
    from compressor.files.bundle_change import next_state

    one = Path(shutil.copytree(bundle, tmp_path / "one"))
    measure(bundle, "ssh://pi", "ssh://nano")
    both = Path(shutil.copytree(bundle, tmp_path / "both"))
    start, end = (one, both) if way == "to several" else (both, one)
    old, new, work = contents(start), contents(end), tmp_path / "work"

    def change() -> None:
        with next_state(work) as following:
            for path in files_of(following):
                (following / path).unlink()
            for path, data in new.items():
                (following / path).parent.mkdir(parents=True, exist_ok=True)
                (following / path).write_bytes(data)
            seal(following)

    shutil.copytree(start, work)
    with killed_at(0):
        change()
    assert contents(work) == new
    calls, seen = KILLER.calls, set()
    for at in (*range(1, calls, calls // 12), calls):
        shutil.rmtree(work)
        shutil.copytree(start, work)
        with killed_at(at):
            change()
        left = contents(counted(work))
        assert left in (old, new), at
        seen.add(left == new)
        check_each(work)
        refresh_each(work)
        assert contents(work) == left, at
        assert work_in(work) == [], at
        if left == new and way == "to one":
            assert device_folders(work) == []
            assert not [path for path in work.glob("devices/**/*") if path.is_file()]
    assert seen == {True, False}


def test_a_bundle_of_several_is_exported_anew_only_when_asked(bundle: Path, make_bundle: Make) -> None:
    from compressor.files.bundle_folder import claim

    measure(bundle, "ssh://pi", "ssh://nano")
    with pytest.raises(KdcError, match="holds a bundle"):
        claim(bundle, overwrite=False)
    claim(bundle, overwrite=True)
    (bundle / "devices" / "pi" / "measurements" / "log.txt").touch()
    claim(bundle, overwrite=True)


def test_synthetic_sessions_are_as_those_that_kdc_writes(bundle: Path, make_bundle: Make, tmp_path: Path) -> None:
    """What the other tests take for a bundle of several devices is one, to the byte."""
    measure(bundle, "ssh://pi", "ssh://nano")
    whole = contents(bundle)
    made = several(make_bundle, {"pi": A_FIRST, "nano": B_FIRST})
    measured = finish_each(made)
    assert contents(made) == whole
    assert exit_code_over(measured) == 0


@pytest.fixture
def profiles(there: Prepared, make_bundle: Make, tmp_path: Path) -> Path:
    """Sealed bundles of the profiles board and desk, as `kdc export` leaves them."""
    out = tmp_path / "out"
    for name in ("board", "desk"):
        made = make_bundle(budget={"p50_ms": 5.0}, profile_changes={"name": name}, **A_FIRST)
        finish(made)
        out.mkdir(exist_ok=True)
        shutil.move(made, out / name)
    write_matrix(out, [of_profile(check_each(out / name)[0], name, f"ssh://{name}") for name in ("board", "desk")])
    return out


def test_what_is_said_of_all_profiles_knows_of_each_measurement(
    profiles: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Hearing()
    measure(profiles / "desk", "ssh://snail", progress=told)
    devices_md = (profiles / "devices.md").read_text(encoding="utf-8")
    assert devices_md.startswith("## kdc: FAIL – the budget does not hold on 1 of 2 devices")
    matrix = read_json(profiles / "devices.json", Devices)
    assert [(each.name, each.verdict, each.url) for each in matrix.devices] == [
        ("board", "pass", "ssh://board"), ("desk", "fail", "ssh://snail"),
    ]  # fmt: skip
    assert '<testsuite name="kdc desk: fail"' in (profiles / "junit.xml").read_text(encoding="utf-8")
    assert f"{profiles}/devices.md, which is about all profiles, was brought up to date" in told.notes
    monkeypatch.chdir(profiles / "desk")
    measure(Path(), "ssh://pi")
    assert read_json(profiles / "devices.json", Devices).verdict == "pass", "from within, too"


def test_where_what_is_said_of_all_profiles_cannot_be_made_that_is_said(profiles: Path) -> None:
    """Another of the bundles is damaged. What was measured counts all the same."""
    (profiles / "board" / "report.md").write_text("changed", encoding="utf-8")
    before, told = (profiles / "devices.md").read_bytes(), Hearing()
    assert measure(profiles / "desk", "ssh://snail", progress=told).verdict == "fail"
    assert (profiles / "devices.md").read_bytes() == before
    [warning] = [line for line in told.warnings if "does not know of this measurement yet" in line]
    assert f"{profiles}/board/report.md was changed" in warning
    assert f"`kdc report {profiles}`" in warning
    assert check_each(profiles / "desk")[0].report.verdict == "fail"


def test_of_a_folder_of_bundles_the_one_for_the_profile_races(
    profiles: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Path(shutil.copytree(profiles, tmp_path / "old"))
    attached = []
    monkeypatch.setattr(sessions, "_attach", lambda folder, baseline, progress: attached.append(baseline.folder))
    measure(profiles / "desk", "ssh://pi", baseline=old)
    assert attached == [old / "desk"]
