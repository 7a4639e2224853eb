"""What distillation gained over labels alone: the paired difference and its words, by hand."""

import numpy as np
import pytest
from pydantic import ValidationError

from compressor.schema.accuracy import Advantage
from compressor.stats import Interval, advantage, difference, gain_line, gained_interval


def right(both: int, only_student: int, only_control: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    student = [True] * (both + only_student) + [False] * (only_control + neither)
    control = [True] * both + [False] * only_student + [True] * only_control + [False] * neither
    return np.array(student), np.array(control)


def test_the_advantage_by_hand() -> None:
    """Of 100 samples the student alone has 8 right, the control alone 2. Bonett & Price add one to each of them:
    p = 9 / 102, q = 3 / 102, p - q = 0.0588235, and 1.959964 sqrt((p + q - (p - q)^2) / 102) = 0.0655776."""
    found = advantage(*right(80, 8, 2, 10), "test")
    assert (found.split, found.n, found.only_student, found.only_control) == ("test", 100, 8, 2)
    assert found.difference == pytest.approx(0.06)
    assert (found.low, found.high) == pytest.approx((0.0588235 - 0.0655776, 0.0588235 + 0.0655776), abs=1e-6)
    assert gained_interval(found) == Interval(found.difference, found.low, found.high, 100)
    assert gained_interval(found) == difference(*right(80, 8, 2, 10))
    turned = advantage(*right(80, 2, 8, 10), "test")
    assert (turned.difference, turned.low, turned.high) == pytest.approx((-found.difference, -found.high, -found.low))


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        (
            Interval(0.019, 0.008, 0.03, 1000),
            "distillation gained +1.9 points [+0.8, +3.0] over labels alone, n=1,000 test samples",
        ),
        (
            Interval(-0.012, -0.021, -0.003, 1000),
            "distillation lost: −1.2 points [−2.1, −0.3] against labels alone, n=1,000 test samples",
        ),
        (
            Interval(0.004, -0.007, 0.015, 145),
            "whether distillation gains over labels alone cannot be told: +0.4 points [−0.7, +1.5], n=145 test samples",
        ),
        (
            Interval(0.0, 0.0, 0.0, 145),
            "whether distillation gains over labels alone cannot be told: 0.0 points [0.0, 0.0], n=145 test samples",
        ),
    ],
)
def test_gained_lost_or_not_to_be_told(interval: Interval, said: str) -> None:
    assert gain_line(interval, "test") == said


def test_counts_that_cannot_be() -> None:
    values = advantage(*right(80, 8, 2, 10), "test").model_dump()
    with pytest.raises(ValidationError, match="are more than n"):
        Advantage.model_validate({**values, "only_student": 99})
