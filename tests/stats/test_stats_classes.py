"""Classes one by one: by hand, against scipy, and how often sound and unsound students are judged wrongly."""

from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from compressor.stats import (
    NEAR_ZERO,
    Interval,
    balanced_accuracy,
    balanced_retention,
    class_counts,
    judge_classes,
    keeps,
    retention,
)
from compressor.stats.classes import _binomial
from tests.kit import by_classes, score_of
from tests.stats.simulate import Students, covered, tally

Bools = NDArray[np.bool_]


def samples(*classes: tuple[int, int, int]) -> tuple[Bools, Bools, NDArray[np.int64]]:
    """n, right of the student, right of the teacher by class; both are right on the first ones. Student, teacher,
    labels."""
    student = np.concatenate([np.arange(n) < right for n, right, _ in classes])
    teacher = np.concatenate([np.arange(n) < right for n, _, right in classes])
    return student, teacher, np.repeat(np.arange(len(classes)), [n for n, _, _ in classes])


def verdict(limit: float, *classes: tuple[int, int, int]) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    student, teacher, labels = samples(*classes)
    found = judge_classes(class_counts(student, labels, len(classes), teacher), limit)
    return found.verdict, found.lost, found.doubtful


@pytest.mark.parametrize(
    ("classes", "expected"),
    [
        ([(180, 179, 178), (6, 0, 6)], ("fail", (1,), ())),  # 900 against 30 images
        ([(180, 179, 178), (6, 1, 6)], ("inconclusive", (), (1,))),
        ([(180, 179, 178), (6, 4, 6)], ("pass", (), ())),
        ([(180, 179, 178), (6, 6, 6)], ("pass", (), ())),
        ([(180, 179, 178), (3, 0, 3)], ("inconclusive", (), (1,))),  # three cannot show it, chance does not explain it
        ([(180, 179, 178), (1, 0, 1)], ("pass", (), ())),  # one sample says nothing
        ([(180, 179, 178), (6, 0, 0)], ("pass", (), ())),  # the teacher does not know the class either
        ([(180, 179, 178), (60, 1, 6)], ("inconclusive", (), (1,))),  # and here hardly
        ([(180, 179, 178), (600, 4, 60)], ("fail", (1,), ())),
        ([(100, 98, 98)] * 9 + [(100, 0, 97)], ("fail", (9,), ())),
        (
            [(1000, 990, 990)] * 9 + [(1000, 600, 990)],
            ("pass", (), ()),
        ),  # bad, but not lost: balanced retention sees it
        ([(1000, 990, 990)] * 9 + [(1000, 400, 990)], ("fail", (9,), ())),
        ([(1000, 300, 990)] * 3, ("fail", (0, 1, 2), ())),
        ([(2, 1, 2)] * 3 + [(2, 0, 2)] * 3, ("inconclusive", (), ())),  # all together below the limit, none by itself
        ([(6, 6, 6)] * 5 + [(6, 0, 6)] * 5, ("fail", (5, 6, 7, 8, 9), ())),  # many lost ones do not excuse each other
        ([(3, 3, 3)] * 7 + [(3, 0, 3)] * 3, ("inconclusive", (), (7, 8, 9))),
        ([(3, 3, 3), (3, 0, 3), (3, 0, 3)], ("inconclusive", (), (1, 2))),
        ([(0, 0, 0), (50, 48, 49)], ("pass", (), ())),  # a class without samples
    ],
)
def test_a_lost_class_is_told_from_chance(classes: list[tuple[int, int, int]], expected: object) -> None:
    assert verdict(0.5, *classes) == expected


def test_alone_a_class_is_held_to_its_recall() -> None:
    for n, expected in ((6, "inconclusive"), (60, "fail")):
        student, _, labels = samples((180, 175, 0), (n, 0, 0))
        found = judge_classes(class_counts(student, labels, 2), NEAR_ZERO)
        assert found.verdict == expected
    student, _, labels = samples((180, 175, 0), (60, 20, 0))
    assert judge_classes(class_counts(student, labels, 2), NEAR_ZERO).verdict == "pass"


@pytest.mark.parametrize(
    ("most", "n", "p"), [(0, 6, 0.97), (3, 20, 0.5), (40, 50_000, 0.001), (5, 5, 0.2), (0, 3, 1.0), (5000, 50_000, 0.9)]
)
def test_the_chance_is_the_binomials(most: int, n: int, p: float) -> None:
    assert _binomial(most, n, p) == pytest.approx(float(stats.binom.cdf(most, n, p)), rel=1e-9)


def test_balanced_retention_is_the_ratio_of_mean_recalls() -> None:
    student, teacher, labels = samples((180, 170, 176), (6, 3, 5), (0, 0, 0))
    found = balanced_retention(student, teacher, labels, 3)
    means = [balanced_accuracy(np.where(right, labels, -1), labels, 3).value for right in (student, teacher)]
    assert found.value == pytest.approx(means[0] / means[1])
    assert found.low < found.value < found.high
    assert found.n == 186
    with pytest.raises(ValueError, match="right on no sample"):
        balanced_retention(student, np.zeros_like(student), labels, 3)
    with pytest.raises(ValueError, match="too few samples"):
        balanced_retention(*samples((3, 2, 1)), 1)


