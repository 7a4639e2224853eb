"""How the losses are weighed: what is tried and when, which is taken, and that the training is the one that won."""

import json
import re
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compressor.distill import distill, distill_chain, distill_quantized, recipes, trainer
from compressor.distill.methods import arms, halving, race, trials
from compressor.distill.methods.arms import reach, tried
from compressor.distill.methods.trials import Entrant, Ran
from compressor.distill.recipes import ENOUGH, RecipeAsked, arms_of
from compressor.distill.regimes import REGIMES, built_in
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.progress import Progress, Silent
from compressor.report.render.race import losses_table
from compressor.schema.accuracy import accuracy_in
from compressor.schema.base import read_json
from compressor.schema.forecast import Forecast
from compressor.schema.quantization import Scheme
from compressor.schema.race import RankedTrial, Trial
from compressor.schema.recipe import Recipe
from compressor.schema.report import Estimate
from compressor.schema.student import Regime, Request, Student
from tests.kit import Hearing

Ask = Callable[..., Request]


def to_try(request: Request, *names: str) -> Request:
    arms, labelled = names or ("default", "labels"), 216 if request.recipe.transfer.labelled == 1 else 110
    regime = Regime(name="small", why="few", images=216, labelled=labelled, validation=24, arms=arms)
    return request.model_copy(update={"regime": regime})


def run(request: Request, out: Path, progress: Progress | None = None, resume: bool = False) -> Student:
    return distill_chain(request, Destination(out, resume=resume), progress=progress or Silent())


@pytest.mark.parametrize("regime", REGIMES)
def test_of_each_regime_its_own_weights_no_features_and_labels_alone_are_tried(regime: str) -> None:
    own = Recipe.model_validate(built_in(regime))
    kd, labels, pkd = own.losses
    assert arms_of(own) == {
        "default": (kd, labels, pkd),
        "logits": (kd, labels),
        "labels": (labels.model_copy(update={"weight": 1.0}),),
    }
    # Where there are no features, what would be the same again is left out.
    assert list(arms_of(own.model_copy(update={"losses": (kd, labels)}))) == ["default", "labels"]


def decided(validation: int, *sets: str, asked: bool = True, teacher: str = "timm:a", **changes: Any) -> Any:
    wanted = RecipeAsked((teacher,), "timm:b", "random", None, {}, sets, asked)
    request = Request(
        task="image-classification", command="distill", teacher=teacher, student="timm:b", init="random",
        data="digits", skip_bad=False, input_size=32, recipe=wanted.recipe(),
    ).model_copy(update=changes)  # fmt: skip
    progress = Hearing()
    return wanted.decided(request, 5_000, 5_000, validation, progress).regime, progress.notes


def test_weights_are_tried_where_validation_can_tell_them_apart() -> None:
    assert ENOUGH == 1_000
    regime, notes = decided(1_000)
    assert (regime.arms, regime.validation) == (("default", "logits", "labels"), 1_000)
    assert len(notes) == 1
    regime, notes = decided(999)
    assert regime.arms == ()
    assert "999 validation samples are too few" in notes[0]
    assert decided(5_000, "batch_size=8", "optimizer.lr=0.1")[0].arms


@pytest.mark.parametrize(
    "given",
    [
        {"asked": False},
        {"sets": ("losses.0.weight=0.5",)},
        {"teacher": "self"},
        {"assistants": ("timm:c",)},
    ],
    ids=str,
)
def test_what_the_user_settled_is_not_tried(given: dict[str, Any]) -> None:
    regime, notes = decided(5_000, *given.pop("sets", ()), **given)
    assert regime.arms == ()
    assert len(notes) == 1


@pytest.mark.parametrize(
    ("count", "steps", "epochs", "expected"),
    [
        (3, 1000, 30, (3, 5)),  # half of the training, for all three
        (2, 1000, 30, (2, 7)),
        (3, 20, 31, (3, 10)),  # 200 steps at least
        (3, 20, 30, (2, 30)),  # all three would take as long as the training
        (3, 1000, 18, (3, 3)),
        (3, 1000, 17, (2, 17)),  # a trial of two epochs tells nothing
        (3, 1000, 1, (2, 1)),
        (2, 1000, 5, (2, 5)),
    ],
)
def test_what_is_tried_and_for_how_long(count: int, steps: int, epochs: int, expected: tuple[int, int]) -> None:
    assert (halving.LEAST_STEPS, arms.LEAST_EPOCHS) == (200, 3)
    names = ["default", "logits", "labels"] if count == 3 else ["default", "labels"]
    chosen, length = tried(names, steps, epochs)
    assert (len(chosen), length) == expected
    assert list(chosen) == (names if len(chosen) == 3 else ["default", "labels"])


