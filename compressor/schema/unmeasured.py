"""Latency that was not measured: what `kdc students --estimate` answers, and how far it can be trusted."""

from typing import Annotated, Literal

from pydantic import Field as Key

from compressor.schema.base import Noun

__all__ = ["Accuracy", "Basis", "EstimatedStudent", "Estimates"]


class Accuracy(Noun):
    """How far estimates were from what was measured, of candidates that had no part in finding the constants.

    `median_error`, `worst_error`: of |estimated / measured - 1|. `spearman`: the rank correlation of both. `n`: of how
    many candidates; `of`: how they were left out.
    """

    median_error: float
    worst_error: float
    spearman: float
    n: int
    of: str


class Basis(Noun):
    """What the estimates of a runtime and precision rest on. `calibrated`: on figures of this very device and setting;
    else on the profile's facts and shares of them that another machine showed. `machine`: where was measured, and
    `days` when; `candidates`, `families`: how many. `accuracy`: there, not on another device. `constants`: what the
    roofline has, in the units that their names end in."""

    runtime: str
    precision: str
    calibrated: bool
    machine: str
    days: tuple[str, ...]
    candidates: int
    families: int
    accuracy: Accuracy
    constants: dict[str, float]

    @property
    def variant(self) -> str:
        return f"{self.runtime}-{self.precision}"


class EstimatedStudent(Noun):
    """A candidate. `estimated_p50_ms`: of a call. `rank`: by that among all of its variant, the fastest first.
    `budget`: nothing is judged by an estimate."""

    student: str
    family: str
    input_size: int
    runtime: str
    precision: str
    rank: int
    estimated_p50_ms: float
    parameters: int
    macs: int
    budget: Literal["not measured"] = "not measured"

    @property
    def variant(self) -> str:
        return f"{self.runtime}-{self.precision}"


class Estimates(Noun):
    """The answer of `kdc students --estimate`. `not_estimated`: variants of the profile -> why."""

    schema_: Annotated[Literal[1], Key(alias="schema")] = 1
    what: Literal["estimates: nothing here was measured"] = "estimates: nothing here was measured"
    profile: str
    batch: int
    threads: int
    classes: int
    rows: tuple[EstimatedStudent, ...]
    bases: tuple[Basis, ...]
    not_estimated: dict[str, str]
