"""crd: by hand, against loops, its gradient in closed form, masks."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from compressor.losses.contrastive import _log_noise, _nce, crd
from tests.losses.kit import given, mapped, of_length_1


def test_by_hand() -> None:
    # One sample, one negative, T = 1. Both sides see the positive s·t = 1 and a negative at a right angle, e = 1; so
    # N Z = 1, h = e/(e + 1) and 1/2.
    s = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    memory = torch.tensor([[0.0, 1.0]], dtype=torch.float64)
    found = crd(s, s, memory, memory, torch.tensor([[True]]), temperature=1.0)
    expected = 2 * (-math.log(math.e / (math.e + 1)) - math.log(1 - 1 / 2))
    assert found.item() == pytest.approx(expected, rel=1e-12)


def reference(inputs: dict[str, Any], temperature: float) -> float:
    s, t, ms, mt, negatives = (inputs[key].numpy() for key in inputs)
    total = 0.0
    for anchor, memory in ((s, mt), (t, ms)):
        e = np.exp(anchor @ memory.T / temperature)
        z = e[negatives].mean()
        for row in range(len(s)):
            n = negatives[row].sum()
            if n:
                positive = np.exp(s[row] @ t[row] / temperature)
                total -= np.log(positive / (positive + n * z))
                total -= sum(np.log(1 - x / (x + n * z)) for x in e[row][negatives[row]])
    return float(total / len(s))


@pytest.mark.parametrize("temperature", [0.07, 1.0, 10.0])
def test_is_the_definition(temperature: float) -> None:
    inputs = given("crd")
    inputs["negatives"][3] = False
    assert inputs["negatives"].any(1).sum() == 4
    found = crd(*inputs.values(), temperature=temperature)
    assert found.item() == pytest.approx(reference(inputs, temperature), rel=1e-9)


def test_gradcheck_with_the_normalizer_held() -> None:
    inputs = given("crd")
    positive, scores = torch.randn(5, dtype=torch.float64), torch.randn(5, 7, dtype=torch.float64)
    noise = _log_noise(scores, inputs["negatives"])
    leaves = positive.requires_grad_(), scores.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda p, s: _nce(p, s, inputs["negatives"], noise), leaves)


def test_gradient_is_the_closed_form() -> None:
    """d loss / d s = [−(1 − h) t + Σ h_m m] / (T B) of the student's side, and of the teacher's −(1 − h) t / (T B)."""
    inputs, temperature = given("crd"), 0.5
    student = inputs["student_embeddings"].requires_grad_()
    loss = crd(*inputs.values(), temperature=temperature)
    s, t, ms, mt, negatives = (value.detach() for value in inputs.values())
    expected = torch.zeros_like(s)
    for anchor, memory in ((s, mt), (t, ms)):
        e = (anchor @ memory.T / temperature).exp()
        noise = negatives.sum(1, keepdim=True) * e[negatives].mean()
        positive = ((s * t).sum(1, keepdim=True) / temperature).exp()
        expected -= noise / (positive + noise) * t
        if anchor is s:
            expected += (e / (e + noise) * negatives) @ memory
    torch.testing.assert_close(torch.autograd.grad(loss, student)[0], expected / temperature / 5)


def test_the_teachers_projection_learns_too() -> None:
    inputs = given("crd")
    teacher = inputs["teacher_embeddings"].requires_grad_()
    assert torch.autograd.grad(crd(*inputs.values()), teacher)[0].abs().max() > 0


def test_what_is_no_negative_is_not_looked_at() -> None:
    inputs = given("crd")
    inputs["negatives"][:, 2] = False
    expected = crd(*inputs.values()).item()
    for memory in ("student_memory", "teacher_memory"):
        inputs[memory] = inputs[memory].clone()
        inputs[memory][2] = of_length_1(torch.ones(6, dtype=torch.float64))
    assert crd(*inputs.values()).item() == pytest.approx(expected, rel=1e-12)


def test_without_negatives_there_is_nothing_to_tell_apart() -> None:
    inputs = given("crd")
    inputs["negatives"][:] = False
    student = inputs["student_embeddings"].requires_grad_()
    loss = crd(*inputs.values())
    assert loss.item() == 0
    assert torch.autograd.grad(loss, student)[0].abs().max() == 0
    empty = mapped(given("crd"), lambda m: m[:0], lambda key, m: key.endswith("memory"))
    empty["negatives"] = torch.zeros(5, 0, dtype=torch.bool)
    assert crd(*empty.values()).item() == 0


@pytest.mark.parametrize("temperature", [1e-3, 0.07, 1e3])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_extremes(temperature: float, sign: float) -> None:
    same = torch.tensor([[1.0, 0.0]]).repeat(4, 1)
    student = (sign * same).requires_grad_()
    loss = crd(student, same, -sign * same, -same, ~torch.eye(4, dtype=torch.bool), temperature=temperature)
    assert math.isfinite(loss.item())
    assert torch.autograd.grad(loss, student)[0].isfinite().all()


def test_masks_that_do_not_fit_are_refused() -> None:
    s, t, memory, taught, negatives = given("crd").values()
    with pytest.raises(ValueError, match=r"negatives must be bool \[5, 7\].*found torch.bool \(5, 6\)"):
        crd(s, t, memory, taught, negatives[:, :6])
    with pytest.raises(ValueError, match=r"found torch.float32 \(5, 7\)"):
        crd(s, t, memory, taught, negatives.float())
    with pytest.raises(ValueError, match="shapes differ"):
        crd(s[:4], t, memory, taught, negatives)
