"""The contract of every loss of the table: gradients, extremes, half precision, who gets a gradient, order of rows; and
that the traits which its row claims are those that it has. A new row is tested with no line added here."""

import math
from functools import partial
from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.losses import LOSSES, bind
from tests.losses.kit import BATCH, CLASSES, agreeing, given, gradients, is_float, learns, mapped, normal, tensors

ALL = pytest.mark.parametrize("name", LOSSES)
ON_FEATURES = [name for name, loss in LOSSES.items() if "student_features" in loss.needs]
ON_LOGITS = [name for name, loss in LOSSES.items() if {"student_logits", "exit_logits"} & set(loss.needs)]
TEMPERED = [name for name, loss in LOSSES.items() if "temperature" in loss.ranges]
LOOKED_AT = {"student_features", "student_embeddings", "student_token_logits", "exit_logits"}


@ALL
def test_its_gradient_is_the_derivative_of_its_value_where_its_row_says_so(name: str) -> None:
    """What holds a part of its value constant has tests of its own for its gradient."""
    inputs, wanted = given(name, batch=3), learns(name)
    learned = [t.clone().requires_grad_() for key in wanted for t in tensors(inputs[key])]

    def loss(*leaves: Tensor) -> Tensor:
        rest = iter(leaves)
        return LOSSES[name].function(*mapped(inputs, lambda t: next(rest), lambda key, t: key in wanted).values())

    if LOSSES[name].exact_gradient:
        assert torch.autograd.gradcheck(loss, tuple(learned))
    else:
        assert not torch.autograd.gradcheck(loss, tuple(learned), raise_exception=False)


@pytest.mark.parametrize("name", [name for name, row in LOSSES.items() if row.exact_gradient])
def test_loss_is_a_scalar_that_falls_along_its_gradient(name: str) -> None:
    inputs, wanted = given(name), learns(name)
    before, found = gradients(name, inputs)
    assert before.shape == ()
    assert before.dtype == torch.float64
    assert before > 0
    size = torch.stack([g.square().sum() for g in found]).sum()
    assert size > 0
    steps = iter(found)
    moved = mapped(inputs, lambda t: t - 1e-4 / size.sqrt() * next(steps), lambda key, t: key in wanted)
    after = LOSSES[name].function(*moved.values())
    assert (before - after).item() == pytest.approx(1e-4 * size.sqrt().item(), rel=0.05)


@ALL
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_it_computes_in_float32_at_least(name: str, dtype: torch.dtype) -> None:
    half = mapped(given(name), lambda t: t.to(dtype), is_float)
    exact = LOSSES[name].function(*mapped(half, lambda t: t.double(), is_float).values()).item()
    found, grads = gradients(name, half)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(exact, rel=1e-4)
    assert all(grad.dtype == dtype for grad in grads)


@ALL
def test_autocast_does_not_lower_its_precision(name: str) -> None:
    inputs = mapped(given(name), lambda t: t.float(), is_float)
    outside = LOSSES[name].function(*inputs.values())
    with torch.autocast("cpu", torch.bfloat16):
        inside = LOSSES[name].function(*inputs.values())
    assert inside.dtype == torch.float32
    assert inside.item() == pytest.approx(outside.item(), rel=1e-6)


@ALL
def test_teacher_without_gradients_gets_none(name: str) -> None:
    inputs = mapped(
        given(name),
        lambda t: t.requires_grad_(),
        lambda key, t: (key.startswith("student") or key == "exit_logits") and t.is_floating_point(),
    )
    loss = LOSSES[name].function(*inputs.values())
    loss.backward()  # type: ignore[no-untyped-call]
    for key, value in inputs.items():
        if key.startswith(("teacher", "peer")):
            assert all(not t.requires_grad and t.grad is None for t in tensors(value)), key
    assert all(t.grad is not None for key in learns(name) for t in tensors(inputs[key]))


@ALL
def test_order_of_the_batch_does_not_matter(name: str) -> None:
    inputs, order = given(name), torch.tensor([3, 0, 4, 1, 2])
    turned = mapped(inputs, lambda t: t[order], lambda key, t: not key.endswith(("memory", "token_of")))
    function = LOSSES[name].function
    assert function(*turned.values()).item() == pytest.approx(function(*inputs.values()).item(), rel=1e-12)


