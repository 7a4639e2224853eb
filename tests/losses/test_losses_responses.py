"""logit_mse, soft_bce, dkd, dist, lskd, and kd's sparse teachers: numpy references, limits, invariances."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from compressor.losses.logits import dist, dkd, kd, logit_mse, lskd, pearson, soft_bce
from tests.losses.kit import normal

Array = NDArray[np.float64]


def logits(rows: int, classes: int, seed: int, spread: float = 3.0) -> Tensor:
    return spread * normal(rows, classes, seed=seed)


def softmax(z: Array) -> Array:
    exp = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(exp / exp.sum(-1, keepdims=True))


def kl(p: Array, q: Array) -> Array:
    return np.asarray((p * np.log(p / q)).sum(-1))


def test_logit_mse_by_hand() -> None:
    # Centred: (1, -1) and (-2, 2); the difference (3, -3); ½ · 18 / 2 classes.
    assert logit_mse(torch.tensor([[5.0, 3.0]]), torch.tensor([[0.0, 4.0]])).item() == pytest.approx(4.5)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_kd_tends_to_logit_mse_as_the_temperature_grows(classes: int) -> None:
    student, teacher = logits(6, classes, seed=0), logits(6, classes, seed=1)
    limit = logit_mse(student, teacher).item()
    errors = [abs(kd(student, teacher, temperature=t).item() / limit - 1) for t in (10.0, 100.0, 1000.0)]
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02


def test_soft_bce_by_hand() -> None:
    # T = 2: sigma(z_t / T) = 3/4 and 1/2, sigma(z_s / T) = 1/2 and 1/2.
    teacher, student = torch.tensor([[2 * math.log(3), 0.0]]), torch.zeros(1, 2)
    expected = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    assert soft_bce(student, teacher, temperature=2.0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_bce_is_binary_cross_entropy_less_the_teachers_entropy(temperature: float) -> None:
    student, teacher = logits(4, 5, seed=0).requires_grad_(), logits(4, 5, seed=1)
    target = torch.sigmoid(teacher / temperature)
    total = F.binary_cross_entropy_with_logits(student / temperature, target, reduction="sum") * temperature**2 / 4
    p = target.numpy()
    entropy = -(p * np.log(p) + (1 - p) * np.log1p(-p)).sum(-1).mean() * temperature**2
    loss = soft_bce(student, teacher, temperature=temperature)
    assert loss.item() == pytest.approx(total.item() - entropy, rel=1e-9)
    torch.testing.assert_close(torch.autograd.grad(loss, student), torch.autograd.grad(total, student))


def test_soft_bce_tends_to_an_eighth_of_the_squared_distance() -> None:
    """sigma' (0) = 1/4, and the KL of two Bernoullis near 1/2 is 2 (p − q)²."""
    student, teacher = logits(4, 5, seed=0), logits(4, 5, seed=1)
    expected = (student - teacher).pow(2).sum(-1).mean().item() / 8
    assert soft_bce(student, teacher, temperature=1e3).item() == pytest.approx(expected, rel=1e-3)


def reference_dkd(student: Array, teacher: Array, labels: list[int], t: float, alpha: float, beta: float) -> float:
    p, q = softmax(teacher / t), softmax(student / t)
    rows = []
    for row, label in enumerate(labels):
        rest = [c for c in range(p.shape[1]) if c != label]
        binary = kl(np.array([p[row, label], p[row, rest].sum()]), np.array([q[row, label], q[row, rest].sum()]))
        among = kl(p[row, rest] / p[row, rest].sum(), q[row, rest] / q[row, rest].sum())
        rows.append(alpha * binary + beta * among)
    return float(t**2 * np.mean(rows))


