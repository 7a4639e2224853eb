"""`kdc students`: real networks, real runtimes, figures that are kept, on this machine and over ssh."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

from compressor.errors import KdcError
from compressor.export.base import Builder
from compressor.export.builders import builder_of
from compressor.profiles import load_profile
from compressor.students import Wanted, students
from compressor.students import api as students_api
from compressor.students.api import screened
from compressor.students.kept import all_kept
from compressor.students.measuring import AT_ONCE, sessions_of
from compressor.tasks.image_classification.candidates import CATALOGUE
from tests.kit import Ended

Kdc = Callable[..., Ended]
TWO = ("--student", "timm:lcnet_035", "--student", "mobileone_s0")


@pytest.fixture
def profile(tmp_path: Path) -> Path:
    """Of this machine, one runtime."""
    path = tmp_path / "quick.yaml"
    text = load_profile("x86-avx2").model_dump_json()
    values = json.loads(text) | {
        "name": "quick", "input_size": 32, "threads": 1, "budget": {"size_mb": 3.0, "min_retention": 0.9},
        "targets": [{"runtime": "onnxruntime", "precisions": ["fp32", "int8"]}],
    }  # fmt: skip
    path.write_text(json.dumps(values))
    return path


def test_the_catalogue_is_timms_and_has_each_once() -> None:
    names = [name for family in CATALOGUE.values() for name in family]
    assert len(names) == len(set(names)) >= 30
    assert [name for name in names if not timm.is_model(name)] == []


def test_what_is_screened() -> None:
    """A float precision and int8 of each runtime; not those whose export takes long, unless there is no other."""
    assert screened(load_profile("x86-avx2")) == (
        ("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "f32"), ("openvino", "int8"),
    )  # fmt: skip
    jetson = (("onnxruntime", "fp32"), ("tensorrt", "fp32"), ("tensorrt", "int8"))
    assert screened(load_profile("jetson-orin-nano")) == jetson
    phone = load_profile("x86-avx2", ["targets=[{runtime: litert, precisions: [fp32, int8]}]"])
    assert screened(phone) == (("litert", "fp32"), ("litert", "int8"))


def test_what_is_not_screened_is_told_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of the profile's variants is left out in silence."""
    for name in ("android-snapdragon-8gen3", "jetson-orin-nano", "x86-avx2", "rtx-ada", "raspberry-pi-5"):
        profile = load_profile(name)
        asked = {"-".join((target.runtime, each)) for target in profile.targets for each in target.precisions}
        measured = screened(profile)
        told = students_api._left_out(profile, measured)
        assert {"-".join(pair) for pair in measured} | told.keys() == asked
        assert not {"-".join(pair) for pair in measured} & told.keys()
    phone, jetson = load_profile("android-snapdragon-8gen3"), load_profile("jetson-orin-nano")
    long = "an export for executorch takes tens of seconds a candidate, and the profile has another runtime"
    assert students_api._left_out(phone, screened(phone))["executorch-int8"] == long
    told = students_api._left_out(jetson, screened(jetson))
    assert told == {"tensorrt-fp16": "tensorrt-fp32 stands for tensorrt in float"}
    without_skeletons(monkeypatch)
    told = students_api._left_out(jetson, screened(jetson))
    assert told["tensorrt-int8"] == "there is no quick way to tensorrt's int8"


