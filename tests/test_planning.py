"""--plan: what it counts, what it says would stop, and that it leaves nothing behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import compressor
from compressor import planning
from compressor.api.call import called_like
from compressor.distill import forecast as module
from compressor.profiles import load_profile
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from compressor.schema.estimate import Spread
from compressor.schema.forecast import Forecast, Part
from tests.kit import TRAINING, Ended, attach

Kdc = Callable[..., Ended]


def part(seconds: float, epochs: int = 30) -> Part:
    return Part(
        name="student", student="timm:lcnet_035", epochs=epochs, steps=421, validation_s=2.0, seconds=seconds,
        step_s=Spread(median=0.25, lowest=0.2, highest=0.3, n=3),
    )  # fmt: skip


def plan(stops: tuple[str, ...] = (), missing: tuple[str, ...] = ()) -> Forecast:
    return Forecast(
        out="run", teacher="run:teacher", data="digits", counts={"train": 54_000, "validation": 6_000, "test": 10_000},
        timed="on cpu, 3 passes of 6 steps each, after one that warmed up", decode_s=61.0, parts=(part(4000.0),),
        disk={"decoded images": 2_200_000_000, "checkpoint": 23_100_000}, free=37_000_000_000, seconds=4061.0,
        notes=("who wins is not known yet",), stops=stops, missing=missing,
    )  # fmt: skip


def test_the_text_has_what_will_be_done() -> None:
    assert planning.to_text(plan()).splitlines() == [
        "run:teacher teaches on digits (train 54,000, validation 6,000, test 10,000)",
        "training  student         epochs  steps   s a step [lowest, highest]  time",
        "student   timm:lcnet_035  30      12,630  0.25 [0.2, 0.3]             67 min",
        "decoding 61 s; in all 68 min. Timed on cpu, 3 passes of 6 steps each, after one that warmed up.",
        "disk, about: decoded images 2.2 GB, checkpoint 23.1 MB; 37.0 GB are free for run",
        "note: who wins is not known yet",
        "nothing that can be checked now would stop it",
    ]
    assert "would stop: no space" in planning.to_text(plan(("no space",)))


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.4, "0 s"), (89.4, "89 s"), (90, "2 min"), (5340, "89 min"), (5430, "1 h 30 min")]
)
def test_times(seconds: float, told: str) -> None:
    assert planning._time(seconds) == told


def test_the_exit_code() -> None:
    missing = "kdc export: a runtime of here does not work here: pip install openvino"
    plans = (plan(), plan(missing=(missing,)), plan(("no space",)), plan(("no space",), (missing,)))
    assert [planning.exit_code(each) for each in plans] == [0, 4, 2, 2]
    assert f"would stop: {missing}" in planning.to_text(plans[1])


def test_keywords_of_another_function() -> None:
    def add(first: int, *, second: int = 2) -> int:
        return first + second

    @called_like(add)
    def told(**keywords: int) -> dict[str, int]:
        return keywords

    assert told(1) == {"first": 1, "second": 2}
    assert told(first=5, second=6) == {"first": 5, "second": 6}
    with pytest.raises(TypeError, match="third"):
        told(1, third=3)


def test_the_parts_of_a_race(ask: Callable[..., object]) -> None:
    """Three for 4 epochs, then the two slowest; the winner is taken to be the slowest."""
    from compressor.schema.race import Contender, RaceRequest
    from compressor.schema.student import Request

    timed = {
        name: module._Timed(100, Spread(median=step, lowest=step, highest=step, n=3), 1.0, 2.0, 10, 10, "224")
        for name, step in (("a", 0.1), ("b", 0.3), ("c", 0.2))
    }
    race = RaceRequest(named=("a", "b", "c"), contenders=tuple(Contender(student=name) for name in "abc"), why="named")
    request = ask(epochs=40)
    assert isinstance(request, Request)
    parts = [*module._parts(request.model_copy(update={"student": None, "race": race}), timed)]
    told = [(each.name, each.student, each.epochs, round(each.seconds)) for each in parts]
    assert told == [
        ("race, round 1", "a", 3, 33), ("race, round 1", "b", 3, 93), ("race, round 1", "c", 3, 63),
        ("race, round 2", "b", 5, 155), ("race, round 2", "c", 5, 105),
        ("the winner", "b", 40, 1240),
    ]  # fmt: skip


def test_the_parts_of_a_control(ask: Callable[..., object]) -> None:
    """As many epochs as its student, those under fake quantization too."""
    from compressor.schema.quantization import Scheme
    from compressor.schema.student import Request

    timed = {"timm:a": module._Timed(100, Spread(median=0.1, lowest=0.1, highest=0.1, n=3), 1.0, 2.0, 10, 10, "224")}
    request = ask(epochs=40)
    assert isinstance(request, Request)
    request = request.model_copy(update={"control": True, "qat": Scheme(activations="uint8")})
    told = [(each.name, each.student, each.epochs, round(each.seconds)) for each in module._parts(request, timed)]
    assert told == [
        ("student", "timm:a", 40, 440),
        ("under fake quantization", "timm:a", 3, 33),
        ("the control", "timm:a", 43, 473),
    ]


def test_images_are_decoded_for_every_training_and_for_a_race(ask: Callable[..., object]) -> None:
    """Two of those who race see them alike; what lies there for a race lies there together."""
    from compressor.schema.quantization import Scheme
    from compressor.schema.race import Contender, RaceRequest
    from compressor.schema.student import Request

    timed = {
        name: module._Timed(100, Spread(median=step, lowest=step, highest=step, n=3), 1.0, decode_s, decoded, 10, feed)
        for name, step, decode_s, decoded, feed in (("a", 0.1, 2.0, 10, "x"), ("b", 0.3, 3.0, 25, "y"),
                                                    ("c", 0.2, 2.0, 10, "x"))
    }  # fmt: skip
    race = RaceRequest(named=("a", "b", "c"), contenders=tuple(Contender(student=name) for name in "abc"), why="named")
    request = ask(epochs=40)
    assert isinstance(request, Request)
    raced = request.model_copy(update={"student": None, "race": race})
    assert sum(each.decode_s for each in module._decodings(raced, timed)) == 2 + 3 + 3
    assert module._decoded_at_once(raced, timed) == 35
    both = request.model_copy(update={"student": "a", "assistants": ("b",), "qat": Scheme(activations="uint8")})
    assert sum(each.decode_s for each in module._decodings(both, timed)) == 3 + 2 + 2
    assert sum(each.decode_s for each in module._decodings(both.model_copy(update={"control": True}), timed)) == 11
    assert module._decoded_at_once(both, timed) == 25


@pytest.fixture
def ask() -> Callable[..., object]:
    from compressor.schema.student import Request
    from tests.distill.conftest import recipe

    def request(epochs: int) -> Request:
        return Request(
            task="image-classification", command="distill", teacher="timm:test_resnet", student="timm:a", init="random",
            data="digits", skip_bad=False, input_size=32, recipe=recipe(epochs=epochs),
        )  # fmt: skip

    return request


@pytest.fixture
def asked(teacher_run: Path, colours: Path, tmp_path: Path) -> tuple[object, ...]:
    teacher, data = f"run:{teacher_run}", f"folder:{colours}"
    return (
        "distill", "--teacher", teacher, "--data", data, "--student-init", "random", *TRAINING, "--plan",
        "--out", tmp_path / "run", "--epochs", 5,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_a_plan_trains_nothing_and_counts_all(
    kdc: Kdc, asked: tuple[object, ...], here: Path, tmp_path: Path, teacher_run: Path, colours: Path
) -> None:
    ended = kdc(*asked, "--student", "timm:test_efficientnet", "--profile", here, "--json")
    assert ended.code == 0, ended.err
    told = Forecast.model_validate_json(ended.out)
    (training,) = told.parts
    # 84 images in steps of 16.
    assert (training.epochs, training.steps, training.step_s.n) == (5, told.counts["train"] // 16, 3)
    assert training.seconds == pytest.approx(5 * (training.steps * training.step_s.median + training.validation_s))
    assert told.seconds == pytest.approx(training.seconds + told.decode_s)
    assert told.disk["decoded images"] > 0
    anew = kdc(*asked, "--student", "timm:test_efficientnet", "--decode-cache", "off", "--json")
    assert anew.code == 0, anew.err
    never = Forecast.model_validate_json(anew.out)
    assert (never.disk["decoded images"], never.decode_s) == (0, 0)
    assert "images are decoded anew in every epoch, since they may not lie on disk (--decode-cache)" in never.notes
    assert told.stops == ()
    assert told.disk["checkpoint"] > 0
    assert not (tmp_path / "run").exists()
    peers = compressor.plan_distill(
        teacher="peers", data=f"folder:{colours}", out=tmp_path / "run", student_init="random", epochs=4,
        student="timm:test_efficientnet", input_size=32, batch_size=16,
    )  # fmt: skip
    # Its twin is in the checkpoint, too.
    assert peers.plan.disk["checkpoint"] == 2 * told.disk["checkpoint"]
    result = compressor.plan_distill(
        teacher=f"run:{teacher_run}", data=f"folder:{colours}", out=tmp_path / "run", student_init="random", epochs=4,
        students=["timm:test_efficientnet", "timm:test_resnet"], input_size=32, batch_size=16,
    )  # fmt: skip
    assert [(each.name, each.epochs) for each in result.plan.parts] == [  # type: ignore[union-attr]
        ("race, round 1", 4), ("race, round 1", 4), ("the winner", 4),
    ]  # fmt: skip
    assert "who wins the race is not known yet" in result.text


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_what_would_stop_the_export_is_said_before_the_training(
    kdc: Kdc, asked: tuple[object, ...], here: Path, tmp_path: Path
) -> None:
    values = load_profile(str(here)).model_dump(mode="json", exclude_none=True)
    changes = {"name": "strict", "batch": 500, "targets": [{"runtime": "onnxruntime", "precisions": ["fp32", "int8"]}]}
    strict = tmp_path / "strict.yaml"
    strict.write_text(json.dumps(values | changes))
    ended = kdc(*asked, "--student", "timm:test_efficientnet", "--profile", strict)
    assert ended.code == 2
    assert "would stop: kdc export: " in ended.out
    assert "are too few for the calibration of int8, which takes 500" in ended.out


@pytest.mark.slow
def test_a_plan_is_refused_as_the_run_would_be(kdc: Kdc, asked: tuple[object, ...], student_run: Path) -> None:
    ended = kdc(*asked, "--student", "timm:test_efficientnt")
    assert ended.code == 2
    assert "did you mean test_efficientnet" in ended.err
    corrected = ("--set", "transfer.without=['red']", "--set", "transfer.correct_bias=true")
    for way in ((*asked, "--qat", *corrected), (*(word for word in asked if word != "--plan"), "--qat", *corrected)):
        rounded = kdc(*way, "--student", "timm:test_efficientnet", "--profile", "x86-avx2")
        assert rounded.code == 2
        assert "transfer.correct_bias is for a student in float" in rounded.err
    before = sorted(student_run.rglob("*"))
    there = kdc(*asked, "--student", "timm:test_efficientnet", "--out", student_run)
    assert there.code == 2
    assert "holds a finished run" in there.err
    assert sorted(student_run.rglob("*")) == before


def test_of_a_run_to_resume_it_is_said_that_all_is_counted(tmp_path: Path) -> None:
    from compressor.distill.run_folder import Destination

    def told(finished: bool, resume: bool) -> list[str]:
        return [*module._notes_on_done(Destination(tmp_path, resume=resume), finished)]

    assert told(True, True) == [
        f"{tmp_path} is finished already, so that nothing would be done: counted is a run from the start"
    ]
    assert told(False, True) == [f"what is done already in {tmp_path} is counted, too"]
    assert told(False, False) == []


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_the_plan_of_an_export(kdc: Kdc, student_run: Path, here: Path, tmp_path: Path) -> None:
    asked = ("export", student_run, "--profile", here, "--target", "onnxruntime", "--out", tmp_path / "bundle")
    ended = kdc(*asked, "--plan", "--json")
    assert ended.code == 0, ended.err
    told = json.loads(ended.out)
    assert told["variants"] == ["onnxruntime-fp32"]
    # Images of 32 x 32 in three colours, once for both models.
    assert told["disk"]["test samples"] % (32 * 32 * 3) == 0
    assert not (tmp_path / "bundle").exists()
    moved = kdc(*asked, "--plan", "--teacher", "run:nowhere")
    assert moved.code == 2
    assert "nowhere does not exist" in moved.err
    # What the command itself refuses at once, its plan refuses too.
    for option, value, message in (
        ("--device", "telnet://pi", "telnet"),
        ("--device-python", "python3", "there is no --device"),
        ("--baseline", tmp_path / "none", "none"),
    ):
        refused = kdc(*asked, "--plan", option, value)
        assert refused.code == 2
        assert message in refused.err


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
@pytest.mark.parametrize("way", ["named", "raced", "staged", "chain"])
def test_the_answers_that_are_kept_are_counted(
    way: str, kdc: Kdc, teacher_run: Path, colours: Path, tmp_path: Path
) -> None:
    """As many bytes as the run then takes; what is there already needs no room."""
    fields = {
        "named": ("--student", "timm:test_efficientnet", "--set", "views.distinct=2"),
        "raced": ("--students", "timm:test_efficientnet,timm:test_resnet"),
        "staged": (
            "--student",
            "timm:test_efficientnet",
            "--set",
            "views.distinct=2",
            "--set",
            "losses.2.weight=0",
            "--set",
            "stages=[{epochs: 1, losses: [{name: pkd, at: auto}]}]",
        ),
        "chain": (
            "--student",
            "timm:test_efficientnet",
            "--assistant",
            "timm:test_vit",
            "--set",
            "views.distinct=2",
            "--set",
            "losses.2.weight=0",
        ),
    }
    cache = tmp_path / "answers"
    asked = (
        "distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}", "--student-init", "random",
        *TRAINING, "--epochs", 3, "--out", tmp_path / "run", "--teacher-cache", cache, *fields[way],
    )  # fmt: skip
    ended = kdc(*asked, "--plan", "--json")
    assert ended.code == 0, ended.err
    told = Forecast.model_validate_json(ended.out)
    assert any(f"are kept in {cache}" in note for note in told.notes)
    assert not cache.exists()
    done = kdc(*asked)
    assert done.code == 0, done.err
    assert told.disk["teacher answers"] == sum(path.stat().st_size for path in cache.glob("*/records"))
    again = Forecast.model_validate_json(kdc(*asked, "--plan", "--json", "--overwrite").out)
    if way == "chain":  # the assistant is a teacher, too, and will be another one
        assert again.disk["teacher answers"] == told.disk["teacher answers"] / 2
    else:
        assert "teacher answers" not in again.disk
        assert f"the teacher's answers have their room already in {cache}" in again.notes
    off = Forecast.model_validate_json(kdc(*asked, "--plan", "--json", "--overwrite", "--teacher-cache", "off").out)
    assert "teacher answers" not in off.disk


def test_answers_that_do_not_fit_would_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.distill.teacher.codec import Codec
    from compressor.distill.teacher.keeping import Keeping

    kept = Keeping(tmp_path, {}, Codec(10), views=2, samples=1_000_000)
    assert kept.bytes == 2 * 1_000_000 * (8 + 40)
    monkeypatch.setattr(module, "free_bytes", lambda folder: 95_000_000)
    assert [*module._stopped_by_answers([kept])] == [
        f"the teacher's answers take 96 MB, and 95 MB are free in {tmp_path}: --teacher-cache DIR, or --teacher-cache "
        "off"
    ]
    monkeypatch.setattr(module, "free_bytes", lambda folder: 97_000_000)
    assert [*module._stopped_by_answers([kept])] == []


@pytest.mark.slow
def test_the_disk_of_an_export_is_about_what_the_bundle_takes(finished_bundle: Path, student_run: Path, here: Path,
                                                              kdc: Kdc, tmp_path: Path) -> None:  # fmt: skip
    told = json.loads(
        kdc("export", student_run, "--profile", here, "--out", tmp_path / "bundle", "--plan", "--json").out
    )["disk"]
    sizes = {
        path.relative_to(finished_bundle): path.stat().st_size for path in finished_bundle.rglob("*") if path.is_file()
    }
    answers = [size for path, size in sizes.items() if path.suffix == ".npy" and "inputs" not in path.name
               and path.stem not in ("labels", "digests")]  # fmt: skip
    samples = [size for path, size in sizes.items() if path.name.endswith("inputs.npy")]
    header = 128  # of each .npy
    assert told["answers"] == sum(answers) - header * len(answers)
    assert told["test samples"] == sum(samples) - header * len(samples)
    # Graphs and names weigh more than the weights of networks as small as these.
    models = sum(size for path, size in sizes.items() if path.suffix in (".onnx", ".bin", ".xml"))
    assert 0.5 * told["models"] < models < 4 * told["models"]


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
def test_the_disk_of_an_export_counts_devices_and_a_baseline(
    finished_bundle: Path, student_run: Path, here: Path, kdc: Kdc, tmp_path: Path
) -> None:
    """Of three devices, each variant answers on each and one ships on each; of a baseline, what is copied of it, and
    what it answers in the race."""

    def planned(*more: object) -> dict[str, int]:
        asked = ("export", student_run, "--profile", here, "--out", tmp_path / "bundle", "--plan", "--json")
        done = kdc(*asked, *more)
        assert done.code == 0, done.err
        return dict(json.loads(done.out)["disk"])

    bundle = read_json(finished_bundle / "bundle.json", Bundle)
    answers = 4 * bundle.eval.n * len(bundle.student.class_names)
    measured = len(bundle.variants)
    one, three = planned(), planned(*(f"--device=d{number}=ssh://d{number}" for number in range(3)))
    assert three["answers"] - one["answers"] == 2 * measured * answers
    assert three["models"] - one["models"] == 2 * 4 * bundle.student.weights.parameters
    assert "baseline" not in one
    raced = [variant for variant in bundle.variants if variant.role in ("student", "reference")]
    work = Path(shutil.copytree(finished_bundle, tmp_path / "work"))
    attach(work, finished_bundle)
    copied = sum(path.stat().st_size for path in (work / "baseline").rglob("*") if path.is_file())
    copied -= (work / "baseline" / "release.json").stat().st_size
    assert planned("--baseline", finished_bundle)["baseline"] == copied + len(raced) * answers
    release = tmp_path / "release.json"
    assert kdc("report", finished_bundle, "--format", "release", "--out", release).code == 0
    assert planned("--baseline", release)["baseline"] == release.stat().st_size


@pytest.mark.slow
@pytest.mark.usefixtures("asked_once")
@pytest.mark.parametrize(
    ("fields", "trainings"),
    [
        (("--students", "timm:test_efficientnet,timm:test_resnet"), 2 + 2),
        (("--student", "timm:test_efficientnet", "--assistant", "timm:test_vit"), 2),
        (("--student", "timm:test_efficientnet", "--qat", "--control"), 2 + 1 + 2),
    ],
    ids=["raced", "chain", "rounded and controlled"],
)
def test_what_is_planned_is_what_is_done(
    fields: tuple[object, ...], trainings: int, kdc: Kdc, teacher_run: Path, colours: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """Every training and every step of it, those that weigh the losses among them: so short a training has no trials,
    and one of the two in full is the training itself, whose history lies in both places."""
    from compressor.distill import recipes

    monkeypatch.setattr(recipes, "ENOUGH", 5)
    out, profile = tmp_path / "run", ("--profile", "x86-avx2") if "--qat" in fields else ()
    asked = (
        "distill", "--teacher", f"run:{teacher_run}", "--data", f"folder:{colours}", "--student-init", "random",
        *TRAINING, "--epochs", 3, "--set", "qat.epochs=2", "--out", out, *profile, *fields,
    )  # fmt: skip
    ended = kdc(*asked, "--plan", "--json")
    assert ended.code in (0, 4), ended.err  # a runtime that is not here
    told = Forecast.model_validate_json(ended.out)
    done = kdc(*asked)
    assert done.code == 0, done.err
    files = {path: path.read_text() for path in sorted(out.rglob("history.jsonl"))}
    taken = {text for path, text in files.items() if not {"arms", "control"} & {*path.parts}}
    texts = [text for path, text in files.items() if "arms" not in path.parts or text not in taken]
    histories = [[json.loads(line) for line in text.splitlines()] for text in texts]
    assert len(histories) == trainings
    made = sorted((len(rows), row["steps"]) for rows in histories for row in rows[:1])
    planned = [(part.epochs, part.steps) for part in told.parts]
    for part in [part for part in told.parts if part.name == "the control" and "--qat" in fields]:
        planned.remove((part.epochs, part.steps))
        planned += [(part.epochs - 2, part.steps), (2, part.steps)]
    assert sorted(planned) == made
