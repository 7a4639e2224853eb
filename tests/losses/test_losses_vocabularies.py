"""Losses between two vocabularies: by hand, by loops over groups in float64, and the numbers of trl's GOLD."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.losses import LOSSES
from compressor.losses.logits import kd
from compressor.losses.vocabularies import aligned_kd, groups_of, uld
from tests.losses.kit import normal
from tests.losses.test_losses_language import waves

NAMES = pytest.mark.parametrize("name", ["uld", "aligned_kd"])
STUDENT, TEACHER = 7, 9
OURS, THEIRS = torch.tensor([0, 0, 1, 2, 2]), torch.tensor([0, 1, 2, 2])
LABELS, TEACHER_LABELS = torch.tensor([1, 2, 3, 4, 5]), torch.tensor([8, 7, 6, 5])
TOKEN_OF = torch.tensor([-1, 8, 0, 7, -1, 5, 2])
EXPECTED = {"uld": 0.462442684276, "positional": 0.613324439853}
"""trl 1.16.0, ULDLoss of `waves`: groups merged "bayesian", and token by token."""


def made() -> dict[str, Tensor]:
    """Six positions of the student and five of the teacher, of which the last says nothing on the text."""
    return {
        "student_logits": waves(6, STUDENT, step=1.3)[:5], "teacher_logits": waves(5, TEACHER, step=2.1)[:4],
        "labels": LABELS, "student_groups": OURS, "teacher_groups": THEIRS, "teacher_labels": TEACHER_LABELS,
    }  # fmt: skip


def loss_of(name: str, values: dict[str, Tensor]) -> Tensor:
    more = {"teacher_token_of": TOKEN_OF} if name == "aligned_kd" else {}
    return LOSSES[name].function(**values, **more)


def sides(values: dict[str, Tensor]) -> list[tuple[list[list[float]], list[list[int]], list[int]]]:
    """Of student and teacher: probabilities, the rows of each group in order, labels."""
    found = []
    for logits, groups, labels in (
        ("student_logits", "student_groups", "labels"), ("teacher_logits", "teacher_groups", "teacher_labels")
    ):  # fmt: skip
        numbers = values[groups].tolist()
        rows = [[row for row, at in enumerate(numbers) if at == group] for group in sorted({*numbers} - {-1})]
        found.append((values[logits].double().softmax(-1).tolist(), rows, values[labels].tolist()))
    return found


def merged(side: tuple[list[list[float]], list[list[int]], list[int]]) -> list[tuple[list[float], float, bool]]:
    """What a side says of each group: its last token's distribution times the tokens before it, the probability of its
    whole text, and whether it is of one token."""
    probabilities, groups, labels = side
    merged = []
    for rows in groups:
        before = math.prod(probabilities[row][labels[row]] for row in rows[:-1])
        last = [before * p for p in probabilities[rows[-1]]]
        merged.append((last, last[labels[rows[-1]]], len(rows) == 1))
    return merged


def naive_uld(values: dict[str, Tensor]) -> float:
    ours, theirs = (merged(side) for side in sides(values))
    total = 0.0
    for (p, *_), (q, *_) in zip(ours, theirs, strict=True):
        width = max(len(p), len(q))
        p, q = (sorted(side, reverse=True) + [0.0] * (width - len(side)) for side in (p, q))
        total += sum(abs(a - b) for a, b in zip(p, q, strict=True))
    return total / len(ours)


def naive_aligned(values: dict[str, Tensor], token_of: list[int]) -> float:
    ours, theirs = (merged(side) for side in sides(values))
    total = 0.0
    for (p, text_p, p_alone), (q, text_q, q_alone) in zip(ours, theirs, strict=True):
        if p_alone and q_alone:
            common = [(q[there], p[here]) for here, there in enumerate(token_of) if there >= 0]
            of_q, of_p = sum(a for a, _ in common), sum(b for _, b in common)
            total += sum(a * math.log((a / of_q) / (b / of_p)) for a, b in common)
        else:
            total += text_q * math.log(text_q / text_p) + (1 - text_q) * math.log((1 - text_q) / (1 - text_p))
    return total / len(ours)


def test_uld_by_hand() -> None:
    """(1/2, 1/4, 1/4) and (1/8, 7/8): apart by 3/8, 1/8 and 1/4."""
    student, teacher = torch.tensor([[0.5, 0.25, 0.25]]).log(), torch.tensor([[0.125, 0.875]]).log()
    one, group = torch.zeros(1, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    assert uld(student, teacher, one, group, group, one).item() == pytest.approx(0.375 + 0.125 + 0.25, rel=1e-6)
    assert uld(teacher, student, one, group, group, one).item() == pytest.approx(0.375 + 0.125 + 0.25, rel=1e-6)


def test_uld_is_that_of_trl() -> None:
    assert uld(**made()).item() == pytest.approx(EXPECTED["uld"], rel=1e-9)
    alone = made() | {"student_groups": torch.arange(4), "teacher_groups": torch.arange(4)}
    alone |= {"student_logits": alone["student_logits"][:4], "labels": LABELS[:4]}
    assert uld(**alone).item() == pytest.approx(EXPECTED["positional"], rel=1e-9)


def test_by_loops() -> None:
    for seed in range(5):
        values = made()
        values["student_logits"] = 2 * normal(5, STUDENT, seed=seed)
        values["teacher_logits"] = 2 * normal(4, TEACHER, seed=100 + seed)
        assert loss_of("uld", values).item() == pytest.approx(naive_uld(values), rel=1e-10)
        expected = naive_aligned(values, TOKEN_OF.tolist())
        assert loss_of("aligned_kd", values).item() == pytest.approx(expected, rel=1e-10)


def test_aligned_kd_by_hand() -> None:
    """Of one token: tokens 0 and 1 are the teacher's 1 and 0, whose 1/4 and 1/2 are 3/4 together."""
    student, teacher = torch.tensor([[0.25, 0.25, 0.5]]).log(), torch.tensor([[0.5, 0.25, 0.25]]).log()
    zero = torch.zeros(1, dtype=torch.int64)
    expected = 0.25 * math.log((1 / 3) / (1 / 2)) + 0.5 * math.log((2 / 3) / (1 / 2))
    loss = aligned_kd(student, teacher, zero, zero, zero, zero, torch.tensor([1, 0, -1]))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_aligned_kd_of_a_text_in_pieces_by_hand() -> None:
    """The student's two tokens make 1/4 of 1/2; the teacher's one has 1/2."""
    student = torch.tensor([[0.25, 0.75], [0.5, 0.5]]).log()
    teacher = torch.tensor([[0.5, 0.5]]).log()
    two, one = torch.zeros(2, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    expected = 0.5 * math.log(0.5 / 0.125) + 0.5 * math.log(0.5 / 0.875)
    loss = aligned_kd(student, teacher, two, two, one, one, torch.tensor([0, 1]))
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_with_one_vocabulary_aligned_kd_is_kd_in_whatever_order_the_teacher_has_its_tokens() -> None:
    student, teacher, order = normal(5, 7, seed=0), normal(5, 7, seed=1), torch.tensor([3, 1, 6, 0, 2, 5, 4])
    groups, labels = torch.arange(5), torch.arange(5)
    loss = aligned_kd(student, teacher[:, order], labels, groups, groups, labels, order.argsort())
    assert loss.item() == pytest.approx(kd(student, teacher, temperature=1.0).item(), rel=1e-12)


@NAMES
def test_gradients_of_longer_groups(name: str) -> None:
    values = made()
    student = values.pop("student_logits").requires_grad_()
    assert torch.autograd.gradcheck(lambda leaf: loss_of(name, {"student_logits": leaf, **values}), (student,))


@NAMES
@pytest.mark.parametrize("values_at_a_time", [1, 20])
def test_a_few_groups_at_a_time(name: str, values_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    values = made()
    results: list[tuple[float, Tensor]] = []
    for _ in range(2):
        student = values["student_logits"].clone().requires_grad_()
        loss = loss_of(name, values | {"student_logits": student})
        loss.backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        results.append((loss.item(), student.grad))
        monkeypatch.setattr("compressor.losses.rows.MOST_VALUES", values_at_a_time)
        monkeypatch.setattr("compressor.losses.vocabularies.MOST_VALUES", values_at_a_time)
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-12)
    assert torch.allclose(results[1][1], results[0][1], rtol=1e-10, atol=1e-14)


@NAMES
def test_tokens_that_are_in_no_group_count_for_nothing(name: str) -> None:
    """Whatever the networks say there; and nothing else depends on their number."""
    expected = loss_of(name, made())
    values = made()
    for logits, groups, labels in (
        ("student_logits", "student_groups", "labels"), ("teacher_logits", "teacher_groups", "teacher_labels")
    ):  # fmt: skip
        rubbish = torch.full_like(values[logits][:2], math.nan)
        outside, none = torch.full((2,), -1), torch.zeros(2, dtype=torch.int64)
        values[logits] = torch.cat([rubbish, values[logits]])
        values[groups] = torch.cat([outside, 10 * values[groups]])  # numbers need not follow one another
        values[labels] = torch.cat([none, values[labels]])
    student = values["student_logits"].requires_grad_()
    loss = loss_of(name, values)
    loss.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert (student.grad[:2] == 0).all()
    assert student.grad.isfinite().all()


@NAMES
def test_without_a_group_there_is_no_loss_and_no_gradient(name: str) -> None:
    values = made()
    values |= {"student_groups": torch.full_like(OURS, -1), "teacher_groups": torch.full_like(THEIRS, -1)}
    student = values["student_logits"].requires_grad_()
    loss = loss_of(name, values)
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert student.grad is not None
    assert (student.grad == 0).all()


@NAMES
def test_parts_of_a_step_weighed_by_their_groups_are_the_whole(name: str) -> None:
    values = made()
    student = values["student_logits"].clone().requires_grad_()
    loss_of(name, values | {"student_logits": student}).backward()  # type: ignore[no-untyped-call]
    in_parts = values["student_logits"].clone().requires_grad_()
    whole = groups_of(OURS)
    assert whole == 3
    for ours, theirs in ((slice(0, 2), slice(0, 1)), (slice(2, 5), slice(1, 4))):
        part = {
            "student_logits": in_parts[ours], "teacher_logits": values["teacher_logits"][theirs],
            "labels": LABELS[ours], "student_groups": OURS[ours], "teacher_groups": THEIRS[theirs],
            "teacher_labels": TEACHER_LABELS[theirs],
        }  # fmt: skip
        share = groups_of(part["student_groups"]) / whole
        (share * loss_of(name, part)).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    assert in_parts.grad is not None
    assert torch.allclose(in_parts.grad, student.grad, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("size", [1e-4, 1e2, 1e4])
def test_texts_that_one_side_is_sure_of(size: float) -> None:
    """Probabilities that round to 1, and to 0, on either side."""
    zero = torch.zeros(1, dtype=torch.int64)
    two = torch.zeros(2, dtype=torch.int64)
    for ours, theirs in ((size, size), (size, -size), (-size, size), (-size, -size)):
        student = torch.tensor([[ours, 0.0], [ours, 0.0]], requires_grad=True)
        loss = aligned_kd(student, torch.tensor([[theirs, 0.0]]), two, two, zero, zero, torch.tensor([0, 1]))
        loss.backward()  # type: ignore[no-untyped-call]
        assert math.isfinite(loss.item())
        assert student.grad is not None
        assert student.grad.isfinite().all()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"student_groups": OURS[:4]}, r"shapes differ: student logits \(5, 7\), groups \(4,\)"),
        ({"teacher_labels": TEACHER_LABELS.double()}, "labels int64"),
        ({"labels": LABELS[:4]}, r"labels int64 \[n\] and groups int64 \[n\] of the student"),
        ({"teacher_groups": torch.tensor([0, 1, 1, 1])}, "3 and 2 groups of tokens, and not the same ones"),
        ({"teacher_groups": torch.tensor([0, 1, 3, 3])}, "3 and 3 groups of tokens, and not the same ones"),
    ],
)
@NAMES
def test_what_does_not_fit_together_is_refused(name: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        loss_of(name, made() | changes)


@pytest.mark.parametrize(
    ("token_of", "said"),
    [
        (TOKEN_OF[:6], r"teacher_token_of int64 \[7\], each below 9"),
        (TOKEN_OF.double(), "found torch.float64"),
        (TOKEN_OF + 1, "each below 9" if int(TOKEN_OF.max()) + 1 >= TEACHER else "never"),
        (torch.full((7,), -1), "at least, and none of them twice"),
        (torch.tensor([-1, 8, 8, 7, -1, 5, 2]), "none of them twice"),
    ],
)
def test_tokens_that_cannot_be_the_same_are_refused(token_of: Tensor, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        aligned_kd(**made(), teacher_token_of=token_of)
