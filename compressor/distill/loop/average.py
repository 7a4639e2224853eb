"""What follows the gradients of every step, at little more than the memory traffic that it needs: the gradients' norm is
clipped, and the weights are averaged."""

import copy
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

__all__ = ["Average", "clip_gradients"]

Slot = tuple[dict[str, Tensor | None], str]


class Average(nn.Module):
    """The exponential moving average of a model's weights and buffers, warmed up: with the decay
    `min(decay, 1 - step^(-2/3))`, so that the first steps do not weigh for ever.

    timm's ModelEmaV3 with `use_warmup`, with the same numbers and the same names on disk; it lists the state of both
    models anew at each step, which takes longer than the average itself. Where a tensor has two names it is averaged
    once.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.module = copy.deepcopy(model).eval()
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
        pairs = [(own[name], other[key]) for (own, name), (other, key) in self._slots]
        averaged = [(ours, theirs) for ours, theirs in pairs if ours.is_floating_point()]
        copied = [(ours, theirs) for ours, theirs in pairs if not ours.is_floating_point()]
        if copied:
            torch._foreach_copy_(*map(list, zip(*copied, strict=True)))
        torch._foreach_lerp_(*map(list, zip(*averaged, strict=True)), weight=1.0 - self.decay_at(step))


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
    gradients: Sequence[Tensor] = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return
    norm = torch.nn.utils.get_total_norm(gradients, foreach=None)
    factor = (most / (norm + 1e-6)).clamp(max=1.0)
    # Multiplying by 1 changes nothing; on a GPU, to ask whether it is 1 would wait for the norm.
    if norm.device.type == "cpu" and factor.item() == 1.0:
        return
    torch._foreach_mul_(list(gradients), factor)
