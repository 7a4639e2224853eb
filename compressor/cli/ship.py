"""kdc export, measure, report and check: from a student to a verdict."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from compressor.cli.options import (
    AllowUnmeasured,
    AsJson,
    Baseline,
    BundleDir,
    Device,
    DevicePython,
    Overwrite,
    OverwriteFile,
    ProfileName,
    Quiet,
    Rounds,
    Seconds,
    SetProfile,
    Throughput,
)
from compressor.errors import KdcError

if TYPE_CHECKING:
    from compressor.schema.report import Report

__all__ = ["check", "export", "judge", "measure", "report"]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that kdc distill made.")],
    profile: ProfileName,
    out: Annotated[Path, typer.Option(help="Folder for the bundle.")],
    target: Annotated[
        list[str] | None, typer.Option(help="Only this runtime, or RUNTIME-PRECISION, of the profile; repeatable.")
    ] = None,
    precision: Annotated[
        list[str] | None, typer.Option(help="Only this precision of the profile's targets; repeatable.")
    ] = None,
    qat: Annotated[
        bool, typer.Option("--qat/--no-qat", help="Train on under fake quantization where int8 loses too much.")
    ] = True,
    bake: Annotated[
        bool, typer.Option("--bake-preprocessing", help="Build the normalization in: the model takes uint8 images.")
    ] = False,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Let the batch vary from call to call.")
    ] = False,
    teacher: Annotated[str | None, typer.Option(help="Where the run's teacher lies now, if it was moved.")] = None,
    device: Device = "local",
    device_python: DevicePython = None,
    baseline: Baseline = None,
    rounds: Rounds = 30,
    seconds: Seconds = 60.0,
    throughput: Throughput = True,
    allow_unmeasured: AllowUnmeasured = False,
    assignments: SetProfile = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Export for a device, measure, report; the exit code says whether the budget holds."""
    from compressor import pipeline
    from compressor.profiles import load_profile
    from compressor.terminal.console import progress_for

    chosen = pipeline.narrow(load_profile(profile, assignments or []), target or [], precision or [])
    how = pipeline.Measuring(device, device_python, baseline, rounds, seconds, allow_unmeasured, throughput)
    progress = progress_for(quiet)
    building = pipeline.Building(qat, bake, dynamic_batch)
    report = pipeline.export(
        run, chosen, out, how, teacher=teacher, building=building, overwrite=overwrite, progress=progress
    )
    judge(report, allow_unmeasured, as_json)


def measure(
    bundle: BundleDir,
    device: Device = "local",
    device_python: DevicePython = None,
    baseline: Baseline = None,
    rounds: Rounds = 30,
    seconds: Seconds = 60.0,
    throughput: Throughput = True,
    allow_unmeasured: AllowUnmeasured = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Measure a bundle, here or on a device, and report. Nothing is installed on a device.

    Also finishes an export that was stopped before it was measured.
    """
    from compressor import pipeline
    from compressor.terminal.console import progress_for

    how = pipeline.Measuring(device, device_python, baseline, rounds, seconds, allow_unmeasured, throughput)
    report = pipeline.measure(bundle, how, progress=progress_for(quiet))
    judge(report, allow_unmeasured, as_json)


def report(
    bundle: BundleDir,
    format_: Annotated[str, typer.Option("--format", help="md, json or junit.")] = "md",
    out: Annotated[Path | None, typer.Option(help="Write it to this file instead of stdout.")] = None,
    overwrite: OverwriteFile = False,
    allow_unmeasured: AllowUnmeasured = False,
) -> None:
    """Render a bundle's report, recomputed from its raw samples; takes up measurements made on a device. Ends with 0
    whatever the verdict is: kdc check is the gate."""
    from compressor.files.writing import refuse_existing, write_output
    from compressor.report import refresh, to_json, to_junit, to_markdown
    from compressor.terminal.console import show_json, show_result

    renderers = {"md": lambda r: to_markdown(r, allow_unmeasured), "json": to_json, "junit": to_junit}
    if format_ not in renderers:
        raise KdcError(f"--format {format_!r} is not one of {', '.join(renderers)}")
    if out is not None:
        if out.resolve().is_relative_to(bundle.resolve()):
            raise KdcError(f"--out {out} lies in the bundle, which is sealed", "choose a file outside of it")
        refuse_existing(out, overwrite=overwrite)
    text = renderers[format_](refresh(bundle, allow_unmeasured))
    if out is None:
        (show_json if format_ == "json" else show_result)(text)
    else:
        write_output(out, text, "kdc report", overwrite=overwrite)


def check(
    bundle: BundleDir, allow_unmeasured: AllowUnmeasured = False, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """The gate alone: verify every file, recompute every verdict; the exit code says whether the budget holds.

    A bundle is not signed: its seal shows damage and edits, not forgery.
    """
    from compressor.report import check as run
    from compressor.report import exit_code_for, seal_line, to_json, verdict_line
    from compressor.terminal.console import show_json, show_line

    result = run(bundle)
    if as_json:
        show_json(to_json(result))
    elif not quiet:
        show_line(verdict_line(result, allow_unmeasured))
        show_line(seal_line(bundle))
    raise typer.Exit(exit_code_for(result, allow_unmeasured))


def judge(report: "Report", allow_unmeasured: bool, as_json: bool) -> None:
    from compressor.report import exit_code_for, to_json, to_markdown
    from compressor.terminal.console import show_json, show_result

    if as_json:
        show_json(to_json(report))
    else:
        show_result(to_markdown(report, allow_unmeasured))
    raise typer.Exit(exit_code_for(report, allow_unmeasured))
