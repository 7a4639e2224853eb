"""The control: the same student on labels alone, for the same steps, and what distillation gained over it."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from compressor.distill import distill, distill_chain, distill_controlled, distill_quantized
from compressor.distill.methods.control import control_of
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.export.bundle.identity import without_paths
from compressor.models import load_run
from compressor.models.compared import read_right
from compressor.progress import Progress, Silent
from compressor.schema.accuracy import accuracy_in
from compressor.schema.base import read_json, write_json
from compressor.schema.quantization import Scheme
from compressor.schema.race import Contender, RaceRequest
from compressor.schema.student import Request, Student, trained_anew
from compressor.stats import difference
from compressor.tasks.image_classification import open_data
from compressor.tasks.image_classification.models.answering import logits_of
from tests.kit import Hearing

Ask = Callable[..., Request]
Bools = NDArray[np.bool_]
QAT = {"epochs": 1, "calibration": 32}
STEPS = 216 // 32
"""Of an epoch on the fixtures' digits."""


def run(
    request: Request, out: Path, progress: Progress | None = None, *, resume: bool = False, overwrite: bool = False
) -> Student:
    to = Destination(out, resume=resume, overwrite=overwrite)
    return distill_controlled(request, to, progress=progress or Silent())


def controlled(request: Request) -> Request:
    return request.model_copy(update={"control": True})


def files(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


def weights(out: Path) -> bytes:
    return (out / "student.safetensors").read_bytes()


def history(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]


def right_by_hand(out: Path, data: str, split: str) -> Bools:
    held, model = getattr(open_data(data), split), load_run(out)[0]
    answers = logits_of(model, [held.read(number) for number in range(len(held))]).argmax(-1).numpy()
    return np.asarray(answers == held.labels)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, ask_distill: Ask) -> tuple[Path, Hearing]:
    """A student and its control, three epochs each. Never change it."""
    out, heard = tmp_path_factory.mktemp("controlled") / "run", Hearing()
    run(controlled(ask_distill(epochs=3)), out, heard)
    return out, heard


@pytest.mark.slow
def test_student_and_control_are_what_two_commands_make(
    whole: tuple[Path, Hearing], tmp_path: Path, ask_distill: Ask
) -> None:
    out, _ = whole
    distill(ask_distill(epochs=3), Destination(tmp_path / "student"), progress=Silent())
    assert weights(out) == weights(tmp_path / "student")
    alone = ask_distill(epochs=3, teacher="self", losses=[{"name": "cross_entropy", "weight": 1.0}])
    distill(alone, Destination(tmp_path / "control"), progress=Silent())
    assert weights(out / "control") == weights(tmp_path / "control")
    parts = ["compared.npy", "history.jsonl", "run.json", "student.json", "student.safetensors", "trained_on.npy"]
    assert files(out) == sorted([*parts, "control"])
    assert files(out / "control") == parts
    assert "compared.npy" not in files(tmp_path / "student"), "only what is compared keeps it"
    asked = read_json(out / "control" / "run.json", Request)
    assert asked == alone.model_copy(update={"steps_per_epoch": STEPS})


