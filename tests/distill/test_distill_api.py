"""teach and distill, from a request to a run on disk: what is refused, what is left, what is recorded."""

import errno
import json
import shutil
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import nn

from compressor.distill import api, distill, finishing, run_files, run_folder, teach, trainer
from compressor.distill.loop import engine
from compressor.distill.run_folder import Destination, acquire, rollback, start
from compressor.distill.teacher.setup import at_chance, refuse_chance
from compressor.errors import KdcError
from compressor.models import lineage, load_model, load_run
from compressor.progress import Progress, Silent
from compressor.schema.accuracy import accuracy_in
from compressor.schema.base import read_json, write_json
from compressor.schema.student import Accuracy, Request, Student
from compressor.tasks.base import BatchModel, SplitName
from compressor.tasks.image_classification import decode_split, open_data
from compressor.tasks.image_classification.feed import ImageFeed
from compressor.tasks.image_classification.models.answering import logits_of
from compressor.tasks.image_classification.preprocessing import of_images
from tests.kit import diverging

Ask = Callable[..., Request]


def run(
    request: Request, out: Path, resume: bool = False, overwrite: bool = False, progress: Progress | None = None
) -> Student:
    plan = teach if request.command == "teach" else distill
    return plan(request, Destination(out, resume=resume, overwrite=overwrite), progress=progress or Silent())


def weights(out: Path) -> bytes:
    return (out / "student.safetensors").read_bytes()


def test_a_distilled_student_is_recorded_whole(
    tmp_path: Path, ask_distill: Ask, teacher_run: Path, digits4: str
) -> None:
    out = tmp_path / "run"
    request = ask_distill(epochs=6)
    student = run(request, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "history.jsonl",
        "run.json",
        "student.json",
        "student.safetensors",
        "trained_on.npy",
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"], "nothing is left beside it"
    assert read_json(out / "student.json", Student) == student
    assert read_json(out / "run.json", Request) == request
    assert (student.made_by, student.family, student.architecture, student.init) == (
        "distill", "timm", "test_efficientnet", "random"
    )  # fmt: skip
    assert student.class_names == ("zero", "one", "two", "three")
    assert student.data.counts == {"train": 216, "validation": 24, "test": 120}
    assert (student.validation.n, student.test.n, student.test.split) == (24, 120, "test")
    test = accuracy_in(student.test)
    assert test.accuracy > 0.5
    assert test.low < test.accuracy <= test.high
    _, taught = load_run(teacher_run)
    assert student.teacher is not None
    assert (student.teacher.source, student.teacher.sha256) == (f"run:{teacher_run}", taught.weights.sha256)
    assert student.teacher_validation == taught.validation
    assert student.teacher_card == taught.teacher_card, "a teacher's card says the same, whoever made it"
    assert student.recipe == request.recipe
    assert (student.kept_epoch, student.kept_rule) == (
        6,
        "last epoch (validation n=24 < 1000 is too small to choose on)",
    )
    assert student.environment.packages.keys() >= {"torch", "timm", "numpy"}
    state = load_file(out / "student.safetensors")
    assert student.weights.parameters == sum(p.numel() for p in load_run(out)[0].network.parameters())
    assert set(state) == set(load_run(out)[0].network.state_dict())
    history = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in history] == [1, 2, 3, 4, 5, 6]
    assert history[-1]["steps"] == 216 // 32
    assert history[-1]["loss"].keys() == {"kd", "cross_entropy"}
    assert history[-1]["validation"]["accuracy"] == accuracy_in(student.validation).accuracy
    assert history[-1]["loss"]["kd"] < history[0]["loss"]["kd"]


def test_the_loaded_run_answers_as_it_was_measured(teacher_run: Path, digits4: str, tmp_path: Path) -> None:
    model, student = load_run(teacher_run)
    test = open_data(digits4).test
    answers = logits_of(model, [test.read(i) for i in range(len(test))]).argmax(-1).numpy()
    assert (answers == test.labels).sum() == accuracy_in(student.test).correct
    assert (student.made_by, student.teacher, student.teacher_validation) == ("teach", None, None)
    assert student.teacher_card is not None
    assert student.teacher_card.accuracy == student.validation, "never of the test split"
    assert accuracy_in(student.test).accuracy > 0.8


