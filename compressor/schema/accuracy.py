"""How well a model does on a split, alone and beside another one: parts of RUN/student.json."""

from typing import Annotated

from pydantic import Field, model_validator

from compressor.schema.base import Noun

__all__ = ["Accuracy", "Advantage", "BitsPerByte", "Gain", "LostClass", "Score", "accuracy_in"]


class LostClass(Noun):
    """A class, by its number, of whose `n` samples hardly one or none is `right`."""

    number: int
    right: int
    n: int


class Accuracy(Noun):
    """Top-1 on one split, with the number of samples and the 95 % Wilson interval. `balanced`: mean recall a class;
    `auc`: of two classes, the area under the ROC curve of either's probability, null where a class has no sample there
    or a logit is not finite; each with its 95 % interval (`stats.accuracy`), null in runs of an earlier kdc. `lost`:
    classes whose recall is near zero, and not by chance (`stats.judge_classes`)."""

    split: str
    n: int
    correct: int
    accuracy: float
    low: float
    high: float
    balanced: float
    balanced_low: float | None = None
    balanced_high: float | None = None
    auc: float | None = None
    auc_low: float | None = None
    auc_high: float | None = None
    lost: tuple[LostClass, ...] = ()


class BitsPerByte(Noun):
    """What a language model pays for the text of one split: bits for each byte of it in UTF-8, which compares whatever
    the tokenizers, and `perplexity`, for each of its `tokens`, which compares under one tokenizer alone. `n`: the
    documents. `low`, `high` …: 95 %, a bootstrap over documents (`stats.language`); null for a single one. Prompts, and
    the tokens that end a document, are in none of these."""

    split: str
    n: Annotated[int, Field(ge=1)]
    tokens: Annotated[int, Field(ge=1)]
    bytes: Annotated[int, Field(ge=1)]
    bits_per_byte: float
    low: float | None
    high: float | None
    perplexity: float
    perplexity_low: float | None
    perplexity_high: float | None


Score = Accuracy | BitsPerByte
"""Of a model whose samples have classes, or of one that answers every token of a text."""


def accuracy_in(score: Score) -> Accuracy:
    """`score`, for what is about classes alone; no other task comes there (`TaskRow.lacks`)."""
    assert isinstance(score, Accuracy), "what has no classes has no accuracy"
    return score


class Advantage(Noun):
    """The student's accuracy less that of its control on the `n` samples of a split, which both answered.
    `only_student`, `only_control`: samples that one alone has right; `low`, `high`: the 95 % interval, paired by sample
    (Bonett & Price 2012: `stats.difference`)."""

    split: str
    n: Annotated[int, Field(ge=1)]
    only_student: Annotated[int, Field(ge=0)]
    only_control: Annotated[int, Field(ge=0)]
    difference: float
    low: float
    high: float

    @model_validator(mode="after")
    def _counted(self) -> "Advantage":
        if self.only_student + self.only_control > self.n:
            raise ValueError("only_student and only_control are more than n")
        return self


class Gain(Noun):
    """What distillation gained over labels alone. The control, in RUN/control, is the same student from the same start,
    with the same seed, views, optimizer and number of `steps`, taught by the labels of `samples` training samples.
    `control_sha256`: of its weights; `control_validation`, `control_test`: what it has right."""

    validation: Advantage
    test: Advantage
    control_validation: Accuracy
    control_test: Accuracy
    control_sha256: str
    steps: int
    samples: int
