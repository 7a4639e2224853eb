"""Logits that are a row a token, not a row a sample: what the parts of a step weigh, and what a loss is handed."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.optim import AdamW

from compressor.distill.loop import engine
from compressor.distill.loop.learner import Learner, bind_losses
from compressor.errors import KdcError
from compressor.losses import LOSSES
from compressor.progress import Silent
from compressor.schema.recipe import Recipe
from compressor.tasks.base import Batch, BatchModel, Outputs

VOCABULARY = 11
LENGTHS = (9, 2, 5, 4, 1, 7, 3, 8)
ON_ROWS = ["kd", "cross_entropy", "reverse_kl", "jsd", "uld", "aligned_kd"]


class Rows(nn.Module):
    """Answers every position, of which a batch says which are judged."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed, self.head = nn.Embedding(VOCABULARY, 6), nn.Linear(6, VOCABULARY)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(ids))
        return logits


def batch_of(lengths: tuple[int, ...], first: int = 0) -> dict[str, Tensor]:
    numbers = torch.arange(first, first + len(lengths))
    ids = (7 * numbers[:, None] + 5 * torch.arange(max(lengths)) ** 2) % VOCABULARY
    positions = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    labels = ((ids + 1) % VOCABULARY)[positions]
    # Every third token is in no group; else two make one.
    groups = torch.where(torch.arange(len(labels)) % 3 == 2, -1, torch.arange(len(labels)) // 3)
    return {
        "student/ids": ids, "positions": positions, "labels": labels,
        "index": numbers, "student_groups": groups, "teacher_groups": groups, "teacher_labels": labels,
        "teacher_token_of": torch.arange(VOCABULARY),
    }  # fmt: skip


class Asked:
    """A teacher that answers each position, too."""

    def __init__(self) -> None:
        self.network = Rows(seed=1).double().requires_grad_(False)

    def answers(self, batch: Batch, epoch: int) -> Outputs:
        return Outputs(self.network(batch["student/ids"])[batch["positions"]])


def learner_of(losses: list[dict[str, Any]], **changes: Any) -> tuple[Learner, Recipe]:
    recipe = Recipe.model_validate({"schema": 1, "losses": losses, "optimizer": {"clip_norm": None}, **changes})
    peers = [BatchModel(Rows(seed=2), "student")] if changes.get("peers") else []
    learner = Learner(BatchModel(Rows(seed=0), "student"), bind_losses(recipe, has_teacher=True), peers=peers)
    return learner.double(), recipe


def stepped(parts: int, losses: list[dict[str, Any]], **changes: Any) -> tuple[dict[str, float], list[Tensor]]:
    learner, recipe = learner_of(losses, accumulate=parts, **changes)
    size = len(LENGTHS) // parts
    batches = [batch_of(LENGTHS[start : start + size], first=start) for start in range(0, len(LENGTHS), size)]
    run = engine.Training(
        learner, learner, Asked(), SimpleNamespace(steps_per_epoch=2), recipe,  # type: ignore[arg-type]
        AdamW(learner.parameters(), lr=0.0, weight_decay=0.0), None, Accelerator(cpu=True), {}, Path("nowhere"),
        Silent(),
    )  # fmt: skip
    found = engine._step(run, batches)
    return {name: loss.item() for name, loss in found.items()}, [p.grad.clone() for p in learner.parameters()]  # type: ignore[union-attr]


@pytest.mark.parametrize("parts", [2, 4, 8])
@pytest.mark.parametrize("name", ["kd", "cross_entropy", "reverse_kl", "jsd"])
def test_a_step_in_parts_of_unequal_texts_has_the_gradient_of_the_whole(name: str, parts: int) -> None:
    """Pitfalls, "The denominator of a batch": a token weighs the same in every part."""
    losses, gradients = stepped(1, [{"name": name}])
    in_parts, of_parts = stepped(parts, [{"name": name}])
    assert in_parts == pytest.approx(losses, rel=1e-9)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(gradients, of_parts, strict=True))


def test_peers_of_a_step_in_parts_weigh_alike() -> None:
    peers = {"peers": [{"student": "timm:test_resnet"}]}
    recipe: list[dict[str, Any]] = [{"name": "mutual"}, {"name": "kd"}]
    losses, gradients = stepped(1, recipe, **peers)
    in_parts, of_parts = stepped(4, recipe, **peers)
    assert set(losses) == {"mutual", "kd", "peer1 mutual", "peer1 kd"}
    assert in_parts == pytest.approx(losses, rel=1e-9)
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(gradients, of_parts, strict=True))


def test_what_each_loss_is_a_mean_over() -> None:
    learner, _ = learner_of([{"name": name} for name in ON_ROWS])
    batch, tokens = batch_of(LENGTHS), sum(LENGTHS)
    counts = {name: count.item() for name, count in learner.counts(batch).items()}
    groups = len({number for number in batch["student_groups"].tolist() if number >= 0})
    assert counts == {
        **dict.fromkeys(["kd", "cross_entropy", "reverse_kl", "jsd"], tokens),
        "uld": groups,
        "aligned_kd": groups,
    }
    assert not learner.counts(
        {key: value for key, value in batch.items() if "positions" not in key and "groups" not in key}
    )


def test_every_loss_is_the_function_of_what_batch_and_networks_hold() -> None:
    learner, _ = learner_of([{"name": name} for name in ON_ROWS])
    batch, teacher = batch_of(LENGTHS), Asked()
    answers = teacher.answers(batch, 0)
    losses = learner(batch, answers)
    values = {**batch, "student_logits": learner.student(batch).logits, "teacher_logits": answers.logits}
    for name in ON_ROWS:
        expected = LOSSES[name].function(**{need: values[need] for need in LOSSES[name].needs})
        assert torch.equal(losses[name], expected), name
        assert expected > 0, name


def test_what_a_batch_lacks_is_said() -> None:
    learner, _ = learner_of([{"name": "uld"}])
    batch = {key: value for key, value in batch_of(LENGTHS).items() if key != "teacher_labels"}
    with pytest.raises(KdcError, match="uld needs teacher_labels, and the task's batches hold none"):
        learner(batch, Asked().answers(batch, 0))
