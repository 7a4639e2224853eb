"""Devices: what a student came to on each of several devices, devices.json. Every figure can be recomputed from the
bundle."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.estimate import Estimate
from compressor.schema.release import ReleaseDiff
from compressor.schema.report import Verdict

__all__ = ["Cell", "Devices", "OfDevice"]


class Cell(Noun):
    """One student variant on one device. Figures as those of a report's Row; `verdict`: over all lines that it is held
    against there; `failed`, `open`: the lines that it fails, and those that are inconclusive or unmeasured. `missing`:
    why it was not measured there, else null."""

    variant: str
    verdict: Verdict
    ships: bool
    executed_precision: str | None
    p50_ms: Estimate | None
    p90_ms: Estimate | None
    p50_ratio: Estimate | None
    peak_rss_mb: float | None
    accuracy: Estimate | None
    failed: tuple[str, ...]
    open: tuple[str, ...]
    missing: str | None


class OfDevice(Noun):
    """One device. `verdict`, `winner`, `why`: of the report on it, which lies at `report`; `failed`: the lines on which
    it fails; `error`: why nothing was measured there, else null; `measured`: when, on which `machine`; `lost`: why the
    session broke off; `release`: what differs there from the baseline, where there is one."""

    name: str
    url: str
    profile: str
    verdict: Verdict
    winner: str | None
    why: str
    failed: tuple[str, ...]
    error: str | None
    measured: str | None
    machine: str | None
    lost: str | None
    report: str
    cells: tuple[Cell, ...]
    release: ReleaseDiff | None = None


class Devices(Noun):
    """The devices, by name. `verdict`: fail where one fails; pass where each passes; else inconclusive where one is,
    else unmeasured."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    kind: Literal["devices"] = "devices"
    kdc: str
    student: str
    teacher: str
    test_n: int
    verdict: Verdict
    devices: tuple[OfDevice, ...]
