"""Measurement: one session of `runners/bench.py`, BUNDLE/measurements/measurement.json. Raw samples, no summaries."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun

Calls = Annotated[tuple[float, ...], Field(max_length=100_000)]

__all__ = [
    "Block",
    "Contestant",
    "LengthBlock",
    "Machine",
    "Measurement",
    "Preprocessing",
    "Round",
    "Start",
    "Throughput",
    "Window",
]


class Machine(Noun):
    """The machine at one moment; null where the system does not tell.

    Memory in GiB. `usable_cores`: what affinity and the cgroup's quota leave, whole cores. `affinity`: the CPUs that
    may be used. `quota_cores`, `quota_throttled_s`: the cgroup's CPU quota in cores, and for how long it has stopped
    this group so far. `steal_s`: seconds since boot that a hypervisor took away. `mhz`, `max_mhz`: clock of the fastest
    usable core, now and at most. `throttle_count`: thermal throttling events since boot. `throttled`: what the
    firmware says now, in words (Raspberry Pi), empty for nothing. `power_mode`: Jetson's nvpmodel, or the platform
    profile. `gpus`: names.
    """

    arch: str
    system: str
    cpu: str
    isa: tuple[str, ...]
    cores: int
    usable_cores: int
    affinity: tuple[int, ...] | None
    quota_cores: float | None
    quota_throttled_s: float | None
    memory_gb: float
    memory_available_gb: float | None
    python: str
    load_1m: float | None
    steal_s: float | None
    governor: str | None
    mhz: float | None
    max_mhz: float | None
    temperature_c: float | None
    throttle_count: int | None
    throttled: str | None
    power_mode: str | None
    gpus: tuple[str, ...]


class Start(Noun):
    """One fresh process. `start_ms`: from its start to the end of its first inference, Python and the runtime's import
    included (files in the page cache); `load_ms`: loading the model; `first_ms`: the first inference alone."""

    start_ms: float
    load_ms: float
    first_ms: float


class Window(Noun):
    """Inference at full tilt for `seconds`: `calls` that ended within, and the energy that the machine's rails or
    RAPL counted meanwhile (all of the machine, idle share included); null where neither can be read. `tokens`: of a
    call, where samples are made of tokens."""

    seconds: float
    calls: int
    joules: float | None
    tokens: float | None = None


class Throughput(Noun):
    """`streams` inferences at a time, each on `threads` threads."""

    streams: int
    threads: int
    windows: tuple[Window, ...]


class Contestant(Noun):
    """One artefact as its runner ran it. `error`: why it could not run; then the rest is empty.

    `variant`: the bundle's name for it; for the second copy of the reference (A/A) a name of its own, and `copy_of`
    names the variant. `artefact_sha256`: of the files that it read, as Variant.artefact_sha256 says. Resident memory
    in MB (10^6 bytes): before the model was loaded, and the peak (VmHWM) at the end of the latency blocks, before
    throughput and accuracy. `logits`: a float32 [N, classes] .npy file beside the measurement, with its sha256.
    `layers`: a file of LayerTimes beside it, with its sha256, where it was asked for (--explain); `no_layers`: why
    there is none.
    """

    variant: str
    copy_of: str | None = None
    error: str | None = None
    artefact_sha256: str | None = None
    runtime_version: str | None = None
    requested_precision: str
    executed_precision: str | None = None
    threads: int
    starts: tuple[Start, ...] = ()
    idle_rss_mb: float | None = None
    peak_rss_mb: float | None = None
    throughput: tuple[Throughput, ...] = ()
    logits: str | None = None
    logits_sha256: str | None = None
    layers: str | None = None
    layers_sha256: str | None = None
    no_layers: str | None = None

    @property
    def files(self) -> tuple[tuple[str, str | None], ...]:
        """The files beside the measurement that are of this contestant, each with its sha256."""
        pairs = ((self.logits, self.logits_sha256), (self.layers, self.layers_sha256))
        return tuple((name, digest) for name, digest in pairs if name is not None)


class Block(Noun):
    """Some runs in a row of one contestant. Milliseconds a call, in order: `dropped_ms` are the wall times of the first
    calls, which pay for the caches that the contestant before left behind and count for nothing."""

    round: int
    variant: str
    dropped_ms: Calls
    wall_ms: Calls
    cpu_ms: Calls


class LengthBlock(Noun):
    """As a Block, of samples of `length` tokens each; 0: each as long as it is. `round`: of those by length."""

    round: int
    variant: str
    length: Annotated[int, Field(ge=0)]
    dropped_ms: Calls
    wall_ms: Calls
    cpu_ms: Calls


class Preprocessing(Noun):
    """The bundle's raw test samples made to a model's inputs on the machine that was measured. `inputs`: those that
    models are measured on, of which `differ` came out otherwise now: other tokens, or features of sound that are not
    equal to 1e-4; by `largest_difference` at most. `version`: of the library that makes them, tokenizers or numpy. `n`
    samples, of which `cut` are longer than the model reads, and of sounds `padded` are shorter, and `resampled` have
    another rate. `lengths`: tokens of each; `wall_ms`: milliseconds of each of the first, one at a time, of sounds with
    reading the file. `error`: why it could not be tried; then the rest is empty."""

    inputs: str
    error: str | None = None
    version: str | None = None
    n: int = 0
    cut: int = 0
    differ: int = 0
    padded: int = 0
    resampled: int = 0
    largest_difference: Annotated[float, Field(ge=0)] | None = None
    lengths: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(max_length=10_000_000)] = ()
    wall_ms: Calls = ()


class Round(Noun):
    """What else went on during a round: seconds of wall time; CPU seconds of bench.py and its runners; CPU seconds that
    the CPUs in `affinity` were busy, and that a hypervisor stole of them; the clock at its end. Null where the system
    does not tell."""

    number: int
    wall_s: float
    own_cpu_s: float | None
    busy_cpu_s: float | None
    steal_s: float | None
    mhz: float | None


class Measurement(Noun):
    """One session. In every round each contestant ran one block, in a random order; `blocks` lie in the order run.
    A block ran `block_length` calls, of which the first `block_dropped` were dropped.

    `device`: what the pipe to it was. `connections`: more than 1 where the session went on after a lost connection;
    `lost`: why it ended before its end, else null. `looks`: how often a verdict was looked at to decide whether to
    sample on, at least 1. `waited_s`: for another measurement on the same machine to end. `idle_watts`: the power
    before the first model was loaded. `with_throughput`: false where it was asked to leave throughput out.
    `by_length`: blocks of samples of stated lengths, where samples vary in it, and `preprocessing`, of raw samples.
    """

    schema_: Annotated[Literal[2], Field(alias="schema")] = 2
    started: str
    finished: str
    device: Literal["local", "ssh", "adb"] = "local"
    connections: int = 1
    lost: str | None = None
    looks: Annotated[int, Field(ge=1)] = 1
    waited_s: float = 0.0
    idle_watts: float | None = None
    batch: int
    block_length: int
    block_dropped: int
    distinct_inputs: int
    seed: int
    with_throughput: bool = True
    machine_before: Machine
    machine_after: Machine
    contestants: tuple[Contestant, ...]
    rounds: tuple[Round, ...]
    blocks: tuple[Block, ...]
    by_length: tuple[LengthBlock, ...] = ()
    preprocessing: tuple[Preprocessing, ...] = ()

    @classmethod
    def made_anew(cls, path: Path) -> str:
        return f"if another version of kdc measured it, this one measures anew: kdc measure {path.parent.parent}"
