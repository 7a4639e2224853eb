"""Classes grouped by what a generalist confuses; how far two models are apart."""

import numpy as np
import pytest
from numpy.typing import NDArray

from compressor.distill.methods.grouping import confusable, groups_of, likeness
from compressor.distill.teacher.gap import points_apart, tell_bits, tell_gap
from compressor.errors import KdcError
from compressor.stats.language import Costs
from tests.kit import Hearing

Floats = NDArray[np.float64]


def predictions(confused: list[tuple[int, ...]], classes: int, each: int = 50, share: float = 0.3) -> Floats:
    """Of each class so many samples; within a group `share` of the probability goes to its other members."""
    rng = np.random.default_rng(0)
    rows = np.zeros((classes * each, classes))
    for label in range(classes):
        mine = rows[label * each : (label + 1) * each]
        mine[:, label] = 1.0
        others = [other for group in confused if label in group for other in group if other != label]
        if others:
            strayed = share * rng.dirichlet(np.ones(len(others)), each)
            mine[:, others] = strayed
            mine[:, label] -= strayed.sum(1)
    return rows


def test_what_is_confused_comes_together_and_the_rest_stays_alone() -> None:
    groups, alone = groups_of(predictions([(7, 2), (1, 5, 3)], 9), 2)
    assert (groups, alone) == ([(1, 3, 5), (2, 7)], [0, 4, 6, 8])
    assert confusable(predictions([(7, 2), (1, 5, 3)], 9)).tolist() == [1, 2, 3, 5, 7]


def test_likeness_by_hand() -> None:
    found = likeness(np.array([[1.0, 0.0, 0.0], [0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]))
    cosine = 0.25 / np.sqrt(1.25 * 0.25)
    assert found == pytest.approx(np.array([[1, cosine, 0], [cosine, 1, 0], [0, 0, 1]]))


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5])
def test_any_number_of_groups_up_to_half_the_classes(count: int) -> None:
    """Whatever the confusions look like; renaming the classes renames the groups, and nothing else."""
    rng = np.random.default_rng(count)
    rows = np.exp(3 * rng.normal(size=(400, 10)))
    rows /= rows.sum(1, keepdims=True)
    groups, alone = groups_of(rows, count)
    assert len(groups) == count
    assert all(2 <= len(group) < 10 for group in groups)
    assert sorted([number for group in groups for number in group] + alone) == list(range(10))
    assert len(alone) == (1 if count == 1 else 0)
    order = rng.permutation(10)
    renamed, _ = groups_of(rows[:, order], count)
    assert {frozenset(int(order[place]) for place in group) for group in renamed} == {frozenset(g) for g in groups}


def test_groups_are_of_likes_even_where_classes_rather_join_than_found() -> None:
    """All are near class 0: plain agglomeration would end with one group of all."""
    rows = predictions([(0, other) for other in range(1, 6)], 6)
    rows[:, 4] += 0.02
    rows /= rows.sum(1, keepdims=True)
    groups, alone = groups_of(rows, 3)
    assert [len(group) for group in groups] == [2, 2, 2]
    assert alone == []


@pytest.mark.parametrize(
    ("confused", "classes", "count", "said", "hint"),
    [
        ([(0, 1), (2, 3)], 6, 3, "--count 3: 4 of 6 classes are confused with others", "--count 1 to 2"),
        ([(0, 1, 2)], 6, 2, "--count 2: 3 of 6 classes", "--count 1 to 1"),
        ([], 6, 1, "no specialists can be made: 0 of 6 classes are confused", "at least 2"),
        ([(0, 1)], 2, 1, "no specialists can be made: 2 of 2 classes", "leaves one out"),
    ],
)
def test_groups_that_cannot_be_are_refused(
    confused: list[tuple[int, ...]], classes: int, count: int, said: str, hint: str
) -> None:
    with pytest.raises(KdcError) as caught:
        groups_of(predictions(confused, classes), count)
    assert said in caught.value.message
    assert hint in caught.value.hint


def right(correct: int, n: int) -> NDArray[np.bool_]:
    return np.arange(n) < correct


def tell(student: int, teacher: int, n: int, progress: Hearing) -> None:
    both = {("student", "validation"): right(student, n), ("teacher", "validation"): right(teacher, n)}
    tell_gap(both, "t", 1200, progress)


def test_a_gap_is_told_and_a_clear_one_warned_of() -> None:
    progress = Hearing()
    tell_gap(
        {("student", "validation"): right(880, 1000), ("teacher", "validation"): right(950, 1000)}, "t", 1200, progress
    )
    (warning,) = progress.warnings
    assert warning.startswith("validation: the student is 7.0 points [5.4, 8.6] behind its teacher t (n=1,000 pairs)")
    assert (
        "more than its 1,200 steps (--epochs, or a smaller --batch-size) or a model between them (--assist" in warning
    )
    # As large, but from 100 samples; and a student that is ahead.
    tell_gap(
        {("student", "validation"): right(93, 100), ("teacher", "validation"): right(97, 100)}, "t", 1200, progress
    )
    tell_gap(
        {("student", "validation"): right(99, 100), ("teacher", "validation"): right(97, 100)}, "t", 1200, progress
    )
    assert len(progress.warnings) == 1
    assert "4.0 points [" in progress.notes[0]
    assert "2.0 points [" in progress.notes[1]
    assert "ahead of its teacher t" in progress.notes[1]


def test_a_gap_of_bits_a_byte_is_told_and_a_clear_one_warned_of() -> None:
    """Twenty documents of 100 bytes, on each of which the student needs so many bits more."""
    progress, spread = Hearing(), np.linspace(-1, 1, 20)
    sizes, tokens = np.full(20, 100), np.full(20, 25)

    def costs(bits: Floats) -> Costs:
        return Costs((150 + 40 * spread + bits) * np.log(2), tokens, sizes)

    for behind in (8.0 + 0 * spread, 4.0 + 0 * spread, 6.0 + 8 * spread, -9.0 + 0 * spread):
        both = {("student", "validation"): costs(behind), ("teacher", "validation"): costs(0 * spread)}
        tell_bits(both, "t", 1200, progress)
    (warning,) = progress.warnings  # 0.08; not 0.04, nor 0.06 with an interval from below 0.05, nor ahead
    assert warning.startswith("validation: the student is 0.080 bits a byte [0.080, 0.080] behind its teacher t (n=20")
    assert "more than its 1,200 steps (--epochs, or a smaller --batch-size) or a model between them (--assi" in warning
    assert "0.040 bits a byte [0.040, 0.040] behind" in progress.notes[0]
    assert "0.060 bits a byte [0.0" in progress.notes[1]
    assert "0.090 bits a byte [0.090, 0.090] ahead of its teacher t" in progress.notes[2]


def test_the_interval_has_the_sign_of_the_words() -> None:
    assert points_apart(right(90, 100), right(90, 100), "it") == "0.0 points [-2.7, 2.7] behind it (n=100 pairs)"
