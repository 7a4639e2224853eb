"""The joint posterior of a generalist and its specialists: against an optimiser, and its own conditions."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from compressor.errors import KdcError
from compressor.models.loaded import LoadedModel
from compressor.models.specialists import Posterior, joined
from compressor.schema.preprocess import ImagePreprocess
from compressor.schema.student import Specialty, Weights

Groups = list[list[int]]
CASES: list[tuple[int, Groups]] = [
    (3, [[1, 2]]),
    (4, [[2, 0]]),
    (4, [[0, 1], [3, 2]]),
    (10, [[1, 7], [3, 5, 8]]),
    (12, [[0, 1, 2], [3, 4], [9, 6], [7, 8, 5]]),
    (40, [[number, number + 1] for number in range(0, 36, 2)]),
]


def answers(classes: int, groups: Groups, scale: float, samples: int = 16) -> tuple[Tensor, list[Tensor]]:
    torch.manual_seed(classes)
    general = torch.randn(samples, classes, dtype=torch.float64) * scale
    return general, [torch.randn(samples, len(group) + 1, dtype=torch.float64) * scale for group in groups]


def objective(log_q: Tensor, general: Tensor, specialists: Sequence[Tensor], groups: Groups) -> Tensor:
    """Eq. 5 as the paper writes it, in float64: [B]."""
    p = general.log_softmax(-1)
    total = (p.exp() * (p - log_q)).sum(-1)
    for logits, group in zip(specialists, groups, strict=True):
        rest = [number for number in range(log_q.shape[1]) if number not in group]
        p = logits.log_softmax(-1)
        q = torch.cat([log_q[:, group], log_q[:, rest].logsumexp(-1, keepdim=True)], -1)
        total = total + (p.exp() * (p - q)).sum(-1)
    return total


def posterior(general: Tensor, specialists: Sequence[Tensor], groups: Groups) -> Tensor:
    module = Posterior(general.shape[1], groups, [0.0] * len(groups))
    return module(general.float(), [logits.float() for logits in specialists])  # type: ignore[no-any-return]


@pytest.mark.parametrize(("classes", "groups"), CASES[:5])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_it_is_where_an_optimiser_ends(classes: int, groups: Groups, scale: float) -> None:
    general, specialists = answers(classes, groups, scale, samples=4)
    free = general.log_softmax(-1).clone().requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [free], max_iter=1000, tolerance_grad=1e-9, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = objective(free.log_softmax(-1), general, specialists, groups).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimiser.step(closure)  # type: ignore[no-untyped-call]
    expected = free.detach().log_softmax(-1)
    found = posterior(general, specialists, groups).double()
    assert found.exp() == pytest.approx(expected.exp(), abs=1e-4)
    assert objective(found, general, specialists, groups) == pytest.approx(
        objective(expected, general, specialists, groups), abs=1e-5
    )


@pytest.mark.parametrize(("classes", "groups"), CASES)
@pytest.mark.parametrize("scale", [1.0, 6.0, 20.0])
def test_a_round_of_expectation_maximisation_changes_nothing(classes: int, groups: Groups, scale: float) -> None:
    """Even where networks that are sure of it contradict one another."""
    general, specialists = answers(classes, groups, scale, samples=64)
    q = posterior(general, specialists, groups).double().exp()
    after = general.softmax(-1).clone()
    for logits, group in zip(specialists, groups, strict=True):
        rest = [number for number in range(classes) if number not in group]
        p = logits.softmax(-1)
        after[:, group] += p[:, :-1]
        after[:, rest] += p[:, -1:] * q[:, rest] / q[:, rest].sum(-1, keepdim=True)
    after /= len(groups) + 1
    assert q.sum(-1) == pytest.approx(torch.ones(64, dtype=torch.float64), abs=1e-6)
    assert (q - after).abs().max() < 3e-6


def test_small_probabilities_are_told_apart() -> None:
    """Distillation at a temperature looks at them: a relative error counts there, not an absolute one."""
    general = torch.tensor([[30.0, 0.0, -10.0, -40.0]])
    specialist = torch.tensor([[25.0, 2.0, -30.0]])  # of classes 0 and 1; the last is the dustbin
    log_q = posterior(general, [specialist], [[0, 1]])
    assert log_q.isfinite().all()
    # Between classes that no specialist knows the generalist decides alone.
    assert float(log_q[0, 2] - log_q[0, 3]) == pytest.approx(30.0, abs=1e-3)
    expected = torch.logaddexp(general.log_softmax(-1)[:, :2], specialist.log_softmax(-1)[:, :2])
    assert float(log_q[0, 0] - log_q[0, 1]) == pytest.approx(float(expected[0, 0] - expected[0, 1]), abs=1e-3)


@pytest.mark.parametrize(("classes", "groups"), CASES)
def test_specialists_that_add_nothing_leave_the_generalist(classes: int, groups: Groups) -> None:
    general, _ = answers(classes, groups, 3.0)
    p = general.log_softmax(-1)
    same = []
    for group in groups:
        rest = [number for number in range(classes) if number not in group]
        same.append(torch.cat([p[:, group], p[:, rest].logsumexp(-1, keepdim=True)], -1))
    assert posterior(general, same, groups) == pytest.approx(p.float(), abs=2e-5)


def test_one_specialist_has_a_closed_form() -> None:
    """Its classes get the mean of both masses, shared out as p_g + p_m; the others share the rest as p_g."""
    general, (own,) = answers(6, [[4, 1]], 2.0)
    p, m = general.softmax(-1), own.softmax(-1)
    u = p[:, [4, 1]] + m[:, :-1]
    rest = p[:, [0, 2, 3, 5]]
    expected = torch.zeros_like(p)
    expected[:, [4, 1]] = u / 2
    expected[:, [0, 2, 3, 5]] = rest / rest.sum(-1, keepdim=True) * (1 - u.sum(-1, keepdim=True) / 2)
    assert posterior(general, [own], [[4, 1]]).exp() == pytest.approx(expected.float(), abs=1e-6)


def test_the_order_of_classes_and_specialists_does_not_matter() -> None:
    groups = [[1, 7], [3, 5, 8]]
    general, specialists = answers(10, groups, 3.0)
    log_q = posterior(general, specialists, groups)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1))
    place = order.argsort().tolist()
    renamed = [[place[number] for number in group] for group in groups]
    moved = posterior(general[:, order], specialists[::-1], renamed[::-1])
    assert moved == pytest.approx(log_q[:, order], abs=1e-5)


def test_the_dustbin_is_corrected_for_the_oversampling() -> None:
    """A specialist that learned from halves, corrected, is the one that would have learned from data as it comes."""
    specialty = Specialty(classes=("a", "b"), dustbin="(others)", share=0.5, natural_share=0.9)
    assert specialty.correction == pytest.approx(torch.log(torch.tensor(9.0)).item())
    natural = torch.tensor([[0.06, 0.04, 0.9]])
    drawn = natural / torch.tensor([[0.1, 0.1, 0.9]])  # each class by how much more of it was drawn
    general = torch.randn(1, 4)
    groups = [[0, 1]]
    corrected = Posterior(4, groups, [specialty.correction])(general, [drawn.log()])
    assert corrected == pytest.approx(Posterior(4, groups, [0.0])(general, [natural.log()]), abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [4, 6])
def test_it_is_traced_whole(classes: int) -> None:
    """torch.export finds no branch that depends on data; what comes out answers alike."""
    module = Posterior(classes, [[0, 1], [3, 2]], [0.3, -0.2]).eval()
    general, specialists = torch.randn(2, classes), [torch.randn(2, 3), torch.randn(2, 3)]
    program = torch.export.export(module, (general, specialists))
    other = torch.randn(2, classes) * 5, [torch.randn(2, 3) * 5, torch.randn(2, 3) * 5]
    assert program.module()(*other) == pytest.approx(module(*other), abs=1e-5)


SEEN = ImagePreprocess(input_size=(8, 8), resize=(8, 8), mean=(0.5,) * 3, std=(0.2,) * 3)


def model(outputs: Sequence[str], how: ImagePreprocess = SEEN, seed: int = 0) -> LoadedModel:
    torch.manual_seed(seed)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, len(outputs)))
    weights = Weights(source=f"run:{seed}", architecture="line", sha256=f"{seed:064}", licence="mit", parameters=9)
    return LoadedModel(network, how, tuple((name,) for name in outputs), weights, "timm")


OF_AB = Specialty(classes=("a", "b"), dustbin="(others)", share=0.5, natural_share=0.6)


def test_together_they_are_one_model() -> None:
    """Its generalist may answer more classes, in another order."""
    generalist, specialist = model(["d", "c", "b", "a", "e"]), model(["a", "b", "(others)"], seed=1)
    together = joined(generalist, [(specialist, OF_AB)], ("a", "b", "c", "d"), "specialists:here")
    images = torch.randn(5, 3, 8, 8)
    with torch.no_grad():
        general = generalist.network(images)[:, [3, 2, 1, 0]]
        expected = Posterior(4, [[0, 1]], [OF_AB.correction])(general, [specialist.network(images)])
        assert torch.equal(together.network(images), expected)
    assert together.class_names == (("a",), ("b",), ("c",), ("d",))
    assert together.weights.parameters == 18
    assert (together.weights.source, together.weights.licence) == ("specialists:here", "mit")
    assert not any(parameter.requires_grad for parameter in together.network.parameters())
    assert not together.network.training
    other = joined(generalist, [(model(["a", "b", "(others)"], seed=2), OF_AB)], ("a", "b", "c", "d"), "x")
    more = OF_AB.model_copy(update={"natural_share": 0.7})
    third = joined(generalist, [(specialist, more)], ("a", "b", "c", "d"), "x")
    assert len({together.weights.sha256, other.weights.sha256, third.weights.sha256}) == 3


def test_other_preprocessing_is_refused() -> None:
    specialist = model(["a", "b", "(others)"], SEEN.model_copy(update={"resize": (9, 9)}), seed=1)
    with pytest.raises(KdcError, match=r"run:1 sees images otherwise than its generalist: resize \(9, 9\), not"):
        joined(model(["a", "b", "c"]), [(specialist, OF_AB)], ("a", "b", "c"), "specialists:here")