@pytest.mark.slow
def test_the_gain_is_paired_by_sample_and_said(whole: tuple[Path, Hearing], digits4: str) -> None:
    out, heard = whole
    student, control = read_json(out / "student.json", Student), read_json(out / "control" / "student.json", Student)
    gain = student.gain
    assert gain is not None
    assert (gain.steps, gain.samples, gain.control_sha256) == (3 * STEPS, 216, control.weights.sha256)
    assert (gain.control_validation, gain.control_test) == (control.validation, control.test)
    for name, found in (("validation", gain.validation), ("test", gain.test)):
        ours, theirs = right_by_hand(out, digits4, name), right_by_hand(out / "control", digits4, name)
        expected = difference(ours, theirs)
        assert (found.split, found.n) == (name, len(ours))
        assert (found.only_student, found.only_control) == ((ours & ~theirs).sum(), (theirs & ~ours).sum())
        assert (found.difference, found.low, found.high) == (expected.value, expected.low, expected.high)
        assert read_right(out, student)[name]["right"].tolist() == ours.tolist()
    assert found.difference == pytest.approx(accuracy_in(student.test).accuracy - accuracy_in(control.test).accuracy)
    lines = [line for line in heard.notes if "labels alone" in line]
    assert [line.rpartition(", ")[2] for line in lines] == ["n=24 validation samples", "n=120 test samples"]
    told = f"the labels of 216 samples alone, for as many steps as the student ({3 * STEPS})"
    assert any(told in line for line in heard.notes)
    assert without_paths(student).gain == gain, "it travels in a bundle as it is"


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 2 * STEPS + 3])
def test_an_interruption_is_gone_on_with(
    step: int, tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress]
) -> None:
    """In the student, or in the control; of two epochs each."""
    request, out = controlled(ask_distill()), tmp_path / "run"
    run(request, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(request, out, interrupt_at(step))
    in_control = step > 4
    assert (out / "student.json").exists() == in_control
    if in_control:
        _, student = load_run(out)
        assert student.gain is None, "the student is whole without it"
    with pytest.raises(KdcError, match="holds a run that was not finished"):
        run(request, out)
    with pytest.raises(KdcError, match="control was True, now False"):
        distill_chain(ask_distill(), Destination(out, resume=True), progress=Silent())
    before = (out / "student.safetensors").stat().st_mtime_ns if in_control else None
    resumed = run(request, out, resume=True)
    assert before in (None, (out / "student.safetensors").stat().st_mtime_ns), "it is not trained again"
    assert resumed.gain == read_json(tmp_path / "whole" / "student.json", Student).gain
    for part in ("", "control"):
        assert weights(out / part) == weights(tmp_path / "whole" / part)
    heard = Hearing()
    assert run(request, out, heard, resume=True) == resumed
    assert heard.notes == [f"{out} is finished already: nothing to resume"]


@pytest.mark.slow
def test_a_kill_before_the_gain_is_written_costs_no_training(
    whole: tuple[Path, Hearing], tmp_path: Path, ask_distill: Ask
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    finished = read_json(out / "student.json", Student)
    write_json(out / "student.json", finished.model_copy(update={"gain": None}))
    (out / ".kdc-tmp.student.json").write_text("half")
    before = (out / "control" / "student.json").stat().st_mtime_ns
    assert run(controlled(ask_distill(epochs=3)), out, resume=True).gain == finished.gain
    assert (out / "control" / "student.json").stat().st_mtime_ns == before
    assert not (out / ".kdc-tmp.student.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("changed", ["data", "samples", "answers"])
def test_a_control_is_not_held_against_a_student_of_other_data(
    changed: str, whole: tuple[Path, Hearing], tmp_path: Path, ask_distill: Ask
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    shutil.rmtree(out / "control")
    values = json.loads((out / "student.json").read_text())
    values["gain"] = None
    if changed == "data":
        values["data"]["fingerprint"] = "0" * 64
    (out / "student.json").write_text(json.dumps(values))
    if changed != "data":
        rows = np.load(out / "compared.npy")
        if changed == "samples":
            rows["content"][[0, 1]] = rows["content"][[1, 0]]
        else:
            rows["right"] = ~rows["right"]
        np.save(out / "compared.npy", rows)
    said = "compared.npy was changed" if changed == "answers" else "since the student was trained, the data changed"
    with pytest.raises(KdcError, match=said):
        run(controlled(ask_distill(epochs=3)), out, resume=True)
    assert not (out / "control").exists()


@pytest.mark.slow
def test_overwriting_takes_the_control_along_and_brings_it_back(
    whole: tuple[Path, Hearing], tmp_path: Path, ask_distill: Ask
) -> None:
    out = tmp_path / "run"
    shutil.copytree(whole[0], out)
    everything = {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()}
    with pytest.raises(KeyboardInterrupt):  # before a checkpoint: nothing came of it
        run(controlled(ask_distill(epochs=2, views={"hflip": True})), out, Stopping(), overwrite=True)
    assert {path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()} == everything
    distill_chain(ask_distill(), Destination(out, overwrite=True), progress=Silent())
    assert "control" not in files(out)
    assert "compared.npy" not in files(out)


class Stopping(Silent):
    """Ctrl-C as the training is about to begin."""

    def note(self, text: str) -> None:
        if text.startswith("2 epochs of"):
            raise KeyboardInterrupt


@pytest.mark.slow
def test_labelled_samples_alone_teach_it_for_as_many_steps(
    tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress]
) -> None:
    request, out, heard = controlled(ask_distill(transfer={"labelled": 0.35})), tmp_path / "run", Hearing()
    student = run(request, out, heard)
    control = read_json(out / "control" / "student.json", Student)
    assert student.gain is not None
    labelled = student.gain.samples
    assert 60 < labelled < 90
    assert labelled // 32 < STEPS, "or the test shows nothing"
    assert (student.steps_per_epoch, control.steps_per_epoch, student.gain.steps) == (STEPS, STEPS, 2 * STEPS)
    assert [row["steps"] for row in history(out / "control")] == [STEPS, STEPS]
    assert len(np.load(out / "control" / "trained_on.npy")) <= labelled
    told = f"for as many steps as the student ({2 * STEPS}), over and over: an epoch is as long as the student's"
    assert any(told in line for line in heard.notes)
    again = tmp_path / "again"
    with pytest.raises(KeyboardInterrupt):
        run(request, again, interrupt_at(3 * STEPS + 2))
    run(request, again, resume=True)
    assert weights(again / "control") == weights(out / "control")


@pytest.mark.slow
def test_a_student_that_rounds_has_a_control_that_rounds(tmp_path: Path, ask_distill: Ask) -> None:
    request = controlled(ask_distill(student="timm:test_resnet", qat=QAT))
    request, out = request.model_copy(update={"qat": Scheme(activations="uint8")}), tmp_path / "run"
    student = run(request, out)
    control = read_json(out / "control" / "student.json", Student)
    assert student.quantization is not None
    assert control.quantization is not None
    assert student.gain is not None
    assert (student.gain.steps, student.gain.control_test) == (3 * STEPS, control.test)
    assert files(out / "control" / "float") == sorted({*files(out / "float"), "compared.npy"})
    by_hand = request.model_copy(update={"control": False})
    distill_quantized(by_hand, Destination(tmp_path / "hand"), progress=Silent())
    assert weights(out) == weights(tmp_path / "hand")


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        {"teacher": "self", "losses": [{"name": "cross_entropy"}, {"name": "kd"}]},
        {
            "teacher": "peers",
            "losses": [{"name": "mutual"}, {"name": "cross_entropy"}],
            "peers": [{"student": "timm:test_resnet"}],
        },
    ],
)
def test_learning_from_oneself_or_from_peers_has_a_control_too(
    changes: dict[str, Any], tmp_path: Path, ask_distill: Ask
) -> None:
    student = run(controlled(ask_distill(epochs=1, **changes)), tmp_path / "run")
    assert student.gain is not None
    assert [row["loss"].keys() for row in history(tmp_path / "run" / "control")] == [{"cross_entropy"}]


@pytest.mark.slow
@pytest.mark.parametrize("qat", [None, Scheme(activations="uint8")])
def test_who_won_a_race_has_a_control_without_one(qat: Scheme | None, tmp_path: Path, ask_distill: Ask) -> None:
    names = ("timm:test_efficientnet", "timm:test_resnet")
    contenders = tuple(Contender(student=name) for name in names)
    race = RaceRequest(named=names, contenders=contenders, why="named by --students")
    request = controlled(ask_distill(epochs=1, qat=QAT))
    request, out = request.model_copy(update={"student": None, "race": race, "qat": qat}), tmp_path / "run"
    student = run(request, out)
    control = read_json(out / "control" / "student.json", Student)
    assert student.gain is not None
    assert (control.architecture, control.race) == (student.architecture, None)
    assert read_json(out / "control" / "run.json", Request).student == f"timm:{student.architecture}"
    assert "race" not in files(out / "control")


@pytest.mark.parametrize(
    "losses",
    [
        [{"name": "cross_entropy", "weight": 0.3}],
        [{"name": "cross_entropy"}, {"name": "kd", "weight": 0}],
    ],
)
def test_labels_alone_are_compared_with_nothing(losses: list[dict[str, Any]], tmp_path: Path) -> None:
    """Before anything is read."""
    asked = request_of(losses)
    with pytest.raises(KdcError) as caught:
        run(asked, tmp_path / "run")
    assert caught.value.message == (
        "--control trains on labels alone, and so does the recipe (cross_entropy): there is nothing to compare"
    )
    assert not (tmp_path / "run").exists()


def request_of(losses: list[dict[str, Any]], **changes: Any) -> Request:
    values = {
        "task": "image-classification", "command": "distill", "teacher": "run:nowhere", "student": "timm:test_resnet",
        "init": "random", "data": "digits", "skip_bad": False, "input_size": 32, "control": True,
        "recipe": {"losses": losses}, **changes,
    }  # fmt: skip
    return Request.model_validate(values)


def test_nothing_of_the_teacher_is_in_the_controls_request() -> None:
    losses = [{"name": "kd"}, {"name": "cross_entropy", "weight": {"from": 0.2, "to": 0}, "label_smoothing": 0.1}]
    recipe = {
        "losses": losses, "views": {"mixup": 0.2}, "ensemble": {"of": "logits"}, "teacher_answers": {"top_k": 5},
        "seed": 7, "transfer": {"without": ["3"]},
    }  # fmt: skip
    asked = request_of([], recipe=recipe, other_teachers=["run:b"], teacher_classes="c.txt", unlabelled="folder:u")
    control = control_of(asked, asked.student, 12)
    left = (control.teacher, control.other_teachers, control.teacher_classes, control.unlabelled)
    assert left == ("self", (), None, None)
    assert (control.control, control.steps_per_epoch, control.is_compared) == (False, 12, True)
    expected = {**recipe, "losses": [{"name": "cross_entropy", "weight": 1.0, "label_smoothing": 0.1}]}
    del expected["ensemble"], expected["teacher_answers"]
    assert control.recipe == type(asked.recipe).model_validate(expected), (
        "views, seed and transfer set are the student's"
    )
    assert control_of(request_of([{"name": "kd"}]), "timm:test_resnet", 12).recipe.losses[0].name == "cross_entropy"


@pytest.mark.slow
def test_too_few_labels_for_the_parts_of_a_step_are_known_before(tmp_path: Path, ask_distill: Ask) -> None:
    request = controlled(ask_distill(transfer={"labelled": 0.01}, accumulate=16))
    with pytest.raises(KdcError, match="4 training samples are too few for 16 parts of a step"):
        run(request, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_what_a_damaged_control_says_to_make_anew(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}")
    for inside in ("control", "control/float", "float", "assistants/1", "float/assistants/1"):
        assert f"--out {tmp_path} --overwrite" in trained_anew(tmp_path / inside / "student.json")
    called = tmp_path / "mine" / "control"
    assert f"--out {called} --overwrite" in trained_anew(called / "student.json")
