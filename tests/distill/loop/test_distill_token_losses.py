"""Losses on tokens in a training: one projector that is not kept, what counts for what, and steps in parts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor
from torch.optim import AdamW

from compressor.distill.features.layers import layer_pairs_of, taps_of
from compressor.distill.loop import engine
from compressor.distill.loop.learner import Learner, bind_losses
from compressor.distill.loop.shares import shares_of, weighed
from compressor.distill.teacher.codec import Codec
from compressor.distill.teacher.sources import Online
from compressor.errors import KdcError
from compressor.losses.features import hidden_states
from compressor.losses.logits import kd
from compressor.losses.tokens import masked_lm
from compressor.progress import Silent
from compressor.schema.recipe import Recipe
from compressor.tasks.base import BatchModel
from tests.toy_task import TOKENS
from tests.toy_transformer import encoder_of

LOSSES: list[dict[str, Any]] = [
    {"name": "kd", "temperature": 1.0},
    {"name": "hidden_states"},
    {"name": "hint", "at": [["stage1", "stage2"]]},
    {"name": "attention_scores"},
    {"name": "attention_maps"},
    {"name": "relations", "relation_heads": 8},
    {"name": "token_kd"},
    {"name": "masked_lm"},
]
LENGTHS = (9, 2, 5, 4, 1, 7, 3, 8)


def batch_of(lengths: tuple[int, ...], *, longest: int | None = None, first: int = 0) -> dict[str, Tensor]:
    """Texts of these lengths; what a text is depends on its number, and not on what it is batched with."""
    longest = longest or max(lengths)
    numbers = torch.arange(first, first + len(lengths))
    ids = (7 * numbers[:, None] + 5 * torch.arange(longest) ** 2) % TOKENS
    mask = (torch.arange(longest) < torch.tensor(lengths)[:, None]).long()
    hidden = (ids + torch.arange(longest)) % 3 == 0
    return {
        "student/ids": ids * mask, "student/kinds": ids * 0, "student/mask": mask, "labels": numbers % 3,
        "index": numbers, "token_labels": torch.where(hidden, ids, -100),
    }  # fmt: skip


def learner_of(losses: list[dict[str, Any]] = LOSSES, **changes: Any) -> tuple[Learner, Online, Recipe]:
    recipe = Recipe.model_validate({"schema": 1, "losses": losses, "optimizer": {"clip_norm": None}, **changes})
    student, teacher = encoder_of(16, 2), encoder_of(32, 4, seed=1)
    terms = bind_losses(recipe, has_teacher=True)
    sides, _ = layer_pairs_of(terms, student, teacher, classes=3, samples=20)
    own, others = taps_of(sides, student, teacher)
    torch.manual_seed(3)
    learner = Learner(BatchModel(student.network, "student", own, "mask"), terms, layers=sides)
    asked = BatchModel(teacher.network, "student", others, "mask").eval().requires_grad_(False)
    return learner.double(), Online(asked.double(), Codec(3)), recipe


def test_one_projector_serves_all_layers_and_the_embedding_and_is_not_the_students() -> None:
    """TinyBERT's fit_dense lies in the student's own state, and ships with it."""
    learner, _, _ = learner_of()
    of_projector = dict(learner.connectors["hidden_states"].named_parameters())
    assert [tuple(p.shape) for p in of_projector.values()] == [(32, 16), (32,)]
    assert learner.student.state_dict().keys() == {f"network.{name}" for name in encoder_of(16, 2).network.state_dict()}


def test_every_loss_of_a_batch_is_the_function_of_what_the_networks_show() -> None:
    learner, teacher, _ = learner_of()
    batch = batch_of(LENGTHS)
    answers = teacher.answers(batch, 0)
    losses = learner(batch, answers)
    ours = learner.student(batch)
    project = next(iter(learner.connectors["hidden_states"].children()))[0]  # type: ignore[index]
    pairs = [("embedding", "embedding"), ("stage1", "stage2"), ("stage2", "stage4")]
    expected = hidden_states(
        [project(ours.features[name]) for name, _ in pairs], [answers.features[name] for _, name in pairs], ours.mask
    )
    assert torch.allclose(losses["hidden_states"], expected)
    assert torch.allclose(losses["kd"], kd(ours.logits, answers.logits, temperature=1.0))
    assert torch.allclose(losses["masked_lm"], masked_lm(ours.features["vocabulary"], batch["token_labels"], ours.mask))


def test_a_batch_filled_up_further_is_learned_from_alike() -> None:
    """Values and gradients, of all that is trained, through the whole network."""
    learner, teacher, _ = learner_of()
    found = []
    for longest in (max(LENGTHS), 60):
        batch = batch_of(LENGTHS, longest=longest)
        learner.zero_grad()
        losses = learner(batch, teacher.answers(batch, 0))
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        found.append((losses, [p.grad.clone() for p in learner.parameters() if p.grad is not None]))
    (losses, gradients), (more_losses, more_gradients) = found
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(more_losses[name].item(), rel=1e-9), name
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(gradients, more_gradients, strict=True))


def stepped(parts: int, monkeypatch: pytest.MonkeyPatch | None = None) -> tuple[dict[str, float], list[Tensor]]:
    """The losses of a step that is taken in so many parts, each filled up to its own longest, and its gradients."""
    learner, teacher, recipe = learner_of(accumulate=parts)
    size = len(LENGTHS) // parts
    batches = [batch_of(LENGTHS[start : start + size], first=start) for start in range(0, len(LENGTHS), size)]
    if monkeypatch is not None:
        monkeypatch.setattr(engine, "shares_of", lambda counts, accelerator: [{} for _ in counts])
    run = engine.Training(
        learner, learner, teacher, SimpleNamespace(steps_per_epoch=2), recipe,
        AdamW(learner.parameters(), lr=0.0, weight_decay=0.0), None, Accelerator(cpu=True), {}, Path("nowhere"),
        Silent(),
    )  # fmt: skip
    losses = engine._step(run, batches)
    gradients = [p.grad.clone() for p in learner.parameters() if p.grad is not None]
    return {name: loss.item() for name, loss in losses.items()}, gradients


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_a_step_in_parts_of_unequal_lengths_has_the_gradient_of_the_whole_step(parts: int) -> None:
    """Pitfalls, "The denominator of a batch": trl's #6006 and #4719."""
    losses, gradients = stepped(1)
    in_parts, of_parts = stepped(parts)
    assert in_parts == pytest.approx(losses, rel=1e-9)
    assert len(gradients) == len(of_parts)
    assert all(torch.allclose(a, b, atol=1e-11) for a, b in zip(gradients, of_parts, strict=True))


