"""early_exits, mutual, peer_ensemble: by hand, against numpy, and who is a target."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from compressor.losses.companions import early_exits, mutual, peer_ensemble
from compressor.losses.logits import cross_entropy, kd
from tests.losses.kit import normal

Array = NDArray[np.float64]


def softmax(z: Array) -> Array:
    exp = np.exp(z - z.max(-1, keepdims=True))
    return np.asarray(exp / exp.sum(-1, keepdims=True))


def kl(p: Array, q: Array) -> float:
    return float((p * np.log(p / q)).sum(-1).mean())


LABELS = torch.tensor([0, 3, 1, 2])
ONE, TWO, STUDENT = (2 * normal(4, 5, seed=seed) for seed in (1, 2, 3))


def test_early_exits_by_hand() -> None:
    # T = 2: the last layer's (ln 3, 0) -> (3/4, 1/4); the exit knows nothing.
    last = torch.tensor([[2 * math.log(3), 0.0]])
    divergence = 4 * (0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5))
    found = early_exits([torch.zeros(1, 2)], last, torch.tensor([1]), temperature=2.0, alpha=0.3)
    assert found.item() == pytest.approx(0.7 * math.log(2) + 0.3 * divergence, rel=1e-6)


@pytest.mark.parametrize(("temperature", "alpha"), [(3.0, 0.3), (1.0, 1.0), (5.0, 0.0)])
def test_early_exits_is_the_definition(temperature: float, alpha: float) -> None:
    expected, last = 0.0, softmax(STUDENT.numpy() / temperature)
    for z in (ONE.numpy(), TWO.numpy()):
        hard = -np.log(softmax(z)[np.arange(4), LABELS.numpy()]).mean()
        expected += (1 - alpha) * hard + alpha * temperature**2 * kl(last, softmax(z / temperature))
    found = early_exits([ONE, TWO], STUDENT, LABELS, temperature=temperature, alpha=alpha)
    assert found.item() == pytest.approx(expected, rel=1e-9)


def test_early_exits_take_mixed_labels() -> None:
    mixed = normal(4, 5, seed=8).softmax(-1)
    assert early_exits([ONE, TWO], STUDENT, mixed, alpha=0.0).item() == pytest.approx(
        (cross_entropy(ONE, mixed) + cross_entropy(TWO, mixed)).item()
    )


def test_the_last_layer_is_a_target_only() -> None:
    last, early = STUDENT.clone().requires_grad_(), ONE.clone().requires_grad_()
    loss = early_exits([early], last, LABELS)
    assert torch.autograd.grad(loss, [last, early], allow_unused=True)[0] is None


def test_mutual_by_hand() -> None:
    peers = [torch.tensor([[math.log(3), 0.0]]), torch.zeros(1, 2)]
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert mutual(torch.zeros(1, 2), peers).item() == pytest.approx(divergence / 2, rel=1e-6)


def test_peer_ensemble_by_hand() -> None:
    # The mean of (3/4, 1/4) and (1/4, 3/4) is (1/2, 1/2), though the student disagrees with each of the two.
    peers = [torch.tensor([[math.log(3), 0.0]]), torch.tensor([[0.0, math.log(3)]])]
    assert peer_ensemble(torch.zeros(1, 2), peers).item() == pytest.approx(0, abs=1e-7)
    divergence = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert peer_ensemble(peers[0], peers).item() == pytest.approx(divergence, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_both_are_their_definitions(temperature: float) -> None:
    q, peers = softmax(STUDENT.numpy() / temperature), [softmax(z.numpy() / temperature) for z in (ONE, TWO)]
    expected = temperature**2 * float(np.mean([kl(p, q) for p in peers]))
    assert mutual(STUDENT, [ONE, TWO], temperature=temperature).item() == pytest.approx(expected, rel=1e-9)
    expected = temperature**2 * kl(np.mean(peers, axis=0), q)
    assert peer_ensemble(STUDENT, [ONE, TWO], temperature=temperature).item() == pytest.approx(expected, rel=1e-9)


def test_the_ensemble_averages_probabilities_and_not_logits() -> None:
    of_logits = kd(STUDENT, (ONE + TWO) / 2, temperature=1.0).item()
    assert peer_ensemble(STUDENT, [ONE, TWO]).item() != pytest.approx(of_logits, rel=1e-2)


def test_one_peer_is_a_teacher() -> None:
    expected = kd(STUDENT, ONE, temperature=3.0).item()
    assert mutual(STUDENT, [ONE], temperature=3.0).item() == pytest.approx(expected, rel=1e-12)
    assert peer_ensemble(STUDENT, [ONE], temperature=3.0).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("loss", [mutual, peer_ensemble])
def test_peers_are_detached(loss: Callable[..., Tensor]) -> None:
    """Pitfalls, "Peers that are not detached": a peer is a target, even where its logits come with a graph."""
    student, peer = STUDENT.clone().requires_grad_(), ONE.clone().requires_grad_()
    found = torch.autograd.grad(loss(student, [peer]), [student, peer], allow_unused=True)
    assert found[0].abs().max() > 0
    assert found[1] is None


@pytest.mark.parametrize("loss", [mutual, peer_ensemble])
def test_without_peers_or_with_other_classes_they_refuse(loss: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match="one peer or more, found none"):
        loss(STUDENT, [])
    with pytest.raises(ValueError, match="shapes differ"):
        loss(STUDENT, [ONE, TWO[:1]])


def test_without_exits_there_is_nothing_to_teach() -> None:
    with pytest.raises(ValueError, match="one early exit or more, found none"):
        early_exits([], STUDENT, LABELS)
