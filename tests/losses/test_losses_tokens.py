"""Losses on tokens: by hand, against loops written from the papers, and what holds for all that take a mask: what only
fills a sequence up never counts."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from compressor.losses import LOSSES
from compressor.losses.features import attention_maps, hidden_states
from compressor.losses.logits import kd, soft_cross_entropy
from compressor.losses.tokens import (
    attention_scores,
    common_heads,
    count_of,
    masked_lm,
    relations,
    token_cosine,
    token_kd,
)
from tests.losses.kit import BATCH, TOKENS, given, gradients, is_float, mapped, normal

MASKED = [name for name, loss in LOSSES.items() if "mask" in loss.needs]
EACH = pytest.mark.parametrize("name", MASKED)
LENGTHS = (3, 1, 4, 2)
MASK = torch.arange(4) < torch.tensor(LENGTHS)[:, None]
Change = Callable[[Tensor, tuple[int, ...]], Tensor]


def along(name: str, key: str) -> tuple[int, ...]:
    """The dimensions of an argument that go along the tokens."""
    kind = LOSSES[name].taps
    if not key.endswith("features") or kind in ("maps", "tokens"):
        return (1,)
    return (2,) if kind == "projections" else (2, 3)


def changed(name: str, inputs: dict[str, Any], change: Change) -> dict[str, Any]:
    """The inputs, each of their tensors changed along its tokens."""
    return {
        key: [change(tensor, along(name, key)) for tensor in value]
        if isinstance(value, list)
        else change(value, along(name, key))
        for key, value in inputs.items()
    }


def filler(tensor: Tensor) -> float | int:
    """What a mask says does not count, a label that is one, or what would spoil every sum that it came into."""
    if tensor.dtype == torch.bool:
        return False
    return math.nan if tensor.is_floating_point() else 1


def filled_up(columns: int, *, left: bool = False) -> Change:
    def change(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
        for dim in dims:
            shape = list(tensor.shape)
            shape[dim] = columns
            more = torch.full(shape, filler(tensor), dtype=tensor.dtype)
            tensor = torch.cat([more, tensor] if left else [tensor, more], dim)
        return tensor

    return change


def reordered(order: Tensor) -> Change:
    def change(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
        for dim in dims:
            tensor = tensor.index_select(dim, order)
        return tensor

    return change


def back(name: str, key: str, gradient: Tensor, kept: slice) -> Tensor:
    for dim in along(name, key):
        gradient = gradient.transpose(0, dim)[kept].transpose(0, dim)
    return gradient


def student_key(name: str) -> str:
    return next(need for need in LOSSES[name].needs if need.startswith("student"))


@EACH
@pytest.mark.parametrize("left", [False, True])
def test_fifty_more_columns_of_rubbish_change_neither_the_loss_nor_its_gradient(name: str, left: bool) -> None:
    """Pitfalls, "Padding in the mean": filled up on either side, as batches and decoders are."""
    inputs = given(name)
    expected, wanted = gradients(name, inputs)
    loss, found = gradients(name, changed(name, inputs, filled_up(50, left=left)))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    kept = slice(50, None) if left else slice(None, TOKENS)
    for gradient, before in zip(found, wanted, strict=True):
        assert torch.allclose(back(name, student_key(name), gradient, kept), before, rtol=1e-9, atol=1e-12)
        assert gradient.isfinite().all()
        assert gradient.abs().sum().item() == pytest.approx(before.abs().sum().item(), rel=1e-9), "none outside"


@EACH
@pytest.mark.parametrize("rubbish", [math.nan, math.inf, -math.inf, -10_000.0, 3e38])
def test_what_stands_in_a_filled_position_does_not_matter(name: str, rubbish: float) -> None:
    """Of teachers and students: an additive mask leaves -inf or -10000 in scores, a cleared buffer anything."""
    inputs = given(name)
    counts = inputs["mask"]

    def spoilt(tensor: Tensor, dims: tuple[int, ...]) -> Tensor:
        if not tensor.is_floating_point():
            return tensor
        for dim in dims:
            shape = [1] * tensor.ndim
            shape[0], shape[dim] = counts.shape
            tensor = torch.where(counts.view(shape), tensor, rubbish)
        return tensor

    expected, wanted = gradients(name, inputs)
    loss, found = gradients(name, changed(name, inputs, spoilt))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(found, wanted, strict=True))


@EACH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_batch_is_the_mean_of_its_rows_alone_each_by_what_it_holds(name: str, dtype: torch.dtype) -> None:
    """Each row without what fills it up, one by one, weighed by the count that the loop goes by."""
    inputs = mapped(given(name), lambda t: t.to(dtype), is_float)
    loss, counts, losses = LOSSES[name].function(*inputs.values()), [], []
    for row in range(BATCH):
        one = mapped(inputs, lambda t, row=row: t[row : row + 1])  # type: ignore[misc]
        alone = changed(name, one, reordered(torch.arange(int(one["mask"].sum()))))
        assert alone["mask"].all()
        losses.append(LOSSES[name].function(*alone.values()).double())
        counts.append(count_of(LOSSES[name].mean_over, alone["mask"], alone.get("token_labels")))
    weights = torch.stack(counts)
    assert len(set(weights.tolist())) > 1, "rows of several lengths"
    expected = (torch.stack(losses) * weights).sum() / weights.sum()
    digits = {torch.float64: 1e-12, torch.float32: 1e-6}[dtype]
    assert loss.item() == pytest.approx(expected.item(), rel=digits, abs=digits)


@EACH
def test_a_row_of_which_nothing_counts_changes_nothing(name: str) -> None:
    """trl's #5885: a sample without a token left gave not a number."""
    inputs = given(name)
    expected, _ = gradients(name, mapped(inputs, lambda t: t[1:]))
    inputs["mask"][0] = False
    loss, found = gradients(name, inputs)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    assert all(gradient[0].abs().max() == 0 for gradient in found)


