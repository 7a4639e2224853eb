"""Report: rows and verdicts, BUNDLE/report.json. Every figure can be recomputed from the bundle."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.class_names import ClassNames
from compressor.schema.device import Device
from compressor.schema.estimate import Estimate, Spread
from compressor.schema.explain import Explained
from compressor.schema.measurement import Machine
from compressor.schema.predictions import Kind
from compressor.schema.provenance import Ancestor
from compressor.schema.quantization import Rung, Score
from compressor.schema.race import LossRace, Race
from compressor.schema.release import ReleaseDiff

__all__ = [
    "Check",
    "ClassShare",
    "Estimate",
    "Gained",
    "LengthAccuracy",
    "LengthLatency",
    "Lengths",
    "RealTime",
    "RealTimeRow",
    "Report",
    "Row",
    "Session",
    "Spread",
    "TableRow",
    "Throughput",
    "Verdict",
]

Verdict = Literal["pass", "fail", "inconclusive", "unmeasured"]


class ClassShare(Noun):
    """A share for one class: its recall (Wilson interval), or the recall / the teacher's; n is of that class."""

    class_name: str
    share: Estimate


class Throughput(Noun):
    """The fastest of the measured ways to keep the machine busy: images a second over `windows`, `streams` calls at a
    time on `threads` threads each. `joules_per_image`: of the whole machine; null where it cannot be read. An
    image is a sample, whatever the task. `tokens_per_s`: at the length that is timed, where samples are made of
    tokens."""

    images_per_s: Spread
    tokens_per_s: Spread | None = None
    streams: int
    threads: int
    joules_per_image: Spread | None


class Row(Noun):
    """One variant. Sizes in bytes; latencies in milliseconds a call; null: not measured.

    `measured`: a runner ran it to the end; `error`: why it did not. `calls`: timed calls behind the latencies.
    `weight_bytes`, `compressed_bytes`: see Variant. `cpu_p50_ms`: CPU time of all threads a call. `not_finite`: samples
    with a NaN or an infinity among these logits or torch's; in the former they count as wrong.
    `p50_ratio`: the teacher's p50 / this p50, so 3.0 is three times as fast as the teacher; `slowdown`: this p50 / the
    p50 of the same variant of the baseline; `fp32_ratio`: the fp32 reference's p50 / this p50, so below 1 it is slower
    than fp32; all from paired blocks. `start_ms`, `load_ms`, `first_ms`: see Start.
    `retention`: accuracy / the teacher's accuracy, `balanced_retention`: mean recall over the
    classes / the teacher's, `difference`: accuracy - the teacher's, `agreement`: share of
    samples with the teacher's answer, `mcnemar_p`: mid-p test of whether both are right equally often,
    `baseline_difference`: accuracy - the baseline's; all from paired predictions. `auc`: only for two classes.
    `worst_class`: lowest recall; `worst_retention`: the class that keeps least of the teacher's recall.
    `parity_cosine`: the lowest cosine over samples between these logits and torch's, but for near ties (see
    `stats.Parity`); `parity_sqnr_db`: the energy of
    torch's logits over that of the difference, all samples together, in decibels (null where nothing differs);
    `parity_agreement`: share of samples with the same top-1 as torch. `score`, `rungs`: see Variant.
    """

    name: str
    role: Literal["student", "teacher", "reference", "baseline"]
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
    weight_bytes: dict[str, int]
    compressed_bytes: int
    calls: int
    p50_ms: Estimate | None
    p90_ms: Estimate | None
    cpu_p50_ms: Estimate | None
    p50_ratio: Estimate | None
    slowdown: Estimate | None
    fp32_ratio: Estimate | None
    start_ms: Spread | None
    load_ms: Spread | None
    first_ms: Spread | None
    idle_rss_mb: float | None
    peak_rss_mb: float | None
    throughput: Throughput | None
    accuracy: Estimate | None
    balanced_accuracy: Estimate | None
    auc: Estimate | None
    worst_class: ClassShare | None
    worst_retention: ClassShare | None
    retention: Estimate | None
    balanced_retention: Estimate | None
    difference: Estimate | None
    agreement: Estimate | None
    mcnemar_p: float | None
    baseline_difference: Estimate | None
    parity_cosine: float | None
    parity_sqnr_db: float | None
    parity_agreement: float | None
    not_finite: int
    score: Score | None
    rungs: tuple[Rung, ...]


class TableRow(Noun):
    """The teacher, where it is a table of answers: what those to the test samples are worth. Nothing of it runs, so
    there is no latency, size or memory. Fields as those of Row; `source`: its name, without a path; `kind`: what the
    table says of a sample. `auc`: null too where it does not tell the probability of every class."""

    source: str
    kind: Kind
    accuracy: Estimate | None
    balanced_accuracy: Estimate | None
    auc: Estimate | None
    worst_class: ClassShare | None


class Gained(Noun):
    """What distillation gained over labels alone: the student's accuracy less that of its control, paired by sample,
    both in torch as they were trained, before any export. `steps`, `samples`: see `student.Gain`; `control_accuracy`:
    the control's on test."""

    validation: Estimate
    test: Estimate
    control_accuracy: Estimate
    steps: int
    samples: int


