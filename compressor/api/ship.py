"""`kdc export`, `measure`, `report` and `check` as functions."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.api.call import StrPath, api_call, called_like, listener
from compressor.api.results import BundleResult, ReportResult
from compressor.api.results_before import PlanResult
from compressor.api.values import Assignments, assignments, optional_path, path_of, profile_of, several
from compressor.errors import KdcError
from compressor.files.writing import is_stream, refuse_existing, write_output
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.api.values import ProfileLike
    from compressor.pipeline import Measuring
    from compressor.schema.profile import Profile

__all__ = ["check", "export", "measure", "plan_export", "report"]


@api_call
def export(
    run: StrPath,
    *,
    profile: "ProfileLike",
    out: StrPath,
    target: str | Sequence[str] | None = None,
    precision: str | Sequence[str] | None = None,
    qat: bool = True,
    bake_preprocessing: bool = False,
    dynamic_batch: bool = False,
    teacher: str | None = None,
    device: str = "local",
    device_python: str | None = None,
    baseline: StrPath | None = None,
    rounds: int = 30,
    seconds: float = 60.0,
    throughput: bool = True,
    allow_unmeasured: bool = False,
    set: Assignments | None = None,
    overwrite: bool = False,
    progress: bool | Progress = False,
) -> BundleResult:
    """Export a run for a device, measure it, and report whether the budget holds.

    Args:
        run: a folder that `distill` made.
        profile: name, path or Profile of the device.
        out: folder for the bundle.
        target: only these of the profile's runtimes, each RUNTIME or RUNTIME-PRECISION.
        precision: only these precisions of the profile's targets.
        qat: train on under fake quantization where int8 loses too much.
        bake_preprocessing: build the normalization in: the model takes uint8 images.
        dynamic_batch: let the batch vary from call to call.
        teacher: where the run's teacher lies now, if it was moved.
        set: values of the profile, `{"budget.p90_ms": 20}` or `["budget.p90_ms=20"]`.
        overwrite: replace what kdc made earlier in `out`.
        device, device_python, baseline, rounds, seconds, throughput, allow_unmeasured: see `measure`.
        progress: see `compressor.api`.

    Raises:
        KdcError: for what the caller can mend. A budget that does not hold raises nothing: see `passed`.
    """
    from compressor import pipeline

    heard, folder = listener(progress), path_of(out, "--out")
    made = pipeline.export(
        path_of(run, "run"), _narrowed(profile, set, target, precision), folder,
        _measuring(device, device_python, baseline, rounds, seconds, allow_unmeasured, throughput),
        teacher=teacher, building=pipeline.Building(qat, bake_preprocessing, dynamic_batch), overwrite=overwrite,
        progress=heard,
    )  # fmt: skip
    return BundleResult(folder, made, allow_unmeasured, heard.warnings)


@api_call
@called_like(export)
def plan_export(**keywords: Any) -> PlanResult:
    """What `export` with the same keywords would build: checked, the data opened, nothing written.

    Args:
        keywords: those of `export`.

    Raises:
        KdcError: see `export`.
    """
    from compressor import pipeline, planning

    given, heard = keywords, listener(keywords["progress"])
    names = ("device", "device_python", "baseline", "rounds", "seconds", "allow_unmeasured", "throughput")
    pipeline.require_measurable(_measuring(*(given[name] for name in names)))
    building = pipeline.Building(given["qat"], given["bake_preprocessing"], given["dynamic_batch"])
    plan = planning.plan_export(
        path_of(given["run"], "run"),
        _narrowed(given["profile"], given["set"], given["target"], given["precision"]),
        path_of(given["out"], "--out"),
        building,
        teacher=given["teacher"],
        overwrite=given["overwrite"],
        progress=heard,
    )
    return PlanResult(plan, planning.to_text(plan), planning.exit_code(plan), heard.warnings)


def _narrowed(
    profile: "ProfileLike", sets: Assignments | None, target: str | Sequence[str] | None,
    precision: str | Sequence[str] | None,
) -> "Profile":  # fmt: skip
    from compressor.narrowing import narrow

    chosen = profile_of(profile, assignments(sets))
    return narrow(chosen, several(target, "--target"), several(precision, "--precision"))


@api_call
def measure(
    bundle: StrPath,
    *,
    device: str = "local",
    device_python: str | None = None,
    baseline: StrPath | None = None,
    rounds: int = 30,
    seconds: float = 60.0,
    throughput: bool = True,
    allow_unmeasured: bool = False,
    progress: bool | Progress = False,
) -> BundleResult:
    """Measure a bundle, here or on a device, and report. Nothing is installed on a device.

    Also finishes an export that was stopped before it was measured.

    Args:
        bundle: a folder that `export` made.
        device: "local", "ssh://[USER@]HOST[:PORT][/FOLDER]" or "adb:SERIAL[/FOLDER]".
        device_python: the interpreter on the device, e.g. of a virtual environment there.
        baseline: an earlier bundle, whose student races along.
        rounds: rounds of latency blocks; more while a verdict is open.
        seconds: for the latency rounds in all.
        throughput: also try how many images a second go through.
        allow_unmeasured: do not judge lines of the budget that were not measured.
        progress: see `compressor.api`.

    Raises:
        KdcError: see `export`.
    """
    from compressor import pipeline

    heard, folder = listener(progress), path_of(bundle, "bundle")
    way = _measuring(device, device_python, baseline, rounds, seconds, allow_unmeasured, throughput)
    return BundleResult(folder, pipeline.measure(folder, way, progress=heard), allow_unmeasured, heard.warnings)


@api_call
def report(
    bundle: StrPath,
    *,
    format: str = "md",
    out: StrPath | None = None,
    overwrite: bool = False,
    allow_unmeasured: bool = False,
) -> ReportResult:
    """Render a bundle's report, recomputed from its raw samples; takes up measurements made on a device.

    Args:
        bundle: a folder that `export` made.
        format: "md", "html", "json" or "junit": of the result's `text`.
        out: a file to write that text to.
        overwrite: replace the file.
        allow_unmeasured: do not judge lines of the budget that were not measured.

    Raises:
        KdcError: see `export`.
    """
    from compressor.report import refresh

    folder, file = path_of(bundle, "bundle"), optional_path(out, "--out")
    if format not in ReportResult.FORMATS:
        raise KdcError(f"--format {format!r} is not one of {', '.join(ReportResult.FORMATS)}")
    if file is not None:
        if file.resolve().is_relative_to(folder.resolve()):
            raise KdcError(f"--out {file} lies in the bundle, which is sealed", "choose a file outside of it")
        _refuse_ending(file, format)
        refuse_existing(file, overwrite=overwrite)
    done = ReportResult(folder, refresh(folder, allow_unmeasured), allow_unmeasured, format=format)
    if file is not None:
        write_output(file, done.text, "kdc report", overwrite=overwrite)
    return done


def _refuse_ending(file: Path, format: str) -> None:
    """Raise KdcError where the name ends as that of another format, which the file would then not hold."""
    if not file.suffix or is_stream(file) or file.suffix.lower() in ReportResult.FORMATS[format]:
        return
    formats = {ending: name for name, endings in ReportResult.FORMATS.items() for ending in endings}
    permitted = ", ".join(f"{ending} ({name})" for ending, name in formats.items())
    fitting = formats.get(file.suffix.lower())
    raise KdcError(
        f"--out {file} does not hold a report in the format {format}, as its name says; permitted: {permitted}",
        f"--format {fitting}" if fitting else f"--out {file.with_suffix(ReportResult.FORMATS[format][0])}",
    )


@api_call
def check(bundle: StrPath, *, allow_unmeasured: bool = False) -> BundleResult:
    """The gate alone: verify every file, and recompute every verdict. Needs no torch.

    A bundle is not signed: its seal shows damage and edits, not forgery.

    Args:
        bundle: a folder that `export` made.
        allow_unmeasured: do not judge lines of the budget that were not measured.

    Raises:
        KdcError: where a file is missing, damaged or edited. A budget that does not hold raises nothing: see `passed`.
    """
    from compressor.report import check as run

    folder = path_of(bundle, "bundle")
    return BundleResult(folder, run(folder), allow_unmeasured)


def _measuring(
    device: str, device_python: str | None, baseline: StrPath | None, rounds: int, seconds: float,
    allow_unmeasured: bool, throughput: bool,
) -> "Measuring":  # fmt: skip
    from compressor.pipeline import Measuring

    earlier = optional_path(baseline, "--baseline")
    return Measuring(device, device_python, earlier, rounds, seconds, allow_unmeasured, throughput)