@EACH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_a_batch_of_which_nothing_counts_has_no_loss_and_no_gradient(name: str, dtype: torch.dtype) -> None:
    inputs = mapped(given(name), lambda t: t.to(dtype), is_float)
    inputs["mask"][:] = False
    loss, found = gradients(name, inputs)
    assert loss.item() == 0
    assert all(gradient.dtype == dtype and gradient.abs().max() == 0 for gradient in found)


@EACH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_with_the_lowest_numbers_where_nothing_counts(name: str, dtype: torch.dtype) -> None:
    """float16 ends at 65504: what is added to hide a score is -inf there, or the lowest number."""
    inputs = mapped(given(name), lambda t: t.to(dtype), is_float)
    expected, wanted = gradients(name, inputs)
    lowest = changed(name, inputs, lambda t, dims: t)
    counts = inputs["mask"]
    for key, value in lowest.items():
        if not key.endswith("features"):
            continue
        dim = along(name, key)[0]
        for tensor in value:
            tensor.movedim(dim, 1)[~counts] = torch.finfo(dtype).min
    loss, found = gradients(name, lowest)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


@EACH
def test_masks_that_say_something_else_are_refused(name: str) -> None:
    inputs = given(name)
    additive = {**inputs, "mask": torch.where(inputs["mask"], 0.0, -math.inf)}
    with pytest.raises(ValueError, match="a mask says with 1 or 0"):
        LOSSES[name].function(*additive.values())
    short = {**inputs, "mask": inputs["mask"][:, 1:]}
    with pytest.raises(ValueError, match=r"a mask \(5, 2\) does not say which of 3 tokens of 5 samples count"):
        LOSSES[name].function(*short.values())
    integers = {**inputs, "mask": inputs["mask"].long()}
    assert LOSSES[name].function(*integers.values()) == LOSSES[name].function(*inputs.values())


@EACH
def test_without_a_mask_all_tokens_count(name: str) -> None:
    inputs = given(name)
    everything = {**inputs, "mask": torch.ones_like(inputs["mask"])}
    without = {**inputs, "mask": None}
    found, expected = (LOSSES[name].function(*values.values()).item() for values in (without, everything))
    assert found == pytest.approx(expected, rel=1e-12)


