"""Losses on features: by hand, and against numpy written from the papers."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.losses.features import attention_maps, attention_transfer, hidden_states, hint, pkd, pooled, review_kd
from tests.losses.kit import normal

Array = NDArray[np.float64]


def maps(seed: int, channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    return normal(4, channels, height, width, seed=seed)


@pytest.mark.parametrize("loss", [hint, hidden_states])
def test_squares_by_hand(loss: Callable[..., Tensor]) -> None:
    """A mean within a pair, a sum over the pairs."""
    student = [torch.tensor([[1.0, 2.0]]), torch.tensor([[[0.0], [2.0]]])]
    teacher = [torch.tensor([[1.0, 5.0]]), torch.tensor([[[1.0], [4.0]]])]
    assert loss(student, teacher).item() == 9 / 2 + (1 + 4) / 2


@pytest.mark.parametrize("loss", [hint, hidden_states])
def test_squares_of_random_maps(loss: Callable[..., Tensor]) -> None:
    student, teacher = [maps(0), maps(1, height=4)], [maps(2), maps(3, height=4)]
    expected = sum(np.mean((s.numpy() - t.numpy()) ** 2) for s, t in zip(student, teacher, strict=True))
    assert loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_pkd_is_one_minus_the_correlation_of_each_channel() -> None:
    student, teacher = [maps(0), maps(1, height=4)], [maps(2), maps(3, height=4)]

    def apart(s: Tensor, t: Tensor) -> float:
        return float(np.mean([1 - np.corrcoef(s[:, c].flatten(), t[:, c].flatten())[0, 1] for c in range(s.shape[1])]))

    expected = sum(apart(s, t) for s, t in zip(student, teacher, strict=True))
    assert pkd(student, teacher).item() == pytest.approx(expected, rel=1e-12)
    # The definition that the paper begins with: half the squares of channels of mean 0 and variance 1.
    normal_maps = [
        (m - m.mean((0, 2, 3), keepdim=True)) / m.std((0, 2, 3), correction=0, keepdim=True)
        for m in (student[0], teacher[0])
    ]
    assert pkd(student[:1], teacher[:1]).item() == pytest.approx(
        (normal_maps[0] - normal_maps[1]).square().mean().item() / 2
    )


def test_pkd_does_not_see_the_scale_of_a_channel() -> None:
    student, teacher = maps(0), maps(1)
    scales, shifts = torch.tensor([1e-3, 1.0, 1e4]).view(1, 3, 1, 1), torch.tensor([5.0, 0.0, -1e3]).view(1, 3, 1, 1)
    expected = pkd([student], [teacher]).item()
    assert pkd([student * scales + shifts], [teacher]).item() == pytest.approx(expected, rel=1e-9)
    assert pkd([student], [teacher * scales + shifts]).item() == pytest.approx(expected, rel=1e-9)
    assert pkd([-student], [student]).item() == pytest.approx(2.0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1e4])
def test_pkd_of_a_channel_that_does_not_vary(value: float) -> None:
    """Rounding leaves something of 0.1 when its mean is taken off, which must not be blown up to a variance of 1."""
    still = maps(0).float()
    still[:, 1] = value
    moving = maps(1).float().requires_grad_()
    loss = pkd([moving], [still])
    others = pkd([moving[:, [0, 2]]], [still[:, [0, 2]]])
    assert loss.item() == pytest.approx((2 * others.item() + 1) / 3, rel=1e-5)
    gradient = torch.autograd.grad(loss, moving)[0]
    assert gradient[:, 1].abs().max() < 1e-7
    assert gradient[:, 0].abs().max() > 1e-3
    student = still.clone().requires_grad_()
    assert torch.autograd.grad(pkd([student], [maps(1).float()]), student)[0][:, 1].abs().max() == 0


def test_attention_maps_average_over_heads() -> None:
    """1/h Σ_i MSE(A_i^S, A_i^T): here 1/2 (1 + 4)."""
    student = torch.zeros(1, 2, 3, 3)
    teacher = torch.stack([torch.ones(3, 3), torch.full((3, 3), 2.0)])[None]
    assert attention_maps([student], [teacher]).item() == 2.5
    rows = [normal(4, 2, 5, 5, seed=i) for i in range(4)]
    expected = sum(
        np.mean([np.mean((a[:, h].numpy() - b[:, h].numpy()) ** 2) for h in range(2)])
        for a, b in ((rows[0], rows[2]), (rows[1], rows[3]))
    )
    assert attention_maps(rows[:2], rows[2:]).item() == pytest.approx(expected, rel=1e-12)


def test_attention_transfer_by_hand() -> None:
    # Two positions: Q_s = (9, 12), of length 15, so (0.6, 0.8); Q_t = (25, 0), so (1, 0).
    student = torch.tensor([[[[3.0, 2 * 3**0.5]], [[0.0, 0.0]]]])
    teacher = torch.tensor([[[[5.0, 0.0]]]])
    # Means of squares over two positions: ((0.6 - 1)² + 0.8²) / 2.
    assert attention_transfer([student], [teacher]).item() == pytest.approx((0.16 + 0.64) / 2, rel=1e-6)


def test_attention_transfer_is_the_definition() -> None:
    def attention(feature: Array) -> Array:
        q = (feature**2).sum(1).reshape(len(feature), -1)
        return np.asarray(q / np.linalg.norm(q, axis=1, keepdims=True))

    student, teacher = [maps(0), maps(1, height=4)], [maps(2, channels=7), maps(3, channels=5, height=4)]
    expected = sum(
        np.mean((attention(s.numpy()) - attention(t.numpy())) ** 2) for s, t in zip(student, teacher, strict=True)
    )
    assert attention_transfer(student, teacher).item() == pytest.approx(expected, rel=1e-9)
    scaled = attention_transfer([7 * t for t in student], [t / 9 for t in teacher]).item()
    assert scaled == pytest.approx(expected, rel=1e-9)


def test_maps_of_zeros_have_no_attention() -> None:
    student = torch.zeros(2, 3, 4, 4, requires_grad=True)
    loss = attention_transfer([student], [maps(0, height=4, width=4)[:2].float()])
    assert loss.item() == pytest.approx(1 / 16)  # the teacher's vector of length 1, over 16 positions
    assert torch.autograd.grad(loss, student)[0].abs().max() == 0


def cells(feature: Array, n: int) -> Array:
    """Averages over n x n cells, whose borders are floor(i size / n) and ceil((i + 1) size / n)."""
    height, width = feature.shape[2:]
    found = np.empty((*feature.shape[:2], n, n))
    for i in range(n):
        for j in range(n):
            rows = slice(i * height // n, -(-(i + 1) * height // n))
            columns = slice(j * width // n, -(-(j + 1) * width // n))
            found[:, :, i, j] = feature[:, :, rows, columns].mean((2, 3))
    return found


@pytest.mark.parametrize(
    ("size", "levels"), [((8, 8), (4, 2, 1)), ((7, 9), (4, 2, 1)), ((4, 4), (2, 1)), ((4, 2), (1,)), ((1, 1), ())]
)
def test_review_kd_is_the_pyramid(size: tuple[int, int], levels: tuple[int, ...]) -> None:
    student, teacher = (maps(seed, height=size[0], width=size[1]).numpy() for seed in (0, 1))
    total, weight = np.mean((student - teacher) ** 2), 1.0
    weights = 1.0
    for n in levels:
        weight /= 2
        weights += weight
        total += weight * np.mean((cells(student, n) - cells(teacher, n)) ** 2)
    found = review_kd([torch.from_numpy(student)], [torch.from_numpy(teacher)]).item()
    assert found == pytest.approx(total / weights, rel=1e-9)


def test_review_kd_by_hand() -> None:
    # 2x2: MSE 1 of (1, -1, 1, -1) against 0, its average 0: (1 + 0/2) / 1.5.
    student = torch.tensor([[[[1.0, -1.0], [1.0, -1.0]]]])
    assert review_kd([student], [torch.zeros(1, 1, 2, 2)]).item() == pytest.approx(1 / 1.5)
    assert review_kd([student] * 2, [torch.zeros(1, 1, 2, 2)] * 2).item() == pytest.approx(2 / 1.5)


def test_pooled_is_one_minus_the_cosine() -> None:
    assert pooled([torch.tensor([[3.0, 4.0]])], [torch.tensor([[10.0, 0.0]])]).item() == pytest.approx(0.4)
    student, teacher = normal(4, 6, seed=0), normal(4, 6, seed=1)
    s, t = student.numpy(), teacher.numpy()
    expected = np.mean(1 - (s * t).sum(1) / np.linalg.norm(s, axis=1) / np.linalg.norm(t, axis=1))
    assert pooled([student], [teacher]).item() == pytest.approx(expected, rel=1e-9)
    assert pooled([3 * student], [teacher / 7]).item() == pytest.approx(expected, rel=1e-9)
    assert pooled([student] * 2, [teacher] * 2).item() == pytest.approx(2 * expected, rel=1e-9)


def test_a_feature_of_zeros_has_no_direction() -> None:
    student = torch.zeros(1, 3, requires_grad=True)
    loss = pooled([student], [torch.ones(1, 3)])
    assert loss.item() == pytest.approx(0.5)
    assert torch.autograd.grad(loss, student)[0].abs().max() == 0


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs maps \[B, C, H, W\], found \(4, 5\)"):
        attention_transfer([torch.zeros(4, 5)], [torch.zeros(4, 5)])
    with pytest.raises(ValueError, match=r"sizes differ: student \(8, 8\), teacher \(4, 8\)"):
        attention_transfer([maps(0)], [maps(1, height=4)])
    with pytest.raises(ValueError, match=r"shapes differ: student \(4, 3, 8, 8\), teacher \(4, 5, 8, 8\)"):
        hint([maps(0)], [maps(1, channels=5)])
    with pytest.raises(ValueError, match=r"needs pooled features \[B, D\], found \(4, 3, 8, 8\)"):
        pooled([maps(0)], [maps(1)])
    with pytest.raises(ValueError, match=r"needs attention matrices \[B, heads, N, N\], found \(4, 5\)"):
        attention_maps([torch.zeros(4, 5)], [torch.zeros(4, 5)])
