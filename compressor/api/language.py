"""`kdc export`, `measure`, `report` and `check` of a language model as functions: what kdc does for other models and
not for these is refused here, in one line."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from compressor.api.call import listener
from compressor.api.outputs import format_of, refuse_out
from compressor.api.shown import Shown, html_table
from compressor.api.values import assignments, optional_path, path_of, profile_of, several
from compressor.errors import EXIT_PASS, KdcError
from compressor.files.writing import write_output

if TYPE_CHECKING:
    from compressor.language_bundles import Session

__all__ = ["LanguageResult", "check", "export", "measure", "or_of_language", "refuse_plan", "report"]

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, repr=False)
class LanguageResult(Shown):
    """A language model's bundle, in the folder `bundle`, and its `report`, a LanguageReport: for a type checker
    anything, so that who exports classifiers need not ask which of the two it is. `allow_unmeasured`: whether what was
    not measured is let through; `text`: in the `format` that `report` was asked for; `pushed`: None."""

    FORMATS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "text": (".txt",),
        "md": (".md", ".markdown", ".txt"),
        "html": (".html", ".htm"),
        "json": (".json",),
        "junit": (".xml",),
    }
    """Each with what the name of its file may end on."""
    bundle: Path
    report: Any
    allow_unmeasured: bool = False
    warnings: tuple[str, ...] = ()
    format: str = "text"
    pushed: str | None = None

    @property
    def verdict(self) -> str:
        """ "pass", "fail", "inconclusive" or "unmeasured"."""
        return str(self.report.verdict)

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
        values: dict[str, Any] = self.report.model_dump(mode="json")
        return values

    def to_json(self) -> str:
        from compressor.report.language import to_json

        return to_json(self.report)

    def to_markdown(self) -> str:
        from compressor.report.language import to_markdown

        return to_markdown(self.report, self.allow_unmeasured)

    def to_text(self) -> str:
        """What a terminal shows of it: at most 80 signs wide."""
        from compressor.report.language import to_text

        return to_text(self.report, str(self.bundle), self.allow_unmeasured)

    @property
    def text(self) -> str:
        from compressor.report.language import to_html, to_junit

        if self.format == "junit":
            return to_junit(self.report)
        if self.format == "html":
            return to_html(self.bundle, self.report, self.allow_unmeasured)
        return {"text": self.to_text, "md": self.to_markdown, "json": self.to_json}[self.format]()

    def _repr_html_(self) -> str:
        from compressor.report.language.render import bits, shares
        from compressor.report.render.text import estimate, megabytes, number

        rows = [
            (
                f"{row.name}{'' if row.role == 'student' else f' ({row.role})'}",
                number(megabytes(row.size_bytes)),
                estimate(row.tokens_per_s),
                bits(row.test),
                shares(row.retention),
            )
            for row in self.report.rows
        ]
        header = ("variant", "size (MB)", "tokens/s", "bits a byte, test", "retention (%)")
        return super()._repr_html_() + html_table(header, rows)


def or_of_language(instead: Callable[..., LanguageResult]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """For a function whose first argument is a run or a bundle: of a language model, `instead` is called, with all the
    keywords."""

    def decorated(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        first = next(iter(signature.parameters))

        @functools.wraps(function)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            from compressor.language_bundles import is_bundle, is_run

            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            folder = path_of(bound.arguments[first], first)
            if (is_run if first == "run" else is_bundle)(folder):
                made: Any = instead(**bound.arguments)
                return made  # type: ignore[no-any-return]  # the function says that it may be this
            return function(*args, **kwargs)

        return call

    return decorated


def export(*, run: Any, profile: Any, out: Any, qat: bool, **given: Any) -> LanguageResult:
    """See `compressor.export`."""
    from compressor import language_bundles
    from compressor.narrowing import narrow

    heard, folder = listener(given["progress"]), path_of(out, "--out")
    refused = ("bake_preprocessing", "dynamic_batch", "trim_vocabulary")
    language_bundles.refuse({f"--{name.replace('_', '-')}": given[name] for name in refused})
    if isinstance(profile, (list, tuple)) and len(profile) != 1:
        raise KdcError("several --profile: kdc exports a language model for one at a time", "one after the other")
    session = _session(given)
    chosen = profile_of(profile[0] if isinstance(profile, (list, tuple)) else profile, assignments(given["set"]))
    targets, precisions = several(given["target"], "--target"), several(given["precision"], "--precision")
    chosen = narrow(chosen, targets, precisions)
    if qat and chosen.asks_for("int8"):
        heard.note("int8 is of the weights alone, rounded as they are: no training goes on for it")
    if chosen.budget.of_classifiers:
        lines = ", ".join(chosen.budget.of_classifiers)
        heard.note(f"profile {chosen.name}: {lines}: not for language models, and not judged")
    made = language_bundles.export(
        path_of(run, "run"), chosen, folder, session, teacher=given["teacher"], overwrite=given["overwrite"],
        progress=heard,
    )  # fmt: skip
    return LanguageResult(folder, made, session.allow_unmeasured, heard.warnings)


def refuse_plan(run: Path) -> None:
    """Raise KdcError where it is the run of a language model."""
    from compressor.language_bundles import is_run, refuse

    refuse({"--plan": is_run(run)})


def measure(*, bundle: Any, **given: Any) -> LanguageResult:
    """See `compressor.measure`."""
    from compressor import language_bundles

    heard, folder, session = listener(given["progress"]), path_of(bundle, "bundle"), _session(given)
    made = language_bundles.measure(folder, session, progress=heard)
    return LanguageResult(folder, made, session.allow_unmeasured, heard.warnings)


def _session(given: Mapping[str, Any]) -> "Session":
    """Raises KdcError for a device that is not this machine, and for what is not measured of language models."""
    from compressor.language_bundles import Session, refuse

    devices: Sequence[str] = several(given["device"], "--device")
    elsewhere = [device for device in devices if device != "local"]
    if elsewhere or len(devices) > 1:
        raise KdcError(
            f"--device {' '.join(elsewhere or devices)}: kdc measures language models on this machine alone yet",
            "leave it out; or copy the bundle there, `python3 runners/bench.py BUNDLE`, copy BUNDLE/measurements back, "
            "and kdc report BUNDLE",
        )
    refuse({"--device-python": given["device_python"], "--baseline": given["baseline"], "--explain": given["explain"]})
    return Session(given["rounds"], given["seconds"], given["allow_unmeasured"])


def report(*, bundle: Any, format: str | None, out: Any, overwrite: bool, **given: Any) -> LanguageResult:
    """See `compressor.report`."""
    from compressor.language_bundles import refuse
    from compressor.report.language import refresh

    refuse({f"--{name}": given[name] for name in ("baseline", "history", "push")})
    folder, file = path_of(bundle, "bundle"), optional_path(out, "--out")
    chosen = format_of(file) if format is None else format
    if chosen in ("bencher", "release"):
        raise KdcError(
            f"--format {chosen}: kdc does not write that of language models yet",
            f"one of {', '.join(LanguageResult.FORMATS)}",
        )
    refuse_out(file, chosen, LanguageResult.FORMATS, [folder], overwrite)
    made = refresh(folder, given["allow_unmeasured"])
    done = LanguageResult(folder, made, given["allow_unmeasured"], format=chosen)
    if file is not None:
        write_output(file, done.text, "kdc report", overwrite=overwrite)
    return done


def check(*, bundle: Any, **given: Any) -> LanguageResult:
    """See `compressor.check`."""
    from compressor.language_bundles import refuse
    from compressor.report.language import check as checked

    refuse({"--baseline": given["baseline"]})
    folder = path_of(bundle, "bundle")
    return LanguageResult(folder, checked(folder), given["allow_unmeasured"])
