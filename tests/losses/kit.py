"""Inputs for any loss of the table, by the names of its arguments."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from compressor.losses import LOSSES

BATCH, CLASSES, MEMORY = 5, 4, 7
TOKENS, VOCABULARY = 3, 7
SHAPES: dict[str, list[tuple[int, ...]]] = {
    "maps": [(2, 6, 6), (2, 3, 3)],
    "pooled": [(6,)],
    "attention": [(2, TOKENS, TOKENS), (2, TOKENS, TOKENS)],
    "tokens": [(TOKENS, 4), (TOKENS, 5)],
    "scores": [(2, TOKENS, TOKENS), (3, TOKENS, TOKENS)],
    "projections": [(3, TOKENS, 12), (3, TOKENS, 24)],
}


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def given(name: str, batch: int = BATCH, classes: int = CLASSES) -> dict[str, Any]:
    """Random float64 inputs of the loss `name`, in its order; the same at every call."""
    kind = "tokens" if LOSSES[name].tokens and "mask" in LOSSES[name].needs else LOSSES[name].taps
    shapes = SHAPES.get(str(kind), SHAPES["maps"])
    kept = min(2, classes - 1)
    numbers = torch.arange(batch * TOKENS).view(batch, TOKENS)
    fraction = torch.rand(batch, MEMORY, generator=torch.Generator().manual_seed(9))
    everything: dict[str, Any] = {
        "student_logits": 2 * normal(batch, classes, seed=0),
        "teacher_logits": 2 * normal(batch, classes, seed=1),
        "labels": torch.arange(batch) % classes,
        "student_features": [normal(batch, *shape, seed=2 + i) for i, shape in enumerate(shapes)],
        "teacher_features": [normal(batch, *shape, seed=4 + i) for i, shape in enumerate(shapes)],
        "exit_logits": [2 * normal(batch, classes, seed=6), 2 * normal(batch, classes, seed=7)],
        "peer_logits": [2 * normal(batch, classes, seed=6), 2 * normal(batch, classes, seed=7)],
        "student_embeddings": of_length_1(normal(batch, 6, seed=2)),
        "teacher_embeddings": of_length_1(normal(batch, 6, seed=3)),
        "student_memory": of_length_1(normal(MEMORY, 6, seed=4)),
        "teacher_memory": of_length_1(normal(MEMORY, 6, seed=5)),
        "negatives": fraction < 0.7,
        "student_token_logits": 2 * normal(batch, TOKENS, VOCABULARY, seed=0),
        "teacher_token_logits": 2 * normal(batch, TOKENS, VOCABULARY, seed=1),
        "token_labels": torch.where(numbers % 3 == 1, -100, numbers % VOCABULARY),
        "teacher_top": torch.arange(kept) + torch.arange(batch)[:, None] % (classes - kept),
        "teacher_log_probabilities": (2 * normal(batch, kept + 1, seed=1)).log_softmax(-1),
        "student_groups": torch.arange(batch),
        "teacher_groups": torch.arange(batch),
        "teacher_labels": torch.arange(batch) % classes,
        "teacher_token_of": torch.arange(classes),
        "mask": torch.arange(TOKENS) < TOKENS - torch.arange(batch)[:, None] % TOKENS,
    }
    return {need: everything[need] for need in LOSSES[name].needs}


def of_length_1(rows: Tensor) -> Tensor:
    return torch.nn.functional.normalize(rows, dim=-1)


def agreeing(name: str) -> dict[str, Any]:
    """The inputs of the loss `name`, with a teacher (and peers) that says what the student says."""
    inputs = given(name)
    ours = next(value for key, value in inputs.items() if key.startswith("student"))
    if "teacher_top" in inputs:
        log_p = ours.log_softmax(-1)
        kept = log_p.gather(-1, inputs["teacher_top"])
        others = log_p.scatter(-1, inputs["teacher_top"], -torch.inf).logsumexp(-1, keepdim=True)
        return inputs | {"teacher_log_probabilities": torch.cat([kept, others], -1)}
    floats = [key for key, value in inputs.items() if tensors(value)[0].is_floating_point()]
    sides = [key for key in floats if key.startswith(("student", "teacher")) and not key.endswith("memory")]
    peers = {"peer_logits": [ours, ours]} if "peer_logits" in inputs else {}
    return inputs | dict.fromkeys(sides, ours) | peers


def learns(name: str) -> list[str]:
    """The arguments that a loss is to pass a gradient to."""
    needs = LOSSES[name].needs
    if "exit_logits" in needs:  # the student's own logits are what they learn from
        return ["exit_logits"]
    return [need for need in needs if need.startswith("student") and not need.endswith(("memory", "groups"))]


def tensors(values: Any) -> list[Tensor]:
    return list(values) if isinstance(values, list) else [values]


def mapped(
    inputs: dict[str, Any],
    change: Callable[[Tensor], Tensor],
    only: Callable[[str, Tensor], bool] = lambda key, tensor: True,
) -> dict[str, Any]:
    """The inputs with `change` made to every tensor, or to those that `only` holds for."""

    def one(key: str, tensor: Tensor) -> Tensor:
        return change(tensor) if only(key, tensor) else tensor

    return {
        key: [one(key, tensor) for tensor in value] if isinstance(value, list) else one(key, value)
        for key, value in inputs.items()
    }


def is_float(key: str, tensor: Tensor) -> bool:
    return tensor.is_floating_point()


def gradients(name: str, inputs: dict[str, Any], **parameters: float) -> tuple[Tensor, list[Tensor]]:
    """The loss, and its gradients at the arguments that learn."""
    wanted = learns(name)
    leaves = mapped(inputs, lambda t: t.detach().clone().requires_grad_(), lambda key, tensor: key in wanted)
    loss = LOSSES[name].function(*leaves.values(), **parameters)
    learned = [tensor for key in wanted for tensor in tensors(leaves[key])]
    found = torch.autograd.grad(loss, learned, allow_unused=True)
    return loss.detach(), [torch.zeros_like(t) if g is None else g for g, t in zip(found, learned, strict=True)]
