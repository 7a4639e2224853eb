"""Measurement: what `runners/bench.py` writes, BUNDLE/measurements/measurement.json. Raw samples, never summaries."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.spec.base import Noun

__all__ = ["Block", "Contestant", "Machine", "Measurement"]


class Machine(Noun):
    """The machine at one moment. Memory in GiB; `steal_s`: seconds since boot that a hypervisor took away; null where
    the system does not tell."""

    arch: str
    system: str
    cpu: str
    isa: tuple[str, ...]
    cores: int
    usable_cores: int
    memory_gb: float
    python: str
    load_1m: float | None
    steal_s: float | None
    governor: str | None
    mhz: float | None
    temperature_c: float | None


class Contestant(Noun):
    """One variant as its runner ran it. `error`: why it could not run; then the rest is empty.

    load_ms, first_ms: loading the model, and the first inference after it. rss in MB (10^6 bytes): before loading,
    and the peak (VmHWM) at the end of the latency blocks, before accuracy is measured. `logits`: a float32
    [N, classes] .npy file beside the measurement, with its sha256.
    """

    variant: str
    error: str | None = None
    runtime_version: str | None = None
    requested_precision: str
    executed_precision: str | None = None
    threads: int
    load_ms: float | None = None
    first_ms: float | None = None
    idle_rss_mb: float | None = None
    peak_rss_mb: float | None = None
    logits: str | None = None
    logits_sha256: str | None = None


class Block(Noun):
    """Some runs in a row of one contestant, the dropped ones not among them. Milliseconds a call, in order."""

    round: int
    variant: str
    wall_ms: tuple[float, ...]
    cpu_ms: tuple[float, ...]


class Measurement(Noun):
    """One session. In every round each contestant ran one block, in a random order; `blocks` lie in the order run.
    A block ran `block_length` calls, of which the first `block_dropped` were dropped."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    started: str
    finished: str
    batch: int
    block_length: int
    block_dropped: int
    rounds: int
    distinct_inputs: int
    seed: int
    machine_before: Machine
    machine_after: Machine
    contestants: tuple[Contestant, ...]
    blocks: tuple[Block, ...]
