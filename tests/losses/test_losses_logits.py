"""kd and cross_entropy: values by hand, limits, gradients, extremes."""

import math
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from compressor.losses import LOSSES
from compressor.losses.logits import cross_entropy, kd


def logits(rows: int, classes: int, seed: int, spread: float = 3.0) -> Tensor:
    return spread * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def centred(z: Tensor) -> Tensor:
    return z - z.mean(dim=-1, keepdim=True)


def test_kd_by_hand() -> None:
    # T = 2: z_s / T = (0, 0) -> (1/2, 1/2); z_t / T = (ln 3, 0) -> (3/4, 1/4).
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * math.log(3), 0.0]])
    divergence = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert kd(student, teacher, temperature=2.0).item() == pytest.approx(4 * divergence, rel=1e-6)


def test_kd_is_teacher_against_student_and_not_the_other_way_round() -> None:
    student, teacher = logits(4, 5, seed=0), logits(4, 5, seed=1)
    p, q = torch.softmax(teacher / 3, -1), torch.softmax(student / 3, -1)
    expected = 9 * (p * (p / q).log()).sum(-1).mean()
    assert kd(student, teacher, temperature=3.0).item() == pytest.approx(expected.item(), rel=1e-12)
    assert kd(teacher, student, temperature=3.0).item() != pytest.approx(expected.item(), rel=1e-3)


def test_kd_sums_over_classes_and_averages_over_the_batch() -> None:
    """Pitfalls, "The mean that divides by the classes": KLDivLoss's own "mean" divides by the number of classes as
    well."""
    student, teacher = logits(4, 5, seed=0), logits(4, 5, seed=1)
    rows = [kd(student[i : i + 1], teacher[i : i + 1]) for i in range(4)]
    whole = kd(student, teacher)
    assert whole.item() == pytest.approx(torch.stack(rows).mean().item(), rel=1e-12)
    by_elements = 16 * F.kl_div((student / 4).log_softmax(-1), (teacher / 4).softmax(-1), reduction="none").mean()
    assert whole.item() == pytest.approx(5 * by_elements.item(), rel=1e-12)


def test_gradients_keep_their_size_when_the_temperature_changes() -> None:
    """Pitfalls, "T² forgotten": without T² they would fall by a factor of 10,000 from T=1 to T=100."""
    teacher, sizes = logits(16, 10, seed=1, spread=1.0), []
    for temperature in (1.0, 4.0, 20.0, 100.0):
        student = logits(16, 10, seed=0, spread=1.0).requires_grad_()
        kd(student, teacher, temperature=temperature).backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        sizes.append(student.grad.norm().item())
    assert max(sizes) / min(sizes) < 2.5


def test_gradient_is_the_closed_form() -> None:
    """d kd / d z_s = T (softmax(z_s / T) - softmax(z_t / T)) / B."""
    student, teacher = logits(3, 4, seed=0).requires_grad_(), logits(3, 4, seed=1)
    kd(student, teacher, temperature=5.0).backward()  # type: ignore[no-untyped-call]
    expected = 5 * (torch.softmax(student / 5, -1) - torch.softmax(teacher / 5, -1)) / 3
    assert student.grad is not None
    torch.testing.assert_close(student.grad, expected.detach())


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_high_temperature_limit_is_half_the_squared_distance(classes: int) -> None:
    """Bucilua et al. 2006. With u = z / T after centring, softmax(u)_c = (1 + u_c) / C + O(u²), and
    KL(p ‖ q) = ½ Σ (p_c - q_c)² / (1/C) + O(u³) = ½ Σ (u_t - u_s)² / C, so T² KL -> ½ ‖z_s - z_t‖² / C."""
    student, teacher = logits(6, classes, seed=0), logits(6, classes, seed=1)
    limit = 0.5 * (centred(student) - centred(teacher)).pow(2).sum(-1).mean() / classes
    assert kd(student, teacher, temperature=1e3).item() == pytest.approx(limit.item(), rel=2e-2)
    assert kd(student.float(), teacher.float(), temperature=1e3).item() == pytest.approx(limit.item(), rel=2e-2)


def test_kd_is_not_negative_where_float32_would_lose_every_digit() -> None:
    student = logits(16, 1000, seed=0).float()
    found = kd(student, student * 1.001, temperature=1e3).item()
    assert found == pytest.approx(4.5e-6, rel=0.1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_kd_gradcheck(temperature: float) -> None:
    student, teacher = logits(3, 4, seed=0).requires_grad_(), logits(3, 4, seed=1)
    assert torch.autograd.gradcheck(lambda z: kd(z, teacher, temperature=temperature), (student,))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_gradcheck(smoothing: float) -> None:
    student, labels = logits(3, 4, seed=0).requires_grad_(), torch.tensor([0, 3, 1])
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, labels, label_smoothing=smoothing), (student,))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_gradcheck_with_probabilities(smoothing: float) -> None:
    student, labels = logits(3, 4, seed=0).requires_grad_(), logits(3, 4, seed=1).softmax(-1)
    assert torch.autograd.gradcheck(lambda z: cross_entropy(z, labels, label_smoothing=smoothing), (student,))