class LengthLatency(Noun):
    """A variant on samples of `length` tokens; 0: each as long as it is. Figures as those of Row: `p50_ratio`: the
    teacher's p50 / this p50."""

    variant: str
    length: int
    p50_ms: Estimate | None
    p90_ms: Estimate | None
    p50_ratio: Estimate | None


class LengthAccuracy(Noun):
    """A variant on the test samples of `low` to `high` tokens, as many as the student reads of them. `retention`: as
    that of Row; null for the teacher, and where the teacher has none of them right."""

    variant: str
    low: int
    high: int
    accuracy: Estimate
    retention: Estimate | None


class Lengths(Noun):
    """Where samples are made of tokens. `timed`: the length at which the latencies of `Report.rows` are measured.
    `test_tokens`: of a test sample. `tokenizer`: the release of tokenizers with which `tokenized` test samples were
    made to tokens where models were measured, of which `cut` were longer than the student reads and `differ` came out
    otherwise than in training; `tokenize_ms`: of one sample. Null, where that was not tried: then `untried` says
    why."""

    timed: int | None
    test_tokens: Spread
    latency: tuple[LengthLatency, ...]
    accuracy: tuple[LengthAccuracy, ...]
    tokenizer: str | None = None
    tokenized: int | None = None
    cut: int | None = None
    differ: int | None = None
    tokenize_ms: Spread | None = None
    untried: str = ""


class RealTimeRow(Noun):
    """A variant that reads `seconds` of a sample. `ms_per_second`: its p50 for a second of a sample; `factor`: the
    real-time factor, that time / a second; below 1 it keeps up."""

    variant: str
    seconds: float
    ms_per_second: Estimate | None
    factor: Estimate | None


class RealTime(Noun):
    """Where samples last a time. `rows`: without making a model's input of a raw sample, which took `made_ms` each
    where models were measured, a `made_factor` of the time that the student reads of one, in the median. There `made`
    test samples became inputs by `library`, of which `cut` were longer than the student reads, `padded` shorter, and
    `resampled` had another rate; `differ` came out otherwise than in training, by `largest_difference` at most. Null
    where that was not tried: then `untried` says why."""

    rows: tuple[RealTimeRow, ...]
    library: str | None = None
    made: int | None = None
    cut: int | None = None
    padded: int | None = None
    resampled: int | None = None
    differ: int | None = None
    largest_difference: float | None = None
    made_ms: Spread | None = None
    made_factor: float | None = None
    untried: str = ""


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
    `block_length` calls of which the first `block_dropped` were dropped; `batch` images a call.

    `aa`: the p50 of the second copy of the reference / that of the first, at the confidence of verdicts, and
    `smallest_effect`: the smallest relative change of a latency that this session can tell from noise, 0.02 for 2 %;
    null where there was no second copy. `looks`, `lost`, `connections`: see Measurement. `confidence`: of the intervals
    that verdicts on latency are taken from, after that many looks. `disturbed`: what disturbed it, a line each.
    `with_throughput`: false where throughput was left out on request.
    """

    started: str
    finished: str
    device: Literal["local", "ssh", "adb"]
    connections: int
    lost: str | None
    batch: int
    rounds: int
    looks: int
    confidence: float
    block_length: int
    block_dropped: int
    distinct_inputs: int
    aa: Estimate | None
    smallest_effect: float | None
    disturbed: tuple[str, ...]
    with_throughput: bool = True
    machine: Machine


class Report(Noun):
    """The whole. `verdict`: as `report.gate.verdict_of` says; `holds`: the student variants that pass every line.

    `winner`: the student variant to ship, as `report.choice` says, and `why`; null where none can be chosen.

    `kdc`: the version that made this report. `device`: the profile's CPU. `matches`: the session ran on the profile's
    device and under its conditions; `differences`: where it did not, and then latency and memory are not judged.
    `kept`: which epoch's weights the student is, and by what rule. `teacher_table`: of a teacher that is a table with
    answers to the test samples; a teacher that runs is one of `rows`. `race`: how the student was chosen;
    `losses`: how its losses were weighed, where that was tried.
    `lengths`: what goes by the length of samples; null where they are all as large. `real_time`: null where samples
    last no time. `sample`: what one is called.
    `gain`: where it has a control. `release`: what differs from the baseline, where there is one. `measured_on`: which
    device, where the bundle was measured on several. `explained`: where time and accuracy go, layer by layer, where
    that was asked for.
    """

    schema_: Annotated[Literal[2], Field(alias="schema")] = 2
    kdc: str
    profile: str
    device: str
    verdict: Verdict
    holds: tuple[str, ...]
    winner: str | None
    why: str
    rows: tuple[Row, ...]
    checks: tuple[Check, ...]
    session: Session | None
    matches: bool
    differences: tuple[str, ...]
    test_split: str
    test_n: int
    class_names: ClassNames
    data: str
    data_notes: tuple[str, ...]
    student: str
    student_init: str
    kept: str
    teacher: str
    teacher_licence: str
    ancestors: tuple[Ancestor, ...] = ()
    teacher_table: TableRow | None = None
    race: Race | None = None
    losses: LossRace | None = None
    sample: str = "image"
    lengths: Lengths | None = None
    real_time: RealTime | None = None
    gain: Gained | None = None
    release: ReleaseDiff | None = None
    measured_on: Device | None = None
    explained: Explained | None = None
    notes: tuple[str, ...]