def test_what_a_loss_is_a_mean_over() -> None:
    labels = torch.full((4, 4), -100)
    labels[0, 0], labels[2, 3], labels[1, 2] = 5, 0, 7  # the last where nothing counts
    assert count_of("samples", MASK) == 4
    assert count_of("tokens", MASK) == sum(LENGTHS)
    assert count_of("pairs", MASK.long()) == sum(length**2 for length in LENGTHS)
    assert count_of("chosen", MASK, labels) == 2
    with pytest.raises(ValueError, match="no token_labels"):
        count_of("chosen", MASK)


def counted() -> list[tuple[int, int]]:
    return [(b, n) for b, length in enumerate(LENGTHS) for n in range(length)]


def states(seed: int, width: int) -> Tensor:
    return normal(4, 4, width, seed=seed)


def test_hidden_states_by_hand() -> None:
    student, teacher = (
        torch.tensor([[[1.0, 2.0], [3.0, 4.0], [9.0, 9.0]]]),
        torch.tensor([[[1.0, 0.0], [3.0, 5.0], [0.0, 0.0]]]),
    )
    mask = torch.tensor([[1, 1, 0]])
    assert hidden_states([student], [teacher], mask).item() == (4 + 1) / (2 * 2)
    assert hidden_states([student] * 2, [teacher] * 2, mask).item() == 2 * (4 + 1) / (2 * 2)


def test_hidden_states_by_loops() -> None:
    student, teacher = [states(0, 3), states(1, 5)], [states(2, 3), states(3, 5)]
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        squares = [(s[b, n, d] - t[b, n, d]).item() ** 2 for b, n in counted() for d in range(s.shape[2])]
        expected += sum(squares) / (sum(LENGTHS) * s.shape[2])
    assert hidden_states(student, teacher, MASK).item() == pytest.approx(expected, rel=1e-12)


def test_attention_scores_by_hand() -> None:
    student = torch.tensor([[[[1.0, 2.0, -9.0], [0.0, 1.0, -9.0], [5.0, 5.0, 5.0]]]])
    mask = torch.tensor([[1, 1, 0]])
    assert attention_scores([student], [torch.zeros(1, 1, 3, 3)], mask).item() == (1 + 4 + 0 + 1) / 4
    assert attention_maps([student], [torch.zeros(1, 1, 3, 3)], mask).item() == (1 + 4 + 0 + 1) / 4


@pytest.mark.parametrize("loss", [attention_scores, attention_maps])
def test_attention_by_loops(loss: Callable[..., Tensor]) -> None:
    """1/h Σ_heads MSE, the mean over heads · Σ_b length_b² pairs."""
    student, teacher = [normal(4, 3, 4, 4, seed=i) for i in (0, 1)], [normal(4, 3, 4, 4, seed=i) for i in (2, 3)]
    expected = 0.0
    for s, t in zip(student, teacher, strict=True):
        total = 0.0
        for b, length in enumerate(LENGTHS):
            for head in range(3):
                for i in range(length):
                    for j in range(length):
                        total += (s[b, head, i, j] - t[b, head, i, j]).item() ** 2
        expected += total / (3 * sum(length**2 for length in LENGTHS))
    assert loss(student, teacher, MASK).item() == pytest.approx(expected, rel=1e-12)


def test_a_score_far_below_zero_counts_as_any_other() -> None:
    """The authors' code of TinyBERT has every score of -100 and less count as 0, on both sides, filled up or not."""
    student, teacher = torch.full((1, 1, 2, 2), -150.0), torch.full((1, 1, 2, 2), -149.0)
    assert attention_scores([student], [teacher], torch.ones(1, 2, dtype=torch.bool)).item() == 1.0


def test_filling_does_not_dilute() -> None:
    """The authors' mean over B · heads · N · N would be a quarter here."""
    scores = normal(1, 2, 2, 2, seed=0)
    alone = attention_scores([scores], [-scores])
    padded = torch.nn.functional.pad(scores, (0, 2, 0, 2))
    mask = torch.tensor([[True, True, False, False]])
    assert attention_scores([padded], [-padded], mask).item() == pytest.approx(alone.item(), rel=1e-12)


