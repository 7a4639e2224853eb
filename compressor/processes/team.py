"""What the processes of one run tell one another. In a run of one process nothing is sent."""

from collections.abc import Iterable
from typing import TypeVar

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import broadcast, broadcast_object_list
from torch import Tensor, nn

from compressor.errors import KdcError, first_line
from compressor.processes.launcher import HINT, check_launcher

__all__ = ["any_of", "as_first", "mean_of", "same_buffers", "team"]

Told = TypeVar("Told")


def team() -> PartialState:
    """This process among those that a launcher (`accelerate launch`, torchrun) started; alone without one. On CPU they
    talk through gloo, which accelerate takes only where it is told that there is no GPU."""
    check_launcher()
    try:
        return PartialState(cpu=not torch.cuda.is_available())
    except (ValueError, RuntimeError) as error:  # a variable that accelerate reads, or partners who do not come
        raise KdcError(f"the processes of this run do not find one another: {first_line(error)}", HINT) from error


def any_of(accelerator: Accelerator, flag: bool) -> bool:
    """Whether `flag` holds in any process: the same answer in all of them."""
    if accelerator.num_processes == 1:
        return flag
    return float(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum")) > 0


def mean_of(accelerator: Accelerator, value: Tensor) -> float:
    """The mean of `value` over the processes, whose batches are of equal size."""
    if accelerator.num_processes == 1:
        return float(value)
    return float(accelerator.reduce(value.clone(), "mean"))


def same_buffers(accelerator: Accelerator, models: Iterable[nn.Module]) -> None:
    """Give all processes the batch statistics of the first one, which are those that are saved."""
    if accelerator.num_processes == 1:
        return
    for model in models:
        for buffer in model.buffers():
            buffer.copy_(broadcast(buffer.detach().clone()))


def as_first(value: Told) -> Told:
    """What the first process has for it: the same in all of them."""
    if team().num_processes == 1:
        return value
    said: Told = broadcast_object_list([value])[0]
    return said
