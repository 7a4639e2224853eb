"""The one table of losses. Adding a loss is a plain function of tensors and a row here.

A loss names what it needs by its positional arguments (`student_logits`, `teacher_logits`, `labels`), and what a
recipe may set by its keyword arguments.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from compressor.errors import KdcError, did_you_mean
from compressor.losses.logits import cross_entropy, kd

__all__ = ["LOSSES", "Loss", "bind"]


@dataclass(frozen=True)
class Loss:
    """A row: the function, the range permitted for each of its parameters (lowest, highest), where it comes from."""

    function: Callable[..., Tensor]
    ranges: Mapping[str, tuple[float, float]]
    paper: str

    @property
    def needs(self) -> tuple[str, ...]:
        """The tensors that the loss takes, in order."""
        parameters = inspect.signature(self.function).parameters.values()
        return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)


LOSSES: dict[str, Loss] = {
    "kd": Loss(kd, {"temperature": (1e-3, 1e3)}, "Hinton, Vinyals & Dean 2015, arXiv 1503.02531"),
    "cross_entropy": Loss(cross_entropy, {"label_smoothing": (0.0, 0.999)}, "labels; smoothing: arXiv 1512.00567"),
}


def bind(name: str, parameters: Mapping[str, object], where: str) -> tuple[Callable[..., Tensor], tuple[str, ...]]:
    """The loss `name` with its parameters filled in, and the names of the tensors that it takes.

    Raises KdcError for an unknown loss or parameter, or for a value out of its range; `where` begins the message.
    """
    if name not in LOSSES:
        raise KdcError(f"{where}: unknown loss {name}{did_you_mean(name, LOSSES)}; known: {', '.join(LOSSES)}")
    loss = LOSSES[name]
    for key, value in parameters.items():
        if key not in loss.ranges:
            known = ", ".join(loss.ranges)
            raise KdcError(
                f"{where}: loss {name} has no parameter {key}{did_you_mean(key, loss.ranges)}; known: {known}"
            )
        low, high = loss.ranges[key]
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
            raise KdcError(f"{where}: {name}.{key} must be a number from {low:g} to {high:g}, found {value!r}")
    return partial(loss.function, **parameters), loss.needs
