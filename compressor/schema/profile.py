"""Profile: a device as data, its facts with their sources, the runtimes to build for, and the budget to hold."""

from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from compressor.schema.base import Noun
from compressor.terminal.printable import in_short

__all__ = ["CLASS_LINES", "Budget", "Device", "Fact", "Fingerprint", "Profile", "Target"]

T = TypeVar("T")
Positive = Annotated[float, Field(gt=0, le=1e9)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=4096)]


POSSIBLE = (
    ("cores", 1, 4096),
    ("memory_gb", 0.001, 1e6),
    ("bandwidth_gbs", 0.001, 1e6),
    ("dense_int8_tops", 0.001, 1e6),
    ("sm", 10, 999),
)
"""Facts of a device beyond which they are slips."""


class Fact(Noun, Generic[T]):
    """One fact about a device, and where it was read: a vendor's page, or "measured" / "derived: …"."""

    value: T
    source: Annotated[str, Field(min_length=1)]


class Device(Noun):
    """What the device is. Memory in GiB, bandwidth in GB/s, int8 throughput in dense (not sparse) TOPS. `sm`: the
    compute capability of its NVIDIA GPU × 10, which engines are built for."""

    kind: Literal["mobile-cpu", "jetson", "x86", "gpu"]
    cpu: Fact[str]
    isa: Fact[tuple[str, ...]]
    cores: Fact[int]
    memory_gb: Fact[float] | None = None
    bandwidth_gbs: Fact[float] | None = None
    power_mode: Fact[str] | None = None
    dense_int8_tops: Fact[float] | None = None
    sm: Fact[int] | None = None

    @model_validator(mode="after")
    def _possible(self) -> "Device":
        for name, low, high in POSSIBLE:
            fact = getattr(self, name)
            if fact is not None and not low <= fact.value <= high:
                raise ValueError(f"{name} must be from {low:,g} to {high:,g}, found {in_short(fact.value)}")
        return self


class Target(Noun):
    """A runtime, and the precisions in which a model may run there."""

    runtime: str
    precisions: Annotated[tuple[str, ...], Field(min_length=1)]


class Budget(Noun):
    """What an artefact may cost and must keep. A line that is not given is not judged, but for the last three, which
    have a default (`class_lines`); null switches any off.

    p50_ms, p90_ms: latency of one call, wall time, milliseconds. size_mb: the artefact's files, MB (10^6 bytes).
    peak_rss_mb: resident memory of the runner's process at its peak, MB: all of it, Python and what the runtime brings
    along included. model_rss_mb: how far that lies above what the process held before it loaded the model, for devices
    where the model runs without Python. min_speedup: the teacher's p50 / this p50, and max_slowdown: this p50 / the p50
    of the same variant of the baseline, from paired blocks, so that they can be judged on any machine. min_retention:
    accuracy / the teacher's accuracy. min_accuracy: top-1.

    min_balanced_retention: mean recall over the classes / the teacher's. min_class_retention: in every class, recall /
    the teacher's. min_class_recall: in every class, recall. The last two say whether a class is lost, which few samples
    can show: `statistics.judge_classes`.
    """

    p50_ms: Positive | None = None
    p90_ms: Positive | None = None
    size_mb: Positive | None = None
    peak_rss_mb: Positive | None = None
    model_rss_mb: Positive | None = None
    min_speedup: Positive | None = None
    max_slowdown: Positive | None = None
    min_retention: Annotated[float, Field(gt=0, le=2)] | None = None
    min_accuracy: Share | None = None
    min_balanced_retention: Annotated[float, Field(gt=0, le=2)] | None = None
    min_class_retention: Share | None = None
    min_class_recall: Share | None = None

    @model_serializer(mode="wrap")
    def _as_given(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Only what was given: a line that was left out has its default, and null has none."""
        values: dict[str, object] = write(self)
        return {name: value for name, value in values.items() if name in self.model_fields_set}

    def class_lines(self, *, against_teacher: bool) -> dict[str, float]:
        """The lines on classes that are judged: those that were given, and the defaults of the others. Without a
        teacher's answers (`against_teacher` False), a class can only be held to a recall.

        By default the balanced retention is at least 0.7 and that of each class 0.5, neither more than min_retention;
        and, where there is no teacher, each class's recall is at least 0.1. Chosen so that a lost class fails and a
        sound student passes on small test sets: `benchmarks/class_lines.py`.
        """
        most = 1.0 if self.min_retention is None else self.min_retention
        defaults = {"min_balanced_retention": min(0.7, most), "min_class_retention": min(0.5, most)}
        lines = defaults if against_teacher else {"min_class_recall": 0.1}
        given = {name: getattr(self, name) for name in CLASS_LINES if name in self.model_fields_set}
        lines = {**lines, **given}
        return {name: lines[name] for name in CLASS_LINES if lines.get(name) is not None}


CLASS_LINES = ("min_balanced_retention", "min_class_retention", "min_class_recall")


class Fingerprint(Noun):
    """How to tell that a machine IS this device. `cpu` is matched as a substring of the machine's CPU model, `isa` as
    a set of flags that the machine must have, `gpu` as substrings of which the name of one of its GPUs must have one;
    what is not given is not compared."""

    arch: str
    cpu: str | None = None
    isa: tuple[str, ...] = ()
    cores: Count | None = None
    gpu: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _says_something(self) -> "Fingerprint":
        if self.cpu is None and not self.isa and not self.gpu:
            raise ValueError("needs cpu, isa or gpu, since the architecture alone does not tell a device")
        return self


class Profile(Noun):
    """A device, what to build for it and what it must hold. `batch` images a call, `threads` of the runtime,
    `input_size` in pixels (the default for students trained for this profile), ONNX `opset` of the exports. `max_drop`:
    share of accuracy that a lower precision may lose against the student in fp32, on validation; of balanced accuracy
    too (`statistics.keeps`)."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
    device: Device
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    threads: Count
    batch: Count = 1
    input_size: Annotated[int, Field(ge=8, le=4096)] = 224
    opset: Annotated[int, Field(ge=17, le=23)] = 18
    max_drop: Annotated[float, Field(ge=0, lt=1)] = 0.005
    budget: Budget = Budget()
    fingerprint: Fingerprint
    notes: str = ""

    @model_validator(mode="after")
    def _runtimes_once(self) -> "Profile":
        names = [target.runtime for target in self.targets]
        if len(set(names)) != len(names):
            raise ValueError("names the same runtime twice in targets; list all its precisions in one row")
        return self

    def asks_for(self, precision: str) -> bool:
        """Whether a model may run in `precision` on any of the targets."""
        return any(precision in target.precisions for target in self.targets)
