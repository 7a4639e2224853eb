"""Profile: a device as data, its facts with their sources, the runtimes to build for, and the budget to hold."""

from collections.abc import Iterator
from typing import Annotated, Generic, Literal, TypeVar

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from compressor.schema.base import Noun
from compressor.schema.measurement import Machine
from compressor.schema.provenance import LicenceRule
from compressor.terminal.printable import in_short

__all__ = ["CLASS_LINES", "Budget", "Device", "Fact", "Fingerprint", "Generation", "Profile", "Target"]

T = TypeVar("T")
Positive = Annotated[float, Field(gt=0, le=1e9)]
Share = Annotated[float, Field(gt=0, le=1)]
Count = Annotated[int, Field(ge=1, le=4096)]


POSSIBLE = (
    ("cores", 1, 4096),
    ("memory_gb", 0.001, 1e6),
    ("bandwidth_gbs", 0.001, 1e6),
    ("dense_int8_tops", 0.001, 1e6),
    ("layer_overhead_us", 0.001, 1e5),
    ("sm", 10, 999),
)
"""Facts of a device beyond which they are slips."""

ARCHITECTURES = {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}
"""Other names of an architecture."""


class Fact(Noun, Generic[T]):
    """One fact about a device, and where it was read: a vendor's page, or "measured" / "derived: …"."""

    value: T
    """The fact."""
    source: Annotated[str, Field(min_length=1)]
    """Where it was read."""


class Device(Noun):
    """What the device is, as facts with their sources."""

    kind: Literal["mobile-cpu", "jetson", "x86", "gpu"]
    """What kind of machine it is."""
    cpu: Fact[str]
    """Its name, as people say it."""
    isa: Fact[tuple[str, ...]]
    """Instruction set flags, as Linux names them."""
    cores: Fact[int]
    """Number of cores."""
    memory_gb: Fact[float] | None = None
    """GiB."""
    bandwidth_gbs: Fact[float] | None = None
    """Memory bandwidth, GB/s."""
    core_gflops: Fact[dict[Literal["fp32", "fp16", "bf16", "int8"], float]] | None = None
    """By precision, what one core computes at most, GFLOP/s: a multiply-accumulate is two."""
    layer_overhead_us: Fact[float] | None = None
    """What a runtime takes for a layer that computes next to nothing, µs."""
    power_mode: Fact[str] | None = None
    """The mode that the other facts hold for."""
    dense_int8_tops: Fact[float] | None = None
    """int8 throughput, dense (not sparse) TOPS."""
    sm: Fact[int] | None = None
    """Compute capability of its NVIDIA GPU × 10, which engines are built for."""

    @model_validator(mode="after")
    def _possible(self) -> "Device":
        for name, low, high in POSSIBLE:
            fact = getattr(self, name)
            if fact is not None and not low <= fact.value <= high:
                raise ValueError(f"{name} must be from {low:,g} to {high:,g}, found {in_short(fact.value)}")
        for precision, peak in self.core_gflops.value.items() if self.core_gflops else ():
            if not 0.001 <= peak <= 1e6:
                raise ValueError(f"core_gflops.{precision} must be from 0.001 to 1,000,000, found {in_short(peak)}")
        return self


class Target(Noun):
    """A runtime, and the precisions in which a model may run there."""

    runtime: str
    """A runtime of `kdc doctor`."""
    precisions: Annotated[tuple[str, ...], Field(min_length=1)]
    """Precisions of that runtime."""


