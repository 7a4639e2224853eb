"""What the calls of the API return: where the result lies, its figures, and how a notebook shows it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from compressor.api.shown import Shown, html_table
from compressor.errors import EXIT_PASS

if TYPE_CHECKING:
    from compressor.report import Results, Trend
    from compressor.schema.accuracy import Score
    from compressor.schema.completions import Completions
    from compressor.schema.predictions import Predictions
    from compressor.schema.report import Report, Row
    from compressor.schema.side_by_side import SideBySide
    from compressor.schema.specialists import Specialists
    from compressor.schema.student import Accuracy, Student

__all__ = [
    "BundleResult",
    "ComparisonResult",
    "CompletionsResult",
    "PredictionsResult",
    "ReportResult",
    "RunResult",
    "SpecialistsResult",
]


@dataclass(frozen=True, repr=False)
class RunResult(Shown):
    """A run: the folder `out`, and its `student`, which for `teach` is the model that was taught."""

    out: Path
    student: "Student"
    warnings: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """How the run is named as a teacher: "run:DIR"."""
        return f"run:{self.out}"

    @property
    def test(self) -> "Score":
        """On the test split top-1, or bits a byte, with its n and 95 % interval."""
        return self.student.test

    @property
    def summary(self) -> str:
        student = self.student
        return (
            f"{self.out}: {student.architecture}, {student.weights.parameters:,} parameters, test {self._figure}"
            f"{_scored(student.test)}, kept epoch {student.kept_epoch}{self._gain}"
        )

    @property
    def _figure(self) -> str:
        """Before a figure that does not say itself what it is."""
        return "accuracy " if self.student.class_names else ""

    @property
    def _gain(self) -> str:
        from compressor.stats import gain_line, gained_interval

        gain = self.student.gain
        return "" if gain is None else f"; {gain_line(gained_interval(gain.test), gain.test.split)}"

    def to_dict(self) -> dict[str, Any]:
        return {"out": str(self.out), **self.student.model_dump(mode="json")}

    def _repr_html_(self) -> str:
        student = self.student
        rows = [
            ("folder", self.out),
            ("model", f"{student.architecture}, {student.weights.parameters:,} parameters, from {student.init}"),
            ("data", student.data.source + (f", {len(student.class_names)} classes" if student.class_names else "")),
            (f"test {self._figure}".strip(), _scored(student.test)),
            (f"validation {self._figure}".strip(), f"{_scored(student.validation)}, kept epoch {student.kept_epoch}"),
        ]
        if student.teacher is not None:
            rows.insert(3, ("teacher", student.teacher.source))
        if student.teacher_validation is not None:
            rows.append((f"teacher's validation {self._figure}".strip(), _scored(student.teacher_validation)))
        if student.gain is not None:
            rows.append(("the same student on labels alone, test accuracy", _scored(student.gain.control_test)))
            rows.append(("gain of distillation", self._gain.removeprefix("; ")))
        return html_table((), rows)


@dataclass(frozen=True, repr=False)
class SpecialistsResult(Shown):
    """Specialists and their generalist, in the folder `out`."""

    out: Path
    specialists: "Specialists"
    warnings: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """How they are named as a teacher: "specialists:DIR"."""
        return f"specialists:{self.out}"

    @property
    def summary(self) -> str:
        before, after = self.specialists.generalist_validation, self.specialists.validation
        return (
            f"{self.out}: {len(self.specialists.specialists)} specialists, validation accuracy {after.accuracy:.2%} "
            f"with them, {before.accuracy:.2%} without (n={after.n})"
        )

    def to_dict(self) -> dict[str, Any]:
        return {"out": str(self.out), **self.specialists.model_dump(mode="json")}

    def _repr_html_(self) -> str:
        rows = [(row.run, ", ".join(row.classes), _scored(row.validation)) for row in self.specialists.specialists]
        return super()._repr_html_() + html_table(("specialist", "classes", "validation accuracy"), rows)


@dataclass(frozen=True, repr=False)
class PredictionsResult(Shown):
    """A teacher's predictions, in the table `out`."""

    out: Path
    predictions: "Predictions"
    warnings: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """How the table is named as a teacher: "outputs:FILE"."""
        return f"outputs:{self.out}"

    @property
    def validation(self) -> "Accuracy":
        """Top-1 on the validation split, with its n and 95 % interval."""
        return self.predictions.validation

    @property
    def summary(self) -> str:
        rows = sum(self.predictions.counts.values())
        return f"{self.out}: {rows:,} rows; validation accuracy {_scored(self.validation)}"

    def to_dict(self) -> dict[str, Any]:
        return self.predictions.model_dump(mode="json")


@dataclass(frozen=True, repr=False)
class CompletionsResult(Shown):
    """A language model's answers to prompts, in the table `out`."""

    out: Path
    completions: "Completions"
    warnings: tuple[str, ...] = ()

    @property
    def reference(self) -> str:
        """How the table is named as a teacher: "outputs:FILE"."""
        return f"outputs:{self.out}"

    @property
    def summary(self) -> str:
        done, unanswered = self.completions, sum(self.completions.unanswered.values())
        without = f", {unanswered:,} have no answer that can be used" if unanswered else ""
        return f"{self.out}: {done.asked:,} answers more, {done.before:,} were there{without}"

    def to_dict(self) -> dict[str, Any]:
        return self.completions.model_dump(mode="json")


