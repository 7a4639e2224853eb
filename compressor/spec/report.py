"""Report: rows and verdicts, BUNDLE/report.json. Every figure can be recomputed from the bundle."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.spec.base import Noun
from compressor.spec.measurement import Machine

__all__ = ["Check", "Estimate", "Report", "Row", "Verdict"]

Verdict = Literal["pass", "fail", "inconclusive", "unmeasured"]


class Estimate(Noun):
    """A measured figure with its 95 % interval and the number of samples behind it (of blocks, for latency: see
    `of`)."""

    value: float
    low: float
    high: float
    n: int
    of: str


class Row(Noun):
    """One variant. Sizes in bytes; latencies in milliseconds a call; null: not measured.

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
    parameters: int
    macs: int
    size_bytes: int
    p50_ms: Estimate | None
    p90_ms: Estimate | None
    p50_ratio: Estimate | None
    load_ms: float | None
    first_ms: float | None
    peak_rss_mb: float | None
    accuracy: Estimate | None
    balanced_accuracy: Estimate | None
    auc: Estimate | None
    retention: Estimate | None
    agreement: Estimate | None
    parity_cosine: float | None
    parity_agreement: float | None
    error: str | None


class Check(Noun):
    """One line of the budget (or of kdc's own: parity, executed precision) held against one variant. `limit` and
    `value` as people read them, with units; `reason` says why the verdict is what it is."""

    variant: str
    line: str
    limit: str
    value: str
    verdict: Verdict
    reason: str


class Report(Noun):
    """The whole. `verdict`: pass where at least one student variant passes every line; `holds` names those."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    kdc: str
    profile: str
    verdict: Verdict
    holds: tuple[str, ...]
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]
    machine: Machine | None
    machine_matches: bool
    machine_differences: tuple[str, ...]
    measured: str | None
    test_split: str
    test_n: int
    class_names: tuple[str, ...]
    data: str
    data_notes: tuple[str, ...]
    teacher: str
    teacher_licence: str
    notes: tuple[str, ...]
