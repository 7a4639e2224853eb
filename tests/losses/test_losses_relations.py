"""Losses on relations: by hand, against loops in numpy, and what must not change them."""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.losses import LOSSES
from compressor.losses.relations import correlation_congruence, fsp, rkd_angle, rkd_distance, similarity_preserving
from tests.losses.kit import normal

Array = NDArray[np.float64]


def rotated(features: Tensor) -> Tensor:
    q: Tensor = torch.linalg.qr(normal(features.shape[1], features.shape[1], seed=99))[0]
    return features @ q


def huber(a: float, b: float) -> float:
    d = abs(a - b)
    return 0.5 * d * d if d < 1 else d - 0.5


def test_rkd_distance_by_hand() -> None:
    # Points on a line: distances 1, 2, 1 (mean 4/3) against 1, 4, 3 (mean 8/3), of which 6 of 9 entries are not 0.
    student, teacher = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [1.0], [4.0]])
    ours, theirs = [0.75, 1.5, 0.75], [0.375, 1.5, 1.125]
    expected = 2 * sum(0.5 * (a - b) ** 2 for a, b in zip(ours, theirs, strict=True)) / 9
    assert rkd_distance([student], [teacher]).item() == pytest.approx(expected, rel=1e-6)


def test_rkd_distance_is_the_definition() -> None:
    student, teacher = normal(6, 3, seed=0), normal(6, 8, seed=1)

    def scaled(points: Array) -> dict[tuple[int, int], float]:
        found = {(i, j): float(np.linalg.norm(points[i] - points[j])) for i in range(6) for j in range(6)}
        mean = sum(found.values()) / 30
        return {pair: d / mean for pair, d in found.items()}

    ours, theirs = scaled(student.numpy()), scaled(teacher.numpy())
    expected = sum(huber(ours[pair], theirs[pair]) for pair in ours) / 36
    assert rkd_distance([student], [teacher]).item() == pytest.approx(expected, rel=1e-9)


def test_rkd_angle_by_hand() -> None:
    # A right angle at the first point, 45° at the others, against a line with the first point in its middle.
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    teacher = torch.tensor([[0.0], [1.0], [-1.0]], dtype=torch.float64)
    half = math.sqrt(0.5)
    # At each point the two rays, with themselves: cos 1 for both. With each other: 0, √½, √½ against -1, 1, 1.
    expected = 2 * (huber(0, -1) + 2 * huber(half, 1)) / 27
    assert rkd_angle([student], [teacher]).item() == pytest.approx(expected, rel=1e-9)


def test_rkd_angle_is_the_definition() -> None:
    student, teacher = normal(5, 3, seed=0), normal(5, 8, seed=1)

    def cosine(points: Array, i: int, j: int, k: int) -> float:
        a, b = points[i] - points[j], points[k] - points[j]
        length = float(np.linalg.norm(a) * np.linalg.norm(b))
        return float(a @ b) / length if length else 0.0

    s, t = student.numpy(), teacher.numpy()
    triples = list(itertools.product(range(5), repeat=3))
    expected = sum(huber(cosine(s, *triple), cosine(t, *triple)) for triple in triples) / 125
    assert rkd_angle([student], [teacher]).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loss", [rkd_distance, rkd_angle])
def test_rkd_does_not_see_scale_place_or_rotation(loss: Callable[..., Tensor]) -> None:
    student, teacher = normal(6, 4, seed=0), normal(6, 8, seed=1)
    expected = loss([student], [teacher]).item()
    moved = loss([1e3 * rotated(student) + 50], [1e-3 * rotated(teacher) - 7]).item()
    assert moved == pytest.approx(expected, rel=1e-6)


def test_far_from_the_origin_distances_keep_their_digits() -> None:
    """|a|² + |b|² − 2ab in float32 would lose them all; the features are centred first."""
    student, teacher = normal(6, 4, seed=0).float(), normal(6, 8, seed=1).float()
    far = (student + 1000).requires_grad_()
    same = far.detach() - 1000  # what float32 kept of them
    loss = rkd_distance([far], [teacher])
    assert loss.item() == pytest.approx(rkd_distance([same], [teacher]).item(), rel=1e-5)
    assert torch.autograd.grad(loss, far)[0].isfinite().all()


def reference_similarity(student: Array, teacher: Array) -> float:
    def gram(q: Array) -> Array:
        g = q.reshape(len(q), -1) @ q.reshape(len(q), -1).T
        return np.asarray(g / np.linalg.norm(g, axis=1, keepdims=True))

    return float(np.linalg.norm(gram(student) - gram(teacher), "fro") ** 2 / len(student) ** 2)


def test_similarity_preserving_by_hand() -> None:
    # Orthogonal samples: G = I. The same sample twice: rows (1, 1)/√2.
    student, teacher = torch.eye(2, dtype=torch.float64), torch.ones(2, 3, dtype=torch.float64)
    expected = 2 * ((1 - math.sqrt(0.5)) ** 2 + 0.5) / 4
    assert similarity_preserving([student], [teacher]).item() == pytest.approx(expected, rel=1e-12)


