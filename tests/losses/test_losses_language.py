"""Losses of language models: by hand, against loops in float64 and the numbers of trl; and texts as rows, whatever they
are filled up with and however a step is cut."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.losses import LOSSES, rows
from compressor.losses.divergences import jsd, reverse_kl
from compressor.losses.logits import cross_entropy, kd, soft_cross_entropy
from compressor.losses.rows import each_row, mean_of_rows
from compressor.losses.top_k import top_k_kd, top_k_of
from tests.losses.kit import BATCH, given, gradients, is_float, mapped, normal

WIDE = ["kd", "soft_cross_entropy", "cross_entropy", "reverse_kl", "jsd", "top_k_kd", "uld", "aligned_kd"]
EACH = pytest.mark.parametrize("name", WIDE)


def waves(*shape: int, step: float) -> Tensor:
    """Fixed logits that need no generator."""
    count = math.prod(shape)
    return (3 * torch.sin(step * torch.arange(1, count + 1, dtype=torch.float64))).view(shape)


def softmax(row: list[float]) -> list[float]:
    exponents = [math.exp(value - max(row)) for value in row]
    return [value / sum(exponents) for value in exponents]


def kl(p: list[float], q: list[float]) -> float:
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))


def naive_jsd(student: Tensor, teacher: Tensor, beta: float, temperature: float) -> float:
    total = 0.0
    for s_row, t_row in zip((student / temperature).tolist(), (teacher / temperature).tolist(), strict=True):
        s, t = softmax(s_row), softmax(t_row)
        mixture = [beta * b + (1 - beta) * a for a, b in zip(s, t, strict=True)]
        ends = {0.0: kl(t, s), 1.0: kl(s, t)}
        total += ends[beta] if beta in ends else beta * kl(t, mixture) + (1 - beta) * kl(s, mixture)
    return temperature**2 * total / len(student)


def test_divergences_by_hand() -> None:
    """p_t = (3/4, 1/4), p_s = (1/2, 1/2); their mean (5/8, 3/8)."""
    teacher, student = torch.tensor([[math.log(3.0), 0.0]]), torch.tensor([[7.0, 7.0]])
    backward = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert reverse_kl(student, teacher).item() == pytest.approx(backward, rel=1e-6)
    assert jsd(student, teacher, beta=1.0).item() == pytest.approx(backward, rel=1e-6)
    forward = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert jsd(student, teacher, beta=0.0).item() == pytest.approx(forward, rel=1e-6)
    half = 0.5 * (0.75 * math.log(6 / 5) + 0.25 * math.log(2 / 3)) + 0.5 * (
        0.5 * math.log(4 / 5) + 0.5 * math.log(4 / 3)
    )
    assert jsd(student, teacher).item() == pytest.approx(half, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 0.7, 1.0])
def test_jsd_by_loops(beta: float, temperature: float) -> None:
    student, teacher = 2 * normal(6, 9, seed=0), 2 * normal(6, 9, seed=1)
    expected = naive_jsd(student, teacher, beta, temperature)
    assert jsd(student, teacher, beta=beta, temperature=temperature).item() == pytest.approx(expected, rel=1e-10)


TRL = {  # trl 1.16.0, GKDTrainer.generalized_jsd_loss of `waves`, float64, reduction batchmean; it has no T^2
    (0.0, 1.0): 2.207256662586, (0.0, 2.0): 0.793720766556, (0.1, 1.0): 0.143904411232, (0.1, 2.0): 0.066214652007,
    (0.5, 1.0): 0.321488966256, (0.5, 2.0): 0.167833253390, (0.9, 1.0): 0.135460244676, (0.9, 2.0): 0.066959073237,
    (1.0, 1.0): 2.093726557898, (1.0, 2.0): 0.818662023694,
}  # fmt: skip


@pytest.mark.parametrize(("beta", "temperature"), TRL)
def test_divergences_are_those_of_trl(beta: float, temperature: float) -> None:
    """Which of both is mixed with which share (trl's #3043), and what is divided by (#4105): the tokens that count."""
    student, teacher = waves(2, 4, 7, step=1.3), waves(2, 4, 7, step=2.1)
    counts = torch.tensor([[1, 1, 0, 1], [0, 1, 1, 0]]).bool()
    ours, theirs = student[counts], teacher[counts]
    expected = temperature**2 * TRL[beta, temperature]
    assert jsd(ours, theirs, beta=beta, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)
    if beta == 0:
        assert kd(ours, theirs, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)
    if beta == 1:
        assert reverse_kl(ours, theirs, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("beta", [0.0, 1e-6, 0.3, 1 - 1e-6, 1.0])
def test_gradients_of_jsd_at_and_near_its_ends(beta: float) -> None:
    student, teacher = normal(3, 5, seed=0).requires_grad_(), normal(3, 5, seed=1)
    assert torch.autograd.gradcheck(partial(jsd, teacher_logits=teacher, beta=beta), (student,), atol=1e-9)


def test_near_its_ends_jsd_divided_by_the_share_is_the_kl_that_stands_there() -> None:
    student, teacher = normal(3, 5, seed=0), normal(3, 5, seed=1)
    near_0, near_1 = jsd(student, teacher, beta=1e-7) / 1e-7, jsd(student, teacher, beta=1 - 1e-7) / 1e-7
    assert near_0.item() == pytest.approx(jsd(student, teacher, beta=0.0).item(), rel=1e-5)
    assert near_1.item() == pytest.approx(jsd(student, teacher, beta=1.0).item(), rel=1e-5)


def test_a_student_of_reverse_kl_seeks_one_mode_and_of_forward_kl_covers_both() -> None:
    """One normal distribution over 41 tokens, fitted to a mixture of two, from a start nearer to the right one."""
    at = torch.arange(41, dtype=torch.float64) - 20
    modes = torch.stack([-0.5 * ((at - centre) / 2) ** 2 for centre in (-10, 10)])
    teacher = modes.logsumexp(0)[None]
    centres = {}
    losses: dict[str, Callable[..., Tensor]] = {"forward": partial(kd, temperature=1.0), "reverse": reverse_kl}
    for name, loss in losses.items():
        centre, width = (torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (3.0, 2.0))
        optimizer = torch.optim.Adam([centre, width], lr=0.1)
        for _ in range(600):
            optimizer.zero_grad()
            loss((-0.5 * ((at - centre) / width) ** 2)[None], teacher).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        centres[name] = centre.item()
    assert centres["forward"] == pytest.approx(0, abs=0.5)
    assert centres["reverse"] == pytest.approx(10, abs=0.5)


def test_reverse_kl_is_infinite_where_the_teacher_rules_a_token_out() -> None:
    student, teacher = normal(2, 4, seed=0), normal(2, 4, seed=1)
    teacher[0, 0] = -math.inf
    assert reverse_kl(student, teacher).item() == math.inf
    assert math.isfinite(jsd(student, teacher, beta=0.9).item())


SIDES = ("student_logits", "teacher_logits", "teacher_log_probabilities")


@pytest.mark.parametrize(
    ("name", "side"), [(name, side) for name in WIDE for side in SIDES if side in LOSSES[name].needs]
)
def test_what_is_not_a_number_is_never_a_loss(name: str, side: str) -> None:
    """The loop refuses a loss that is not finite (`require_finite`); it has to come out, from however few rows."""
    inputs = given(name)
    inputs[side][1, 0] = math.nan
    if side == "teacher_log_probabilities":
        with pytest.raises(ValueError, match="sum to 1"):
            LOSSES[name].function(*inputs.values())
    else:
        assert not math.isfinite(LOSSES[name].function(*inputs.values()).item())


# A few rows at a time


def few_at_a_time(monkeypatch: pytest.MonkeyPatch, values: int = 8) -> None:
    monkeypatch.setattr("compressor.losses.rows.MOST_VALUES", values)
    monkeypatch.setattr("compressor.losses.vocabularies.MOST_VALUES", values)


@EACH
@pytest.mark.parametrize("values", [1, 8, 12])
def test_a_few_rows_at_a_time_are_worth_what_all_are(name: str, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One, two and three of five rows: of unequal parts, too."""
    expected, wanted = gradients(name, given(name))
    few_at_a_time(monkeypatch, values)
    loss, found = gradients(name, given(name))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-13)
    assert all(torch.allclose(a, b, rtol=1e-12, atol=1e-15) for a, b in zip(found, wanted, strict=True))


@EACH
def test_a_few_rows_at_a_time_have_the_derivative_as_gradient(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    few_at_a_time(monkeypatch)
    inputs = given(name)
    student = inputs.pop("student_logits").requires_grad_()
    rest = list(inputs.values())
    assert torch.autograd.gradcheck(lambda leaf: LOSSES[name].function(leaf, *rest), (student,))


@EACH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_few_rows_at_a_time_of_half_precision(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weighed before it is rounded, so that a scale for float16 keeps what it is there to keep."""
    half = mapped(given(name), lambda t: t.to(dtype), is_float)
    expected, wanted = gradients(name, half)
    few_at_a_time(monkeypatch)
    with torch.autocast("cpu", torch.bfloat16):
        loss, found = gradients(name, half)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    for a, b in zip(found, wanted, strict=True):
        assert a.dtype == dtype
        assert torch.allclose(a.double(), b.double(), rtol=2 * torch.finfo(dtype).eps, atol=1e-9)


def test_a_gradient_below_float16_survives_by_the_scale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounded before the scale of 65,536, it would be 0."""
    few_at_a_time(monkeypatch)
    student = torch.zeros(4, 8, dtype=torch.float16, requires_grad=True)
    teacher = torch.zeros(4, 8, dtype=torch.float16)
    teacher[:, 0] = 2**-11
    loss = kd(student, teacher, temperature=1.0) * 1e-3
    (loss * 65_536).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    expected = (1 / 8 - teacher[0].double().softmax(-1)) / 4 * 1e-3 * 65_536
    assert torch.allclose(student.grad[0].double(), expected, rtol=2e-3)
    assert student.grad[0, 0].abs() > 0


def test_rows_pass_a_gradient_to_all_that_learns_and_twice_if_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    few_at_a_time(monkeypatch)
    first, second = normal(5, 4, seed=0).requires_grad_(), normal(5, 4, seed=1).requires_grad_()
    value = each_row(lambda a, b: (a * b).sum(-1), first, second)
    assert value.grad_fn is not None
    assert "FewAtATime" in value.grad_fn.name()
    for _ in range(2):
        of_first, of_second = torch.autograd.grad(value.sum(), (first, second), retain_graph=True)
        assert torch.equal(of_first, second)
        assert torch.equal(of_second, first)


def test_without_gradients_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    few_at_a_time(monkeypatch)
    with torch.no_grad():
        assert not kd(normal(5, 4, seed=0).requires_grad_(), normal(5, 4, seed=1)).requires_grad


def test_what_is_worked_on_at_a_time_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is memory: no call sees more than so many values, forward or backward."""
    few_at_a_time(monkeypatch, 64)
    sizes: list[int] = []

    def noted(student: Tensor, teacher: Tensor) -> Tensor:
        sizes.append(student.numel())
        return (student * teacher).sum(-1)

    student = normal(50, 20, seed=0).requires_grad_()
    mean_of_rows(each_row(noted, student, normal(50, 20, seed=1)), student).backward()  # type: ignore[no-untyped-call]
    assert max(sizes) <= 64
    assert sum(sizes) == 2 * 50 * 20, "each row once forward and once backward"
    assert rows.MOST_VALUES == 64


# Texts as rows


def texts(lengths: tuple[int, ...], *, columns: int, left: bool = False, vocabulary: int = 7) -> dict[str, Tensor]:
    """Logits [B, N, V] of both sides, tokens and which positions are judged; a text's own numbers depend on its number
    alone, and what fills it up is rubbish."""
    shape = (len(lengths), columns)
    made = {
        "student": torch.full((*shape, vocabulary), 50.0, dtype=torch.float64),
        "teacher": torch.full((*shape, vocabulary), -math.inf, dtype=torch.float64),
        "labels": torch.full(shape, 10**6),
        "positions": torch.zeros(shape, dtype=torch.bool),
    }
    for row, length in enumerate(lengths):
        at = slice(columns - length, columns) if left else slice(0, length)
        made["student"][row, at] = waves(length, vocabulary, step=1.3 + row)
        made["teacher"][row, at] = waves(length, vocabulary, step=2.1 + row)
        made["labels"][row, at] = (torch.arange(length) * (row + 2)) % vocabulary
        made["positions"][row, at] = torch.arange(length) % 3 != row % 3  # as prompts leave some out
    return made


ON_ROWS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "cross_entropy": lambda student, teacher, labels: cross_entropy(student, labels),
    "kd": lambda student, teacher, labels: kd(student, teacher, temperature=1.0),
    "reverse_kl": lambda student, teacher, labels: reverse_kl(student, teacher),
    "jsd": lambda student, teacher, labels: jsd(student, teacher, beta=0.3),
    "soft_cross_entropy": lambda student, teacher, labels: soft_cross_entropy(student, teacher),
    "top_k_kd": lambda student, teacher, labels: top_k_kd(student, *top_k_of(teacher, 3)),
}
ROWS = pytest.mark.parametrize("name", ON_ROWS)


def of_texts(name: str, batch: dict[str, Tensor], scale: float = 1.0) -> tuple[float, Tensor]:
    student = batch["student"].clone().requires_grad_()
    at = batch["positions"]
    loss = scale * ON_ROWS[name](student[at], batch["teacher"][at], batch["labels"][at])
    loss.backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None
    return loss.item(), student.grad


@ROWS
def test_fifty_more_columns_on_either_side_change_nothing(name: str) -> None:
    lengths = (5, 2, 7)
    expected, wanted = of_texts(name, texts(lengths, columns=7))
    for left in (False, True):
        batch = texts(lengths, columns=57, left=left)
        loss, gradient = of_texts(name, batch)
        assert loss == pytest.approx(expected, rel=1e-12)
        assert (gradient[~batch["positions"]] == 0).all(), "exactly nothing"
        assert torch.allclose(gradient[batch["positions"]], wanted[wanted.abs().sum(-1) > 0], rtol=1e-12)


@ROWS
def test_a_text_without_a_position_that_counts_changes_nothing(name: str) -> None:
    """trl's #5885: not a number."""
    batch = texts((5, 2, 7), columns=7)
    batch["positions"][1] = False
    loss, gradient = of_texts(name, batch)
    assert math.isfinite(loss)
    assert (gradient[1] == 0).all()
    batch["positions"][:] = False
    loss, gradient = of_texts(name, batch)
    assert loss == 0
    assert (gradient == 0).all()


@ROWS
def test_a_step_in_four_unequal_parts_has_the_gradient_of_the_whole(name: str) -> None:
    """trl's #6006 and #4719: weighed by the rows of each part."""
    lengths = (5, 2, 7, 1, 3, 6)
    whole = texts(lengths, columns=7)
    expected, wanted = of_texts(name, whole)
    rows_of_all = int(whole["positions"].sum())
    total, gradients_of = 0.0, []
    for part in (slice(0, 1), slice(1, 3), slice(3, 4), slice(4, 6)):
        batch = {key: value[part] for key, value in whole.items()}
        loss, gradient = of_texts(name, batch, int(batch["positions"].sum()) / rows_of_all)
        total += loss
        gradients_of.append(gradient)
    assert total == pytest.approx(expected, rel=1e-12)
    assert torch.allclose(torch.cat(gradients_of), wanted, rtol=1e-12, atol=1e-15)


def test_cross_entropy_of_texts_by_hand() -> None:
    """Two tokens of vocabulary 4 with equal logits: each costs log 4; one that is told surely nothing."""
    batch: dict[str, Any] = {"student": torch.zeros(1, 3, 4), "labels": torch.tensor([[1, 2, 3]])}
    batch["student"][0, 2, 3] = 1e4
    flat = cross_entropy(batch["student"].flatten(0, 1), batch["labels"].flatten())
    assert flat.item() == pytest.approx(2 * math.log(4) / 3, rel=1e-6)


def test_cross_entropy_leaves_no_label_out_in_silence() -> None:
    """PyTorch leaves out -100, and the mean with it."""
    with pytest.raises(IndexError, match="out of bounds"):
        cross_entropy(normal(BATCH, 4, seed=0), torch.tensor([0, 1, -100, 2, 3]))
