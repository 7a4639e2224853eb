"""History: a line of JSON for each measured bundle, in a file that `kdc report --history` keeps."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.estimate import Estimate
from compressor.schema.report import Verdict

__all__ = ["HistoryEntry", "HistoryVariant"]


class HistoryVariant(Noun):
    """A student variant, as Row says."""

    name: str
    size_bytes: int
    p50_ms: Estimate | None
    p90_ms: Estimate | None
    peak_rss_mb: float | None
    accuracy: Estimate | None
    balanced_accuracy: Estimate | None
    retention: Estimate | None


class HistoryEntry(Noun):
    """One bundle. `id`: sha256 of what was made, what was measured of it, the baseline and the verdict, so that none
    stands there twice; `measured`: when, null where it was not; `winner`: the variant that ships; `failed`, `test`: see
    Column."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    id: str
    kdc: str
    measured: str | None
    profile: str
    machine: str | None
    student: str
    verdict: Verdict
    failed: tuple[str, ...]
    winner: str | None
    test_n: int
    test: str | None
    variants: tuple[HistoryVariant, ...]

    @property
    def shipped(self) -> HistoryVariant | None:
        """The variant that ships."""
        return next((variant for variant in self.variants if variant.name == self.winner), None)
