"""kdc export, measure, report and check of a language model, put together: as `pipeline`, with a bundle, figures and
lines of their own. The only places that ask of which kind a run or a bundle is are `is_run` and `is_bundle`."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import KdcError
from compressor.files.bundle_folder import UNMEASURED, counted, holds_bundle
from compressor.files.locks import locked
from compressor.files.reading import JSON_BYTES, json_value, read_bytes
from compressor.progress import Progress
from compressor.schema.preprocess import LanguagePreprocess
from compressor.schema.profile import Profile

if TYPE_CHECKING:
    from compressor.schema.language.report import LanguageReport

__all__ = ["Session", "export", "is_bundle", "is_run", "measure", "refuse"]


@dataclass(frozen=True)
class Session:
    """How to measure, on this machine: see `pipeline.Measuring`."""

    rounds: int
    seconds: float
    allow_unmeasured: bool


def is_run(run: Path) -> bool:
    """Whether it is the run of a language model. What is no run at all is for whoever reads it next."""
    return _task(run / "student.json") == LanguagePreprocess.task


def is_bundle(bundle: Path) -> bool:
    """Whether it is the bundle of a language model, measured or waiting for it."""
    waiting = bundle / UNMEASURED
    state = counted(bundle) if holds_bundle(bundle) else counted(waiting)
    return _task(state / "bundle.json") == LanguagePreprocess.task


def _task(path: Path) -> str | None:
    with suppress(KdcError):
        if path.is_file():
            values = json_value(read_bytes(path, most=JSON_BYTES), str(path))
            return values.get("task") if isinstance(values, dict) else None
    return None


def refuse(wanted: Mapping[str, Any]) -> None:
    """Raise KdcError for options that are `wanted` and that kdc cannot do for language models yet."""
    if options := [option for option, value in wanted.items() if value]:
        raise KdcError(
            f"{', '.join(options)}: kdc cannot do that for a language model's bundle yet",
            "leave it out; docs/language.md says what it can",
        )


def export(
    run: Path, profile: Profile, out: Path, session: Session, *, teacher: str | None, overwrite: bool,
    progress: Progress,
) -> "LanguageReport":  # fmt: skip
    """Export the run for the profile, measure it here, and report."""
    from compressor.export.bundle.language import export_language_bundle
    from compressor.files.bundle_change import settle
    from compressor.files.bundle_folder import claim

    claim(out, overwrite)
    with locked(out, "kdc export", warn=progress.warn):
        claim(out, overwrite)  # another command may have ended just before
        settle(out)
        made = export_language_bundle(run, profile, out, teacher=teacher, progress=progress)
        try:
            return _measured(out, session, progress)
        except (KeyboardInterrupt, KdcError):
            kept = "" if made == out else f", and waits in {made}, while the bundle before it stays"
            progress.warn(f"{out} is exported but not measured{kept}: kdc measure {out} finishes it")
            raise


def measure(bundle: Path, session: Session, *, progress: Progress) -> "LanguageReport":
    """Measure a bundle on this machine, report, and seal it. Where an export waits in the bundle to be measured, that
    one is, and takes the bundle's place."""
    if holds_bundle(bundle / UNMEASURED) and holds_bundle(bundle):
        progress.note(f"{bundle} holds a newer export that was not measured yet: that one is, and takes its place")
    with locked(bundle, "kdc measure", warn=progress.warn):
        return _measured(bundle, session, progress)


def _measured(bundle: Path, session: Session, progress: Progress) -> "LanguageReport":
    """`measure`, of a bundle that is locked."""
    from compressor.files.bundle_change import promote, settle

    waiting = bundle / UNMEASURED
    settle(bundle)
    if not holds_bundle(waiting):
        return _measured_in(bundle, bundle, session, progress)
    settle(waiting)
    report = _measured_in(waiting, bundle, session, progress)
    promote(waiting, bundle)
    return report


def _measured_in(folder: Path, bundle: Path, session: Session, progress: Progress) -> "LanguageReport":
    """What was measured, its report, best/ and the seal count together, or none of them."""
    from compressor.files.bundle_change import next_state
    from compressor.measure.language import measure_language
    from compressor.report import verify_made
    from compressor.report.language import finish

    verify_made(folder)
    progress.note(f"measuring {bundle} on this machine")
    with next_state(folder) as following:
        measure_language(following, rounds=session.rounds, seconds=session.seconds, progress=progress)
        verify_made(following)  # a model that was changed meanwhile is not sealed
        return finish(following, session.allow_unmeasured)
