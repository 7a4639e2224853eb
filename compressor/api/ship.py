"""`kdc export`, `measure`, `report` and `check` as functions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from compressor.api import language
from compressor.api.call import StrPath, api_call, called_like, listener
from compressor.api.language import LanguageResult, or_of_language
from compressor.api.outputs import format_of, refuse_out, refuse_sealed
from compressor.api.results import BundleResult, ReportResult
from compressor.api.results_before import PlanResult
from compressor.api.several import DevicesResult, refuse_for_several, reported, result_of
from compressor.api.values import Assignments, assignments, optional_path, path_of, profile_of, several
from compressor.errors import KdcError
from compressor.files.writing import write_output
from compressor.progress import Progress

if TYPE_CHECKING:
    from compressor.api.values import ProfileLike
    from compressor.pipeline import Measuring
    from compressor.schema.profile import Profile

__all__ = ["check", "export", "measure", "plan_export", "report"]


@api_call
@or_of_language(language.export)
def export(
    run: StrPath,
    *,
    profile: "ProfileLike | Sequence[ProfileLike]",
    out: StrPath,
    target: str | Sequence[str] | None = None,
    precision: str | Sequence[str] | None = None,
    qat: bool = True,
    bake_preprocessing: bool = False,
    dynamic_batch: bool = False,
    trim_vocabulary: bool = False,
    teacher: str | None = None,
    device: str | Sequence[str] | None = None,
    device_python: str | None = None,
    baseline: StrPath | None = None,
    rounds: int = 30,
    seconds: float = 60.0,
    throughput: bool = True,
    explain: bool = False,
    allow_unmeasured: bool = False,
    set: Assignments | None = None,
    overwrite: bool = False,
    progress: bool | Progress = False,
) -> BundleResult | DevicesResult | LanguageResult:
    """Export a run for a device, measure it, and report whether the budget holds.

    Args:
        run: a folder that `distill` made.
        profile: name, path or Profile of the device; several: a bundle for each in `out`/NAME, one verdict over all.
        out: folder for the bundle.
        target: only these of the profile's runtimes, each RUNTIME or RUNTIME-PRECISION.
        precision: only these precisions of the profile's targets.
        qat: train on under fake quantization where int8 loses too much.
        bake_preprocessing: build it in: the model takes uint8 images; of sound, a waveform.
        dynamic_batch: let the batch vary from call to call; that of texts always does.
        trim_vocabulary: of texts, keep the tokens alone that the training texts use.
        teacher: where the run's teacher lies now, if it was moved.
        set: values of the profile, `{"budget.p90_ms": 20}` or `["budget.p90_ms=20"]`.
        overwrite: replace what kdc made earlier in `out`.
        device, device_python, baseline, rounds, seconds, throughput, allow_unmeasured: see `measure`. With several
            profiles, `device` is one for all or one for each.
        explain: see `measure`; also compare every layer of int8 variants with the same one in float.
        progress: see `compressor.api`.

    Raises:
        KdcError: for what the caller can mend. A budget that does not hold raises nothing: see `passed`.
    """
    from compressor import pipeline, profile_bundles

    heard, folder = listener(progress), path_of(out, "--out")
    narrowed = [_narrowed(each, set, target, precision) for each in _each_of(profile)]
    way = _measuring(device, device_python, baseline, rounds, seconds, allow_unmeasured, throughput, explain=explain)
    building = pipeline.Building(qat, bake_preprocessing, dynamic_batch, explain, trim_vocabulary)
    asked: dict[str, Any] = {"teacher": teacher, "building": building, "overwrite": overwrite, "progress": heard}
    if len(narrowed) == 1:
        made = pipeline.export(path_of(run, "run"), narrowed[0], folder, way, **asked)
    else:
        made = profile_bundles.export_each(path_of(run, "run"), narrowed, folder, way, **asked)
    return result_of(folder, made, allow_unmeasured, heard.warnings)


def _each_of(profile: "ProfileLike | Sequence[ProfileLike]") -> "list[ProfileLike]":
    """The profiles; one or more."""
    named: list[Any] = list(profile) if isinstance(profile, (list, tuple)) else [profile]
    if not named:
        raise KdcError("profile names none", "a profile's name, or the path of its YAML")
    return named


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
    language.refuse_plan(path_of(given["run"], "run"))
    profiles = _each_of(given["profile"])
    if len(profiles) > 1:
        raise KdcError(f"--plan is for one profile, and {len(profiles)} are named", "plan for one after the other")
    names = ("device", "device_python", "baseline", "rounds", "seconds", "allow_unmeasured", "throughput")
    measuring = _measuring(*(given[name] for name in names), explain=given["explain"])
    ways = ("qat", "bake_preprocessing", "dynamic_batch", "explain", "trim_vocabulary")
    building = pipeline.Building(*(given[name] for name in ways))
    plan = planning.plan_export(
        path_of(given["run"], "run"),
        _narrowed(profiles[0], given["set"], given["target"], given["precision"]),
        path_of(given["out"], "--out"),
        building,
        measuring,
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
@or_of_language(language.measure)
def measure(
    bundle: StrPath,
    *,
    device: str | Sequence[str] | None = None,
    device_python: str | None = None,
    baseline: StrPath | None = None,
    rounds: int = 30,
    seconds: float = 60.0,
    throughput: bool = True,
    explain: bool = False,
    allow_unmeasured: bool = False,
    progress: bool | Progress = False,
) -> BundleResult | DevicesResult | LanguageResult:
    """Measure a bundle, here or on a device, or on several, and report. Nothing is installed on a device.

    Also finishes an export that was stopped before it was measured.

    Args:
        bundle: a folder that `export` made.
        device: "local" (None), "ssh://[USER@]HOST[:PORT][/FOLDER]" or "adb:SERIAL[/FOLDER]", with a name "NAME=URL".
            Several: measured at a time, one verdict over all. Where the bundle has several and one of them is named,
            the others stay as they were measured.
        device_python: the interpreter on the device, e.g. of a virtual environment there.
        baseline: an earlier bundle, whose student races along, or its release: what got worse fails the lines on it.
        rounds: rounds of latency blocks; more while a verdict is open.
        seconds: for the latency rounds in all.
        throughput: also try how many images a second go through.
        explain: also time each layer, by the runtime's own profiler, in a run of its own.
        allow_unmeasured: do not judge lines of the budget that were not measured.
        progress: see `compressor.api`.

    Raises:
        KdcError: see `export`.
    """
    from compressor import pipeline

    heard, folder = listener(progress), path_of(bundle, "bundle")
    way = _measuring(device, device_python, baseline, rounds, seconds, allow_unmeasured, throughput, explain=explain)
    return result_of(folder, pipeline.measure(folder, way, progress=heard), allow_unmeasured, heard.warnings)


@api_call
@or_of_language(language.report)
def report(
    bundle: StrPath,
    *,
    format: str | None = None,
    out: StrPath | None = None,
    overwrite: bool = False,
    allow_unmeasured: bool = False,
    baseline: StrPath | None = None,
    history: StrPath | None = None,
    push: str | None = None,
) -> ReportResult | DevicesResult | LanguageResult:
    """Render a bundle's report, recomputed from its raw samples; takes up measurements made on a device.

    Args:
        bundle: a folder that `export` made.
        format: "text" (a summary of 80 columns), "md", "json", "html", "junit" or "bencher": of the result's `text`; or
            "release": what later bundles are held against. None: as the name of `out` ends, or "text".
        out: a file to write that text to.
        overwrite: replace the file.
        allow_unmeasured: do not judge lines of the budget that were not measured.
        baseline: an earlier bundle or its release, to be held against what that predicted; the bundle stays as it is.
        history: a file of JSON lines that gets one for this bundle; the trend in it is part of "md" and "html".
        push: "hf:OWNER/NAME", a repository of the Hugging Face hub that gets model card, report and what ships; one
            that does not exist is made, private. Nothing is sent anywhere without it.

    Raises:
        KdcError: see `export`.
    """
    from compressor.report import baselines_for
    from compressor.report import push as send
    from compressor.report.push import repository
    from compressor.report.release import bundle_of

    folder, file = path_of(bundle, "bundle"), optional_path(out, "--out")
    earlier, remembered = optional_path(baseline, "--baseline"), optional_path(history, "--history")
    chosen = format_of(file) if format is None else format
    sealed = [folder] if earlier is None or not bundle_of(earlier).is_dir() else [folder, bundle_of(earlier)]
    refuse_out(file, chosen, ReportResult.FORMATS, sealed, overwrite)
    if push is not None:
        if earlier is not None:
            raise KdcError("--push sends what the bundle itself says, and --baseline is not in it", "give one of them")
        repository(push)
    if remembered is not None:
        refuse_sealed("--history", remembered, sealed)
        if file is not None and file.resolve() == remembered.resolve():
            raise KdcError(f"--out and --history are both {file}", "name two files")
    refuse_for_several(folder, chosen, {"--push": push, "--history": remembered})
    held_against = None if earlier is None else baselines_for(earlier, folder)
    done = reported(folder, chosen, allow_unmeasured, (earlier, held_against), remembered)
    if file is not None:
        write_output(file, done.text, "kdc report", overwrite=overwrite)
    if push is None or isinstance(done, DevicesResult):
        return done
    return replace(done, pushed=send(folder, done.report, push, allow_unmeasured))


@api_call
@or_of_language(language.check)
def check(
    bundle: StrPath, *, baseline: StrPath | None = None, allow_unmeasured: bool = False
) -> BundleResult | DevicesResult | LanguageResult:
    """The gate alone: verify every file, and recompute every verdict. Needs no torch.

    A bundle is not signed: its seal shows damage and edits, not forgery.

    Args:
        bundle: a folder that `export` made.
        baseline: an earlier bundle or its release, to be held against what that predicted.
        allow_unmeasured: do not judge lines of the budget that were not measured.

    Raises:
        KdcError: where a file is missing, damaged or edited. A budget that does not hold raises nothing: see `passed`.
    """
    from compressor.report import baselines_for, check_each

    folder, earlier = path_of(bundle, "bundle"), optional_path(baseline, "--baseline")
    held_against = None if earlier is None else baselines_for(earlier, folder)
    return result_of(folder, check_each(folder, held_against), allow_unmeasured, baseline=earlier)


def _measuring(
    device: str | Sequence[str] | None, device_python: str | None, baseline: StrPath | None, rounds: int,
    seconds: float, allow_unmeasured: bool, throughput: bool, *, explain: bool,
) -> "Measuring":  # fmt: skip
    from compressor.pipeline import Measuring

    earlier = optional_path(baseline, "--baseline")
    devices = tuple(several(device, "--device")) or ("local",)
    return Measuring(devices, device_python, earlier, rounds, seconds, allow_unmeasured, throughput, explain)
