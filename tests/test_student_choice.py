"""`kdc distill` without --student: when students race, and when the default one is taken, and that it is said."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compressor import choice, hub
from compressor.choice import Choosing
from compressor.measure import machine
from compressor.profiles import load_profile
from compressor.schema.student import Student
from compressor.tasks.image_classification import candidates
from tests.kit import MACHINE, TRAINING, Ended

Kdc = Callable[..., Ended]
TWO = {"A": ("test_efficientnet",), "B": ("test_resnet",)}


@pytest.mark.parametrize(
    ("name", "sets", "device", "why"),
    [
        (None, (), "local", "without --profile there is no budget"),
        ("raspberry-pi-5", ("budget={min_retention: 0.9}",), "local", "has no line on latency, size or memory"),
        ("x86-avx2", (), "local", "x86-avx2 is not this machine (arch is aarch64, the profile's x86_64)"),
        ("x86-avx2", (), "ssh://somewhere", None),
        ("raspberry-pi-5", (), "local", None),
    ],
)
def test_when_a_measurement_decides(
    name: str | None, sets: tuple[str, ...], device: str, why: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a Raspberry Pi 5."""
    monkeypatch.setattr(machine, "this_machine", lambda: MACHINE)
    profile = load_profile(name, sets) if name is not None else None
    told = choice._nothing_decides(Choosing(profile, device))
    assert (told is None) == (why is None)
    assert (why or "") in (told or "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--student", "timm:lcnet_035", "--students", "timm:a,timm:b"), "--student names one, and --students several"),
        (("--students", "timm:lcnet_035,"), "a name is empty, or stands there twice"),
        (("--students", "timm:lcnet_035,timm:lcnet_035"), "a name is empty, or stands there twice"),
        (("--students", "timm:lcnet_035,timm:lcnt_050"), "did you mean lcnet_050?"),
        (("--race-share", "0"), "--race-share"),
        (("--student", "timm:lcnet_035", "--allow-surgery"), "timm:NAME+relu"),
        (("--students", "timm:lcnet_035", "--device", "ssh://pi"), "--device is for candidates that kdc chooses among"),
        (("--precompute", "--students", "timm:lcnet_035"), "--precompute asks the teacher for one student"),
    ],
)
def test_what_is_refused(kdc: Kdc, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    teacher = ("--teacher", "timm:test_resnet@nowhere.pth") if "did you" not in message else ("--teacher", "self")
    ended = kdc("distill", *teacher, "--data", "digits", "--out", tmp_path / "run", *options)
    assert ended.code == 2
    assert message in ended.err
    assert not (tmp_path / "run").exists()


@pytest.fixture
def asked(teacher_run: Path, colours: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[object, ...]:
    """No option but teacher, data and how small it all is. The catalogue has two networks; the hub is out of reach."""

    @contextmanager
    def unreachable() -> Iterator[str]:
        yield "no route to host"

    monkeypatch.setattr(candidates, "CATALOGUE", TWO)
    monkeypatch.setattr(hub, "offline_if_unreachable", unreachable)
    sets = ("--set", "optimizer.lr=0.01", "--epochs", 3)
    return ("distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}", *TRAINING, *sets)


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_the_budget_names_the_field_and_the_report_shows_the_race(
    kdc: Kdc, asked: tuple[object, ...], here: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    ended = kdc(*asked, "--profile", here, "--out", out)
    assert ended.code == 0, ended.err
    assert "warning: all students start from random weights, since the hub cannot be reached: no route" in ended.err
    race = Student.model_validate_json((out / "student.json").read_text()).race
    assert race is not None
    assert race.why.startswith("of 2 candidates the budget of here (p50_ms, size_mb) admits 2 with 10% to spare")
    assert {contender.student for contender in race.contenders} == {"timm:test_efficientnet", "timm:test_resnet"}
    for contender in race.contenders:
        assert contender.p50_ms is not None
        assert contender.p50_ms.n == 30
    # The smaller of two is next to the larger, and the other way round.
    front = [contender for contender in race.contenders if contender.smaller or contender.larger]
    assert front
    # The same command, resumed, finds nothing to do, and measures nothing.
    again = kdc(*asked, "--profile", here, "--out", out, "--resume")
    assert again.code == 0, again.err
    assert "is finished already" in again.err
    assert "measured for longer" not in again.err
    bundle = tmp_path / "bundle"
    exported = kdc("export", out, "--profile", here, "--target", "onnxruntime", "--out", bundle, "--rounds", 11,
                   "--no-throughput")  # fmt: skip
    assert exported.code in (0, 3), exported.err
    assert json.loads((bundle / "report.json").read_text())["race"]["winner"] == race.winner
    assert "**The race of students" in (bundle / "report.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_no_candidate_holds_the_budget(kdc: Kdc, asked: tuple[object, ...], here: Path, tmp_path: Path) -> None:
    tight = tmp_path / "tight.yaml"
    tight.write_text(here.read_text().replace("name: here", "name: tight").replace("p50_ms: 1000.0", "p50_ms: 0.0001"))
    ended = kdc(*asked, "--profile", tight, "--out", tmp_path / "run")
    assert ended.code == 1
    assert "no candidate certainly holds the budget of tight" in ended.err
    assert not (tmp_path / "run" / "run.json").exists()


@pytest.mark.slow
def test_without_a_budget_the_default_is_taken_and_said(kdc: Kdc, asked: tuple[object, ...], tmp_path: Path) -> None:
    out = tmp_path / "run"
    ended = kdc(*asked, "--out", out, "--student-init", "random")
    assert ended.code == 0, ended.err
    assert "student timm:mobilenetv3_small_100 (the default, without --profile there is no budget; " in ended.err
    record = Student.model_validate_json((out / "student.json").read_text())
    assert (record.architecture, record.race) == ("mobilenetv3_small_100", None)
    assert kdc(*asked, "--out", out, "--student-init", "random", "--resume").code == 0