@pytest.mark.parametrize(
    ("scores", "epochs", "expected"),
    [
        ([0.2, 0.36, 0.36], 48, 0.68),  # no fall any more: the fourth root of 16 is 2, from the error of 0.64
        ([0.0, 0.2, 0.4, 0.6], 16, 0.9),  # from 0.8 to 0.4 while it doubled, so that four times as long is a quarter
        ([0.5], 16, 0.75),  # one epoch says nothing of how fast it falls
        ([0.5, 0.6], 2, 0.6),
        ([0.9, 0.8, 0.7], 48, 0.85),  # it got worse
        ([0.5, 1.0], 4, 1.0),
        ([0.0, 0.0, 0.0], 3, 0.0),
    ],
)
def test_how_far_labels_alone_may_come(scores: list[float], epochs: int, expected: float) -> None:
    assert reach(scores, epochs) == pytest.approx(expected)


def figure(value: float, n: int = 1000) -> Estimate:
    return Estimate(value=value, low=0, high=1, n=n, of="validation samples")


def ran(folder: Path, arm: str, right: list[bool], teacher: float | None = None, by: float | None = None) -> Ran:
    """A trial that answered so on validation, was taught by one that has so much of it right, and came to that in its
    first half; `by`: is ranked by balanced accuracy, and that was it."""
    folder.mkdir()
    np.save(folder / "right.npy", np.array(right))
    share = figure(float(np.mean(right)), len(right))
    rows = [{"validation": {"accuracy": share.value, "balanced": by, "n": 9}} for _ in range(4)]
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    trial = Trial(student="timm:a", arm=arm, epochs=4, steps=1, accuracy=share, seconds=1.0, inputs={})
    if teacher is not None:
        trial = trial.model_copy(update={"teacher": figure(teacher)})
    if by is not None:
        trial = RankedTrial(**dict(trial), by="balanced", score=figure(by))
    nothing: Any = None
    data: Any = SimpleNamespace(validation=SimpleNamespace(labels=np.zeros(len(right), np.int64)))
    return Ran(trial, Entrant(arm, nothing, data, arm), folder)


def test_the_reason_is_the_lead_over_the_default(tmp_path: Path) -> None:
    both = [True] * 820
    default = ran(tmp_path / "1", "default", both + [True] * 80 + [False] * 100)
    labels = ran(tmp_path / "2", "labels", both + [False] * 80 + [True] * 100)
    logits = ran(tmp_path / "3", "logits", both + [True] * 81 + [False] * 99)
    reason = arms._reason([labels, logits, default])
    # The error of the difference is about the root of those that only one has right, 13 of 1,000.
    assert re.fullmatch(
        r"labels has the highest validation accuracy, 92\.00% against 90\.00% of default: \+2\.00 points "
        r"\[-0\.\d\d to \+4\.\d\d\], n=1000, which cannot be told from none",
        reason,
    )
    assert "91.00% of logits" not in reason
    assert arms._reason([default, logits]).startswith("default has the highest validation accuracy, 90.00% against")
    assert arms._reason([logits]) == "logits is the only one left"


def test_labels_alone_is_ruled_out_where_it_would_not_come_to_the_teacher(tmp_path: Path) -> None:
    """An error of 0.32 after 4 epochs may be half of it after 64."""
    labels = ran(tmp_path / "1", "labels", [True] * 680 + [False] * 320)
    for number, (teacher, said) in enumerate([(0.841, "84.10%"), (0.84, "84.00%"), (None, "not known")]):
        best = ran(tmp_path / f"a{number}", "logits", [True] * 700 + [False] * 300, teacher)
        both, why = arms._undecided([best, labels], 64)
        assert why == f"labels alone may come to 84.00% in 64 epochs, the teacher's accuracy is {said}"
        assert both == ([] if teacher == 0.841 else [best, labels])
    # A trial favours the teacher: where labels alone leads all the same, that is it.
    assert arms._undecided([labels, best], 64) == ([], "")
    assert arms._undecided([best], 64) == ([], "")


def test_what_decides_is_the_figure_that_trials_are_ranked_by(tmp_path: Path) -> None:
    labels = ran(tmp_path / "1", "labels", [True] * 900 + [False] * 100, by=0.36)
    best = ran(tmp_path / "2", "default", [True] * 800 + [False] * 200, teacher=0.67, by=0.4)
    both, why = arms._undecided([best, labels], 64)
    assert why == "labels alone may come to 68.00% in 64 epochs, the teacher's balanced accuracy is 67.00%"
    assert both == [best, labels]


