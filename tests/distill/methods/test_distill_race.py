"""Several students run, one is taken: who goes on, what is recorded and gone on with, and that nobody sees test."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compressor.data.samples import Dataset
from compressor.distill import distill, distill_chain, distill_quantized, trainer
from compressor.distill.loop.guards import LearningError
from compressor.distill.methods import halving, trials
from compressor.distill.methods import race as race_module
from compressor.distill.methods.halving import LEAST_STEPS, rounds_of, trial_recipe
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.progress import Progress, Silent
from compressor.schema.base import read_json
from compressor.schema.quantization import Scheme
from compressor.schema.race import Contender, RaceRequest, Trial
from compressor.schema.student import Request, Student
from compressor.stats import difference
from compressor.tasks.image_classification.feed import ImageFeed
from tests.distill.conftest import recipe
from tests.kit import Hearing

Ask = Callable[..., Request]
FIELD = ("timm:test_efficientnet", "timm:test_resnet", "timm:test_vit")


def raced(request: Request, *names: str, share: float = 0.5) -> Request:
    contenders = tuple(Contender(student=name) for name in names or FIELD)
    race = RaceRequest(named=names or FIELD, share=share, contenders=contenders, why="named by --students")
    return request.model_copy(update={"student": None, "race": race})


def run(request: Request, out: Path, progress: Progress | None = None, resume: bool = False) -> Student:
    return distill_chain(request, Destination(out, resume=resume), progress=progress or Silent())


@pytest.mark.parametrize(
    ("students", "steps", "epochs", "share", "expected"),
    [
        # 30 epochs, half of them for the race: 7.5 a round.
        (4, 1000, 30, 0.5, [(4, 1), (2, 3)]),
        (8, 1000, 30, 1.0, [(8, 1), (4, 2), (2, 5)]),
        (3, 1000, 60, 0.5, [(3, 5), (2, 7)]),
        (2, 1000, 30, 0.5, [(2, 7)]),
        (1, 1000, 30, 0.5, []),
        # An epoch and 200 steps at least; never more than the training itself.
        # A second round of the same length would only repeat the first one's trials.
        (4, 50, 30, 0.5, [(4, 4)]),
        (4, 10, 12, 0.5, [(4, 12)]),
        (8, 100, 24, 1.0, [(8, 2), (2, 4)]),
    ],
)
def test_the_rounds(students: int, steps: int, epochs: int, share: float, expected: list[tuple[int, int]]) -> None:
    assert LEAST_STEPS == 200
    assert rounds_of(students, steps, epochs, share) == expected


def test_a_trial_has_a_schedule_of_its_own_and_the_views_of_the_longest() -> None:
    whole = recipe(epochs=30, head_epochs=2, optimizer={"lr": 0.01, "warmup_epochs": 0.5})
    short = trial_recipe(whole, 1, 3)
    assert (short.epochs, short.head_epochs, short.optimizer.warmup_epochs, short.views.distinct) == (1, 0, 0.2, 3)
    longer = trial_recipe(whole, 5, 5)
    assert (longer.epochs, longer.head_epochs, longer.optimizer.warmup_epochs) == (5, 2, 0.5)
    assert trial_recipe(whole, 1, None).views == whole.views
    kept = recipe(epochs=30, views={"distinct": 10})
    assert trial_recipe(kept, 2, 3).views == kept.views


@pytest.mark.slow
def test_the_best_is_taken_and_trained_as_if_it_had_been_named(
    tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    logits = ImageFeed.logits

    def listening(self: ImageFeed, model: Any, split: Any) -> Any:
        asked.append(split)
        return logits(self, model, split)

    monkeypatch.setattr(ImageFeed, "logits", listening)
    finished = race_module._settled

    def settled(*arguments: Any) -> Any:
        result = finished(*arguments)
        assert "test" not in asked
        return result

    monkeypatch.setattr(race_module, "_settled", settled)
    monkeypatch.setattr(halving, "LEAST_STEPS", 6)  # an epoch
    out, progress, request = tmp_path / "run", Hearing(), raced(ask_distill(epochs=4), share=2.0)
    student = run(request, out, progress)
    assert read_json(out / "run.json", Request) == request
    assert student.race is not None
    # All three, then the two best for longer.
    assert [[trial.epochs for trial in trials] for trials in student.race.rounds] == [[1, 1, 1], [2, 2]]
    first, second = student.race.rounds
    values = [trial.accuracy.value for trial in first]
    assert values == sorted(values, reverse=True)
    assert {trial.student for trial in first} == set(FIELD)
    assert {trial.student for trial in second} == {trial.student for trial in first[:2]}
    assert student.race.winner == second[0].student == f"timm:{student.architecture}"
    assert (student.race.planned, student.race.failed) == (7, {})
    assert f"the race: {student.race.reason}" in progress.notes
    # The lead is that of the very answers.
    folders = {read_json(path, Trial).student: path.parent for path in sorted(out.glob("race/*/trial.json"))}
    ours, theirs = (np.load(folders[trial.student] / "right.npy") for trial in second)
    gap = difference(ours, theirs)
    assert student.race.lead is not None
    assert (student.race.lead.value, student.race.lead.low, student.race.lead.n) == (gap.value, gap.low, 24)
    assert second[0].accuracy.value == ours.mean()
    # No weights of trials stay.
    assert sorted(path.name for path in (out / "race" / "1").iterdir()) == ["history.jsonl", "right.npy", "trial.json"]
    named = ask_distill(epochs=4, student=student.race.winner)
    distill(named, Destination(tmp_path / "named"), progress=Silent())
    assert (tmp_path / "named" / "student.safetensors").read_bytes() == (out / "student.safetensors").read_bytes()
    assert run(request, out, resume=True) == student
    # With --overwrite all of it is kdc's to replace.
    asked.clear()
    distill_chain(raced(ask_distill(), FIELD[0]), Destination(out, overwrite=True), progress=Silent())
    assert not (out / "race").exists()


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 15, 30])
def test_an_interrupted_race_goes_on(
    step: int, tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress]
) -> None:
    """In the first trial (6 steps an epoch, 2 epochs), in the second, in the training."""
    request = raced(ask_distill(), *FIELD[:2])
    whole = run(request, tmp_path / "whole")
    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        run(request, parts, interrupt_at(step))
    with pytest.raises(KdcError, match="a run that was not finished"):
        run(request, parts)
    with pytest.raises(KdcError, match=r"race\.contenders"):
        run(raced(ask_distill(), *FIELD[1:]), parts, resume=True)
    before = {path: path.stat().st_mtime_ns for path in parts.glob("race/*/trial.json")}
    again = run(request, parts, resume=True)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert again.race is not None
    assert whole.race is not None
    told = [[(trial.student, trial.accuracy) for trial in trials] for trials in again.race.rounds]
    assert told == [[(trial.student, trial.accuracy) for trial in trials] for trials in whole.race.rounds]
    assert (parts / "student.safetensors").read_bytes() == (tmp_path / "whole" / "student.safetensors").read_bytes()


@pytest.mark.slow
def test_trials_of_other_data_are_not_gone_on_with(
    tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress]
) -> None:
    request, out = raced(ask_distill(), *FIELD[:2]), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run(request, out, interrupt_at(15))
    path = out / "race" / "1" / "trial.json"
    path.write_text(path.read_text().replace('"the data": "', '"the data": "0'))
    with pytest.raises(KdcError, match=r"since .*1 was run, the data changed"):
        run(request, out, resume=True)


@pytest.mark.slow
def test_who_cannot_learn_is_out_and_the_others_go_on(
    tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    fit = trainer.fit

    def failing(plan: Any, *rest: Any) -> Any:
        if plan.request.student == "timm:test_resnet":
            raise LearningError("loss kd is not finite at step 3 of epoch 1: samples a")
        return fit(plan, *rest)

    monkeypatch.setattr(trials, "fit", failing)
    progress, out = Hearing(), tmp_path / "run"
    whole = trainer.train_and_save

    def killed(*_: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(race_module, "train_and_save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(raced(ask_distill()), out, progress)
    assert [path.parent.name for path in out.glob("race/*/failed.json")] == ["2"]
    # Whatever it was, memory perhaps, the race that is resumed is the same race.
    monkeypatch.setattr(race_module, "train_and_save", whole)
    monkeypatch.setattr(trials, "fit", fit)
    student = run(raced(ask_distill()), out, resume=True)
    assert student.race is not None
    assert list(student.race.failed) == ["timm:test_resnet"]
    assert student.race.winner != "timm:test_resnet"
    assert any("timm:test_resnet is out of the race: loss kd is not finite" in line for line in progress.warnings)
    monkeypatch.setattr(trials, "fit", lambda plan, *rest: failing_all())

    def failing_all() -> Any:
        raise LearningError("loss kd is not finite")

    with pytest.raises(KdcError, match="not finite"):
        run(raced(ask_distill()), tmp_path / "none")
    assert not (tmp_path / "none" / "run.json").exists()


@pytest.mark.slow
def test_with_int8_training_the_race_comes_first(tmp_path: Path, ask_distill: Ask) -> None:
    request = raced(ask_distill(), *FIELD[:2]).model_copy(update={"qat": Scheme(activations="uint8", weight_bits=8)})
    student = distill_quantized(request, Destination(tmp_path / "run"), progress=Silent())
    assert student.quantization is not None
    record = read_json(tmp_path / "run" / "float" / "student.json", Student)
    assert record.race is not None
    assert student.architecture == record.race.winner.removeprefix("timm:")
    assert student.race == record.race


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"assistants": ("timm:test_vit",)}, "several would race"),
        ({"teacher": "peers"}, "its twins"),
    ],
)
def test_what_makes_no_race(
    changes: dict[str, object], message: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    asked = Request(
        task="image-classification", command="distill", teacher="timm:test_resnet", student=None, init="random",
        data="digits", skip_bad=False, input_size=32, recipe=recipe(), race=raced_request(),
    ).model_copy(update=changes)  # fmt: skip
    with pytest.raises(KdcError, match=message):
        run(asked, tmp_path / "run")
    assert not (tmp_path / "run" / "run.json").exists()


def raced_request() -> RaceRequest:
    return RaceRequest(named=FIELD, contenders=tuple(Contender(student=name) for name in FIELD), why="named")


def test_a_misspelt_student_is_refused_before_any_data_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from compressor.tasks.image_classification.task import TASK

    def opened(*_: Any, **__: Any) -> Dataset:
        pytest.fail("the data was read first")

    monkeypatch.setattr(type(TASK), "open_data", opened)
    asked = Request(
        task="image-classification", command="distill", teacher="timm:test_resnet", student=None, init="random",
        data="digits", skip_bad=False, input_size=32, recipe=recipe(),
        race=RaceRequest(named=("timm:test_resnt",), contenders=(Contender(student="timm:test_resnt"),), why="named"),
    )  # fmt: skip
    with pytest.raises(KdcError, match="did you mean test_resnet"):
        run(asked, tmp_path / "run")