@pytest.mark.parametrize(("t", "alpha", "beta"), [(1.0, 1.0, 1.0), (4.0, 1.0, 8.0), (2.0, 0.5, 0.0), (2.0, 0.0, 3.0)])
@pytest.mark.parametrize("classes", [2, 5])
def test_dkd_is_the_definition(t: float, alpha: float, beta: float, classes: int) -> None:
    student, teacher, labels = logits(4, classes, seed=0), logits(4, classes, seed=1), [0, 1, 1, classes - 1]
    expected = reference_dkd(student.numpy(), teacher.numpy(), labels, t, alpha, beta)
    found = dkd(student, teacher, torch.tensor(labels), temperature=t, alpha=alpha, beta=beta)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_kd_is_decoupled_with_the_teachers_doubt_as_the_weight() -> None:
    """Eq. 7 of the paper: KD = TCKD + (1 − p_t) NCKD, row by row."""
    student, teacher, labels = logits(4, 5, seed=0), logits(4, 5, seed=1), torch.tensor([0, 4, 2, 2])
    for row in range(4):
        one = slice(row, row + 1)
        doubt = 1 - torch.softmax(teacher[row] / 4, -1)[labels[row]].item()
        found = dkd(student[one], teacher[one], labels[one], temperature=4.0, alpha=1.0, beta=doubt)
        assert found.item() == pytest.approx(kd(student[one], teacher[one], temperature=4.0).item(), rel=1e-9)


def test_dkd_does_not_underflow_where_log_of_softmax_does() -> None:
    """Pitfalls, "Logits before softmax, in half a precision": in float32 softmax([0, 200, 210]) is [0, …]: its
    logarithm is -inf, and the loss nan."""
    student, teacher = torch.tensor([[200.0, 0.0, 10.0]]), torch.tensor([[0.0, 200.0, 210.0]])
    assert torch.softmax(student, -1).log().isinf().any()
    student.requires_grad_()
    loss = dkd(student, teacher, torch.tensor([0]), temperature=1.0, alpha=1.0, beta=1.0)
    # The label against the rest: 0 against 1 of a teacher that is certain it is not, log q(rest) = 10 - 200; among the
    # others the same differences, 10.
    assert loss.item() == pytest.approx(190, rel=1e-4)
    assert torch.autograd.grad(loss, student)[0].isfinite().all()


@pytest.mark.parametrize("labels", [torch.zeros(3, dtype=torch.int64), torch.zeros(4), torch.zeros(4, 5)])
def test_dkd_takes_classes_only(labels: Tensor) -> None:
    with pytest.raises(ValueError, match="dkd takes labels int64"):
        dkd(torch.zeros(4, 5), torch.zeros(4, 5), labels)


def reference_dist(student: Array, teacher: Array, t: float, beta: float, gamma: float) -> float:
    p, q = softmax(teacher / t), softmax(student / t)
    rows = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)]
    columns = [1 - np.corrcoef(a, b)[0, 1] for a, b in zip(p.T, q.T, strict=True)]
    return float(t**2 * (beta * np.mean(rows) + gamma * np.mean(columns)))


@pytest.mark.parametrize(("t", "beta", "gamma"), [(1.0, 1.0, 1.0), (4.0, 2.0, 2.0), (4.0, 0.0, 1.0), (4.0, 1.0, 0.0)])
def test_dist_is_the_definition(t: float, beta: float, gamma: float) -> None:
    student, teacher = logits(6, 5, seed=0), logits(6, 5, seed=1)
    expected = reference_dist(student.numpy(), teacher.numpy(), t, beta, gamma)
    assert dist(student, teacher, temperature=t, beta=beta, gamma=gamma).item() == pytest.approx(expected, rel=1e-9)


def test_pearson_by_hand_and_its_invariance() -> None:
    """DIST compares up to scale and shift: of probabilities, not of logits, whose softmax is not linear."""
    a = torch.tensor([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 6.0]], dtype=torch.float64)
    b = torch.tensor([[2.0, 4.0, 6.0], [3.0, 2.0, 1.0], [1.0, 0.0, 2.0]], dtype=torch.float64)
    # Row 3: (-2, -1, 3)·(0, -1, 1) = 4, over √14 √2.
    expected = torch.tensor([1.0, -1.0, 4 / math.sqrt(28)], dtype=torch.float64)
    torch.testing.assert_close(pearson(a, b), expected)
    torch.testing.assert_close(pearson(0.1 * a + 5, 7 * b - 3), expected)
    torch.testing.assert_close(pearson(-a, b), -expected)


@pytest.mark.parametrize("constant", [0, 1])
def test_a_constant_row_or_a_batch_of_one_has_no_correlation(constant: int) -> None:
    pair = [logits(4, 5, seed=0), logits(4, 5, seed=1)]
    pair[constant] = torch.zeros(4, 5, dtype=torch.float64)
    student = pair[0].requires_grad_()
    loss = dist(student, pair[1])
    assert loss.item() == 2
    assert torch.autograd.grad(loss, student)[0].abs().max() == 0
    one = logits(1, 5, seed=0).requires_grad_()
    loss = dist(one, logits(1, 5, seed=1), beta=0.0)
    assert loss.item() == 1
    assert torch.autograd.grad(loss, one)[0].abs().max() == 0