class Budget(Noun):
    """What an artefact may cost and must keep. A line that is not given is not judged, but for the lines on classes and
    `max_accuracy_loss`, which have a default (`class_lines`, `accuracy_loss`); null switches any off. The ratios of
    latencies come from paired blocks, so that they can be judged on any machine. `min_class_retention` and
    `min_class_recall` say whether a class is lost, which few samples can show (`stats.judge_classes`)."""

    p50_ms: Positive | None = None
    """Median latency of one call, wall time, ms."""
    p90_ms: Positive | None = None
    """Likewise, the 90th percentile."""
    size_mb: Positive | None = None
    """The artefact's files, MB (10^6 bytes)."""
    peak_rss_mb: Positive | None = None
    """Resident memory of the runner's process at its peak, MB: all of it, Python and what the runtime brings along
    included."""
    model_rss_mb: Positive | None = None
    """How far that lies above what the process held before it loaded the model, for devices where the model runs
    without Python."""
    min_speedup: Positive | None = None
    """The teacher's p50 / this p50."""
    max_slowdown: Positive | None = None
    """This p50 / the p50 of the same variant of the baseline."""
    max_growth: Positive | None = None
    """The size of this artefact's files / that of the same variant of the baseline."""
    max_accuracy_loss: Annotated[float, Field(ge=0, lt=1)] | None = None
    """The baseline's accuracy - this one's, 0.01 for a point, paired on the test samples that both have; and no class
    may keep less than half of the recall that the baseline had."""
    max_negative_flips: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of these samples that the baseline had right and this one has wrong."""
    min_retention: Annotated[float, Field(gt=0, le=2)] | None = None
    """Accuracy / the teacher's accuracy; of a language model, the teacher's bits a byte / its own."""
    min_accuracy: Share | None = None
    """Top-1."""
    min_balanced_accuracy: Share | None = None
    """Mean recall over the classes."""
    min_balanced_retention: Annotated[float, Field(gt=0, le=2)] | None = None
    """Mean recall over the classes / the teacher's."""
    min_class_retention: Share | None = None
    """In every class, recall / the teacher's."""
    min_class_recall: Share | None = None
    """In every class, recall."""
    min_tokens_per_s: Positive | None = None
    """Of a language model, tokens of an answer a second, from its second token on."""
    min_prompt_tokens_per_s: Positive | None = None
    """Of a language model, tokens of a prompt a second, until the answer's first token is there."""

    @model_serializer(mode="wrap")
    def _as_given(self, write: SerializerFunctionWrapHandler) -> dict[str, object]:
        """Only what was given: a line that was left out has its default, and null has none."""
        values: dict[str, object] = write(self)
        return {name: value for name, value in values.items() if name in self.model_fields_set}

    def accuracy_loss(self) -> float | None:
        """What may be lost against a baseline, where there is one: what was given, or one point; None if null was."""
        return self.max_accuracy_loss if "max_accuracy_loss" in self.model_fields_set else ACCURACY_LOSS

    @property
    def of_generation(self) -> tuple[str, ...]:
        """The lines that are given and for language models alone."""
        return tuple(name for name in GENERATION_LINES if getattr(self, name) is not None)

    @property
    def of_classifiers(self) -> tuple[str, ...]:
        """The lines that are given and not for language models."""
        named = sorted(self.model_fields_set - set(LANGUAGE_LINES))
        return tuple(name for name in named if getattr(self, name) is not None)

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


ACCURACY_LOSS = 0.01
"""What may be lost against a baseline where the profile does not say."""

GENERATION_LINES = ("min_tokens_per_s", "min_prompt_tokens_per_s")
LANGUAGE_LINES = ("size_mb", "peak_rss_mb", "model_rss_mb", "min_retention", *GENERATION_LINES)
"""What language models are held to."""

CLASS_LINES = ("min_balanced_retention", "min_class_retention", "min_class_recall")


class Generation(Noun):
    """How language models generate where they are measured."""

    prompt_tokens: Count = 128
    """Tokens of a prompt."""
    new_tokens: Annotated[int, Field(ge=2, le=4096)] = 64
    """Tokens of an answer, all of which are generated."""
    precisions: tuple[Literal["fp32", "int8", "int4"], ...] = ()
    """Of the weights; none named: those of the targets."""


