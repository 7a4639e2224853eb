"""What a network does, found by one forward pass: which operation makes which value, and which ones take it.

Folding and quantization go by this flow of values and not by the names of modules, which every author chooses anew.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from compressor.modes import evaluating

__all__ = ["INPUT", "Step", "Trace", "trace"]

INPUT = 0
"""The number of the value that a network takes."""


@dataclass(frozen=True)
class Step:
    """One operation, `inputs` -> `outputs` (numbers of values). `op`: the name that ATen gives it, or "layer" for a
    whole module at the path `layer`. `clip`: the bounds (low, high), for an operation that does nothing but clip."""

    op: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    layer: str = ""
    clip: tuple[float, float] | None = None


@dataclass
class Trace:
    """The steps of a forward pass in order. `shapes`: of every value. A value that an operation overwrites in place
    has a new number from then on. INPUT is the network's input; other values that no step makes are parameters and
    constants."""

    steps: list[Step] = field(default_factory=list)
    shapes: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def users(self, value: int) -> list[Step]:
        return [step for step in self.steps if value in step.inputs]


def trace(network: nn.Module, example: Sequence[Tensor], kinds: tuple[type[nn.Module], ...]) -> Trace:
    """One forward pass of `network` in evaluation mode on `example`, its inputs. Modules of `kinds` are one step each,
    whatever they do inside."""
    recorder = _Recorder()
    assert recorder.number(example[0]) == INPUT
    with recorder.hooked(network, kinds), evaluating(network), recorder:
        network(*example)
    return recorder.trace


class _Recorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.trace = Trace()
        self._numbers: dict[int, int] = {}
        self._alive: list[Tensor] = []  # a freed tensor's id would be given to another one
        self._inside: list[int] = []  # the input of the module that is running, if one is

    def number(self, tensor: Tensor) -> int:
        return self._numbers[id(tensor)] if id(tensor) in self._numbers else self._new(tensor)

    def _new(self, tensor: Tensor) -> int:
        number = len(self._alive)
        self._alive.append(tensor)
        self._numbers[id(tensor)] = number
        self.trace.shapes[number] = tuple(tensor.shape)
        return number

    def _record(self, op: str, inputs: list[int], outputs: list[Tensor], layer: str = "", clip: Any = None) -> None:
        made = tuple(self._new(tensor) for tensor in outputs)
        self.trace.steps.append(Step(op, tuple(inputs), made, layer, clip))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if self._inside:
            return func(*args, **kwargs)
        inputs = [self.number(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        answer = func(*args, **kwargs)
        outputs = [leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)]
        op = func.overloadpacket.__name__.removesuffix("_")
        self._record(op, inputs, outputs, clip=_clip(op, args[1:], kwargs))
        return answer

    @contextmanager
    def hooked(self, network: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[None]:
        """Inside, calls of the modules of `kinds` are recorded as steps."""
        handles = []
        for path, module in network.named_modules():
            if isinstance(module, kinds):
                handles.append(module.register_forward_pre_hook(self._enter))
                handles.append(module.register_forward_hook(self._leave(path)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        self._inside.append(self.number(args[0]))

    def _leave(self, path: str) -> Any:
        def leave(module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            self._record("layer", [self._inside.pop()], [output], path)

        return leave


def _clip(op: str, arguments: tuple[Any, ...], named: Mapping[str, Any]) -> tuple[float, float] | None:
    if op == "relu":
        return 0.0, float("inf")
    if op == "hardtanh":  # ReLU6 is one, from 0 to 6
        given = dict(zip(("min_val", "max_val"), arguments, strict=False)) | dict(named)
        return float(given.get("min_val", -1.0)), float(given.get("max_val", 1.0))
    if op in ("clamp", "clamp_min"):
        given = dict(zip(("min", "max"), arguments, strict=False)) | dict(named)
        low, high = given.get("min"), given.get("max")
        if not isinstance(low, Tensor) and not isinstance(high, Tensor):
            return float("-inf") if low is None else float(low), float("inf") if high is None else float(high)
    return None