def test_without_shares_it_would_have_another(monkeypatch: pytest.MonkeyPatch) -> None:
    losses, gradients = stepped(1)
    in_parts, of_parts = stepped(4, monkeypatch)
    assert in_parts["kd"] == pytest.approx(losses["kd"], rel=1e-9), (
        "a mean over samples, of which each part has as many"
    )
    for name in losses.keys() - {"kd"}:
        assert in_parts[name] != pytest.approx(losses[name], rel=1e-3), name
    assert not all(torch.allclose(a, b, atol=1e-4) for a, b in zip(gradients, of_parts, strict=True))


class Team:
    """An accelerator of two processes, of which the other counted `others`."""

    num_processes = 2

    def __init__(self, others: Tensor) -> None:
        self.others = others

    def reduce(self, values: Tensor, how: str) -> Tensor:
        assert how == "sum"
        return values + self.others


def test_shares_go_by_the_step_of_all_processes() -> None:
    counts = [{"a": torch.tensor(3.0), "b": torch.tensor(0.0)}, {"a": torch.tensor(5.0), "b": torch.tensor(2.0)}]
    shares = shares_of(counts, Team(torch.tensor([8.0, 0.0])))
    assert [{name: value.item() for name, value in part.items()} for part in shares] == [
        {"a": 3 * 4 / 16, "b": 0.0}, {"a": 5 * 4 / 16, "b": 2 * 4 / 2},
    ]  # fmt: skip
    nothing = shares_of([{"a": torch.tensor(0.0)}] * 2, Accelerator(cpu=True))
    assert all(part["a"] == 0 for part in nothing)
    loss = weighed({"a": torch.tensor(2.0), "kd": torch.tensor(7.0)}, shares[0])
    assert (loss["a"].item(), loss["kd"].item(), loss["a"].dtype) == (1.5, 7.0, torch.float32)


def test_one_part_of_one_process_is_weighed_by_nothing() -> None:
    learner, _, _ = learner_of()
    counts = learner.counts(batch_of(LENGTHS))
    assert counts.keys() == {row["name"] for row in LOSSES} - {"kd"}
    assert counts["hidden_states"] == sum(LENGTHS)
    assert counts["attention_scores"] == sum(length**2 for length in LENGTHS)
    assert shares_of([counts], Accelerator(cpu=True)) == [{}]


def test_images_have_no_counts() -> None:
    recipe = Recipe.model_validate({"schema": 1, "losses": [{"name": "kd"}]})
    model = BatchModel(torch.nn.Linear(5, 3), "student")
    assert Learner(model, bind_losses(recipe, has_teacher=True)).counts({"student": torch.zeros(2, 5)}) == {}


def test_hidden_tokens_must_be_there() -> None:
    learner, teacher, _ = learner_of()
    batch = batch_of(LENGTHS)
    del batch["token_labels"]
    assert "masked_lm" not in learner.counts(batch)
    with pytest.raises(KdcError, match="masked_lm needs token_labels, and the task's batches hold none"):
        learner(batch, teacher.answers(batch, 0))


def test_other_tokens_than_the_teachers_are_refused() -> None:
    learner, teacher, _ = learner_of()
    batch = batch_of(LENGTHS)
    answers = teacher.answers(batch_of(LENGTHS, longest=12), 0)
    with pytest.raises(KdcError, match="student and teacher have 9 and 12 tokens, which are not the same ones"):
        learner(batch, answers)