def test_of_one_class_it_is_the_retention() -> None:
    student, teacher, labels = samples((400, 340, 360))
    one, other = balanced_retention(student, teacher, labels, 1), retention(student, teacher)
    assert (one.value, one.low, one.high) == pytest.approx((other.value, other.low, other.high), abs=0.004)


def test_balanced_retention_of_few_samples_is_not_certain() -> None:
    found = balanced_retention(*samples((180, 180, 180), (6, 6, 6)), 2)
    assert found.value == 1
    assert 0.75 < found.low < 0.9
    assert 1.1 < found.high < 1.4


@pytest.mark.parametrize("sizes", [[180, 6], [5] * 20, [400, 100, 25, 6], [2] * 100])
def test_balanced_retention_covers(sizes: Sequence[int]) -> None:
    students = Students(sizes, teacher=0.9, keeps=0.92)

    def draw(rng: np.random.Generator) -> Interval:
        return balanced_retention(*students.draw(rng), len(sizes))

    assert covered(draw, students.balanced_retention, 600) >= 0.93


@pytest.mark.parametrize(
    "students",
    [
        Students([180, 6], teacher=0.98, keeps=0.97),
        Students([180, 3], teacher=0.98, keeps=0.97),
        Students([3] * 10, teacher=0.95, keeps=0.95),
        Students([6] * 10, teacher=0.9, keeps=0.9),
        Students([1000] * 10, teacher=0.95, keeps=0.95),
        Students([5] * 100, teacher=0.9, keeps=0.9),
        Students([500, 200, 80, 30, 12, 5, 3], teacher=[0.98, 0.95, 0.9, 0.9, 0.85, 0.8, 0.8], keeps=0.9),
    ],
)
def test_a_sound_student_is_seldom_held_up(students: Students) -> None:
    """Never failed, and in at most 3 of 100 test sets left open by the line on classes."""
    found = tally(students, 0.5, 300)
    assert found["fail"] == 0
    assert found["pass"] >= 0.97


@pytest.mark.parametrize(
    ("students", "failed", "held_up"),
    [
        (Students([180, 6], teacher=1.0, keeps=[0.97, 0.0], gains=0), 0.99, 1.0),
        (Students([180, 3], teacher=1.0, keeps=[0.97, 0.0], gains=0), 0.0, 1.0),
        (Students([6] * 10, teacher=0.95, keeps=[0.0] + [0.95] * 9, gains=0), 0.7, 0.97),
        (Students([5] * 100, teacher=0.95, keeps=[0.0] + [0.97] * 99, gains=0), 0.0, 0.97),
        (Students([50] * 1000, teacher=0.8, keeps=[0.0] + [0.93] * 999, gains=0), 1.0, 1.0),
    ],
)
def test_a_lost_class_is_seldom_missed(students: Students, failed: float, held_up: float) -> None:
    found = tally(students, 0.5, 20 if len(students.sizes) > 200 else 300)
    assert found["fail"] >= failed
    assert found["fail"] + found["inconclusive"] >= held_up


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([(900, 880, 880), (30, 25, 25)], True),
        ([(900, 880, 880), (30, 25, 22)], True),  # 3 of 30: as noise would have it
        ([(900, 880, 880), (30, 25, 21)], False),  # 4 to none: 6.7 points of balanced accuracy, and 0.4 of accuracy
        ([(900, 880, 875), (30, 25, 25)], False),  # more than half a point of accuracy
        ([(900, 860, 885), (30, 25, 0)], False),  # accuracy has not moved: a class is lost
        ([(900, 860, 868), (30, 25, 17)], False),  # nor here: balanced accuracy has lost 13 points
        ([(180, 178, 178), (6, 6, 5)], True),  # one sample may always be lost
        ([(500, 480, 482), (3, 3, 1), (3, 3, 3)], False),  # two of three
        ([(10, 9, 8)], True),
        ([(10, 9, 7)], False),
    ],
)
def test_what_an_artefact_keeps_on_validation(rows: list[tuple[int, int, int]], kept: bool) -> None:
    rows = [(n, was, min(n, now)) for n, was, now in rows]
    n, was, now = (sum(column) for column in zip(*rows, strict=True))
    assert keeps(score_of(n, now, was, by_class=by_classes(*rows)), 0.005) == kept


def test_noise_on_rare_classes_is_no_loss() -> None:
    """1 % of the top-1 answers flip to either side, over a long tail: seldom called a loss."""
    rng = np.random.default_rng(0)
    sizes = np.array([500, 200, 100, 50, 20, *[3] * 50])
    held_up = 0
    for _ in range(200):
        was = rng.binomial(sizes, 0.9)
        lost, gained = rng.binomial(was, 0.005), rng.binomial(sizes - was, 0.05)
        rows = [(int(n), int(a), int(a - b + c)) for n, a, b, c in zip(sizes, was, lost, gained, strict=True)]
        total = [sum(column) for column in zip(*rows, strict=True)]
        held_up += not keeps(score_of(total[0], total[2], total[1], by_class=by_classes(*rows)), 0.005)
    assert held_up <= 8
