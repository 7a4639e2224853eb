"""What the calls return that train nothing: what a device carries, what a command would do, what works on a machine."""

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from compressor.api.shown import Shown, html_of
from compressor.errors import EXIT_MISSING, EXIT_PASS

if TYPE_CHECKING:
    from compressor.schema.base import Noun
    from compressor.schema.completions import CompletionPlan
    from compressor.schema.forecast import ExportForecast, Forecast
    from compressor.schema.students import Students

__all__ = ["CompletionPlanResult", "DoctorResult", "PlanResult", "StudentsResult"]


@dataclass(frozen=True, repr=False)
class StudentsResult(Shown):
    """Candidates for a student, measured: the `answer` as a noun, and as a table for people."""

    answer: "Students"
    text: str
    warnings: tuple[str, ...] = ()

    @property
    def admitted(self) -> tuple[str, ...]:
        """Those that hold the budget in some runtime and precision, as "timm:NAME", the fastest first."""
        return tuple(dict.fromkeys(row.figures.student for row in self.answer.rows if row.admitted))

    @property
    def summary(self) -> str:
        students = {row.figures.student for row in self.answer.rows}
        return f"{len(self.admitted)} of {len(students)} candidates hold the budget of {self.answer.profile}"

    def to_dict(self) -> dict[str, Any]:
        return self.answer.model_dump(mode="json")

    def _repr_html_(self) -> str:
        return f"{super()._repr_html_()}<pre>{html.escape(self.text)}</pre>"


@dataclass(frozen=True, repr=False)
class CompletionPlanResult(Shown):
    """What `predict` would ask a language model for: its `plan`, and as a `text`."""

    plan: "CompletionPlan"
    text: str
    exit_code: int = EXIT_PASS
    warnings: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        return self.text.rstrip().splitlines()[-1]

    def to_dict(self) -> dict[str, Any]:
        return self.plan.model_dump(mode="json")


@dataclass(frozen=True, repr=False)
class PlanResult(Shown):
    """What a command would do: its `plan`, and as a `text`. `exit_code`: 0 where nothing that can be checked now would
    stop it, or the export after it."""

    plan: "Forecast | ExportForecast"
    text: str
    exit_code: int
    warnings: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        return self.text.rstrip().splitlines()[-1]

    def to_dict(self) -> dict[str, Any]:
        return self.plan.model_dump(mode="json")

    def _repr_html_(self) -> str:
        return f"<pre>{html_of(self.text)}</pre>"


@dataclass(frozen=True, repr=False)
class DoctorResult(Shown):
    """What a machine or a device has: as a noun, as a text for people, and the install lines of what a profile needs
    and it lacks."""

    diagnosis: "Noun"
    text: str
    missing: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    @property
    def exit_code(self) -> int:
        return EXIT_MISSING if self.missing else EXIT_PASS

    @property
    def passed(self) -> bool:
        return not self.missing

    @property
    def summary(self) -> str:
        return f"missing: {'; '.join(self.missing)}" if self.missing else "nothing that was asked for is missing"

    def to_dict(self) -> dict[str, Any]:
        return self.diagnosis.model_dump(mode="json")

    def _repr_html_(self) -> str:
        return f"{super()._repr_html_()}<pre>{html.escape(self.text)}</pre>"