def let_win(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it comes to on the few samples of these tests."""
    rounds = trials.run_rounds

    def sorted_so(*arguments: Any) -> Any:
        (trials,), failed = rounds(*arguments)
        return [sorted(trials, key=lambda ran: ran.entrant.name != arm)], failed

    monkeypatch.setattr(arms, "run_rounds", sorted_so)


def let_trials_be_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that there are some, in trainings as small as these."""
    monkeypatch.setattr(arms, "LEAST_STEPS", 1)
    monkeypatch.setattr(arms, "LEAST_EPOCHS", 1)


@pytest.mark.slow
@pytest.mark.parametrize("winner", ["default", "labels"])
def test_the_training_is_that_of_the_weights_that_won(
    winner: str, tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two epochs, so that both are trained in full, and nothing is trained again."""
    let_win(winner, monkeypatch)
    request, progress = to_try(ask_distill()), Hearing()
    student = run(request, tmp_path / "run", progress)
    assert sum(note.startswith("epoch 2/2: ") for note in progress.notes) == 2
    history = (tmp_path / "run" / "history.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["epoch"] for row in history] == [1, 2]
    assert not list((tmp_path / "run").rglob("checkpoint/*"))
    assert read_json(tmp_path / "run" / "run.json", Request) == request
    losses = student.losses
    assert losses is not None
    assert (losses.winner, losses.epochs, losses.in_full, losses.failed) == (winner, 2, (), {})
    taught = {trial.arm: trial.teacher and trial.teacher.value for trial in losses.trials}
    assert student.teacher_validation is not None
    assert taught == {"default": accuracy_in(student.teacher_validation).accuracy, "labels": None}
    assert losses.arms == {"default": {"kd": 0.9, "cross_entropy": 0.1}, "labels": {"cross_entropy": 1.0}}
    assert {trial.arm for trial in losses.trials} == {"default", "labels"}
    assert f"the losses: {losses.reason}" in progress.notes
    assert losses.reason.startswith(f"{winner} has the highest validation accuracy")
    assert [term.name for term in student.recipe.losses] == list(losses.arms[winner])
    # The teacher is measured all the same: the student is held against it.
    assert student.teacher is not None
    assert student.teacher_validation is not None
    plain = ask_distill(losses=[{"name": name, "weight": weight} for name, weight in losses.arms[winner].items()])
    distill(plain, Destination(tmp_path / "plain"), progress=Silent())
    ours, theirs = (tmp_path / name / "student.safetensors" for name in ("run", "plain"))
    assert ours.read_bytes() == theirs.read_bytes()
    assert losses.reason in losses_table(losses)
    assert "| default | 0.9 | 0.1 |" in losses_table(losses)
    assert "| labels | 0 | 1 |" in losses_table(losses)


@pytest.mark.slow
def test_labels_alone_see_the_labelled_samples_for_as_many_steps(
    tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_win("labels", monkeypatch)
    let_trials_be_short(monkeypatch)
    views: dict[tuple[str, ...], int | None] = {}
    fit = trainer.fit

    def seen(plan: Any, *rest: Any) -> Any:
        if plan.recipe.epochs < 3:
            views[tuple(term.name for term in plan.recipe.losses)] = plan.recipe.views.distinct
        return fit(plan, *rest)

    monkeypatch.setattr(trials, "fit", seen)
    request = to_try(ask_distill(transfer={"labelled": 0.5}, epochs=3))
    student = run(request, tmp_path / "run")
    # A view would come again in each pass over the few that have a label, if the trial had as many as it has epochs.
    assert views == {("kd", "cross_entropy"): 1, ("cross_entropy",): None}
    assert student.losses is not None
    assert {trial.steps for trial in student.losses.trials} == {6}
    assert student.steps_per_epoch == 6  # of 216 images 110 have a label: 3 batches, twice
    assert any("have no label and are left out" in note for note in student.data.notes)
    # Training under fake quantization goes on with what won, for as long.
    scheme = Scheme(activations="uint8", weight_bits=8)
    rounded = distill_quantized(
        request.model_copy(update={"qat": scheme}), Destination(tmp_path / "rounded"), progress=Silent()
    )
    assert [term.name for term in rounded.recipe.losses] == ["cross_entropy"]
    assert (rounded.steps_per_epoch, rounded.losses is not None) == (6, True)


@pytest.mark.slow
@pytest.mark.parametrize("ruled_out", [True, False])
def test_labels_alone_are_trained_in_full_where_trials_do_not_rule_them_out(
    ruled_out: bool, tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_trials_be_short(monkeypatch)
    monkeypatch.setattr(arms, "reach", lambda scores, epochs: 0.0 if ruled_out else 1.0)
    request, rounds, calls = to_try(ask_distill(epochs=3)), trials.run_rounds, list[object]()

    def best_first(*arguments: Any) -> Any:
        """The default in the trials, labels alone in full."""
        first = "default" if not calls else "labels"
        calls.append(arguments)
        (ended,), failed = rounds(*arguments)
        return [sorted(ended, key=lambda ran: ran.entrant.name != first)], failed

    monkeypatch.setattr(arms, "run_rounds", best_first)
    student = run(request, tmp_path / "run")
    losses = student.losses
    assert losses is not None
    assert [trial.epochs for trial in losses.trials] == [1, 1]
    folders = sorted(path.name for path in (tmp_path / "run" / "arms").iterdir())
    plain = ask_distill(epochs=3) if ruled_out else ask_distill(epochs=3, losses=[{"name": "cross_entropy"}])
    distill(plain, Destination(tmp_path / "plain"), progress=Silent())
    ours, theirs = (tmp_path / name / "student.safetensors" for name in ("run", "plain"))
    assert ours.read_bytes() == theirs.read_bytes()
    table = losses_table(losses)
    if ruled_out:
        assert (losses.winner, losses.in_full, folders) == ("default", (), ["1", "2"])
        assert "labels alone may come to 0.00% in 3 epochs, the teacher's accuracy is" in losses.reason
        assert "3 epochs" not in table.splitlines()[0]
        return
    assert (losses.winner, folders) == ("labels", ["1", "2", "3", "4"])
    assert {(trial.arm, trial.epochs) for trial in losses.in_full} == {("default", 3), ("labels", 3)}
    assert losses.lead is not None
    in_full = {trial.arm: trial.accuracy.value for trial in losses.in_full}
    assert losses.lead.value == pytest.approx(in_full["labels"] - in_full["default"])
    assert accuracy_in(student.validation).accuracy == in_full["labels"]
    assert "after 1 epoch (n = 24) | validation % after 3 epochs (n = 24)" in table.splitlines()[0]


@pytest.mark.slow
@pytest.mark.parametrize("step", [3, 8, 20, 40, None])
def test_an_interrupted_trial_goes_on(
    step: int | None,
    tmp_path: Path,
    ask_distill: Ask,
    interrupt_at: Callable[[int], Progress],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In the first trial (an epoch of 6 steps), in the second, in the trainings in full (3 epochs), after them."""
    let_trials_be_short(monkeypatch)
    monkeypatch.setattr(arms, "reach", lambda scores, epochs: 1.0)
    let_win("default", monkeypatch)
    request = to_try(ask_distill(epochs=3))
    whole = run(request, tmp_path / "whole")
    parts = tmp_path / "parts"
    with monkeypatch.context() as patch:
        if step is None:
            patch.setattr(race, "train_and_save", lambda *_: signal.raise_signal(signal.SIGINT))
        with pytest.raises(KeyboardInterrupt):
            run(request, parts, Silent() if step is None else interrupt_at(step))
    with pytest.raises(KdcError, match=r"regime\.arms"):
        run(to_try(ask_distill(epochs=3), "labels", "default"), parts, resume=True)
    before = {path: path.stat().st_mtime_ns for path in parts.glob("arms/*/trial.json")}
    after = Hearing()
    again = run(request, parts, after, resume=True)
    assert step is not None or not any(note.startswith("epoch ") for note in after.notes)
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert again.losses is not None
    assert whole.losses is not None
    assert again.losses.winner == whole.losses.winner
    assert (parts / "student.safetensors").read_bytes() == (tmp_path / "whole" / "student.safetensors").read_bytes()
    assert run(request, parts, resume=True) == again


@pytest.mark.slow
def test_the_default_of_distill_tries_them(
    tmp_path: Path, digits4: str, teacher_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command's own function, with validation large enough; --no-race-losses leaves it out."""
    import compressor

    monkeypatch.setattr(recipes, "ENOUGH", 24)
    asked: dict[str, Any] = {
        "teacher": f"run:{teacher_run}", "data": digits4, "student": "timm:test_efficientnet",
        "student_init": "random", "input_size": 32, "epochs": 1, "progress": Silent(),
    }  # fmt: skip
    plan = compressor.plan_distill(out=tmp_path / "run", **asked)
    assert isinstance(plan.plan, Forecast)
    assert [part.name for part in plan.plan.parts] == ["losses, labels in full", "student"]
    done = compressor.distill(out=tmp_path / "run", **asked)
    assert done.student.losses is not None
    assert done.student.losses.winner in ("default", "labels")
    longer = compressor.plan_distill(out=tmp_path / "long", **asked | {"epochs": 106})
    assert isinstance(longer.plan, Forecast)
    tries = ["losses, default", "losses, logits", "losses, labels", "losses, labels in full", "student"]
    assert [part.name for part in longer.plan.parts] == tries
    assert "labels alone in full are counted" in " ".join(longer.plan.notes)
    plain = compressor.distill(out=tmp_path / "plain", race_losses=False, **asked)
    assert plain.student.losses is None
