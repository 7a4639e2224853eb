"""How long each node of a model takes, as its runtime's own profiler tells it: what a runner answers to `profile`.

A profiler slows down what it watches: shares of the time are what is to be read of it, and no latency.
Standard library only; runs on Python 3.9 and later.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

WARM_CALLS = 3  # before those that count
UNPROFILED = "this runtime has no per-layer profiler"


@dataclass
class Node:
    """One node of what the runtime runs, after all its fusing. `name`, `op`, `kernel`: the runtime's own words;
    `precision`: of the data that it reads; `layers`: the names in the model's file of what it was made of. Both are
    None and empty where the runtime does not tell. `us`: microseconds of each sample."""

    name: str
    op: str
    kernel: str = ""
    precision: str | None = None
    layers: list[str] = field(default_factory=list)
    us: list[float] = field(default_factory=list)

    def took(self, us: float, sample: int) -> None:
        """In `sample`, the last one so far; a node that runs several times in a call is added up."""
        self.us += [0.0] * (sample + 1 - len(self.us))
        self.us[sample] += us


@dataclass
class Profile:
    """`profiler`: where the times come from; `calls_ms`: of each sample, which is a call, or the mean of `each` calls;
    `nodes`: by whatever tells them apart. The first `warm` samples do not count."""

    profiler: str
    warm: int = 0
    each: int = 1
    calls_ms: list[float] = field(default_factory=list)
    nodes: dict[Any, Node] = field(default_factory=dict)

    def told(self) -> dict[str, Any]:
        """What counts of it, as the protocol has it."""
        samples = len(self.calls_ms)
        for node in self.nodes.values():
            node.us += [0.0] * (samples - len(node.us))
        nodes = [{**asdict(node), "us": node.us[self.warm :]} for node in self.nodes.values()]
        return {"profiler": self.profiler, "each": self.each, "calls_ms": self.calls_ms[self.warm :], "nodes": nodes}