SMALL = "timm:mobilenetv3_small_050"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, ask_distill: Ask) -> Path:
    """A small student that was never interrupted. Never change it."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run(ask_distill(student=SMALL), out)
    return out


def test_the_same_seed_gives_identical_weights(tmp_path: Path, ask_distill: Ask, whole: Path) -> None:
    torch.manual_seed(77)
    run(ask_distill(student=SMALL), tmp_path / "again")
    assert weights(tmp_path / "again") == weights(whole)
    run(ask_distill(student=SMALL, seed=1), tmp_path / "other")
    assert weights(tmp_path / "other") != weights(whole)


@pytest.mark.parametrize("step", [3, 5, 8])
def test_a_resumed_run_equals_one_that_never_stopped(
    tmp_path: Path, ask_distill: Ask, whole: Path, interrupt_at: Callable[[int], Progress], step: int
) -> None:
    """Pitfalls, "Resumed is not the same", with real images (with dropout: see the engine's); step 5 is the last of
    the first of two epochs."""
    request = ask_distill(student=SMALL)
    with pytest.raises(KeyboardInterrupt):
        run(request, tmp_path / "parts", progress=interrupt_at(step))
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]
    assert (tmp_path / "parts" / "checkpoint" / "state.pt").is_file()
    assert not (tmp_path / "parts" / "student.json").exists()
    run(request, tmp_path / "parts", resume=True)
    assert weights(tmp_path / "parts") == weights(whole)
    assert not (tmp_path / "parts" / "checkpoint").exists()


def test_a_finished_run_has_nothing_to_resume(tmp_path: Path, ask_distill: Ask) -> None:
    request = ask_distill(epochs=1)
    student = run(request, tmp_path / "run")
    before = weights(tmp_path / "run")
    assert run(request, tmp_path / "run", resume=True) == student
    assert weights(tmp_path / "run") == before


def test_test_is_measured_once_and_after_training(
    tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pitfalls, "Selecting on test": nothing before the last step may know the test split."""
    events: list[str] = []
    logits, train = ImageFeed.logits, engine.train

    def watched(task: ImageFeed, model: BatchModel, split: SplitName) -> NDArray[np.float32]:
        events.append(f"{model.key} {split}")
        return logits(task, model, split)

    def watched_train(*arguments: Any, **named: Any) -> Any:
        position = train(*arguments, **named)
        events.append("trained")
        return position

    monkeypatch.setattr(ImageFeed, "logits", watched)
    monkeypatch.setattr(trainer, "train", watched_train)
    run(ask_distill(), tmp_path / "run")
    validation = "student validation"
    before = ["teacher validation", validation, validation, "trained"]
    assert events == [*before, validation, "student test"]
    events.clear()
    run(ask_distill(transfer={"without": ("two",), "correct_bias": True}), tmp_path / "corrected")
    assert events == [*before, validation, validation, validation, "student test"], "biases are fitted on validation"


def test_the_test_split_is_not_even_decoded_before_the_end(
    tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[str] = []

    def watched(split: Any, *rest: Any) -> Any:
        decoded.append(split.name)
        return decode_split(split, *rest)

    monkeypatch.setattr("compressor.tasks.image_classification.feed.decode_split", watched)
    run(ask_distill(), tmp_path / "run")
    assert decoded[-1] == "test"
    assert "test" not in decoded[:-1]


def test_the_teacher_is_frozen(tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pitfalls, "A teacher in training mode": byte-identical after training, batch statistics included."""
    kept: list[tuple[nn.Module, dict[str, Any]]] = []
    load = load_model

    def watched(*arguments: Any, **named: Any) -> Any:
        model = load(*arguments, **named)
        kept.append((model.network, {name: tensor.clone() for name, tensor in model.network.state_dict().items()}))
        return model

    monkeypatch.setattr(lineage, "load_model", watched)
    run(ask_distill(), tmp_path / "run")
    ((network, before),) = kept
    assert any("running_mean" in name for name in before)
    assert [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])] == []
    assert not network.training
    assert not any(parameter.requires_grad for parameter in network.parameters())


def random_teacher(folder: Path, ask_teach: Ask) -> str:
    run(ask_teach(epochs=1, optimizer={"lr": 1e-12}, ema_decay=0), folder)
    return f"run:{folder}"


def test_a_teacher_at_chance_is_refused_and_nothing_is_left(tmp_path: Path, ask_distill: Ask, ask_teach: Ask) -> None:
    """Pitfalls, "A random head"."""
    source = random_teacher(tmp_path / "untrained", ask_teach)
    with pytest.raises(KdcError, match=r"chance .*validation split: balanced accuracy") as caught:
        run(ask_distill(teacher=source), tmp_path / "run")
    assert f"kdc teach --teacher {source}" in caught.value.hint
    assert "of 4 classes (n=24)" in caught.value.message
    assert [path.name for path in tmp_path.iterdir()] == ["untrained"]


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("run:a", "kdc teach --teacher run:a"),
        ("outputs:a.csv", "check its labels and ids"),
        ("run:a + run:b", "measure each alone: kdc predict"),
        ("specialists:a", "measure each alone: kdc predict"),
    ],
)
def test_what_a_teacher_at_chance_is_told(source: str, says: str) -> None:
    score = Accuracy(split="validation", n=100, correct=0, accuracy=0.2, low=0, high=1, balanced=0.2)
    with pytest.raises(KdcError) as caught:
        refuse_chance(score, 4, source)
    assert says in caught.value.hint


@pytest.mark.parametrize(
    ("balanced", "n", "classes", "said"),
    [
        (0.25, 1000, 4, "answers at chance"),
        (0.27, 1000, 4, "answers at chance"),
        (0.35, 1000, 4, None),
        (0.35, 20, 4, "cannot be told from chance"),  # within two standard errors of guessing
        (2 / 3, 6, 2, "cannot be told from chance"),
        (1.0, 20, 4, None),
        (0.5, 10_000, 2, "answers at chance"),
        (0.52, 10_000, 2, "answers at chance"),  # significant, but worth nothing
        (0.55, 10_000, 2, None),
        (0.0, 100, 2, "answers at chance"),
        (0.05, 5000, 1000, "answers at chance"),
        (0.10, 5000, 1000, None),
    ],
)
def test_what_chance_is(balanced: float, n: int, classes: int, said: str | None) -> None:
    score = Accuracy(split="validation", n=n, correct=0, accuracy=balanced, low=0, high=1, balanced=balanced)
    told = at_chance(score, classes)
    assert told is None if said is None else told is not None and told.startswith(said)


def renamed(digits4: str, folder: Path, names: list[str]) -> str:
    shutil.copytree(digits4.removeprefix("idx:"), folder)
    (folder / "classes.txt").write_text("\n".join(names))
    return f"idx:{folder}"


def test_a_teacher_of_other_classes_is_refused(tmp_path: Path, ask_distill: Ask, digits4: str) -> None:
    data = renamed(digits4, tmp_path / "data", ["zero", "one", "two", "drei"])
    with pytest.raises(KdcError, match="it has no 'drei' among its 4") as caught:
        run(ask_distill(data=data), tmp_path / "run")
    assert "kdc teach" in caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_classes_in_another_order_are_mapped_by_name(tmp_path: Path, ask_distill: Ask, digits4: str) -> None:
    """Pitfalls, "Classes by position": the teacher is as good on the same images, whatever the order of the
    labels."""
    folder = tmp_path / "data"
    data = renamed(digits4, folder, ["Three", "two", "one", "ZERO"])
    for prefix in ("train", "t10k"):
        file = folder / f"{prefix}-labels-idx1-ubyte"
        content = file.read_bytes()
        labels = 3 - np.frombuffer(content[8:], np.uint8)
        file.write_bytes(content[:8] + labels.tobytes())
    student = run(ask_distill(data=data), tmp_path / "run")
    assert student.class_names == ("Three", "two", "one", "ZERO")
    assert student.teacher_validation is not None
    assert accuracy_in(student.teacher_validation).accuracy > 0.8


def test_a_class_file_overrides_the_teachers_names(tmp_path: Path, ask_distill: Ask) -> None:
    (tmp_path / "classes.txt").write_text("one\nzero\ntwo\nthree\n")
    request = ask_distill(teacher_classes=str(tmp_path / "classes.txt"), epochs=1)
    student = run(request, tmp_path / "run")
    assert student.teacher_validation is not None
    assert accuracy_in(student.teacher_validation).accuracy < 0.7  # it takes zeros for ones now, as it was told


def test_the_teacher_may_see_larger_images_than_the_student(tmp_path: Path, ask_distill: Ask, ask_teach: Ask) -> None:
    run(ask_teach(epochs=5, input_size=48), tmp_path / "teacher")
    student = run(ask_distill(teacher=f"run:{tmp_path / 'teacher'}", input_size=24, epochs=1), tmp_path / "run")
    assert of_images(student.preprocess).input_size == (24, 24)


def test_a_student_with_position_embeddings(tmp_path: Path, ask_distill: Ask) -> None:
    student = run(ask_distill(student="timm:test_vit", input_size=32, epochs=1), tmp_path / "run")
    assert (
        of_images(load_run(tmp_path / "run")[0].preprocess).input_size
        == of_images(student.preprocess).input_size
        == (32, 32)
    )


def test_the_head_is_trained_first(tmp_path: Path, ask_teach: Ask, teacher_run: Path) -> None:
    request = ask_teach(teacher=f"run:{teacher_run}", init="pretrained", input_size=None, head_epochs=1, epochs=2)
    student = run(request, tmp_path / "again")
    assert student.init.startswith(f"run:{teacher_run} (sha256 ")
    history = [json.loads(line) for line in (tmp_path / "again" / "history.jsonl").read_text().splitlines()]
    assert history[0]["validation"]["accuracy"] > 0.5  # the backbone knows the digits; the head alone was new


def test_teaching_refuses_losses_that_need_a_teacher(tmp_path: Path, ask_teach: Ask) -> None:
    with pytest.raises(KdcError, match=r"recipe losses\.0: kd needs a teacher"):
        run(ask_teach(losses=[{"name": "kd"}]), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_the_best_epoch_is_kept_and_said_so(tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "MIN_TO_CHOOSE", 24)
    monkeypatch.setattr(finishing, "MIN_TO_CHOOSE", 24)
    student = run(ask_distill(epochs=3), tmp_path / "run")
    history = [json.loads(line) for line in (tmp_path / "run" / "history.jsonl").read_text().splitlines()]
    accuracies = [row["validation"]["accuracy"] for row in history]
    assert student.kept_epoch == accuracies.index(max(accuracies)) + 1
    assert student.kept_rule == "best validation accuracy (n=24 >= 24)"
    assert accuracy_in(student.validation).accuracy == max(accuracies)


# -- the folder --


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path: Path, ask_distill: Ask) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    for resume, overwrite in ((False, False), (False, True), (True, False)):
        with pytest.raises(KdcError, match="exists and is no run of kdc, so it is left alone"):
            run(ask_distill(), out, resume, overwrite)
    assert [path.name for path in out.iterdir()] == ["thesis.txt"]
    with pytest.raises(KdcError, match="is no run of kdc"):
        run(ask_distill(), out / "thesis.txt", overwrite=True)


def test_an_empty_folder_is_used(tmp_path: Path, ask_distill: Ask) -> None:
    (tmp_path / "run").mkdir()
    run(ask_distill(epochs=1), tmp_path / "run")
    assert (tmp_path / "run" / "student.json").is_file()


@pytest.fixture(scope="module")
def interrupted(
    tmp_path_factory: pytest.TempPathFactory, ask_distill: Ask, interrupt_at: Callable[[int], Progress]
) -> Path:
    """A run that was interrupted in its third step. Never change it."""
    out = tmp_path_factory.mktemp("interrupted") / "run"
    with pytest.raises(KeyboardInterrupt):
        run(ask_distill(), out, progress=interrupt_at(2))
    return out


@pytest.fixture
def unfinished(tmp_path: Path, interrupted: Path) -> Path:
    return Path(shutil.copytree(interrupted, tmp_path / "run"))


def test_a_run_is_not_replaced_unasked(teacher_run: Path, unfinished: Path, ask_distill: Ask) -> None:
    with pytest.raises(KdcError, match="holds a finished run") as caught:
        run(ask_distill(), teacher_run)
    assert "--overwrite" in caught.value.hint
    assert "--resume" not in caught.value.hint
    with pytest.raises(KdcError, match="holds a run that was not finished") as caught:
        run(ask_distill(), unfinished)
    assert "--resume to go on" in caught.value.hint


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "recipe.seed was 0, now 1"),
        ({"epochs": 3}, "recipe.epochs was 2, now 3"),
        ({"optimizer": {"lr": 0.02}}, "recipe.optimizer.lr was 0.01, now 0.02"),
        ({"student": "timm:test_resnet"}, "student was 'timm:test_efficientnet', now 'timm:test_resnet'"),
        ({"losses": [{"name": "kd", "temperature": 2.0}]}, "recipe.losses was "),
    ],
)
def test_resuming_with_other_settings_names_them(
    unfinished: Path, ask_distill: Ask, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(KdcError, match=r"--resume: the run in .* was started with other settings: ") as caught:
        run(ask_distill(**changes), unfinished, resume=True)
    assert message in caught.value.message
    assert caught.value.message.count(" was ") == 2  # "was started", and the one that differs


def test_resuming_where_there_is_nothing(tmp_path: Path, ask_distill: Ask) -> None:
    with pytest.raises(KdcError, match="--resume: there is no run in"):
        run(ask_distill(), tmp_path / "run", resume=True)


def test_resuming_when_the_teacher_changed(
    tmp_path: Path, ask_distill: Ask, ask_teach: Ask, teacher_run: Path, interrupt_at: Callable[[int], Progress]
) -> None:
    teacher = tmp_path / "teacher"
    shutil.copytree(teacher_run, teacher)
    request = ask_distill(teacher=f"run:{teacher}")
    with pytest.raises(KeyboardInterrupt):
        run(request, tmp_path / "run", progress=interrupt_at(2))
    run(ask_teach(epochs=3), teacher, overwrite=True)
    with pytest.raises(KdcError, match="since the run was interrupted, the teacher changed"):
        run(request, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "checkpoint" / "state.pt").is_file()


def test_resuming_when_the_images_come_in_another_order(
    tmp_path: Path, ask_distill: Ask, digits4: str, interrupt_at: Callable[[int], Progress]
) -> None:
    """A view belongs to a sample's number: with the same images under other numbers, another student would come of
    it. Other names in the same order are no other data."""
    data = open_data(digits4)
    for place in ("val", "test"):
        split = data.validation if place == "val" else data.test
        for row in range(len(split)):
            name = tmp_path / "data" / place / data.info.class_names[split.labels[row]]
            name.mkdir(parents=True, exist_ok=True)
            split.read(row).save(name / f"{row:03}.png")
    for row in range(len(data.train)):
        name = tmp_path / "data" / "train" / data.info.class_names[data.train.labels[row]]
        name.mkdir(parents=True, exist_ok=True)
        data.train.read(row).save(name / f"{row:03}.png")
    request = ask_distill(data=f"folder:{tmp_path / 'data'}")
    with pytest.raises(KeyboardInterrupt):
        run(request, tmp_path / "run", progress=interrupt_at(3))
    files = sorted((tmp_path / "data/train/zero").iterdir())
    for file in files:
        file.rename(file.with_name(f"1{file.name}"))
    backwards = dict(zip(sorted((tmp_path / "data/train/one").iterdir()), range(99, 0, -1), strict=False))
    for file, number in backwards.items():
        file.rename(file.with_name(f"x{number}.png"))
    with pytest.raises(KdcError, match="since the run was interrupted, the order of the training images changed"):
        run(request, tmp_path / "run", resume=True)
    for file, number in backwards.items():
        file.with_name(f"x{number}.png").rename(file)
    assert run(request, tmp_path / "run", resume=True).test.n == 120


def test_overwriting_replaces_a_run(tmp_path: Path, unfinished: Path, ask_distill: Ask) -> None:
    run(ask_distill(epochs=1), unfinished, overwrite=True)
    run(ask_distill(epochs=1), tmp_path / "fresh")
    assert weights(unfinished) == weights(tmp_path / "fresh"), "nothing of the old one may live on"
    assert read_json(unfinished / "run.json", Request).recipe.epochs == 1
    assert not (unfinished / "checkpoint").exists()


@pytest.mark.parametrize(
    "changes",
    [
        {"data": "idx:nowhere"},
        {"teacher": "run:nowhere"},
        {"student": "timm:resnet1O"},
        {"losses": [{"name": "kd", "temperature": -1}]},
        {"teacher": "at chance"},
    ],
)
def test_overwriting_keeps_the_old_run_where_the_new_one_cannot_begin(
    tmp_path: Path, unfinished: Path, ask_distill: Ask, ask_teach: Ask, changes: dict[str, Any]
) -> None:
    if changes.get("teacher") == "at chance":
        changes = {"teacher": random_teacher(tmp_path / "untrained", ask_teach)}
    before = {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()}
    with pytest.raises(KdcError):
        run(ask_distill(**changes), unfinished, overwrite=True)
    assert {path: path.read_bytes() for path in unfinished.rglob("*") if path.is_file()} == before


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_old_run_is_back_where_nothing_came_of_the_new_one(unfinished: Path, ask_distill: Ask) -> None:
    before = everything(unfinished)
    with pytest.raises(KdcError, match="not finite"):
        run(diverging(ask_distill()), unfinished, overwrite=True)
    assert everything(unfinished) == before


def test_the_old_run_is_kept_until_the_new_one_is_finished(
    unfinished: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress]
) -> None:
    before = everything(unfinished)
    request = ask_distill(epochs=2)
    with pytest.raises(KeyboardInterrupt):
        run(request, unfinished, overwrite=True, progress=interrupt_at(2))
    assert everything(unfinished / ".before") == before
    run(request, unfinished, resume=True)
    assert not (unfinished / ".before").exists()
    assert (unfinished / "student.json").is_file()


def test_a_run_that_was_killed_while_it_replaced_another_loses_neither(tmp_path: Path, ask_distill: Ask) -> None:
    """Killed before its first checkpoint; for while it was moved aside, see tests/test_kill_points.py."""
    out, aside = tmp_path / "run", tmp_path / "run" / ".before"
    write_json(out / "run.json", ask_distill())
    (out / "student.json").write_text("trained for a week")
    before = everything(out)
    start(Destination(out), ask_distill(epochs=2))
    (out / "history.jsonl").touch()
    assert acquire(Destination(out, overwrite=True), ask_distill(epochs=3)) is False
    start(Destination(out), ask_distill(epochs=3))
    assert everything(aside) == before
    assert sorted(path.name for path in out.iterdir()) == [".before", "run.json"]
    rollback(out)
    assert everything(out) == before


def stood(folder: Path, request: Request, *leaves: str) -> dict[str, bytes]:
    """A run that stands in `folder`."""
    write_json(folder / "run.json", request)
    for leaf in leaves:
        (folder / leaf).parent.mkdir(exist_ok=True)
        (folder / leaf).write_text(f"{leaf} of {request.recipe.epochs} epochs")
    return {path: value for path, value in everything(folder).items() if not path.startswith(".before")}


@pytest.mark.parametrize(
    ("first", "second", "kept"),
    [
        # Killed after it was saved, before what it replaced was removed: it is the one to keep now.
        (["student.json"], ["student.json"], "second"),
        (["student.json"], ["checkpoint/state.pt"], "first"),
        (["checkpoint/state.pt"], ["checkpoint/state.pt"], "second"),
        (["checkpoint/state.pt"], [], "first"),
        (["student.json"], ["float/student.json"], "first"),
    ],
)
def test_of_two_runs_that_were_replaced_the_one_that_is_worth_more_is_kept(
    tmp_path: Path, ask_distill: Ask, first: list[str], second: list[str], kept: str
) -> None:
    out, runs = tmp_path / "run", {}
    runs["first"] = stood(out, ask_distill(epochs=1), *first)
    start(Destination(out), ask_distill(epochs=2))
    runs["second"] = stood(out, ask_distill(epochs=2), *second)
    start(Destination(out), ask_distill(epochs=3))
    assert everything(out / ".before") == runs[kept]
    with pytest.raises(KdcError, match=r"not finished; what that was to replace is kept in .*/\.before"):
        acquire(Destination(out), ask_distill(epochs=3))
    rollback(out)
    assert everything(out) == runs[kept]


@pytest.mark.parametrize("calls", range(1, 9))
@pytest.mark.parametrize("coming", [True, False])
def test_moving_the_old_run_may_be_broken_off(
    tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch, calls: int, coming: bool
) -> None:
    """On its way aside, or back: it is whole in one of the two places at any moment."""
    out, left = tmp_path / "run", [None] * calls
    before = stood(
        out, ask_distill(epochs=1), "student.json", "student.safetensors", "checkpoint/state.pt", "hf/config.json"
    )
    if coming:
        start(Destination(out), ask_distill(epochs=2))

    def until_gone(call: Callable[..., object]) -> Callable[..., object]:
        def gone(*arguments: Any, **named: Any) -> object:
            if not left:
                raise KeyboardInterrupt
            left.pop()
            return call(*arguments, **named)

        return gone

    with monkeypatch.context() as patch:
        for name in ("replace", "rename", "unlink", "rmdir"):
            patch.setattr(Path, name, until_gone(getattr(Path, name)))
        move: Callable[[], None] = (
            partial(rollback, out) if coming else partial(run_folder._set_aside, out, run_files.RUN)
        )
        with pytest.raises(KeyboardInterrupt):
            move()
    found = everything(out)
    assert any(all(found.get(name + path) == value for path, value in before.items()) for name in ("", ".before/"))
    run_files.sweep(out)  # as the next command does
    start(Destination(out), ask_distill(epochs=3))
    assert everything(out / ".before") == before
    rollback(out)
    assert everything(out) == before


@pytest.mark.parametrize("failing", ["rename", "link_all", "write_json"])
def test_a_disk_that_is_full_leaves_the_old_run_where_it_was(
    tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    out = tmp_path / "run"
    before = stood(out, ask_distill(epochs=1), "student.json", "student.safetensors")

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if failing == "rename":
            patch.setattr(Path, "rename", full)
        else:
            patch.setattr(run_folder, failing, full)
        with pytest.raises(KdcError, match="no space left on the device"):
            start(Destination(out), ask_distill(epochs=2))
    assert everything(out) == before


def test_a_finished_run_forgets_what_it_replaced(teacher_run: Path, tmp_path: Path, ask_teach: Ask) -> None:
    """Where it was killed just before."""
    out = tmp_path / "run"
    shutil.copytree(teacher_run, out)
    (out / ".before").mkdir()
    api.already_finished(out, Silent())
    assert not (out / ".before").exists()


@pytest.mark.parametrize("key", ["teacher", "other_teachers", "init", "data", "unlabelled", "student"])
def test_overwriting_spares_what_the_new_run_is_made_from(tmp_path: Path, ask_distill: Ask, key: str) -> None:
    out, inside = tmp_path / "run", tmp_path / "run" / "assistants" / "1"
    write_json(out / "run.json", ask_distill())
    inside.mkdir(parents=True)
    reference = {"init": str(inside), "data": f"folder:{inside}", "student": f"timm:local-dir:{inside}"}
    named = reference.get(key, f"run:{inside}")
    request = ask_distill().model_copy(update={key: (named,) if key == "other_teachers" else named})
    with pytest.raises(KdcError, match=r"--overwrite: .* lies in --out .*, and would be removed") as caught:
        acquire(Destination(out, overwrite=True), request)
    assert f"--overwrite: {named} lies in --out {out}," in caught.value.message
    assert inside.is_dir()
    itself = ask_distill(teacher=f"run:{out}")
    with pytest.raises(KdcError, match="lies in --out"):
        acquire(Destination(out, overwrite=True), itself)
    assert acquire(Destination(out, overwrite=True), ask_distill(teacher="timm:run")) is False


def test_overwriting_spares_the_generalist_of_specialists(tmp_path: Path, ask_distill: Ask) -> None:
    out, group = tmp_path / "run", tmp_path / "specialists"
    write_json(out / "run.json", ask_distill())
    group.mkdir()
    (group / "specialists.json").write_text(json.dumps({"generalist": {"source": f"run:{out}"}}), encoding="utf-8")
    with pytest.raises(KdcError, match=r"--overwrite: run:.* lies in --out"):
        acquire(Destination(out, overwrite=True), ask_distill(teacher=f"specialists:{group}"))


def test_overwriting_spares_what_is_no_part_of_the_run(unfinished: Path, ask_distill: Ask) -> None:
    (unfinished / "bundle").mkdir()
    with pytest.raises(KdcError, match="holds bundle too, which is no part of the run, so it is left alone"):
        run(ask_distill(), unfinished, overwrite=True)
    assert (unfinished / "bundle").is_dir()
    (unfinished / "bundle").rmdir()
    (unfinished / ".kdc-tmp.student.abc123.json").touch()  # left by a process that was killed while writing
    assert acquire(Destination(unfinished, overwrite=True), ask_distill()) is False


def full_disk(*arguments: object, **named: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_full_disk_while_decoding_leaves_nothing(
    tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("compressor.tasks.image_classification.decoding._write_header", full_disk)
    with pytest.raises(KdcError, match="no space left on the device while writing"):
        run(ask_distill(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_at_the_first_checkpoint_leaves_nothing(
    tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(KdcError, match=r"no space left on the device while writing .*state.pt"):
        run(ask_distill(), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_at_the_end_costs_no_training(
    tmp_path: Path, ask_distill: Ask, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask_distill(student=SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full_disk)
        with pytest.raises(KdcError, match=r"no space left on the device while writing .*trained_on.npy"):
            run(request, tmp_path / "run")
    assert not (tmp_path / "run" / "student.json").exists()
    with monkeypatch.context() as patch:
        patch.setattr(import_module("compressor.distill.loop.engine"), "_epoch", None)  # no step may be needed
        run(request, tmp_path / "run", resume=True)
    assert weights(tmp_path / "run") == weights(whole)


def test_an_error_in_the_first_epoch_leaves_nothing(tmp_path: Path, ask_distill: Ask) -> None:
    with pytest.raises(KdcError, match="is not finite"):
        run(diverging(ask_distill()), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


# -- Hugging Face, and real weights --


def test_a_hugging_face_model_is_taught_and_teaches(tmp_path: Path, ask_teach: Ask, ask_distill: Ask) -> None:
    from transformers import ViTConfig, ViTForImageClassification, ViTImageProcessor

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, image_size=32, patch_size=8,
        initializer_range=0.1,
    )  # fmt: skip
    torch.manual_seed(0)
    ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    ViTImageProcessor(size={"height": 32, "width": 32}).save_pretrained(tmp_path / "vit")
    how = {"epochs": 8, "head_epochs": 1, "batch_size": 8, "optimizer": {"lr": 1e-3}}
    request = ask_teach(teacher=f"hf:{tmp_path / 'vit'}", init="pretrained", input_size=None, **how)
    taught = run(request, tmp_path / "teacher")
    assert taught.family == "hf"
    assert accuracy_in(taught.test).accuracy > 0.5
    student = run(ask_distill(teacher=f"run:{tmp_path / 'teacher'}", epochs=1), tmp_path / "run")
    assert student.teacher_validation == taught.validation
    again = ask_teach(teacher=f"run:{tmp_path / 'teacher'}", init="pretrained", input_size=None, epochs=1)
    assert run(again, tmp_path / "again").family == "hf"


@pytest.mark.slow
def test_a_pretrained_backbone_becomes_a_teacher(tmp_path: Path, ask_teach: Ask, ask_distill: Ask) -> None:
    import runpy

    script = Path(__file__).parents[2] / "examples" / "lite_weights.py"
    runpy.run_path(str(script))["main"](0, tmp_path / "lite0")
    request = ask_teach(
        teacher=f"timm:local-dir:{tmp_path / 'lite0'}",
        init="pretrained",
        epochs=4,
        head_epochs=1,
        batch_size=16,
        optimizer={"lr": 3e-3},
        input_size=48,
    )
    teacher = run(request, tmp_path / "teacher")
    assert accuracy_in(teacher.test).accuracy > 0.9
    assert (teacher.weights.licence, teacher.architecture) == ("apache-2.0", "tf_efficientnet_lite0")
    with pytest.raises(KdcError, match="do not match: it has no 'zero', 'one', 'two', 'three' among its 1000"):
        run(ask_distill(teacher=f"timm:local-dir:{tmp_path / 'lite0'}"), tmp_path / "run")
    student = run(ask_distill(teacher=f"run:{tmp_path / 'teacher'}", epochs=5), tmp_path / "run")
    assert student.teacher is not None
    assert student.teacher.licence == "apache-2.0"
    assert accuracy_in(student.test).accuracy > 0.6
