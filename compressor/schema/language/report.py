"""LanguageReport: rows and verdicts on a language model's bundle, BUNDLE/report.json. Every figure can be recomputed
from the bundle."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.accuracy import BitsPerByte
from compressor.schema.base import Noun
from compressor.schema.device import Device
from compressor.schema.estimate import Estimate, Spread
from compressor.schema.measurement import Machine
from compressor.schema.provenance import Ancestor
from compressor.schema.report import Check, Verdict

__all__ = ["LanguageReport", "LanguageRow", "LanguageSession"]


class LanguageRow(Noun):
    """One variant. Sizes in bytes; null: not measured.

    `tokens_per_s`: tokens of an answer after the first, a second; `prompt_tokens_per_s`: of a prompt, a second, until
    the first token of the answer is there. `fp32_ratio`: how many times as fast it generates as the same runtime in
    full precision, from paired rounds. `start_ms`, `load_ms`, `first_ms`: see LanguageContestant.
    `validation`, `test`: what it pays for the text. `validation_loss`, `test_loss`: its bits a byte less those of the
    student in torch in fp32, and `difference`: less the teacher's, on test; all paired by document. `loss_share`:
    `validation_loss` over the bits a byte of torch. `retention`: the teacher's bits a byte / this one's, on test.
    `parity_max`, `parity_mean`: of |log p - log p of torch|, in nats, over the validation tokens that count.
    `not_finite`: tokens, of both splits, whose log-probability is no finite number; then it has no score."""

    name: str
    role: Literal["student", "reference"]
    runtime: str
    precision: str
    executed_precision: str | None
    runtime_version: str | None
    threads: int | None
    measured: bool
    error: str | None
    size_bytes: int
    weight_bytes: dict[str, int]
    answers: int
    tokens_per_s: Estimate | None
    prompt_tokens_per_s: Estimate | None
    fp32_ratio: Estimate | None
    start_ms: Spread | None
    load_ms: Spread | None
    first_ms: Spread | None
    idle_rss_mb: float | None
    peak_rss_mb: float | None
    validation: BitsPerByte | None
    test: BitsPerByte | None
    validation_loss: Estimate | None
    loss_share: float | None
    test_loss: Estimate | None
    difference: Estimate | None
    retention: Estimate | None
    parity_max: float | None
    parity_mean: float | None
    not_finite: int


class LanguageSession(Noun):
    """How the variants were measured: in every one of `rounds` one answer of each, in a random order. `aa`,
    `smallest_effect`, `confidence`, `disturbed`: see Session; of the time of an answer's tokens after the first."""

    started: str
    finished: str
    device: Literal["local"]
    rounds: int
    prompts: int
    prompt_tokens: int
    new_tokens: int
    confidence: float
    aa: Estimate | None
    smallest_effect: float | None
    disturbed: tuple[str, ...]
    waited_s: float
    machine: Machine


class LanguageReport(Noun):
    """The whole. Keys as those of Report. `student_torch`, `student_validation`: the student in torch in fp32, before
    any export; `teacher_test`: the teacher in torch, on the same documents. `not_judged`: lines of the profile's budget
    that are not for language models."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    task: Literal["causal-lm"] = "causal-lm"
    kdc: str
    profile: str
    device: str
    verdict: Verdict
    holds: tuple[str, ...]
    winner: str | None
    why: str
    rows: tuple[LanguageRow, ...]
    checks: tuple[Check, ...]
    not_judged: tuple[str, ...]
    session: LanguageSession | None
    matches: bool
    differences: tuple[str, ...]
    student_validation: BitsPerByte
    student_torch: BitsPerByte
    teacher_test: BitsPerByte | None
    teacher_difference: Estimate | None
    max_length: int
    parameters: int
    data: str
    data_notes: tuple[str, ...]
    student: str
    student_init: str
    kept: str
    teacher: str
    teacher_licence: str
    ancestors: tuple[Ancestor, ...] = ()
    notes: tuple[str, ...]

    @property
    def measured_on(self) -> Device | None:
        """None: they are measured on one device."""
        return None