def without_skeletons(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a runtime that somebody adds."""

    def bare(name: str) -> Builder:
        builder = builder_of(name)
        quantizer = builder.quantizer and replace(builder.quantizer, skeleton=None)
        return replace(builder, quantizer=quantizer)

    monkeypatch.setattr(students_api, "builder_of", bare)


def test_a_name_that_nobody_knows_is_refused_before_anything_is_asked(
    kdc: Kdc, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(students_api, "_device", lambda *_: pytest.fail("the machine was asked first"))
    ended = kdc("students", "--profile", profile, "--student", "timm:lcnet_35")
    assert ended.code == 2
    assert "timm:lcnet_35 is no candidate; did you mean lcnet_035?" in ended.err


@pytest.mark.parametrize("option", [("--classes", 1), ("--input-size", 4), ("--input-size", 32, "--input-size", 5000)])
def test_numbers_out_of_range_are_refused(kdc: Kdc, profile: Path, option: tuple[object, ...]) -> None:
    assert kdc("students", "--profile", profile, *option).code == 2


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_networks_changed_for_speed_are_measured_by_their_names(
    kdc: Kdc, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KDC_CACHE", str(tmp_path / "cache"))
    asked = ("students", "--profile", profile, "--classes", 7, "--student", "timm:test_efficientnet", "--json")
    ended = kdc(*asked, "--allow-surgery", "--student", "timm:test_vit+depth2")
    assert ended.code == 0, ended.err
    rows = [row["figures"] for row in json.loads(ended.out)["rows"]]
    forms = ("", "+relu", "+no_se", "+relu+no_se", "+width0.5")
    names = {*(f"timm:test_efficientnet{form}" for form in forms), "timm:test_vit+depth2"}
    assert {row["student"] for row in rows} == names
    assert [row["error"] for row in rows] == [None] * 12  # in fp32 and in int8
    one = kdc(*asked[:5], "--student", "timm:test_efficientnet+relu+no_se", "--json")
    assert one.code == 0, one.err
    assert json.loads(one.out)["kept"] == 2


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_measured_once_then_kept(kdc: Kdc, profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KDC_CACHE", str(tmp_path / "cache"))
    asked = ("students", "--profile", profile, "--classes", 7, *TWO)
    ended = kdc(*asked, "--json", "--csv", tmp_path / "students.csv")
    assert ended.code == 0, ended.err
    first = json.loads(ended.out)
    rows = {(row["figures"]["student"], row["figures"]["precision"]): row for row in first["rows"]}
    assert set(rows) == {(f"timm:{name}", p) for name in ("lcnet_035", "mobileone_s0") for p in ("fp32", "int8")}
    kept = list(all_kept(tmp_path / "cache" / "students"))
    assert {(row.reference, row.threads, row.batch) for row in kept} == {("lcnet_035-32-onnxruntime-fp32", 1, 1)}
    assert {row.reference_ms for row in kept} == {rows["timm:lcnet_035", "fp32"]["figures"]["p50_ms"]["value"]}
    for row in rows.values():
        figures = row["figures"]
        assert figures["error"] is None
        assert 0 < figures["p50_ms"]["low"] <= figures["p50_ms"]["value"] <= figures["p90_ms"]["high"]
        assert figures["p50_ms"]["n"] == 12
        assert figures["classes"] == 7
    # MobileOne-S0 has 4.3 million parameters as it is trained, and 1.06 million, of which it ships, merged.
    merged, trained = rows["timm:mobileone_s0", "fp32"]["figures"], timm.create_model("mobileone_s0", num_classes=7)
    assert merged["parameters"] < 0.6 * sum(parameter.numel() for parameter in trained.parameters())
    assert merged["size_mb"] == pytest.approx(4 * merged["parameters"] / 1e6, rel=0.05)
    # Most of it is weights, and nearly all of these are stored in 8 bits.
    for name in ("lcnet_035", "mobileone_s0"):
        small, large = (rows[f"timm:{name}", precision]["figures"]["size_mb"] for precision in ("int8", "fp32"))
        assert small < 0.35 * large
    assert "int8" in rows["timm:mobileone_s0", "int8"]["figures"]["executed_precision"]
    assert rows["timm:mobileone_s0", "fp32"]["admitted"] is False
    assert rows["timm:lcnet_035", "fp32"]["admitted"] is True
    with (tmp_path / "students.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 4

    assert {path.name for path in (tmp_path / "cache").iterdir()} == {"students"}  # what was made is gone

    monkeypatch.setattr(students_api, "_measured", lambda *_: pytest.fail("measured again"))
    again = kdc(*asked, "--json")
    assert json.loads(again.out)["rows"] == first["rows"]


REFUSING = """
from compressor.errors import KdcError
from compressor.export.base import Builder
from compressor.export.builders import builder_of
from compressor.students import exporting

quick_onnx = exporting.quick_onnx

def refuse_one(network, *rest):
    if type(network).__name__ == "ResNet":
        raise KdcError("the network cannot be exported to ONNX: no such operator")
    quick_onnx(network, *rest)

exporting.quick_onnx = refuse_one
"""
"""In front of a worker's code: one of the two networks is refused."""


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_what_cannot_be_exported_stands_in_the_answer(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others are measured all the same; the next call tries it again."""
    from compressor.measure.devices import parse_device
    from compressor.progress import Silent
    from compressor.students import skeletons

    monkeypatch.setenv("KDC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(skeletons, "WORKER", REFUSING + skeletons.WORKER)
    wanted = Wanted(5, (32,), ("timm:resnet10t", "timm:lcnet_035"))
    answer = students(load_profile(str(profile)), wanted, parse_device("local"), python=None, progress=Silent())
    errors = {row.figures.student: row.figures.error for row in answer.rows}
    assert errors == {
        "timm:lcnet_035": None, "timm:resnet10t": "the network cannot be exported to ONNX: no such operator",
    }  # fmt: skip
    assert {path.name.split("-")[0] for path in (tmp_path / "cache" / "students").iterdir()} == {"lcnet_035"}


def test_sessions_hold_the_reference_and_whole_candidates() -> None:
    from tests.students.fields import field_of

    field = field_of(candidates=9, variants=4)
    sessions = sessions_of(field)
    assert all(session[0].name == field.reference for session in sessions)
    assert all(len(session) <= AT_ONCE + 1 for session in sessions)
    others = [entrant.name for session in sessions for entrant in session[1:]]
    assert sorted(others) == sorted(entrant.name for entrant in field.variants if entrant.name != field.reference)
    where = {entrant.name: number for number, session in enumerate(sessions) for entrant in session[1:]}
    for candidate in {entrant.candidate for entrant in field.variants}:
        assert len({number for name, number in where.items() if name.startswith(f"{candidate}-")}) == 1


def test_merging_keeps_the_answers() -> None:
    from compressor.tasks.image_classification.models.merging import merged

    torch.manual_seed(0)
    network = timm.create_model("mobileone_s0", num_classes=5).eval()
    for module in network.modules():  # drawn statistics, so that BatchNorm does something
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.uniform_(-0.1, 0.1)  # type: ignore[union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        before, after = network(images), merged(network)(images)
    torch.testing.assert_close(after, before, rtol=1e-3, atol=1e-4)
    plain = timm.create_model("lcnet_035").eval()
    assert merged(plain) is plain


def test_a_task_without_a_catalogue_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.tasks.table import TASKS, candidates_of

    bare = TASKS["image-classification"].__class__("m", (), (), ("x",))
    monkeypatch.setitem(TASKS, "bare", bare)
    with pytest.raises(KdcError, match="no catalogue of students for bare"):
        candidates_of("bare")


def test_a_profile_with_nothing_to_measure_before_training_says_so(
    kdc: Kdc, profile: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_skeletons(monkeypatch)
    ended = kdc("students", "--profile", profile, "--set", "targets=[{runtime: litert, precisions: [int8]}]")
    assert ended.code == 2
    assert "has nothing that can be measured before training" in ended.err


@pytest.mark.slow
def test_a_worker_that_is_killed_costs_its_candidate_alone(
    profile: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from compressor.progress import Silent
    from compressor.schema.students import Wish
    from compressor.students import skeletons

    def wish(name: str) -> Wish:
        pairs = (("onnxruntime", "fp32"),)
        return Wish(task="image-classification", name=name, family="-", input_size=32, classes=5, variants=pairs)

    # The first work that a process gets ends it, as the system does when memory runs out.
    dying = "import os, signal, sys\nsys.stdin.readline(), sys.stdin.readline()\nos.kill(os.getpid(), signal.SIGKILL)"
    wishes = [wish("lcnet_035"), wish("lcnet_050")]
    with monkeypatch.context() as patch:
        patch.setattr(skeletons, "WORKER", dying)
        made = list(skeletons.make_skeletons(wishes, load_profile(str(profile)), tmp_path, 2, Silent()))
    assert {skeleton.wish.name for skeleton in made} == {"lcnet_035", "lcnet_050"}
    for skeleton in made:
        said = (
            "its process died (signal 9) while it was exported; the system kills what needs more memory than there is"
        )
        assert skeleton.failures["onnxruntime-fp32"] == said
    made = list(skeletons.make_skeletons(wishes, load_profile(str(profile)), tmp_path, 2, Silent()))
    assert [len(skeleton.entrants) for skeleton in made] == [1, 1]


def test_what_a_kill_left_is_cleared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.progress import Silent

    monkeypatch.setenv("KDC_CACHE", str(tmp_path))
    left = tmp_path / "students-being-made" / "of a killed call"
    (left / "lcnet_035-224").mkdir(parents=True)
    (left / "lcnet_035-224" / "model.onnx").write_bytes(b"half")
    with students_api._workshop(Silent()) as folder, students_api._workshop(Silent()) as other:
        assert list(left.iterdir()) == []
        assert folder != other  # two devices may be screened at once
        (folder / "inputs.npy").write_bytes(b"1")
    assert not folder.exists()
    assert not other.exists()


def test_a_session_that_was_cut_short_measures_nothing() -> None:
    """Without a p50 there is a reason, so that nobody takes the candidate for one that holds, and nothing is kept."""
    from types import SimpleNamespace as Plain

    from compressor.schema.students import Wish
    from compressor.students.figures import figures_of
    from compressor.students.table import over_budget
    from tests.students.fields import field_of

    entrant = field_of(candidates=1, variants=1).variants[0]
    wish = Wish(
        task=entrant.task, name="net0", family="-", input_size=32, classes=5, variants=(("onnxruntime", "fp32"),)
    )
    ran = Plain(variant=entrant.name, error=None, runtime_version="1", executed_precision="fp32", peak_rss_mb=9.0,
                idle_rss_mb=5.0)  # fmt: skip
    blocks = [Plain(variant=entrant.name, wall_ms=(1.0,) * 6)] * 3
    figures = figures_of(wish, entrant, Plain(contestants=[ran], blocks=blocks))  # type: ignore[arg-type]
    assert figures.p50_ms is None
    assert figures.error == "measured in 3 blocks, too few to tell"
    assert over_budget(figures, load_profile("x86-avx2").budget)[0] is False