@dataclass(frozen=True, repr=False)
class BundleResult(Shown):
    """A bundle, in the folder `bundle`, and its `report`. `allow_unmeasured`: whether what was not measured is let
    through. `baseline`: what the report holds it against, where it was not measured beside that."""

    bundle: Path
    report: "Report"
    allow_unmeasured: bool = False
    warnings: tuple[str, ...] = ()
    baseline: Path | None = None

    @property
    def verdict(self) -> str:
        """ "pass", "fail", "inconclusive" or "unmeasured"."""
        return self.report.verdict

    @property
    def exit_code(self) -> int:
        """With what the command ends: 0, 1 or 3."""
        from compressor.report import exit_code_for

        return exit_code_for(self.report, self.allow_unmeasured)

    @property
    def passed(self) -> bool:
        return self.exit_code == EXIT_PASS

    @property
    def summary(self) -> str:
        from compressor.report import verdict_line

        return verdict_line(self.report, self.allow_unmeasured)

    def to_dict(self) -> dict[str, Any]:
        return self.report.model_dump(mode="json")

    def to_markdown(self) -> str:
        from compressor.report import to_markdown

        return to_markdown(self.report, self.allow_unmeasured)

    def to_text(self) -> str:
        """What a terminal shows of it, without colours: at most 80 signs wide."""
        from compressor.report import summary
        from compressor.terminal.console import rendered_text

        return rendered_text(summary(self.report, str(self.bundle), self.allow_unmeasured, self.baseline))

    def _repr_html_(self) -> str:
        from compressor.report.render.text import estimate, megabytes, number

        shown = []
        for row in self.report.rows:
            counted = "" if row.p50_ms is None else f" (n={row.p50_ms.n} {row.p50_ms.of})"
            tested = "" if row.accuracy is None else f" (n={row.accuracy.n})"
            shown.append(
                (
                    f"{row.name}{'' if row.role == 'student' else f' ({row.role})'}",
                    number(megabytes(row.size_bytes)),
                    estimate(row.p50_ms) + counted,
                    estimate(row.accuracy, percent=True) + tested,
                    estimate(row.retention, percent=True),
                    self._verdict_on(row),
                )
            )
        header = ("variant", "size (MB)", "p50 (ms)", "accuracy (%)", "retention (%)", "verdict")
        return super()._repr_html_() + html_table(header, shown)

    def _verdict_on(self, row: "Row") -> str:
        verdicts = [f"{check.verdict} {check.line}" for check in self.report.checks if check.variant == row.name]
        return "–" if not verdicts else "; ".join(text for text in verdicts if not text.startswith("pass ")) or "pass"


@dataclass(frozen=True, repr=False)
class ReportResult(BundleResult):
    """A bundle's report, as `text` in the `format` that was asked for. `pushed`: where it can be seen on the hub;
    `trend`: of the history that it was added to; `beside`: what the report was made from, where it is held against
    another baseline than the bundle's own."""

    FORMATS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": (".txt",),
        "md": (".md", ".markdown", ".txt"),
        "json": (".json",),
        "html": (".html", ".htm"),
        "junit": (".xml",),
        "bencher": (".json",),
        "release": (".json",),
    }
    """Each with what the name of its file may end on."""
    format: str = "text"
    pushed: str | None = None
    trend: "Trend | None" = None
    beside: "Results | None" = None

    @property
    def text(self) -> str:
        from compressor.report import counted, release_of, to_bencher, to_html, to_json, to_junit

        if self.format in ("text", "md"):
            return self.to_text() if self.format == "text" else self.to_markdown() + self.history
        if self.format == "html":
            return to_html(self.bundle, self.report, self.beside, self.allow_unmeasured, self.trend)
        if self.format == "release":
            return release_of(counted(self.bundle)).model_dump_json(indent=1) + "\n"
        if self.format == "json":
            return to_json(self.report)
        return {"junit": to_junit, "bencher": to_bencher}[self.format](self.report)

    @property
    def history(self) -> str:
        """The trend of the history, as markdown; empty where none was asked for."""
        from compressor.report import trend_table

        return "" if self.trend is None else f"\n{trend_table(self.trend)}\n"


@dataclass(frozen=True, repr=False)
class ComparisonResult(Shown):
    """Several bundles side by side, as `text` in the `format` that was asked for."""

    FORMATS: ClassVar[Mapping[str, tuple[str, ...]]] = {"md": (".md", ".markdown", ".txt"), "json": (".json",)}
    """Each with what the name of its file may end on."""
    side_by_side: "SideBySide"
    format: str = "md"

    @property
    def summary(self) -> str:
        columns = self.side_by_side.columns
        return "; ".join(f"{column.bundle}: {column.verdict} on profile {column.profile}" for column in columns)

    def to_dict(self) -> dict[str, Any]:
        return self.side_by_side.model_dump(mode="json")

    @property
    def text(self) -> str:
        from compressor.report import side_by_side_table

        if self.format == "md":
            return side_by_side_table(self.side_by_side)
        return self.side_by_side.model_dump_json(indent=2) + "\n"


def _scored(score: "Score") -> str:
    from compressor.stats.scores import scored_any

    return f"{scored_any(score)} (n={score.n})"
