"""A race of students: what was asked for (in RUN/run.json), and what came of it (in RUN/student.json)."""

from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag

from compressor.schema.base import Noun
from compressor.schema.estimate import Estimate
from compressor.schema.recipe import KeepBy

__all__ = [
    "AnyTrial",
    "Contender",
    "Failure",
    "LossRace",
    "Neighbour",
    "Race",
    "RaceRequest",
    "RankedTrial",
    "Trial",
]


class Neighbour(Noun):
    """What lies next to a contender on the front of what was measured: a network of another size, and what it costs.
    `over`: the lines of the budget that it does not hold, in words."""

    student: str
    p50_ms: Estimate
    size_mb: float
    over: tuple[str, ...]


class Contender(Noun):
    """A student that may be taken. `variant`: the fastest of those that the budget admits; its `p50_ms` and `size_mb`,
    measured before training on the day `measured`; null where nothing was measured. `larger`, `smaller`: the next ones
    on that variant's front of computing against time."""

    student: str
    family: str = "-"
    parameters: int | None = None
    macs: int | None = None
    variant: str | None = None
    p50_ms: Estimate | None = None
    size_mb: float | None = None
    measured: str | None = None
    larger: Neighbour | None = None
    smaller: Neighbour | None = None


class RaceRequest(Noun):
    """Request.race. `named`: the students as typed; none: the ones that the budget of `profile` admits. `share`: how
    long the race may take, in epochs of the training itself. `contenders`, the most computing first, and `why` it is
    these: filled in before the run begins, and taken from there by --resume."""

    named: tuple[str, ...] = ()
    profile: str | None = None
    share: Annotated[float, Field(gt=0, le=100)] = 0.5
    contenders: tuple[Contender, ...] = ()
    why: str = ""


class Trial(Noun):
    """What a student came to in a round: RUN/race/NUMBER/trial.json, or RUN/arms/NUMBER/trial.json, and then `arm` says
    how its losses were weighed. `accuracy`: top-1 on the validation split; `teacher`: the figure (`keep_by`) of who
    taught it there, where that was measured; `inputs`: what it learned from, each with a fingerprint."""

    student: str
    arm: str | None = None
    epochs: int
    steps: int
    accuracy: Estimate
    teacher: Estimate | None = None
    seconds: float
    inputs: dict[str, str]

    @property
    def ranked_by(self) -> KeepBy:
        """Which figure decides: the recipe's `keep_by`."""
        return "accuracy"

    @property
    def rank_score(self) -> Estimate:
        """That figure, on validation."""
        return self.accuracy


class RankedTrial(Trial):
    """A trial of a recipe whose `keep_by` is not accuracy: `score` is the figure `by` which it is ranked."""

    by: Literal["balanced", "auc"]
    score: Estimate

    @property
    def ranked_by(self) -> KeepBy:
        return self.by

    @property
    def rank_score(self) -> Estimate:
        return self.score


def _kind(value: Any) -> str:
    ranked = "by" in value if isinstance(value, dict) else isinstance(value, RankedTrial)
    return "[ranked]" if ranked else "[plain]"


AnyTrial = Annotated[Annotated[Trial, Tag("[plain]")] | Annotated[RankedTrial, Tag("[ranked]")], Discriminator(_kind)]


class Failure(Noun):
    """That a student could not learn, and why: RUN/race/NUMBER/failed.json. The rest as in a `Trial`."""

    student: str
    arm: str | None = None
    epochs: int
    error: str
    inputs: dict[str, str]


class Race(Noun):
    """Student.race. `rounds`: every trial, the best of each round first; `planned`: epochs of all trials together, and
    `share` what they were to take at most, in trainings. `failed`: who could not learn, and why. `lead`: the
    winner's figure (`keep_by`) in the last round - the next one's, paired by sample; null where nobody else ran.
    `reason`: why the winner was taken."""

    contenders: tuple[Contender, ...]
    why: str
    share: float
    planned: int
    rounds: tuple[tuple[AnyTrial, ...], ...]
    failed: dict[str, str]
    winner: str
    lead: Estimate | None
    reason: str


class LossRace(Noun):
    """Student.losses: which weights of the losses won (`winner`, of `arms`: each loss's weight, by arm), after so many
    `epochs` each; the regime's own are "default". `trials`: the best first. `in_full`: where they could not rule labels
    alone out, that and the best of the others after the whole training, the better first, which is the student.
    `failed`: which did not learn, and why. `lead`: the winner's figure (`keep_by`) on validation - the default's,
    paired by sample, or, where that won, its lead over the next; null where nothing else ran to its end. `reason`: why,
    in words."""

    arms: dict[str, dict[str, float]]
    epochs: int
    trials: tuple[AnyTrial, ...]
    in_full: tuple[AnyTrial, ...] = ()
    failed: dict[str, str]
    winner: str
    lead: Estimate | None
    reason: str
