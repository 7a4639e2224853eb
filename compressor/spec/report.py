"""Report: rows and verdicts, BUNDLE/report.json. Every figure can be recomputed from the bundle."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.spec.base import Noun
from compressor.spec.measurement import Machine

__all__ = ["Check", "ClassRecall", "Estimate", "Report", "Row", "Session", "Verdict"]

Verdict = Literal["pass", "fail", "inconclusive", "unmeasured"]


class Estimate(Noun):
    """A measured figure with its 95 % interval and the number of samples behind it (of blocks, for latency: see
    `of`)."""

    value: float
    low: float
    high: float
    n: int
    of: str


class ClassRecall(Noun):
    """The recall of one class, with its Wilson interval and the number of samples of that class."""

    class_name: str
    recall: Estimate


class Row(Noun):
    """One variant. Sizes in bytes; latencies in milliseconds a call; null: not measured.

    `measured`: a runner ran it to the end; `error`: why it did not. `calls`: timed calls behind the latencies.
    `not_finite`: samples with a NaN or an infinity among these logits or torch's; in the former they count as wrong.
    `p50_ratio`: the teacher's p50 / this p50, so 3.0 is three times as fast as the teacher, from paired blocks.
    `retention`: accuracy / the teacher's accuracy, and `agreement`: share of samples with the teacher's answer, both
    from paired predictions. `auc`: only for two classes. `parity_cosine`: the lowest cosine over samples between these
    logits and torch's; `parity_agreement`: share of samples with the same top-1 as torch.
    """

    name: str
    role: Literal["student", "teacher"]
    architecture: str
    runtime: str
    precision: str
    executed_precision: str | None
    runtime_version: str | None
    threads: int | None
    measured: bool
    error: str | None
    parameters: int
    macs: int
    size_bytes: int
    calls: int
    p50_ms: Estimate | None
    p90_ms: Estimate | None
    p50_ratio: Estimate | None
    load_ms: float | None
    first_ms: float | None
    peak_rss_mb: float | None
    accuracy: Estimate | None
    balanced_accuracy: Estimate | None
    auc: Estimate | None
    worst_class: ClassRecall | None
    retention: Estimate | None
    agreement: Estimate | None
    parity_cosine: float | None
    parity_agreement: float | None
    not_finite: int


class Check(Noun):
    """One line of the budget (or of kdc's own: parity, executed precision) held against one variant. `limit` and
    `value` as people read them, with units; `reason` says why the verdict is what it is."""

    variant: str
    line: str
    limit: str
    value: str
    verdict: Verdict
    reason: str


class Session(Noun):
    """How the variants were measured: in every one of `rounds`, one block of each in a random order, of
    `block_length` calls of which the first `block_dropped` were dropped; `batch` images a call."""

    started: str
    finished: str
    batch: int
    rounds: int
    block_length: int
    block_dropped: int
    distinct_inputs: int
    machine: Machine


class Report(Noun):
    """The whole. `verdict`: as `report.gate.verdict_of` says; `holds`: the student variants that pass every line.

    `kdc`: the version that made this report. `device`: the profile's CPU. `matches`: the session ran on the profile's
    device and under its conditions; `differences`: where it did not, and then latency and memory are not judged.
    `kept`: which epoch's weights the student is, and by what rule.
    """

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    kdc: str
    profile: str
    device: str
    verdict: Verdict
    holds: tuple[str, ...]
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]
    session: Session | None
    matches: bool
    differences: tuple[str, ...]
    test_split: str
    test_n: int
    class_names: tuple[str, ...]
    data: str
    data_notes: tuple[str, ...]
    student: str
    student_init: str
    kept: str
    teacher: str
    teacher_licence: str
    notes: tuple[str, ...]
