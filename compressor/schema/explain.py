"""Why slow, why lost: what `--explain` leaves in a bundle, and what the report makes of it.

measurements/NAME.layers.json   LayerTimes: the layers of a variant, timed by its runtime's own profiler
explain/NAME.json               Explanation: a variant's layers in the exported graph, and what int8 costs each of them
"""

import re
from typing import Annotated

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.estimate import Estimate

__all__ = [
    "Explained",
    "Explanation",
    "GraphLayer",
    "LayerError",
    "LayerTimes",
    "LostLayer",
    "LostVariant",
    "NodeTimes",
    "Quartiles",
    "TimedLayer",
    "TimedVariant",
]

BEFORE, BEHIND = r"(?<![\w./])", r"(?![0-9A-Za-z.]|_[0-9])"
"""What may not stand around a name within another: conv2d is neither conv2d_1 nor node_conv2d, but conv2d_nchwc."""
Times = Annotated[tuple[float, ...], Field(max_length=10_000)]


class NodeTimes(Noun):
    """One node of what a runtime runs, after all its fusing. `name`, `op`, `kernel`: the runtime's own words;
    `precision`: of the data that it reads, null where the runtime does not tell; `layers`: the names in the model's
    file of what it was made of, where the runtime tells. `us`: microseconds a call, of each sample."""

    name: str
    op: str
    kernel: str = ""
    precision: str | None = None
    layers: tuple[str, ...] = ()
    us: Times


class LayerTimes(Noun):
    """A model under its runtime's profiler, in a run of its own. `profiler`: where the times come from; `calls_ms`: of
    whole calls, slower than without a profiler. A sample is a call, or the mean of `each` calls."""

    profiler: str
    each: Annotated[int, Field(ge=1)] = 1
    calls_ms: Times
    nodes: tuple[NodeTimes, ...]


class GraphLayer(Noun):
    """One node of the graph that torch's exporter wrote. `output`: the tensor that it makes; `reads`: those that other
    nodes make; `module`: of the student, "blocks.0.conv", null where the graph has not kept it."""

    name: str
    op: str
    output: str
    reads: tuple[str, ...] = ()
    module: str | None = None


class LayerError(Noun):
    """What one layer gives in float and in int8, as the next layers read it: behind its rounding, where it is rounded.
    `reads`: the compared layers before it. `signal`, `noise`: sums of x² and of (x − x̂)² over its output, a value a
    call. A model's input counts as a layer."""

    name: str
    op: str
    reads: tuple[str, ...] = ()
    signal: Times
    noise: Times


class Explanation(Noun):
    """Of one variant. `graph`: the layers of the float graph that it was made from. `errors`: of an int8 variant;
    `against`: what in float it is compared with, on `n` samples of `split`, `batch` a call; `missing`: why there are
    none."""

    variant: str
    graph: tuple[GraphLayer, ...]
    against: str = ""
    split: str = ""
    n: int = 0
    batch: int = 1
    errors: tuple[LayerError, ...] = ()
    missing: str | None = None

    def traced(self, name: str) -> GraphLayer | None:
        """The layer that a runtime's name leads back to: its node's or its tensor's, whatever the runtime has put
        around it ("fused node_conv2d", "conv2d_nchwc"); of several the longest. None where it leads nowhere."""
        names = {part: layer for layer in self.graph for part in (layer.output, layer.name) if part}
        if name in names:
            return names[name]
        parts = [part for part in names if part in name and re.search(BEFORE + re.escape(part) + BEHIND, name)]
        return names[max(parts, key=len)] if parts else None


class Quartiles(Noun):
    """The middle of n values, and the quarters below and above it."""

    lower: float
    median: float
    upper: float
    n: int


class TimedLayer(Noun):
    """One node, timed. `share` of the time of all nodes, by medians; `us`: over the calls. `modules`: of the student,
    where its name leads back to them; `fused`: the layers of the model's file that it was made of, where several are
    known. `among_int8`: it computes in float between two that compute in int8."""

    name: str
    op: str
    kernel: str
    precision: str | None
    modules: tuple[str, ...]
    fused: tuple[str, ...]
    among_int8: bool
    share: float
    us: Quartiles


class TimedVariant(Noun):
    """Where the time of a variant goes. `layers`: the slowest of `of`; `nodes_ms`: all of them added up a call;
    `calls_ms`: of whole profiled calls, beside which `p50_ms` is what was measured without a profiler. Of as many
    samples as they have, each the mean of `each` calls. `missing`: why there is nothing."""

    variant: str
    profiler: str = ""
    each: int = 1
    of: int = 0
    nodes_ms: Quartiles | None = None
    calls_ms: Quartiles | None = None
    p50_ms: Estimate | None = None
    layers: tuple[TimedLayer, ...] = ()
    missing: str | None = None


class LostLayer(Noun):
    """What int8 costs one layer. `sqnr_db`: 10·log10(Σx² / Σ(x − x̂)²), all samples together; null: no difference.
    `before_db`: the lowest of the layers that it reads; null: none of them differs. `lost_db`: how far it falls short
    of that, or of what 8 bits can give at best. `calls_db`: of single calls."""

    name: str
    op: str
    module: str | None
    sqnr_db: float | None
    before_db: float | None
    lost_db: float
    calls_db: Quartiles | None


class LostVariant(Noun):
    """Where an int8 variant loses. `layers`: those of the lowest SQNR, of `of` that were compared; `most`: the layer
    that loses most of what it reads; `silent`: layers that give nothing but zeros in float, which are left out."""

    variant: str
    against: str = ""
    split: str = ""
    n: int = 0
    of: int = 0
    silent: int = 0
    most: LostLayer | None = None
    layers: tuple[LostLayer, ...] = ()
    missing: str | None = None


class Explained(Noun):
    """Why slow and why lost, as far as it was asked for (`--explain`)."""

    timed: tuple[TimedVariant, ...]
    lost: tuple[LostVariant, ...]
