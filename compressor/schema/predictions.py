"""Outputs: what a table of a teacher's answers says of itself, and what `kdc predict` says when it has written one."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.class_names import ClassNames
from compressor.schema.student import Accuracy, Weights

__all__ = ["Kind", "OutputsInfo", "Predictions"]

Kind = Literal["labels", "top-k", "probabilities", "logits"]
"""The most probable class alone; the k most probable ones with their probabilities; or something of every class."""


class OutputsInfo(Noun):
    """Lies in the table itself (in CSV its first line, in Parquet its metadata). `teacher`: without paths. `data`: the
    fingerprint of the data whose samples were answered."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    kdc: str
    kind: Kind
    class_names: ClassNames
    teacher: Weights
    data: str


class Predictions(Noun):
    """The result of `kdc predict`. `counts`: rows by split. Only validation is measured: nobody may select on test."""

    out: str
    info: OutputsInfo
    top_k: int | None
    counts: dict[str, int]
    validation: Accuracy