class Fingerprint(Noun):
    """How to tell that a machine IS this device. What is not given is not compared."""

    arch: str
    """As `uname -m` prints it."""
    cpu: str | None = None
    """A part of the name of the machine's CPU."""
    isa: tuple[str, ...] = ()
    """Flags that the machine must have."""
    cores: Count | None = None
    """Its number of cores."""
    gpu: tuple[str, ...] = ()
    """Parts of names, of which the name of one of its GPUs must have one."""

    @model_validator(mode="after")
    def _says_something(self) -> "Fingerprint":
        if self.cpu is None and not self.isa and not self.gpu:
            raise ValueError("needs cpu, isa or gpu, since the architecture alone does not tell a device")
        return self


class Profile(Noun):
    """A device, what to build for it and what it must hold."""

    schema_: Annotated[Literal[1], Field(alias="schema")]
    """The version of this noun."""
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)]
    """The file's name, without `.yaml`."""
    device: Device
    """What it is."""
    targets: Annotated[tuple[Target, ...], Field(min_length=1)]
    """What to build."""
    threads: Count
    """Threads of the runtime."""
    batch: Count = 1
    """Samples a call."""
    input_size: Annotated[int, Field(ge=8, le=4096)] = 224
    """Height and width in pixels, the default for students trained for this profile."""
    sequence_length: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Tokens of a text whose latency is measured; null, and where a model reads fewer: the most that it reads."""
    generation: Generation = Generation()
    """Of language models."""
    opset: Annotated[int, Field(ge=17, le=23)] = 18
    """ONNX opset of the exports."""
    max_drop: Annotated[float, Field(ge=0, lt=1)] = 0.005
    """Share of accuracy that a lower precision may lose against the student in fp32, on validation; of balanced
    accuracy too (`stats.keeps`). Of language models: the share that bits a byte may rise."""
    budget: Budget = Budget()
    """What it must hold."""
    licence: LicenceRule = LicenceRule()
    """Which licences teachers, and the weights that a student begins with, may be under, as in a recipe."""
    fingerprint: Fingerprint
    """Where milliseconds count."""
    notes: str = ""
    """For people."""

    @model_validator(mode="after")
    def _runtimes_once(self) -> "Profile":
        names = [target.runtime for target in self.targets]
        if len(set(names)) != len(names):
            raise ValueError("names the same runtime twice in targets; list all its precisions in one row")
        return self

    def asks_for(self, precision: str) -> bool:
        """Whether a model may run in `precision` on any of the targets."""
        return any(precision in target.precisions for target in self.targets)

    def differences(self, machine: Machine) -> Iterator[str]:
        """What makes `machine` another one than this device, a line each."""
        expected, arch = self.fingerprint, machine.arch.lower()
        if ARCHITECTURES.get(arch, arch) != ARCHITECTURES.get(expected.arch.lower(), expected.arch.lower()):
            yield f"arch is {machine.arch}, the profile's {expected.arch}"
        if expected.cpu is not None and expected.cpu.lower() not in machine.cpu.lower():
            yield f"cpu is {machine.cpu}, the profile's {expected.cpu}"
        lacking = sorted({flag.lower() for flag in expected.isa} - {flag.lower() for flag in machine.isa})
        if lacking:
            yield f"isa lacks {', '.join(lacking)}"
        if expected.cores is not None and machine.cores != expected.cores:
            yield f"cores are {machine.cores}, the profile's {expected.cores}"
        if expected.gpu and not any(part.lower() in name.lower() for part in expected.gpu for name in machine.gpus):
            yield f"gpu is {', '.join(machine.gpus) or 'none'}, the profile's {' or '.join(expected.gpu)}"
        mode = self.device.power_mode.value if self.device.power_mode is not None else None
        if mode is not None and machine.power_mode is not None and mode.lower() != machine.power_mode.lower():
            yield f"the power mode is {machine.power_mode}, the profile's {mode}"
        if machine.usable_cores < self.threads:
            yield f"usable cores are {machine.usable_cores}, fewer than the profile's {self.threads} threads"
