"""torchdistill 1.1.5 as a second opinion, where it is installed. Not a requirement: it brings much along."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from compressor.losses.contrastive import _log_noise, _nce
from compressor.losses.features import attention_transfer, review_kd
from compressor.losses.logits import dist, kd, lskd
from compressor.losses.relations import _flow, correlation_congruence, rkd_angle, rkd_distance, similarity_preserving
from tests.losses.kit import normal, of_length_1

other: Any = pytest.importorskip("torchdistill.losses.mid_level")

SIDES = {
    "student_module_path": "m", "student_module_io": "o", "teacher_module_path": "m", "teacher_module_io": "o",
}  # fmt: skip
STUDENT, TEACHER = 3 * normal(6, 5, seed=0), 3 * normal(6, 5, seed=1)


def io(tensor: Any) -> dict[str, dict[str, Any]]:
    return {"m": {"o": tensor, "output": tensor}}


def both(loss: Any, student: Any, teacher: Any) -> float:
    return float(loss(io(student), io(teacher)))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_kd(temperature: float) -> None:
    """Without labels torchdistill forgets T² (pitfalls, "T² forgotten": it multiplies on one branch only)."""
    theirs = both(other.KDLoss(**SIDES, temperature=temperature, alpha=0), STUDENT, TEACHER)
    assert kd(STUDENT, TEACHER, temperature=temperature).item() == pytest.approx(temperature**2 * theirs)


def test_dist() -> None:
    theirs = both(other.DISTLoss(**SIDES, beta=2.0, gamma=0.5, tau=4.0), STUDENT, TEACHER)
    assert dist(STUDENT, TEACHER, beta=2.0, gamma=0.5, temperature=4.0).item() == pytest.approx(theirs, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_lskd(temperature: float) -> None:
    """It divides by the sample's standard deviation (C − 1), as the authors' code; the paper by the population's: the
    same at a temperature that is √((C − 1) / C) times the other. It forgets T² without labels."""
    theirs = both(other.LogitStdKDLoss(**SIDES, temperature=temperature * math.sqrt(4 / 5), alpha=0), STUDENT, TEACHER)
    found = lskd(STUDENT, TEACHER, temperature=temperature).item()
    assert found == pytest.approx(temperature**2 * theirs, rel=1e-6)


def test_attention_transfer() -> None:
    """Its mode "code", as the authors' code; "paper" has the distance unsquared."""
    student, teacher = normal(4, 3, 6, 6, seed=0), normal(4, 5, 6, 6, seed=1)
    pair = {"p": {who: {"io": "o", "path": "m"} for who in ("student", "teacher")}}
    theirs = both(other.ATLoss(pair, mode="code"), student, teacher)
    assert attention_transfer([student], [teacher]).item() == pytest.approx(theirs, rel=1e-9)


@pytest.mark.parametrize("size", [8, 4, 2, 1])
def test_review_kd(size: int) -> None:
    student, teacher = normal(4, 3, size, size, seed=0), normal(4, 3, size, size, seed=1)
    theirs = both(other.HierarchicalContextLoss(**SIDES), (student, None), teacher)
    assert review_kd([student], [teacher]).item() == pytest.approx(theirs, rel=1e-9)


def test_rkd() -> None:
    student, teacher = normal(6, 4, seed=0), normal(6, 8, seed=1)
    for ours, factors in ((rkd_distance, (1.0, 0.0)), (rkd_angle, (0.0, 1.0))):
        theirs = both(other.RKDLoss("m", "m", *factors, reduction="mean"), student, teacher)
        assert ours([student], [teacher]).item() == pytest.approx(theirs, rel=1e-6)


def test_similarity_preserving() -> None:
    """Its `normalize(g, 1)` sets the norm, not the dimension, to 1: rows of sum 1, where eq. 2 of the paper (and
    RepDistiller) has rows of length 1. So it differs, and agrees with the same formula under the other norm."""
    student, teacher = normal(6, 3, 4, 4, seed=0), normal(6, 8, 2, 2, seed=1)
    theirs = both(other.SPKDLoss("m", "m", "batchmean"), student, teacher)
    grams = [f.flatten(1) @ f.flatten(1).T for f in (student, teacher)]
    for norm, expected in ((1, theirs), (2, similarity_preserving([student], [teacher]).item())):
        ours, taught = (g / g.norm(p=norm, dim=1, keepdim=True) for g in grams)
        assert (ours - taught).pow(2).sum().item() / 36 == pytest.approx(expected, rel=1e-9)


def test_correlation_congruence() -> None:
    """It forgets the square of the paper's norm and the features' length of 1, and cuts the kernel's series: with 30
    terms, lengths of 1 and the square they agree."""
    student, teacher = of_length_1(normal(6, 4, seed=0)), of_length_1(normal(6, 8, seed=1))
    kernel = {"type": "gaussian", "gamma": 0.4, "max_p": 30}
    theirs = both(other.CCKDLoss("m", "m", kernel, "sum"), student, teacher)
    assert correlation_congruence([student], [teacher]).item() == pytest.approx(theirs**2 / 36, rel=1e-9)


def test_fsp() -> None:
    """The matrices agree; its distance does not: the paper's is squared, torchdistill adds up norms of columns."""
    first, second = normal(4, 3, 8, 8, seed=0), normal(4, 5, 4, 4, seed=1)
    torch.testing.assert_close(_flow(first, second), other.FSPLoss.compute_fsp_matrix(first, second))


def test_crd() -> None:
    """Its module draws from a table that it never fills, so that only its formula can be called, given e / (Z n) for
    the positive and the negatives, n its number of samples."""
    count, samples = 7, 50

    def theirs(positive: Tensor, scores: Tensor, log_z: Tensor) -> float:
        p = torch.cat([positive[:, None], scores], 1).sub(log_z).exp() / samples
        return float(other.CRDLoss.compute_contrast_loss(SimpleNamespace(num_samples=samples, eps=0.0), p[..., None]))

    positive, scores = normal(5, seed=0), normal(5, count, seed=1)
    everyone = torch.ones(5, count, dtype=torch.bool)
    noise = _log_noise(scores, everyone)
    expected = theirs(positive, scores, noise[0] - math.log(count))
    assert _nce(positive, scores, everyone, noise).item() == pytest.approx(expected, rel=1e-9)