def test_other_numbers_of_heads_are_refused_and_relations_named() -> None:
    """TinyBERT's issue #125."""
    with pytest.raises(ValueError, match="of 2 and 3 heads cannot be compared head by head: use relations"):
        attention_scores([normal(1, 2, 4, 4, seed=0)], [normal(1, 3, 4, 4, seed=1)])
    with pytest.raises(ValueError, match="of as many tokens"):
        attention_scores([normal(1, 2, 4, 4, seed=0)], [normal(1, 2, 5, 5, seed=1)])


def test_token_cosine_by_hand_and_as_torch_has_it() -> None:
    """DistilBERT calls CosineEmbeddingLoss(target=1) with the rows that count."""
    student = torch.tensor([[[3.0, 4.0], [1.0, 0.0], [7.0, 7.0]]])
    teacher = torch.tensor([[[10.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]])
    assert token_cosine([student], [teacher], torch.tensor([[1, 1, 0]])).item() == pytest.approx((0.4 + 1) / 2)
    ours, theirs = states(0, 6), states(1, 6)
    expected = torch.nn.CosineEmbeddingLoss()(ours[MASK], theirs[MASK], torch.ones(sum(LENGTHS)))
    assert token_cosine([ours], [theirs], MASK).item() == pytest.approx(expected.item(), rel=1e-9)
    by_loops = np.mean([1 - _cosine(ours[b, n].tolist(), theirs[b, n].tolist()) for b, n in counted()])
    assert token_cosine([ours], [theirs], MASK).item() == pytest.approx(by_loops, rel=1e-12)
    assert token_cosine([3 * ours], [theirs / 7], MASK).item() == pytest.approx(by_loops, rel=1e-12)


def _cosine(a: list[float], b: list[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True)) / math.hypot(*a) / math.hypot(*b)


def test_token_cosine_of_other_widths_is_refused() -> None:
    with pytest.raises(ValueError, match=r"shapes differ: student \(4, 4, 6\), teacher \(4, 4, 8\)"):
        token_cosine([states(0, 6)], [states(1, 8)])
    with pytest.raises(ValueError, match=r"needs tokens \[B, N, D\], found \(4, 3, 2, 2\)"):
        token_cosine([normal(4, 3, 2, 2, seed=0)], [normal(4, 3, 2, 2, seed=1)])


LN3 = math.log(3)
THREE_QUARTERS = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)  # KL((3/4, 1/4) || (1/2, 1/2))


def test_token_kd_by_hand() -> None:
    """At T = 2 the teacher's (2 ln 3, 0) is (3/4, 1/4); T² of it, and not half of that for a vocabulary of two."""
    student = torch.zeros(1, 3, 2, dtype=torch.float64)
    teacher = torch.tensor([[[2 * LN3, 0.0], [0.0, 0.0], [50.0, 0.0]]], dtype=torch.float64)
    loss = token_kd(student, teacher, torch.tensor([[1, 1, 0]]), temperature=2.0)
    assert loss.item() == pytest.approx(4 * THREE_QUARTERS / 2, rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_token_kd_by_loops(temperature: float) -> None:
    """Pitfalls, "The mean that divides by the classes", and "T² forgotten": TextBrewer has none."""
    student, teacher = 3 * states(0, 11), 3 * states(1, 11)
    total = 0.0
    for b, n in counted():
        p, q = (_softmax((side[b, n] / temperature).tolist()) for side in (teacher, student))
        total += sum(x * math.log(x / y) for x, y in zip(p, q, strict=True))
    expected = temperature**2 * total / sum(LENGTHS)
    assert token_kd(student, teacher, MASK, temperature=temperature).item() == pytest.approx(expected, rel=1e-9)
    rows = kd(student[MASK], teacher[MASK], temperature=temperature)
    assert rows.item() == pytest.approx(expected, rel=1e-9), "kd of the rows that count"


def _softmax(values: list[float]) -> list[float]:
    powers = [math.exp(value - max(values)) for value in values]
    return [power / sum(powers) for power in powers]


def test_token_kd_of_the_hidden_tokens_alone() -> None:
    """DistilBERT's restrict_ce_to_mask: by the mask that it is given."""
    student, teacher = states(0, 7), states(1, 7)
    hidden = torch.zeros(4, 4, dtype=torch.bool)
    hidden[0, 1] = hidden[2, 2] = True
    expected = kd(student[hidden], teacher[hidden], temperature=2.0)
    assert token_kd(student, teacher, hidden).item() == pytest.approx(expected.item(), rel=1e-9)


def test_a_token_that_the_teacher_rules_out() -> None:
    student, teacher = states(0, 5).requires_grad_(), states(1, 5)
    teacher[..., 2] = -math.inf
    limit = teacher.nan_to_num(neginf=-1e4)
    loss = token_kd(student, teacher, MASK)
    assert loss.item() == pytest.approx(token_kd(student, limit, MASK).item(), rel=1e-12)
    assert torch.autograd.grad(loss, student)[0].isfinite().all()


def test_other_vocabularies_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        token_kd(states(0, 7), states(1, 8))


def test_masked_lm_by_hand() -> None:
    logits = torch.tensor([[[0.0, 0.0, math.log(2)], [0.0, 0.0, math.log(2)], [1.0, 2.0, 3.0]]], dtype=torch.float64)
    loss = masked_lm(logits, torch.tensor([[2, 0, -100]]))
    assert loss.item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-12)