@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("shape", [(1, 2), (8, 10)])
def test_kd_stays_finite_at_the_extremes(temperature: float, size: float, shape: tuple[int, int]) -> None:
    teacher = size * torch.tensor([1.0, -1.0]).repeat(shape[0], shape[1] // 2)
    student = (-teacher).requires_grad_()
    loss = kd(student, teacher, temperature=temperature)
    loss.backward()  # type: ignore[no-untyped-call]
    assert math.isfinite(loss.item())
    assert loss.item() >= 0
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_cross_entropy_stays_finite_at_the_extremes() -> None:
    student = torch.tensor([[1e4, -1e4]]).requires_grad_()
    loss = cross_entropy(student, torch.tensor([1]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(2e4)
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_kd_of_a_pair_that_agrees_is_zero() -> None:
    student = logits(8, 10, seed=0).float().requires_grad_()
    loss = kd(student, student.detach())
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == 0
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-7


def test_kd_ignores_what_is_added_to_all_logits_of_a_row() -> None:
    student, teacher = logits(4, 5, seed=0), logits(4, 5, seed=1)
    assert kd(student + 7, teacher - 3).item() == pytest.approx(kd(student, teacher).item(), rel=1e-9)


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_half_precision_logits_are_computed_in_full_precision(half: torch.dtype) -> None:
    student, teacher = logits(8, 100, seed=0).to(half), logits(8, 100, seed=1).to(half)
    labels = torch.arange(8)
    loss = kd(student, teacher, temperature=2.0)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(kd(student.double(), teacher.double(), temperature=2.0).item(), rel=1e-6)
    loss = cross_entropy(student, labels)
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(cross_entropy(student.double(), labels).item(), rel=1e-6)


def test_shapes_that_differ_are_refused_where_they_would_broadcast() -> None:
    with pytest.raises(ValueError, match=r"student \(4, 5\), teacher \(1, 5\)"):
        kd(torch.zeros(4, 5), torch.zeros(1, 5))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
def test_cross_entropy_mixes_in_the_uniform_distribution(smoothing: float) -> None:
    student, labels = logits(6, 5, seed=0), torch.tensor([0, 1, 2, 3, 4, 0])
    log_q = student.log_softmax(-1)
    target = (1 - smoothing) * F.one_hot(labels, 5).double() + smoothing / 5
    expected = -(target * log_q).sum(-1).mean()
    assert cross_entropy(student, labels, label_smoothing=smoothing).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.9])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_probabilities_of_one_class_are_its_label(smoothing: float, dtype: torch.dtype) -> None:
    student, labels = logits(6, 5, seed=0), torch.tensor([0, 1, 2, 3, 4, 0])
    certain = F.one_hot(labels, 5).to(dtype)
    assert cross_entropy(student, certain, label_smoothing=smoothing).item() == pytest.approx(
        cross_entropy(student, labels, label_smoothing=smoothing).item(), rel=1e-12
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_mixed_labels_mix_the_losses(smoothing: float) -> None:
    """mixup's own form: cross-entropy is linear in the labels, so that of the mixture is the mixture of the two."""
    student, own, partners = logits(4, 5, seed=0), torch.tensor([0, 1, 2, 3]), torch.tensor([4, 1, 0, 2])
    weight = torch.tensor([[1.0], [0.7], [0.25], [0.0]], dtype=torch.float64)
    labels = weight * F.one_hot(own, 5) + (1 - weight) * F.one_hot(partners, 5)
    rows = [
        w * cross_entropy(z[None], a[None], label_smoothing=smoothing)
        + (1 - w) * cross_entropy(z[None], b[None], label_smoothing=smoothing)
        for z, a, b, w in zip(student, own, partners, weight, strict=True)
    ]
    found = cross_entropy(student, labels, label_smoothing=smoothing).item()
    assert found == pytest.approx(torch.stack(rows).mean().item(), rel=1e-12)


def test_probabilities_stay_finite_at_the_extremes_and_in_half_precision() -> None:
    student = torch.tensor([[1e4, -1e4]]).requires_grad_()
    loss = cross_entropy(student, torch.tensor([[0.0, 1.0]]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert loss.item() == pytest.approx(2e4)
    assert student.grad is not None
    assert student.grad.isfinite().all()
    half, labels = logits(8, 10, seed=0).bfloat16(), logits(8, 10, seed=1).softmax(-1)
    loss = cross_entropy(half, labels.float())
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(cross_entropy(half.double(), labels).item(), rel=1e-6)


@pytest.mark.parametrize(
    ("student", "labels"),
    [
        (torch.zeros(4, 5), torch.zeros(4, 1)),
        (torch.zeros(4, 5), torch.zeros(1, 5)),
        (torch.zeros(4, 5), torch.zeros(4)),
        (torch.zeros(4, 5), torch.zeros(4, 5, dtype=torch.int64)),
        (torch.zeros(4, 5), torch.zeros(3, dtype=torch.int64)),
        (torch.zeros(4, 5), torch.zeros(4, dtype=torch.int32)),
        (torch.zeros(4, 5), torch.zeros(4, dtype=torch.bool)),
        (torch.zeros(4, 5, 2), torch.zeros(4, 5, 2)),
        (torch.zeros(5), torch.zeros(5)),
    ],
)
def test_labels_that_do_not_fit_are_refused(student: Tensor, labels: Tensor) -> None:
    shapes = f"found {labels.dtype} {tuple(labels.shape)} and logits {tuple(student.shape)}"
    with pytest.raises(ValueError, match=re.escape(shapes)):
        cross_entropy(student, labels)


def test_the_table_says_what_each_loss_needs() -> None:
    assert LOSSES["kd"].needs == ("student_logits", "teacher_logits")
    assert LOSSES["cross_entropy"].needs == ("student_logits", "labels")
