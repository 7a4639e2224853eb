"""LanguageMeasurement: one session of `runners/bench.py` on a language model's bundle,
BUNDLE/measurements/measurement.json. Raw samples, no summaries."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.measurement import Calls, Machine, Round, Start

__all__ = ["GeneratedBlock", "LanguageContestant", "LanguageMeasurement"]


class LanguageContestant(Noun):
    """One artefact as its runner ran it. `error`: why it could not run; then the rest is empty.

    `variant`, `copy_of`, `artefact_sha256`, memory and `starts`: see Contestant; `first_ms` of a start is the time of
    the first token of an answer. `validation`, `test`: a float32 [tokens] .npy file beside the measurement, the natural
    log-probability of each token of that corpus, with its sha256."""

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
    validation: str | None = None
    validation_sha256: str | None = None
    test: str | None = None
    test_sha256: str | None = None

    @property
    def files(self) -> tuple[tuple[str, str | None], ...]:
        """The files beside the measurement that are of this contestant, each with its sha256."""
        pairs = ((self.validation, self.validation_sha256), (self.test, self.test_sha256))
        return tuple((name, digest) for name, digest in pairs if name is not None)


class GeneratedBlock(Noun):
    """One answer of one contestant, in milliseconds: `prompt_ms` from the prompt to the first token, `token_ms` each of
    the tokens after that."""

    round: int
    variant: str
    prompt_ms: Annotated[float, Field(gt=0)]
    token_ms: Annotated[Calls, Field(min_length=1)]


class LanguageMeasurement(Noun):
    """One session. In every round each contestant answered one prompt, the same one, in a random order; `blocks` lie in
    the order run. `prompts`: how many different ones there were."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    task: Literal["causal-lm"] = "causal-lm"
    started: str
    finished: str
    device: Literal["local"] = "local"
    waited_s: float = 0.0
    prompts: int
    prompt_tokens: int
    new_tokens: int
    seed: int
    machine_before: Machine
    machine_after: Machine
    contestants: tuple[LanguageContestant, ...]
    rounds: tuple[Round, ...]
    blocks: tuple[GeneratedBlock, ...]

    @classmethod
    def made_anew(cls, path: Path) -> str:
        return f"if another version of kdc measured it, this one measures anew: kdc measure {path.parent.parent}"