def test_masked_lm_by_loops_and_as_torch_has_it() -> None:
    logits = 2 * states(0, 9)
    labels = torch.full((4, 4), -100)
    labels[0, 0], labels[0, 2], labels[2, 3], labels[3, 1], labels[1, 3] = 8, 0, 3, 3, 5  # the last is not counted
    chosen = [(b, n) for b, n in counted() if labels[b, n] >= 0]
    assert len(chosen) == 4
    expected = -np.mean([math.log(_softmax(logits[b, n].tolist())[int(labels[b, n])]) for b, n in chosen])
    assert masked_lm(logits, labels, MASK).item() == pytest.approx(expected, rel=1e-12)
    ignored = torch.where(MASK, labels, -100)
    theirs = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ignored.flatten())
    assert masked_lm(logits, labels, MASK).item() == pytest.approx(theirs.item(), rel=1e-12)


def test_masked_lm_where_no_token_was_hidden() -> None:
    """torch's mean is not a number there."""
    logits = states(0, 9).requires_grad_()
    loss = masked_lm(logits, torch.full((4, 4), -100), MASK)
    assert loss.item() == 0
    assert torch.autograd.grad(loss, logits)[0].abs().max() == 0


@pytest.mark.parametrize(
    "labels", [torch.zeros(4, 4), torch.zeros(4, dtype=torch.int64), torch.zeros(4, 5, dtype=torch.int64)]
)
def test_labels_of_tokens_are_classes_one_a_token(labels: Tensor) -> None:
    with pytest.raises(ValueError, match=r"needs token_labels int64 \[B, N\]"):
        masked_lm(states(0, 9), labels)


def test_relations_by_hand() -> None:
    """Of (√ln 3, 0), the inner products (ln 3, 0) and (0, 0): the first row is (3/4, 1/4), the second even."""
    teacher = torch.tensor([LN3**0.5, 0.0, 5.0], dtype=torch.float64).view(1, 1, 3, 1).expand(1, 3, 3, 1)
    student, mask = torch.zeros(1, 3, 3, 1).double(), torch.tensor([[1, 1, 0]])
    loss = relations([student], [teacher], mask, relation_heads=1)
    assert loss.item() == pytest.approx(3 * THREE_QUARTERS / 2, rel=1e-12)
    values = relations([student[:, 2:]], [teacher[:, 2:]], mask, relation_heads=1)
    assert values.item() == pytest.approx(THREE_QUARTERS / 2, rel=1e-12), "MiniLM's, of the values alone"


