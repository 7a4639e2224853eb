"""What the parts of a step count for: tokens are not spread evenly over them, as samples are."""

from collections.abc import Mapping, Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

__all__ = ["shares_of", "weighed"]


def shares_of(counts: Sequence[Mapping[str, Tensor]], accelerator: Accelerator) -> list[dict[str, Tensor]]:
    """For each part of this process, what its losses are multiplied by, so that their mean over all parts of the step
    is one over its tokens. `counts`: over how many of them each loss of a part is a mean (`Learner.counts`).

    A mean of means would let a token in a part of few weigh more than one in a part of many; the gradient would then
    depend on how the step is cut.
    """
    names = list(counts[0])
    parts = len(counts) * accelerator.num_processes
    if not names or parts == 1:
        return [{} for _ in counts]
    table = torch.stack([torch.stack([part[name] for name in names]) for part in counts])
    whole = table.sum(0)
    if accelerator.num_processes > 1:
        whole = accelerator.reduce(whole, "sum")
    shares = table * parts / whole.clamp_min(1)
    return [dict(zip(names, row.unbind(), strict=True)) for row in shares]


def weighed(losses: Mapping[str, Tensor], shares: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The losses of a part, each times its share, in their own precision."""
    return {
        name: loss * shares[name].to(loss.device, loss.dtype) if name in shares else loss
        for name, loss in losses.items()
    }