@pytest.mark.parametrize("name", ON_LOGITS)
def test_order_of_the_classes_does_not_matter(name: str) -> None:
    inputs, order = given(name), torch.tensor([2, 0, 3, 1])
    turned = mapped(inputs, lambda t: t[:, order], lambda key, t: key.endswith("logits"))
    for key in {"labels", "teacher_labels", "teacher_top"} & turned.keys():
        turned[key] = order.argsort()[turned[key]]
    function = LOSSES[name].function
    assert function(*turned.values()).item() == pytest.approx(function(*inputs.values()).item(), rel=1e-12)


@pytest.mark.parametrize("name", ON_LOGITS)
def test_what_is_added_to_all_logits_of_a_row_does_not_matter_unless_it_needs_raw_logits(name: str) -> None:
    inputs = given(name)
    shifts = iter((7.0, -3.0, 2.0))
    turned = mapped(inputs, lambda t: t + next(shifts), lambda key, t: key.endswith("logits"))
    function = LOSSES[name].function
    alike = function(*turned.values()).item() == pytest.approx(function(*inputs.values()).item(), rel=1e-9)
    assert alike is not LOSSES[name].raw_logits


@pytest.mark.parametrize("name", [name for name, row in LOSSES.items() if "teacher_logits" in row.needs])
def test_its_row_says_whether_a_teacher_may_rule_a_class_out(name: str) -> None:
    """A logit of -inf is a probability of 0: the loss has to be the limit of those with ever lower logits."""

    def ruled_out(logit: float) -> tuple[Tensor, list[Tensor]]:
        inputs = given(name)
        inputs["teacher_logits"][:, 0] = logit
        return gradients(name, inputs)

    (loss, found), (limit, wanted) = ruled_out(-math.inf), ruled_out(-1e3)
    alike = torch.allclose(loss, limit) and all(map(torch.allclose, found, wanted))
    assert alike is LOSSES[name].zero_probabilities


@ALL
def test_its_row_says_whether_a_pair_that_agrees_has_no_loss_and_no_gradient(name: str) -> None:
    loss, found = gradients(name, agreeing(name))
    nothing = abs(loss.item()) < 1e-12 and all(grad.abs().max() < 1e-7 for grad in found)
    assert nothing is LOSSES[name].zero_at_agreement


def finite(name: str, inputs: dict[str, object], **parameters: float) -> None:
    loss, found = gradients(name, mapped(inputs, lambda t: t.float(), is_float), **parameters)
    assert math.isfinite(loss.item())
    assert loss.item() >= 0
    assert all(grad.isfinite().all() for grad in found)


@pytest.mark.parametrize("name", ON_LOGITS)
@pytest.mark.parametrize("temperature", [1e-3, 1.0, 1e3])
def test_logits_at_the_extremes(name: str, temperature: float) -> None:
    """Sizes from 0 to 1e4, a batch of one, two classes; the two sides agree, or are certain of the opposite."""
    parameters = {"temperature": temperature} if name in TEMPERED else {}
    students, teachers = ("student_logits", "exit_logits"), ("teacher_logits", "peer_logits")
    for size, (batch, classes) in product((0.0, 1e-4, 1.0, 1e4), ((1, 2), (8, 2), (1, 10), (8, 10))):
        signs = torch.tensor([1.0, -1.0]).repeat(batch, classes // 2) * size
        inputs = given(name, batch=batch, classes=classes)
        inputs |= {
            key: [signs, signs] if key in ("exit_logits", "peer_logits") else signs
            for key in inputs
            if key in students + teachers
        }
        finite(name, inputs, **parameters)
        finite(name, mapped(inputs, torch.neg, lambda key, t: key in students), **parameters)


@pytest.mark.parametrize("name", ON_FEATURES)
@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-4, 1e4])
def test_features_at_the_extremes(name: str, size: float) -> None:
    for batch in (1, 2, 5):
        inputs = mapped(given(name, batch=batch), lambda t: size * t, lambda key, t: key == "student_features")
        finite(name, inputs)
        finite(name, mapped(inputs, lambda t: size * t, lambda key, t: key == "teacher_features"))


