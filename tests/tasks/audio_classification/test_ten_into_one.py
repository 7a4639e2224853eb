"""benchmarks/ten_into_one.py: intervals over groups, recipes and steps of its arms, and the whole of it in small."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import ten_into_one, ten_runs
from benchmarks.by_group import Resampled, kept, within
from benchmarks.regimes import Bench
from benchmarks.ten_runs import ARMS, FEW_ARMS, LABELLED, Case, Ten, cases_of, recipe_of
from compressor.distill.loop.learner import bind_losses
from compressor.schema.recipe import Recipe
from tests.tasks.audio_classification.kit import PITCHES, tone, write_sound, write_table

HERE = Case("here", "here", ARMS, LABELLED, 60, LABELLED, 60)


def test_a_group_of_equal_samples_counts_as_one() -> None:
    """100 groups of 30 equal frames: the interval is that of 100 samples, 30 times as many frames or not."""
    rng = np.random.default_rng(1)
    right = rng.random(100) < 0.6
    names = [str(number) for number in range(100)]
    alone = within(Resampled(names).accuracy([right]))
    frames = within(Resampled(np.repeat(names, 30).tolist()).accuracy([np.repeat(right, 30)]))
    assert alone.value == pytest.approx(100 * right.mean())
    assert frames.value == pytest.approx(alone.value)
    share = right.mean()
    reach = 196 * np.sqrt(share * (1 - share) / 100)
    for got in (alone, frames):
        assert got.value - got.low == pytest.approx(reach, abs=1.5)
        assert got.high - got.value == pytest.approx(reach, abs=1.5)


def test_groups_count_by_their_frames() -> None:
    """Of two groups, of 1 and of 3 frames, draws are 0, 1 or 2 of each: right in the first alone, 0, 25 or 100 %."""
    draws = Resampled(["a", "b", "b", "b"])
    values = draws.accuracy([np.array([True, False, False, False])])
    assert values[0] == 25
    assert set(values[1:].tolist()) == {0.0, 25.0, 100.0}
    assert np.mean(values[1:] == 25) == pytest.approx(0.5, abs=0.03)


def test_seeds_are_drawn_with_the_groups() -> None:
    draws = Resampled([str(number) for number in range(50)])
    rights = [np.ones(50, bool), np.zeros(50, bool)]
    values = draws.of_seeds(rights)
    assert values[0] == 50
    assert set(values[1:].tolist()) == {0.0, 50.0, 100.0}
    assert np.mean(values[1:] == 50) == pytest.approx(0.5, abs=0.03)


def test_what_a_student_keeps_of_a_gain() -> None:
    single, ensemble = np.array([70.0, 70.0, 71.0]), np.array([72.0, 74.0, 72.0])
    assert str(kept(ensemble, single, ensemble)) == "100.00 [100.00 to 100.00]"
    assert str(kept(single, single, ensemble)).startswith("0.00 [")
    half = kept((single + ensemble) / 2, single, ensemble)
    assert (half.value, half.low, half.high) == pytest.approx((50, 50, 50))


def test_where_an_ensemble_gains_nothing_no_share_is_told() -> None:
    single, ensemble = np.full(101, 70.0), np.full(101, 72.0)
    ensemble[1:21] = 70.0
    told = kept(np.full(101, 71.0), single, ensemble)
    assert told.value == 50
    assert told.high == np.inf
    assert ten_into_one.share(np.full(101, 71.0), single, ensemble) == "–"
    ensemble[1:] = 73.0
    assert ten_into_one.share(np.full(101, 71.0), single, ensemble) == "50.00 [33.33 to 33.33]"


@pytest.mark.parametrize("name", [*ARMS, *FEW_ARMS])
def test_recipes_of_all_arms_are_understood(name: str) -> None:
    arm = {**ARMS, **FEW_ARMS}[name]
    recipe = Recipe.model_validate(recipe_of(arm, LABELLED, 60, 2 if arm.tried else None, 1))
    bind_losses(recipe, has_teacher=arm.targets != "labels")
    assert recipe.transfer.drop_unlabelled == (arm.frames == "labelled")
    assert ("cross_entropy" in {term.name for term in recipe.losses}) == (arm.targets != "teacher")


def test_students_make_as_many_steps_as_members(tmp_path: Path) -> None:
    (tmp_path / "frames.csv").write_text("split\n" + "train\n" * 40 + "test\n" * 9)
    (tmp_path / "unlabelled.csv").write_text("path\n" + "a\n" * 20)
    ten = Ten(Bench(tmp_path, {}, {}, [0], time.monotonic()), tmp_path, 2)
    epochs = {name: ten.epochs(HERE, arm) for name, arm in ARMS.items()}
    assert (epochs["labels"], epochs["kd"], epochs["kd-mixup"]) == (60, 60, 60)
    assert (epochs["all"], epochs["all-x3"], epochs["all-x10"]) == (6, 18, 60)
    assert epochs["more"] == 4  # of half as many frames again
    assert epochs["labels-x10"] == 600


def test_the_temperature_is_that_of_the_best_validation(tmp_path: Path) -> None:
    ten = Ten(Bench(tmp_path, {}, {}, [0, 1], time.monotonic()), tmp_path, 2)
    accuracies = {1: (0.5, 0.6), 2: (0.7, 0.5), 3: (0.4, 0.4), 5: (0.9, 0.2)}
    for heat, values in accuracies.items():
        for run, value in zip(ten.students(HERE, "kd", heat), values, strict=True):
            assert ten.temperature(HERE, ARMS["kd-mixup"]) is None
            run.mkdir(parents=True)
            test = {"accuracy": 1 - value}
            (run / "student.json").write_text(json.dumps({"validation": {"accuracy": value}, "test": test}))
    assert ten.temperature(HERE, ARMS["kd-mixup"]) == 2
    assert ten.temperature(replace(HERE, name="longer"), ARMS["kd"]) == 2
    assert ten.temperature(HERE, ARMS["all"]) is None


def test_members_learn_for_as_long_as_students() -> None:
    cases = cases_of(60, [20, 180], list(ARMS))
    lengths = [(case.name, case.epochs, case.members_epochs) for kind in ("tenth", "curve") for case in cases[kind]]
    assert lengths == [("tenth-60", 60, 60), ("tenth-20", 20, 20), ("tenth-180", 180, 180)]
    assert {case.tried for case in cases["curve"]} == {"tenth-60"}


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What examples/phones.py writes, of tones for phones: 600 frames to train with."""
    folder, rows = tmp_path_factory.mktemp("tones"), []
    for number in range(40):
        name, pitch = [*PITCHES.items()][number % 3]
        split = "train" if number < 24 else "validation" if number < 32 else "test"
        write_sound(folder / f"{number}.wav", tone(pitch, number, 0.5))
        rows += [(f"{number}.wav", at / 100, at / 100 + 0.2, name, f"group {number}", split) for at in range(25)]
    write_table(folder / "frames.csv", rows, ("path", "start", "end", "label", "group", "split"))
    write_sound(folder / "more.wav", tone(500, 77, 1.0))
    more = [("more.wav", at / 100, at / 100 + 0.2) for at in range(75)]
    write_table(folder / "unlabelled.csv", more, ("path", "start", "end"))
    return folder


@pytest.mark.slow
def test_the_whole_of_it_in_small(
    tones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Members, temperatures, a student, tables; and a second call trains nothing more."""
    monkeypatch.setattr(ten_runs, "TEMPERATURES", (1, 2))
    monkeypatch.setattr(ten_into_one, "TEMPERATURES", (1, 2))
    monkeypatch.setattr(ten_runs, "STUDENT", "mlp:8x1")
    options = ["--members", "2", "--seed", "0", "--epochs", "10", "--case", "tenth"]
    options += ["--arm", "labels", "all", "more"]
    monkeypatch.setattr(sys, "argv", ["ten", "--phones", str(tones), "--work", str(tmp_path / "ten"), *options])
    ten_into_one.main()
    told = capsys.readouterr()
    assert told.err.count("done: ") == 6
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in told.out.splitlines() if line]
    by_name = {row[0]: row for row in rows}
    assert by_name["2 together"][-1] == "100"
    assert {"one model", "labels", "all", "more"} <= by_name.keys()
    assert by_name["labels"][2] == "10"
    assert by_name["all"][2] == "1"
    ten_into_one.main()
    again = capsys.readouterr()
    assert again.err.count("done: ") == 0
    assert again.out == told.out[told.out.index("| arm") :]
