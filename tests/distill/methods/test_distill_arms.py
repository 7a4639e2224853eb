"""How the losses are weighed: what is tried and when, which is taken, and that the training is the one that won."""

import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from compressor.distill import distill, distill_chain, distill_quantized, recipes, trainer
from compressor.distill.methods import arms, halving, trials
from compressor.distill.methods.arms import arm_epochs
from compressor.distill.methods.trials import Entrant, Ran
from compressor.distill.recipes import ENOUGH, RecipeAsked, arms_of
from compressor.distill.regimes import REGIMES, built_in
from compressor.distill.run_folder import Destination
from compressor.errors import KdcError
from compressor.progress import Progress, Silent
from compressor.report.render.race import losses_table
from compressor.schema.base import read_json
from compressor.schema.forecast import Forecast
from compressor.schema.quantization import Scheme
from compressor.schema.race import Trial
from compressor.schema.recipe import Recipe
from compressor.schema.report import Estimate
from compressor.schema.student import Regime, Request, Student
from tests.kit import Hearing

Ask = Callable[..., Request]


def tried(request: Request, *names: str) -> Request:
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
        (3, 1000, 30, 5),  # half of the training, for all three
        (2, 1000, 30, 7),
        (3, 20, 30, 10),  # 200 steps at least
        (3, 20, 6, 6),  # and no more than the training itself
        (3, 1000, 2, 1),
    ],
)
def test_how_long_each_is_tried(count: int, steps: int, epochs: int, expected: int) -> None:
    assert halving.LEAST_STEPS == 200
    assert arm_epochs(count, steps, epochs) == expected


def ran(folder: Path, arm: str, right: list[bool]) -> Ran:
    """A trial that answered so on validation."""
    folder.mkdir()
    np.save(folder / "right.npy", np.array(right))
    share = Estimate(value=float(np.mean(right)), low=0, high=1, n=len(right), of="validation samples")
    trial = Trial(student="timm:a", arm=arm, epochs=1, steps=1, accuracy=share, seconds=1.0, inputs={})
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


def let_win(arm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it comes to on the few samples of these tests."""
    rounds = trials.run_rounds

    def sorted_so(*arguments: Any) -> Any:
        (trials,), failed = rounds(*arguments)
        return [sorted(trials, key=lambda ran: ran.entrant.name != arm)], failed

    monkeypatch.setattr(arms, "run_rounds", sorted_so)


@pytest.mark.slow
@pytest.mark.parametrize("winner", ["default", "labels"])
def test_the_training_is_that_of_the_weights_that_won(
    winner: str, tmp_path: Path, ask_distill: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_win(winner, monkeypatch)
    request, progress = tried(ask_distill()), Hearing()
    student = run(request, tmp_path / "run", progress)
    assert read_json(tmp_path / "run" / "run.json", Request) == request
    losses = student.losses
    assert losses is not None
    assert (losses.winner, losses.epochs, losses.failed) == (winner, 2, {})
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
    views: dict[tuple[str, ...], int | None] = {}
    fit = trainer.fit

    def seen(plan: Any, *rest: Any) -> Any:
        views[tuple(term.name for term in plan.recipe.losses)] = plan.recipe.views.distinct
        return fit(plan, *rest)

    monkeypatch.setattr(trials, "fit", seen)
    request = tried(ask_distill(transfer={"labelled": 0.5}))
    student = run(request, tmp_path / "run")
    # A view would come again in each pass over the few that have a label, if the trial had as many as it has epochs.
    assert views == {("kd", "cross_entropy"): 2, ("cross_entropy",): None}
    assert student.losses is not None
    assert {trial.steps for trial in student.losses.trials} == {2 * 6}
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
@pytest.mark.parametrize("step", [3, 15, 30])
def test_an_interrupted_trial_goes_on(
    step: int, tmp_path: Path, ask_distill: Ask, interrupt_at: Callable[[int], Progress]
) -> None:
    """In the first trial (6 steps an epoch, 2 epochs), in the second, in the training."""
    request = tried(ask_distill())
    whole = run(request, tmp_path / "whole")
    parts = tmp_path / "parts"
    with pytest.raises(KeyboardInterrupt):
        run(request, parts, interrupt_at(step))
    with pytest.raises(KdcError, match=r"regime\.arms"):
        run(tried(ask_distill(), "labels", "default"), parts, resume=True)
    before = {path: path.stat().st_mtime_ns for path in parts.glob("arms/*/trial.json")}
    again = run(request, parts, resume=True)
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
    assert [part.name for part in plan.plan.parts] == ["losses, default", "losses, logits", "losses, labels", "student"]
    done = compressor.distill(out=tmp_path / "run", **asked)
    assert done.student.losses is not None
    assert done.student.losses.winner in ("default", "logits", "labels")
    plain = compressor.distill(out=tmp_path / "plain", race_losses=False, **asked)
    assert plain.student.losses is None