def test_similarity_preserving_is_the_definition() -> None:
    student = [normal(5, 3, 4, 4, seed=0), normal(5, 3, seed=1)]
    teacher = [normal(5, 7, 2, 2, seed=2), normal(5, 9, seed=3)]
    expected = sum(reference_similarity(s.numpy(), t.numpy()) for s, t in zip(student, teacher, strict=True))
    assert similarity_preserving(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_correlation_congruence_by_hand() -> None:
    # Student: u_1 ⊥ u_2, exp(-0.4 · 2); teacher: the same direction, exp(0). Two of four entries differ.
    student, teacher = torch.tensor([[3.0, 0.0], [0.0, 5.0]]), torch.tensor([[1.0], [2.0]])
    expected = 2 * (1 - math.exp(-0.8)) ** 2 / 4
    assert correlation_congruence([student], [teacher]).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("gamma", [0.1, 0.4, 5.0])
def test_correlation_congruence_is_the_definition(gamma: float) -> None:
    student, teacher = normal(5, 3, seed=0), normal(5, 8, seed=1)

    def kernel(f: Array) -> Array:
        u = f / np.linalg.norm(f, axis=1, keepdims=True)
        return np.array([[np.exp(-gamma * np.sum((a - b) ** 2)) for b in u] for a in u])

    expected = np.sum((kernel(student.numpy()) - kernel(teacher.numpy())) ** 2) / 25
    assert correlation_congruence([student], [teacher], gamma=gamma).item() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("loss", [similarity_preserving, correlation_congruence])
def test_inner_products_do_not_see_rotation_or_scale(loss: Callable[..., Tensor]) -> None:
    student, teacher = normal(6, 4, seed=0), normal(6, 8, seed=1)
    expected = loss([student], [teacher]).item()
    assert loss([9 * rotated(student)], [0.2 * rotated(teacher)]).item() == pytest.approx(expected, rel=1e-9)
    assert loss([student + 1], [teacher]).item() != pytest.approx(expected, rel=1e-3)


def test_fsp_by_hand() -> None:
    # One channel each, two positions: G = (1·3 + 2·4) / 2 = 5.5 against (1·1 + 1·1) / 2 = 1.
    student = [torch.tensor([[[[1.0, 2.0]]]]), torch.tensor([[[[3.0, 4.0]]]])]
    teacher = [torch.ones(1, 1, 1, 2), torch.ones(1, 1, 1, 2)]
    assert fsp(student, teacher).item() == pytest.approx(4.5**2)


def test_fsp_is_the_definition() -> None:
    """Three layers have two flows; of layers that differ in size the larger is max-pooled."""
    shapes = [(3, 8, 8), (5, 4, 4), (2, 4, 4)]
    student = [normal(4, *shape, seed=i) for i, shape in enumerate(shapes)]
    teacher = [normal(4, *shape, seed=i + 5) for i, shape in enumerate(shapes)]

    def flow(a: Array, b: Array) -> Array:
        if a.shape[2] == 8:
            a = a.reshape(4, 3, 4, 2, 4, 2).max((3, 5))
        return np.asarray(np.einsum("bchw,bdhw->bcd", a, b) / 16)

    expected = 0.0
    for i in (0, 1):
        ours, theirs = (flow(f[i].numpy(), f[i + 1].numpy()) for f in (student, teacher))
        expected += float(np.mean((ours - theirs) ** 2))
    assert fsp(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_fsp_does_not_see_where_things_are() -> None:
    """The same rearrangement of the positions in all of a network's layers leaves its flow as it is."""
    student = [normal(4, 3, 1, 6, seed=0), normal(4, 5, 1, 6, seed=1)]
    teacher = [normal(4, 3, 1, 6, seed=2), normal(4, 5, 1, 6, seed=3)]
    order = torch.tensor([5, 2, 0, 1, 4, 3])
    found = fsp([layer[..., order] for layer in student], teacher).item()
    assert found == pytest.approx(fsp(student, teacher).item(), rel=1e-12)


def test_fsp_needs_two_layers_of_maps_with_as_many_channels() -> None:
    layer = normal(4, 3, 8, 8, seed=0)
    assert LOSSES["fsp"].layers == 2
    with pytest.raises(ValueError, match="2 pairs of layers or more, found 1"):
        fsp([layer], [layer])
    with pytest.raises(ValueError, match=r"as many channels, found student \(4, 3, 8, 8\), teacher \(4, 2, 8, 8\)"):
        fsp([layer, layer], [layer, layer[:, :2]])
    with pytest.raises(ValueError, match=r"fsp needs maps"):
        fsp([layer[..., 0]] * 2, [layer[..., 0]] * 2)


@pytest.mark.parametrize(
    "name", [n for n, loss in LOSSES.items() if loss.knowledge == "relation" and "student_features" in loss.needs]
)
def test_relations_are_summed_over_the_pairs(name: str) -> None:
    shape = (4, 3, 6, 12)
    student, teacher = normal(*shape, seed=0), normal(*shape, seed=1)
    once = LOSSES[name].function([student] * 2, [teacher] * 2).item()
    expected = once * (2 if LOSSES[name].layers > 1 else 1.5)  # two pairs of layers have one flow between them
    assert LOSSES[name].function([student] * 3, [teacher] * 3).item() == pytest.approx(expected, rel=1e-9)