def test_rows_that_hardly_vary_still_correlate() -> None:
    student = 1e-5 * logits(4, 5, seed=0)
    assert dist(student, student, temperature=10.0).item() == pytest.approx(0, abs=1e-6)
    assert lskd(student, 1e5 * student).item() == pytest.approx(0, abs=1e-9)


def reference_lskd(student: Array, teacher: Array, t: float) -> float:
    p, q = (softmax((z - z.mean(-1, keepdims=True)) / z.std(-1, keepdims=True) / t) for z in (teacher, student))
    return float(t**2 * kl(p, q).mean())


@pytest.mark.parametrize("temperature", [1.0, 2.0, 10.0])
def test_lskd_is_the_definition(temperature: float) -> None:
    student, teacher = logits(4, 5, seed=0), logits(4, 5, seed=1)
    expected = reference_lskd(student.numpy(), teacher.numpy(), temperature)
    assert lskd(student, teacher, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)


def test_lskd_by_hand() -> None:
    # Two classes standardize to ±1, whatever they are: log-odds 2 / T against -2 / T.
    p = 1 / (1 + math.exp(-2))
    expected = p * math.log(p / (1 - p)) + (1 - p) * math.log((1 - p) / p)
    found = lskd(torch.tensor([[0.0, 7.0]]), torch.tensor([[0.1, 0.0]]), temperature=1.0)
    assert found.item() == pytest.approx(expected, rel=1e-6)


def test_lskd_compares_logits_up_to_scale_and_shift() -> None:
    student, teacher = logits(4, 5, seed=0), logits(4, 5, seed=1)
    expected = lskd(student, teacher).item()
    assert lskd(20 * student - 4, 0.01 * teacher + 9).item() == pytest.approx(expected, rel=1e-9)


def test_weights_of_lskd_and_kd_are_not_comparable() -> None:
    """Pitfalls, "Weights of unlike losses": as the student's logits grow, kd's gradient keeps its bounds but lskd's
    falls as one over their size."""
    teacher = logits(16, 10, seed=1)
    sizes: dict[str, list[float]] = {"kd": [], "lskd": []}
    for scale in (1.0, 10.0):
        student = (scale * logits(16, 10, seed=0)).requires_grad_()
        for name, loss in (("kd", kd(student, teacher)), ("lskd", lskd(student, teacher))):
            sizes[name].append(torch.autograd.grad(loss, student)[0].norm().item())
    assert sizes["lskd"][1] == pytest.approx(sizes["lskd"][0] / 10, rel=1e-9)
    assert sizes["kd"][1] > sizes["kd"][0]


def test_constant_logits_have_no_scale_to_standardize() -> None:
    student = torch.full((2, 3), 5.0, requires_grad=True)
    loss = lskd(student, torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]))
    assert loss.isfinite()
    assert torch.autograd.grad(loss, student)[0].abs().max() == 0


def test_a_sparse_tail_changes_the_divergence() -> None:
    """Pitfalls, "The tail of a top k": of a teacher's top 2 of 5, left without a tail the other classes are pushed to
    0; with the tail spread evenly they are not. Both are defined, and they differ."""
    full = torch.tensor([[0.5, 0.3, 0.1, 0.06, 0.04]], dtype=torch.float64)
    spread = torch.tensor([[0.5, 0.3, 0.2 / 3, 0.2 / 3, 0.2 / 3]], dtype=torch.float64)
    cut = torch.tensor([[0.625, 0.375, 0.0, 0.0, 0.0]], dtype=torch.float64)
    student = full.log().requires_grad_()
    by_table = {}
    for name, p in (("full", full), ("spread", spread), ("cut", cut)):
        kept = p[0] > 0
        loss = kd(student, p.log(), temperature=1.0)
        expected = (p[0, kept] * (p[0, kept] / full[0, kept]).log()).sum().item()
        assert loss.item() == pytest.approx(expected, abs=1e-12)
        by_table[name] = torch.autograd.grad(loss, student)[0]
        torch.testing.assert_close(by_table[name], full - p)
    assert (by_table["cut"][0, 2:] > 0).all()
    assert by_table["spread"].abs().sum() < by_table["cut"].abs().sum() / 3