@pytest.mark.parametrize("name", ON_FEATURES)
@pytest.mark.parametrize("coincident", [slice(0, 2), slice(None)])
@pytest.mark.parametrize("who", ["student_features", "teacher_features", "features"])
def test_samples_at_one_place_have_finite_gradients(name: str, coincident: slice, who: str) -> None:
    """The derivative of a root at 0 is infinite; a distance, length or angle of 0 must not let it through."""

    def joined(tensor: Tensor) -> Tensor:
        joined = tensor.clone()
        joined[coincident] = tensor[:1]
        return joined

    finite(name, mapped(given(name), joined, lambda key, t: key.endswith(who)))


@pytest.mark.parametrize("name", LOSSES)
def test_one_sample(name: str) -> None:
    finite(name, given(name, batch=1, classes=2))


@pytest.mark.parametrize("name", TEMPERED)
def test_gradients_keep_their_size_when_the_temperature_changes_where_its_row_says_so(name: str) -> None:
    """Pitfalls, "T² forgotten", or on one branch only: without it they would fall by 10,000 from T=1 to T=100."""
    inputs, sizes = given(name, batch=16, classes=10), []
    for temperature in (1.0, 4.0, 20.0, 100.0):
        found = gradients(name, inputs, temperature=temperature)[1]
        sizes.append(torch.stack([g.norm() for g in found]).norm().item())
    assert (max(sizes) / min(sizes) < 6) is LOSSES[name].temperature_scaled


@pytest.mark.parametrize("temperature", [1.0, 4.0, 50.0])
def test_both_parts_of_early_exits_keep_their_size(temperature: float) -> None:
    """Pitfalls, "T² forgotten": with labels only and with the last layer only, the gradients stay within one order of
    magnitude."""
    inputs = given("early_exits", batch=16, classes=10)
    sizes = [
        torch.stack(
            [g.norm() for g in gradients("early_exits", inputs, temperature=temperature, alpha=alpha)[1]]
        ).norm()
        for alpha in (0.0, 1.0)
    ]
    assert 0.1 < (sizes[0] / sizes[1]).item() < 10


@ALL
def test_the_table_is_complete(name: str) -> None:
    loss = LOSSES[name]
    assert loss.formula
    assert "\n" not in loss.formula
    assert loss.formula.isascii()
    assert loss.function.__doc__
    assert "Raises ValueError" in " ".join(loss.function.__doc__.split())
    assert (loss.taps is None) == (not LOOKED_AT & set(loss.needs))
    assert loss.one_process == any(need.endswith("memory") for need in loss.needs)
    assert loss.defaults.keys() == loss.ranges.keys()
    function, needs = bind(name, loss.defaults, "here")
    assert function(*given(name).values()) == loss.function(*given(name).values())
    assert needs == loss.needs


@pytest.mark.parametrize("name", [name for name in LOSSES if "labels" in LOSSES[name].needs])
def test_the_table_says_which_take_mixed_labels(name: str) -> None:
    inputs = given(name)
    inputs["labels"] = normal(BATCH, CLASSES, seed=8).softmax(-1)
    call = partial(LOSSES[name].function, *inputs.values())
    if LOSSES[name].mixed_labels:
        assert np.isfinite(call().item())
    else:
        with pytest.raises(ValueError, match="labels int64"):
            call()


@pytest.mark.parametrize("name", ON_FEATURES)
def test_features_that_do_not_pair_are_refused(name: str) -> None:
    inputs = given(name)
    with pytest.raises(ValueError, match="come in pairs"):
        LOSSES[name].function(inputs["student_features"], [])
    with pytest.raises(ValueError, match=r"come in pairs|needs 2 pairs"):
        LOSSES[name].function([], [])
    with pytest.raises(ValueError, match="shapes differ"):
        LOSSES[name].function(inputs["student_features"], [t[:1] for t in inputs["teacher_features"]])


@pytest.mark.parametrize("name", ON_LOGITS)
def test_logits_that_would_broadcast_are_refused(name: str) -> None:
    inputs = given(name)
    inputs = mapped(inputs, lambda t: t[:1], lambda key, t: key in learns(name))
    with pytest.raises(ValueError, match=r"shapes differ|labels must be|labels int64"):
        LOSSES[name].function(*inputs.values())
