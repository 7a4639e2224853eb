"""kdc export, measure, report and check: from a student to a verdict."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor.cli.options import (
    AllowUnmeasured,
    AsJson,
    Baseline,
    BundleDir,
    DevicePython,
    Devices,
    Explain,
    ExplainTimes,
    HeldAgainst,
    Overwrite,
    OverwriteFile,
    Plan,
    ProfileNames,
    QuietResult,
    ReportFormat,
    Rounds,
    Seconds,
    SetProfile,
    Throughput,
)
from compressor.cli.plan import show_plan
from compressor.errors import KdcError

if TYPE_CHECKING:
    from compressor.api import BundleResult, DevicesResult, LanguageResult, ReportResult
    from compressor.schema.report import Report

    AnyBundle = BundleResult | DevicesResult | LanguageResult

__all__ = ["check", "export", "judge", "measure", "report"]


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A folder that kdc distill made.")],
    profile: ProfileNames,
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
        bool, typer.Option("--bake-preprocessing", help="Build it in: the model takes uint8 images, or waveforms.")
    ] = False,
    dynamic_batch: Annotated[
        bool, typer.Option("--dynamic-batch", help="Let the batch vary from call to call.")
    ] = False,
    trim_vocabulary: Annotated[
        bool, typer.Option("--trim-vocabulary", help="Of texts, keep the tokens alone that the training texts use.")
    ] = False,
    teacher: Annotated[str | None, typer.Option(help="Where the run's teacher lies now, if it was moved.")] = None,
    device: Devices = None,
    device_python: DevicePython = None,
    baseline: Baseline = None,
    rounds: Rounds = 30,
    seconds: Seconds = 60.0,
    throughput: Throughput = True,
    explain: Explain = False,
    allow_unmeasured: AllowUnmeasured = False,
    assignments: SetProfile = None,
    overwrite: Overwrite = False,
    plan: Plan = False,
    as_json: AsJson = False,
    quiet: QuietResult = False,
) -> None:
    """Export for a device, measure, report; the exit code says whether the budget holds."""
    from compressor import api
    from compressor.terminal.console import progress_for

    asked: dict[str, Any] = {
        "run": run, "profile": profile, "out": out, "target": target, "precision": precision, "qat": qat,
        "bake_preprocessing": bake, "dynamic_batch": dynamic_batch, "trim_vocabulary": trim_vocabulary,
        "teacher": teacher, "device": device,
        "device_python": device_python, "baseline": baseline, "rounds": rounds, "seconds": seconds,
        "throughput": throughput, "explain": explain, "allow_unmeasured": allow_unmeasured, "set": assignments,
        "overwrite": overwrite, "progress": progress_for(quiet),
    }  # fmt: skip
    if plan:
        show_plan(api.plan_export(**asked), as_json)
    judge(api.export(**asked), as_json, quiet)


def measure(
    bundle: BundleDir,
    device: Devices = None,
    device_python: DevicePython = None,
    baseline: Baseline = None,
    rounds: Rounds = 30,
    seconds: Seconds = 60.0,
    throughput: Throughput = True,
    explain: ExplainTimes = False,
    allow_unmeasured: AllowUnmeasured = False,
    as_json: AsJson = False,
    quiet: QuietResult = False,
) -> None:
    """Measure a bundle, here or on a device, and report. Nothing is installed on a device.

    Also finishes an export that was stopped before it was measured.
    """
    from compressor import api
    from compressor.terminal.console import progress_for

    done = api.measure(
        bundle, device=device, device_python=device_python, baseline=baseline, rounds=rounds, seconds=seconds,
        throughput=throughput, explain=explain, allow_unmeasured=allow_unmeasured, progress=progress_for(quiet),
    )  # fmt: skip
    judge(done, as_json, quiet)


def _schema(wanted: bool) -> None:
    if wanted:
        from compressor.report import report_schema
        from compressor.terminal.console import show_json

        show_json(report_schema())
        raise typer.Exit


def report(
    bundle: Annotated[
        list[Path], typer.Argument(metavar="BUNDLE", help="A folder that kdc export made; several: side by side.")
    ],
    format_: ReportFormat = None,
    out: Annotated[Path | None, typer.Option(help="Write it to this file instead of stdout.")] = None,
    overwrite: OverwriteFile = False,
    allow_unmeasured: AllowUnmeasured = False,
    baseline: HeldAgainst = None,
    history: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Add a line for this bundle to FILE, and show the trend.")
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(metavar="hf:REPO", help="Send model card, report and what ships to the Hugging Face hub."),
    ] = None,
    schema: Annotated[
        bool, typer.Option("--schema", callback=_schema, is_eager=True, help="Print the JSON Schema of report.json.")
    ] = False,
    as_json: AsJson = False,
    quiet: QuietResult = False,
) -> None:
    """Render a bundle's report, recomputed from its raw samples; takes up measurements made on a device. Ends with 0
    whatever the verdict is: kdc check is the gate."""
    from compressor import api
    from compressor.terminal.console import progress_for

    if as_json and format_ not in (None, "json"):
        raise KdcError(f"--json and --format {format_} are two formats", "give one of them")
    asked = "json" if as_json else format_
    if len(bundle) > 1:
        for_one: dict[str, object] = {"--baseline": baseline, "--history": history, "--push": push}
        for_one["--allow-unmeasured"] = allow_unmeasured
        _side_by_side(bundle, asked or "md", out, overwrite, for_one, quiet=quiet and asked is None)
        return
    done = api.report(
        bundle[0], format=asked, out=out, overwrite=overwrite, allow_unmeasured=allow_unmeasured, baseline=baseline,
        history=history, push=push,
    )  # fmt: skip
    if out is None:
        _print(done, quiet)
    if isinstance(done, api.ReportResult) and done.pushed is not None:
        progress_for(quiet).note(f"pushed to {done.pushed}")


def _print(done: "ReportResult | DevicesResult | LanguageResult", quiet: bool) -> None:
    from compressor.api import ReportResult
    from compressor.terminal.console import show_json, show_result

    if done.format != "text":
        (show_json if done.format in ("json", "bencher", "release") else show_result)(done.text)
        return
    _show(done, quiet)
    if isinstance(done, ReportResult) and done.history and not quiet:
        show_result(done.history)


def _side_by_side(
    bundles: list[Path], form: str, out: Path | None, overwrite: bool, for_one: dict[str, object], *, quiet: bool
) -> None:
    """What several bundles ship. Raises KdcError for options that mean nothing there."""
    from compressor import api
    from compressor.terminal.console import show_json, show_line, show_result

    if names := [name for name, value in for_one.items() if value]:
        raise KdcError(f"{', '.join(names)} is for one bundle", "name one, or leave the option out")
    done = api.compare(bundles, format=form, out=out, overwrite=overwrite)
    if out is None and quiet:
        show_line(done.summary)
    elif out is None:
        (show_json if done.format == "json" else show_result)(done.text)


def check(
    bundle: BundleDir,
    baseline: HeldAgainst = None,
    allow_unmeasured: AllowUnmeasured = False,
    as_json: AsJson = False,
    quiet: QuietResult = False,
) -> None:
    """The gate alone: verify every file, recompute every verdict; the exit code says whether the budget holds.

    A bundle is not signed: its seal shows damage and edits, not forgery.
    """
    from compressor import api
    from compressor.report import seal_line
    from compressor.report.render.release import beside_baseline
    from compressor.terminal.console import show_json, show_line

    done = api.check(bundle, baseline=baseline, allow_unmeasured=allow_unmeasured)
    if as_json:
        show_json(_json(done))
        raise typer.Exit(done.exit_code)
    show_line(done.summary)
    if not quiet:
        for name, report in _devices(done).items():
            if said := beside_baseline(report):
                show_line(f"{name} against the baseline: {said}".lstrip())
        for folder in _sealed(done):
            show_line(seal_line(folder))
    raise typer.Exit(done.exit_code)


def _devices(done: "AnyBundle") -> "dict[str, Report]":
    """Of classifiers, which may be held against a baseline."""
    from compressor.api import DevicesResult, LanguageResult

    if isinstance(done, LanguageResult):
        return {}
    return done.devices if isinstance(done, DevicesResult) else {"": done.report}


def judge(done: "AnyBundle", as_json: bool, quiet: bool = False) -> None:
    """Show a result, and end as its verdict says."""
    from compressor.terminal.console import show_json

    if as_json:
        show_json(_json(done))
    else:
        _show(done, quiet)
    raise typer.Exit(done.exit_code)


def _sealed(done: "AnyBundle") -> list[Path]:
    """The bundles that were checked: one, or one a profile, of which some may wait to be measured."""
    from compressor.api import DevicesResult
    from compressor.report import counted

    inner = [each.bundle for each in done.measured] if isinstance(done, DevicesResult) else [""]
    folders = [done.bundle / name for name in dict.fromkeys(inner)]
    return [folder for folder in folders if (counted(folder) / "SHA256SUMS").is_file()]


def _json(done: "AnyBundle") -> str:
    from compressor.api import DevicesResult, LanguageResult
    from compressor.report import devices_of, to_json

    if isinstance(done, LanguageResult):
        return done.to_json()
    return to_json(devices_of(done.measured) if isinstance(done, DevicesResult) else done.report)


def _show(done: "AnyBundle", quiet: bool) -> None:
    from compressor.api import DevicesResult, LanguageResult
    from compressor.report import devices_summary, summary
    from compressor.terminal.console import show_line, show_result, show_summary

    if quiet:
        show_line(done.summary)
    elif isinstance(done, LanguageResult):
        show_result(done.to_text())
    elif isinstance(done, DevicesResult):
        show_summary(devices_summary(done.measured, str(done.bundle), done.baseline))
    else:
        show_summary(summary(done.report, str(done.bundle), done.allow_unmeasured, done.baseline))
