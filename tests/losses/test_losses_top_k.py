"""Soft targets of which the most likely were kept: by hand, by loops, against the whole distribution, and refusals."""

import math

import pytest
import torch
from torch import Tensor

from compressor.distill.teacher.codec import Codec
from compressor.losses.logits import kd
from compressor.losses.top_k import top_k_kd, top_k_of
from tests.losses.kit import normal


def logarithms(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64).log()


def test_by_hand() -> None:
    """The teacher kept 1/2 and 1/4 of tokens 2 and 0; the student gives them 1/8 and 1/2, and all others 3/8."""
    student = logarithms([0.5, 0.25, 0.125, 0.125])
    expected = 0.5 * math.log(0.5 / 0.125) + 0.25 * math.log(0.25 / 0.5) + 0.25 * math.log(0.25 / 0.375)
    top, log_p = torch.tensor([[2, 0]]), logarithms([0.5, 0.25, 0.25])
    assert top_k_kd(student, top, log_p).item() == pytest.approx(expected, rel=1e-12)


def test_by_loops_over_a_vocabulary() -> None:
    student, teacher, k = 2 * normal(6, 11, seed=0), 2 * normal(6, 11, seed=1), 3
    total = 0.0
    for row in range(6):
        s, t = student[row].softmax(-1).tolist(), teacher[row].softmax(-1).tolist()
        kept = sorted(range(11), key=lambda token: -t[token])[:k]
        buckets = [(t[token], s[token]) for token in kept]
        buckets.append((1 - sum(a for a, _ in buckets), 1 - sum(b for _, b in buckets)))
        total += sum(a * math.log(a / b) for a, b in buckets)
    loss = top_k_kd(student, *top_k_of(teacher, k))
    assert loss.item() == pytest.approx(total / 6, rel=1e-6)  # kept in float32


def test_it_grows_with_k_to_kd_and_is_never_above_it() -> None:
    student, teacher = 2 * normal(6, 11, seed=0), 2 * normal(6, 11, seed=1)
    losses = [top_k_kd(student, *top_k_of(teacher, k)).item() for k in range(1, 11)]
    whole = kd(student, teacher, temperature=1.0).item()
    assert losses == sorted(losses)
    assert losses[-1] == pytest.approx(whole, rel=1e-6), "one token left over is one bucket"
    assert losses[0] < 0.9 * whole


def test_what_is_kept_is_what_the_store_of_answers_keeps() -> None:
    teacher, k = 3 * normal(5, 20, seed=1), 4
    encoded = Codec(20, top_k=k).encode(teacher.float())
    top, log_p = top_k_of(teacher, k)
    assert torch.equal(encoded[:, :k].long(), top)
    assert torch.allclose(encoded[:, k:], log_p, atol=1e-6)


def test_nothing_is_taught_of_the_tokens_that_were_not_kept() -> None:
    """What lies outside has one gradient, in the proportions that the student itself has: its own mass, moved."""
    student = normal(1, 6, seed=0).requires_grad_()
    top_k_kd(student, torch.tensor([[1, 4]]), logarithms([0.6, 0.3, 0.1])).backward()  # type: ignore[no-untyped-call]
    others = [0, 2, 3, 5]
    assert student.grad is not None
    ratios = student.grad[0, others] / student.detach()[0, others].softmax(-1)
    assert torch.allclose(ratios, ratios[:1].expand(4), rtol=1e-9)


def test_a_teacher_that_leaves_nothing_for_the_others() -> None:
    student, log_p = normal(1, 6, seed=0), logarithms([0.75, 0.25, 0.0])
    s = student.softmax(-1)[0]
    expected = 0.75 * math.log(0.75 / s[1].item()) + 0.25 * math.log(0.25 / s[4].item())
    assert top_k_kd(student, torch.tensor([[1, 4]]), log_p).item() == pytest.approx(expected, rel=1e-12)


def test_of_a_surely_certain_student_the_others_are_not_lost() -> None:
    """1 minus a probability that rounds to 1 would be 0; in logarithms the others' mass is exp(-80)."""
    student = torch.tensor([[80.0, 0.0, 0.0]], dtype=torch.float32)
    loss = top_k_kd(student, torch.tensor([[0]]), logarithms([0.5, 0.5]).float())
    expected = 0.5 * math.log(0.5) + 0.5 * (math.log(0.5) - (math.log(2) - 80))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_log_probabilities_rounded_to_half_precision_are_made_to_sum_to_1(dtype: torch.dtype) -> None:
    teacher = 3 * normal(50, 40, seed=1)
    top, log_p = top_k_of(teacher, 8)
    student = teacher.gather(-1, top)
    student = torch.full((50, 40), -math.inf, dtype=torch.float64).scatter(-1, top, student)
    student = torch.where(student.isfinite(), student, teacher)
    assert top_k_kd(student, top, log_p.to(dtype)).item() < 1e-4


TOP, LOG_P = torch.tensor([[2, 0]]), logarithms([0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    ("top", "log_p", "said"),
    [
        (TOP.float(), LOG_P, "teacher_top int64"),
        (TOP[:, :1], LOG_P, r"found torch.int64 \(1, 1\) and \(1, 3\)"),
        (TOP.repeat(2, 1), LOG_P, "shapes differ"),
        (torch.tensor([[2, 2]]), LOG_P, "each once a row"),
        (torch.tensor([[2, 4]]), LOG_P, "tokens of 0 to 3"),
        (torch.tensor([[2, -1]]), LOG_P, "tokens of 0 to 3"),
        (
            torch.tensor([[2, 1, 0, 3]]),
            logarithms([0.25, 0.25, 0.25, 0.25, 0.0]),
            "1 to 3 can be kept, found 4; of all",
        ),
        (TOP, torch.tensor([[3.0, 2.0, 1.0]]), r"sum to 1 in each row.*found sums from 30.19"),
        (TOP, logarithms([0.5, 0.25, 0.0]), "found sums from 0.75 to 0.75"),
    ],
)
def test_what_says_something_else_is_refused(top: Tensor, log_p: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        top_k_kd(normal(1, 4, seed=0), top, log_p)


@pytest.mark.parametrize("k", [0, 4, 5])
def test_as_many_as_there_are_cannot_be_kept(k: int) -> None:
    with pytest.raises(ValueError, match=f"of 4 tokens 1 to 3 can be kept, found {k}"):
        top_k_of(normal(1, 4, seed=0), k)