@pytest.mark.parametrize("heads", [1, 2, 6])
def test_relations_by_loops(heads: int) -> None:
    """A student of half the width, and no number of heads of its own; the divergence is from the teacher."""
    student, teacher = 2 * normal(4, 3, 4, 6, seed=0), 2 * normal(4, 3, 4, 12, seed=1)
    total = 0.0
    for kind in range(3):
        for b, length in enumerate(LENGTHS):
            for head in range(heads):
                p, q = (_relation(side[b, kind, :length], head, heads) for side in (teacher, student))
                total += sum(
                    x * math.log(x / y)
                    for row, other in zip(p, q, strict=True)
                    for x, y in zip(row, other, strict=True)
                )
    expected = total / (heads * sum(LENGTHS))
    assert relations([student], [teacher], MASK, relation_heads=heads).item() == pytest.approx(expected, rel=1e-9)
    turned = relations([teacher], [student], MASK, relation_heads=heads).item()
    assert turned != pytest.approx(expected, rel=1e-3), "KL(teacher || student) is not the other way round"


def _relation(vectors: Tensor, head: int, heads: int) -> list[list[float]]:
    """softmax of the scaled inner products of one relation head, row by row."""
    width = vectors.shape[1] // heads
    rows = vectors[:, head * width : (head + 1) * width].tolist()
    return [_softmax([sum(x * y for x, y in zip(a, b, strict=True)) / math.sqrt(width) for b in rows]) for a in rows]


def test_relations_need_heads_that_share_out_the_width() -> None:
    features = normal(1, 3, 4, 6, seed=0)
    with pytest.raises(ValueError, match="relation_heads=4 does not divide a width of 6"):
        relations([features], [features], relation_heads=4)
    with pytest.raises(ValueError, match="needs queries, keys and values"):
        relations([features], [normal(1, 3, 5, 6, seed=1)], relation_heads=2)


@pytest.mark.parametrize(("ours", "theirs", "heads"), [(384, 384, 12), (160, 384, 8), (192, 768, 12), (7, 12, 1)])
def test_relation_heads_divide_both_widths_unless_given(ours: int, theirs: int, heads: int) -> None:
    student, teacher = normal(1, 3, 4, ours, seed=0), normal(1, 3, 4, theirs, seed=1)
    assert common_heads(ours, theirs) == heads
    assert torch.equal(relations([student], [teacher]), relations([student], [teacher], relation_heads=heads))


def test_soft_cross_entropy_by_hand() -> None:
    """Divided by rows, not by rows and classes; and T² as kd has it."""
    student, teacher = torch.zeros(2, 2).double(), torch.tensor([[LN3, 0.0], [0.0, 0.0]], dtype=torch.float64)
    assert soft_cross_entropy(student, teacher).item() == pytest.approx(math.log(2), rel=1e-12)
    warm = soft_cross_entropy(student, 2 * teacher, temperature=2.0)
    assert warm.item() == pytest.approx(4 * math.log(2), rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_soft_cross_entropy_is_kd_and_the_entropy_of_the_teacher(temperature: float) -> None:
    """Where both agree, the entropy is left: the floor that no student gets below."""
    student, teacher = 2 * normal(5, 7, seed=0).requires_grad_(), 2 * normal(5, 7, seed=1)
    p = (teacher / temperature).softmax(-1)
    entropy = temperature**2 * -(p * p.log()).sum(-1).mean()
    loss, soft = (
        soft_cross_entropy(student, teacher, temperature=temperature),
        kd(student, teacher, temperature=temperature),
    )
    assert loss.item() == pytest.approx((soft + entropy).item(), rel=1e-12)
    assert soft_cross_entropy(teacher, teacher, temperature=temperature).item() == pytest.approx(
        entropy.item(), rel=1e-12
    )
    gradient, expected = (torch.autograd.grad(value, student, retain_graph=True)[0] for value in (loss, soft))
    assert torch.allclose(gradient, expected, atol=1e-12)


def test_two_identical_networks_have_no_loss_on_tokens() -> None:
    features, scores, projections = states(0, 6), normal(4, 2, 4, 4, seed=1), normal(4, 3, 4, 6, seed=2)
    assert hidden_states([features], [features], MASK) == 0
    assert attention_scores([scores], [scores], MASK) == 0
    assert token_cosine([features], [features], MASK) == 0
    assert relations([projections], [projections], MASK, relation_heads=2) == 0
    assert token_kd(features, features, MASK) == 0
