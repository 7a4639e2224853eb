"""Completions: what a language model answered to prompts, a JSON object a line; and what `kdc predict` says of them."""

import hashlib
from typing import Annotated, Literal

from pydantic import Field, model_validator

from compressor.schema.base import Noun
from compressor.schema.provenance import UNKNOWN, Line

__all__ = ["Completion", "CompletionPlan", "Completions", "Key", "Mode", "Question"]

Mode = Literal["chat", "text"]
"""chat: the prompt is a user's message, in the model's own template; text: the model goes on where the prompt ends."""

ROUNDING = 0.01
"""How far above 0 a server may round a logarithm of 1."""

Key = tuple[str, str, Mode | None, float | None, int | None, int | None, int]
"""What an answer was asked for by: prompt, model and sampling."""


class Question(Noun):
    """What is asked: a `prompt` of a `model`, and how the answer is drawn. `temperature` 0: the most probable token at
    each step. `max_tokens`: the most that the answer has. `seed`: null where none was given. `sample`: several answers
    to a prompt are numbered."""

    prompt: Annotated[str, Field(min_length=1)]
    model: Line = UNKNOWN
    mode: Mode | None = None
    temperature: Annotated[float, Field(ge=0, le=100)] | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=0)] | None = None
    sample: Annotated[int, Field(ge=0)] = 0

    @property
    def key(self) -> Key:
        """Questions of the same key are the same question."""
        return self.prompt, self.model, self.mode, self.temperature, self.max_tokens, self.seed, self.sample

    @property
    def digest(self) -> str:
        """The sha256 of its key."""
        return hashlib.sha256(repr(self.key).encode()).hexdigest()


class Completion(Question):
    """A line of a table. `licence` and `terms`: under which the model's answers are used, "unknown" where nothing says
    it. `answered_by`: the model as the endpoint calls it, where that is another name. `finish_reason`: as the model
    gave it; "length": the answer was cut at `max_tokens`. `created`: when, in UTC. `tokens` and `logprobs`: of the
    answer, and the natural logarithm of their probabilities, where they were given."""

    completion: str
    licence: Line = UNKNOWN
    terms: Line = UNKNOWN
    answered_by: Line | None = None
    finish_reason: Line | None = None
    created: Line | None = None
    tokens: tuple[str, ...] | None = None
    logprobs: tuple[float, ...] | None = None

    @model_validator(mode="after")
    def _as_many(self) -> "Completion":
        if self.tokens is not None and self.logprobs is not None and len(self.tokens) != len(self.logprobs):
            raise ValueError(f"has {len(self.tokens)} tokens and {len(self.logprobs)} logprobs")
        most = max(self.logprobs or (0.0,))
        if most > ROUNDING:
            raise ValueError(f"has a logprob of {most:g}, and no logarithm of a probability is above 0")
        return self

    @property
    def log_likelihood(self) -> float | None:
        """The mean of `logprobs`, nats a token; None where there are none."""
        return sum(self.logprobs) / len(self.logprobs) if self.logprobs else None


class CompletionPlan(Noun):
    """What `kdc predict --plan` says of a table of completions. `questions`: different ones, `samples` a prompt;
    `repeated`: prompts that stand in the data more than once; `test`: prompts of the test split, which are not asked;
    `answered`: in the table already; `to_ask`: the rest. `key`: the variable that holds the key, null where none is
    sent."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    out: str
    teacher: str
    prompts: int
    samples: int
    repeated: int
    test: int
    questions: int
    answered: int
    to_ask: int
    key: str | None


class Completions(Noun):
    """The result of `kdc predict` with a language model. `asked`: answered now; `before`: in the table already;
    `unanswered`: questions that got no answer that can be used, by why; `others`: rows of other questions."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    out: str
    teacher: str
    asked: int
    before: int
    others: int
    unanswered: dict[str, int]
    licence: str
    terms: str
