"""Students that might be trained: what `kdc students` measures, keeps, and answers."""

from typing import Annotated, Literal

from pydantic import Field as Key

from compressor.schema.base import Noun
from compressor.schema.bundle import FileEntry
from compressor.schema.measurement import Machine
from compressor.schema.preprocess import OfTask, TaskName
from compressor.schema.profile import Profile
from compressor.schema.report import Estimate

__all__ = ["Entrant", "Field", "Figures", "KeptFigures", "Prunable", "Skeleton", "Student", "Students", "Wish"]


class Entrant(Noun):
    """One artefact of the field, of drawn weights: a candidate for one runtime and precision. `files`: all of it;
    `inputs`: drawn samples. The rest as Variant says."""

    task: TaskName
    name: str
    candidate: str
    role: Literal["student"] = "student"
    runtime: str
    precision: str
    runner: str
    model: str
    files: tuple[FileEntry, ...]
    inputs: str
    preprocess: OfTask
    parameters: int
    macs: int
    build: str | None = None


class Field(Noun):
    """FOLDER/bundle.json of a field that is measured as a bundle is: `reference` is the entrant that runs in every
    session, and `support` the files that are no entrant's."""

    schema_: Annotated[Literal[2], Key(alias="schema")] = 2
    profile: Profile
    reference: str
    variants: tuple[Entrant, ...]
    support: tuple[FileEntry, ...]


class Prunable(Noun):
    """Whether the channels of a network can be pruned, as that is kept in the cache folder. `of`: the network, the
    share, and the packages with their versions; `why` it cannot."""

    of: str
    is_prunable: bool
    why: str | None = None


class Wish(Noun):
    """A candidate at an input size, and the (runtime, precision) pairs that are wanted of it. `teacher`: a reference to
    the model that it is made of; null: its name says all of it. `input_size`: pixels, or tokens."""

    task: TaskName
    name: str
    family: str
    input_size: int
    classes: int
    variants: tuple[tuple[str, str], ...]
    teacher: str | None = None

    @property
    def student(self) -> str:
        """What `kdc distill --student` takes."""
        return f"timm:{self.name}" if self.teacher is None else self.name

    @property
    def label(self) -> str:
        """What its files and variants are called, where a "+" may not stand, nor ":" and ","."""
        return f"{self.name.replace('+', '--').replace(':', '-').replace(',', '-')}-{self.input_size}"

    @property
    def names(self) -> tuple[str, ...]:
        return tuple("-".join(variant) for variant in self.variants)


class Skeleton(Noun):
    """What came of a wish: its entrants, and for each variant without one the reason."""

    wish: Wish
    entrants: tuple[Entrant, ...]
    failures: dict[str, str]


class Figures(Noun):
    """What was measured of one candidate in one precision of one runtime; kept on disk by all that it depends on.

    `size_mb`: MB (10^6 bytes) of its files. `p50_ms`, `p90_ms`: wall time of a call, of blocks. `peak_rss_mb`,
    `model_rss_mb`: as in Budget. `error`: why there is nothing; the rest is null then. `measured`: the day.
    """

    student: str
    family: str
    input_size: int
    classes: int
    runtime: str
    runtime_version: str | None
    precision: str
    executed_precision: str | None
    parameters: int | None
    macs: int | None
    size_mb: float | None
    p50_ms: Estimate | None
    p90_ms: Estimate | None
    peak_rss_mb: float | None
    model_rss_mb: float | None
    error: str | None
    measured: str

    @property
    def variant(self) -> str:
        return f"{self.runtime}-{self.precision}"


class KeptFigures(Noun):
    """Figures with where and how they were measured. `reference`: the field's, and `reference_ms` its p50 in the same
    session; null where it broke off."""

    figures: Figures
    machine: Machine
    threads: int
    batch: int
    reference: str | None
    reference_ms: float | None


class Student(Noun):
    """A row of the answer. `rank`: by p50 among all of the same variant, the fastest first; null where it could not
    run. `over`: the lines of the budget that it does not hold, in words; `admitted`: whether it certainly holds all
    that latency, size and memory decide, null where an interval leaves it open. `on_front`: whether no other of this
    variant computes more in less time."""

    figures: Figures
    rank: int | None
    admitted: bool | None
    over: tuple[str, ...]
    on_front: bool


class Students(Noun):
    """The answer of `kdc students`. `not_judged`: lines of the budget that need a trained student; `not_screened`:
    variants of the profile that were not measured, and why. `rank_agreement`:
    Spearman's correlation of the p50 of each variant with that of `ranked_against`, over the candidates that both have,
    and of how many. `kept`: how many rows were measured by an earlier call.
    `drift`: the p50 of the reference in the session where it was slowest / where it was fastest; null with one
    session. `machine`: where. `unit`: what the input size counts."""

    schema_: Annotated[Literal[1], Key(alias="schema")] = 1
    profile: str
    device: str
    machine: str
    batch: int
    threads: int
    classes: int
    rows: tuple[Student, ...]
    not_judged: tuple[str, ...]
    not_screened: dict[str, str]
    ranked_against: str
    rank_agreement: dict[str, tuple[float, int]]
    kept: int
    sessions: int
    drift: float | None
    unit: Literal["px", "tokens"] = "px"
