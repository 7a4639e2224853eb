"""The teacher card as a training says it, and the classes that a model has lost."""

import numpy as np
import pytest

from compressor.distill.teacher.card import shown, tell_lost_classes
from compressor.stats import accuracy_of, teacher_card
from tests.kit import Hearing

NAMES = ("common", "rare")


def answers(common: int, rare: int, wrong: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are right but for the first `wrong` samples of the rare class, and labels."""
    labels = np.repeat([0, 1], [common, rare])
    taken = labels.copy()
    taken[common : common + wrong] = 0
    return 5 * np.eye(2)[taken], labels


def test_a_smoothed_teacher_is_no_cause_for_a_warning() -> None:
    """Smoothed by 0.1 over 3 classes: the right one 0.93, the others 0.03 each."""
    labels = np.arange(60) % 3
    given = np.full((60, 3), np.log(1 / 30))
    given[np.arange(60), labels] = np.log(28 / 30)
    progress = Hearing()
    shown(teacher_card(given, labels, ("a", "b", "c")), ("a", "b", "c"), progress)
    assert progress.warnings == []
    assert progress.notes[0].startswith("teacher card, from validation (n=60)")
    assert any(line.startswith("  suggested temperature") for line in progress.notes)
    assert not any("smooth" in line for line in progress.notes)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_a_class_that_is_never_answered_is_named_with_its_n(split: str) -> None:
    progress = Hearing()
    tell_lost_classes("the student", [accuracy_of(*answers(180, 6, 6), split)], NAMES, progress)
    [warning] = progress.warnings
    assert f"the student never or hardly ever answers class rare: 0 of 6 {split} samples right" in warning
    assert f"Accuracy alone does not show it: 96.8% on {split} (balanced 50.0%)" in warning


def test_two_splits_are_one_warning() -> None:
    progress = Hearing()
    both = [accuracy_of(*answers(180, 6, 6), "validation"), accuracy_of(*answers(90, 3, 0), "test")]
    tell_lost_classes("it", both, NAMES, progress)
    both[1] = accuracy_of(*answers(90, 9, 9), "test")
    tell_lost_classes("it", both, NAMES, progress)
    first, second = progress.warnings
    assert "class rare: 0 of 6 validation samples right. Accuracy" in first
    assert "class rare: 0 of 6 validation samples right, 0 of 9 test samples right. Accuracy" in second
    assert second.endswith("96.8% on validation (balanced 50.0%), 90.9% on test (balanced 50.0%)")


@pytest.mark.parametrize(
    ("common", "rare", "wrong", "warned"),
    [
        (180, 6, 5, False),
        (180, 60, 58, True),
        (180, 3, 3, True),
        (180, 1, 1, False),
        (180, 6, 0, False),
        (6, 6, 6, True),
    ],
)
def test_recall_near_zero_is_told_from_chance(common: int, rare: int, wrong: int, warned: bool) -> None:
    progress = Hearing()
    tell_lost_classes("it", [accuracy_of(*answers(common, rare, wrong), "test")], NAMES, progress)
    assert bool(progress.warnings) == warned


def test_a_teacher_is_warned_of_likewise_and_what_was_left_out_is_not() -> None:
    progress = Hearing()
    card = shown(teacher_card(*answers(180, 6, 6), NAMES), NAMES, progress)
    assert progress.warnings[0].startswith("the teacher never or hardly ever answers class rare: 0 of 6 validation")
    tell_lost_classes("the student", [card.accuracy], NAMES, progress, left_out=("rare",))
    assert len(progress.warnings) == 1


def test_many_small_classes_are_low_by_chance() -> None:
    """A sound model that is right on 9 of 10 misses both samples of some of 100 classes."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(100), 2)
    taken = np.where(rng.random(200) < 0.9, labels, (labels + 1) % 100)
    score = accuracy_of(np.eye(100)[taken], labels, "test")
    assert score.lost == ()
