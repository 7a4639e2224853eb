"""What every step does beside the optimizer: the norm of its gradients is clipped, and the weights are averaged."""

import copy
from collections.abc import Iterable, Mapping
from typing import Any, Generic, TypeVar

import torch
from torch import nn

__all__ = ["Average", "clip_gradients"]

T = TypeVar("T", bound=nn.Module)
Slot = tuple[Mapping[str, Any], str]


class Average(nn.Module, Generic[T]):
    """The exponential moving average of a model's weights and buffers, warmed up: with the decay
    `min(decay, 1 - step^(-2/3))`, so that the first steps do not weigh for ever.

    timm's ModelEmaV3 with `use_warmup`, with the same numbers and the same names on disk; it lists the state of both
    models anew at each step, which takes longer than the average itself. Where a tensor has two names it is averaged
    once.
    """

    def __init__(self, model: T, decay: float) -> None:
        super().__init__()
        self.module: T = copy.deepcopy(model).eval()
        self._decay = decay
        self._slots: list[tuple[Slot, Slot]] | None = None

    def decay_at(self, step: int) -> float:
        """`step`: counted from 0; the average begins as a copy."""
        done = max(0, step - 1)
        return min(1 - (1 + done) ** (-2 / 3), self._decay) if done else 0.0

    @torch.no_grad()
    def update(self, model: nn.Module, step: int) -> None:
        if self._slots is None:
            self._slots = list(zip(_slots(self.module), _slots(model), strict=True))
        # Looked up anew: a model may put another tensor in a place.
        pairs = [(ours[name], theirs[key]) for (ours, name), (theirs, key) in self._slots]
        floats = [(ours, theirs) for ours, theirs in pairs if ours.is_floating_point()]
        others = [(ours, theirs) for ours, theirs in pairs if not ours.is_floating_point()]
        if others:
            torch._foreach_copy_([ours for ours, _ in others], [theirs for _, theirs in others])
        weight = 1.0 - self.decay_at(step)
        torch._foreach_lerp_([ours for ours, _ in floats], [theirs for _, theirs in floats], weight=weight)


def _slots(model: nn.Module) -> list[Slot]:
    """Where each tensor of the model's state lies: one dictionary of a module, and the name in it."""
    slots: list[Slot] = []
    seen: set[int] = set()
    for module in model.modules():
        for tensors, left_out in (
            (module._parameters, ()),
            (module._buffers, module._non_persistent_buffers_set),
        ):
            for name, tensor in tensors.items():
                if tensor is not None and name not in left_out and id(tensor) not in seen:
                    seen.add(id(tensor))
                    slots.append((tensors, name))
    return slots


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], most: float) -> None:
    """Scale all gradients together so that their norm is `most` at the most (Pascanu et al. 2013, arXiv 1211.5063), as
    `torch.nn.utils.clip_grad_norm_` does."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    norm = torch.nn.utils.get_total_norm(gradients)
    factor = (most / (norm + 1e-6)).clamp(max=1.0)
    # Multiplying by 1 changes nothing; on a GPU, to ask whether it is 1 would wait for the norm.
    if norm.device.type == "cpu" and factor.item() == 1.0:
        return
    torch._foreach_mul_(gradients, factor)
