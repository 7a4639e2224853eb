"""Several bundles side by side: what `kdc report A B C --format json` prints."""

from typing import Annotated, Literal

from pydantic import Field

from compressor.schema.base import Noun
from compressor.schema.report import Row, Verdict

__all__ = ["Column", "SideBySide"]


class Column(Noun):
    """One bundle. `failed`: the lines that what it ships fails, or, where nothing can be shipped, what every variant
    fails, or else any; `shipped`: that variant, null where none could be chosen; `measured`: when, on which `machine`,
    with `batch` samples a call, each of `tokens` or `seconds` where that varies, and, of what ships, so many `threads`;
    `test`: sha256 of what its `test_n` test samples show, null in bundles of an earlier kdc."""

    bundle: str
    kdc: str
    profile: str
    verdict: Verdict
    failed: tuple[str, ...]
    student: str
    teacher: str
    measured: str | None
    machine: str | None
    batch: int | None
    tokens: int | None = None
    seconds: float | None = None
    threads: int | None
    test_n: int
    test: str | None
    shipped: Row | None


class SideBySide(Noun):
    """The bundles in the order in which they were named."""

    schema_: Annotated[Literal[1], Field(alias="schema")] = 1
    columns: tuple[Column, ...]
