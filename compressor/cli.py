"""The command line: one function a command. What a command needs is imported when it runs, so `--help` is instant."""

import io
import json
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor import __version__, interruption
from compressor.errors import EXIT_INTERRUPTED, EXIT_MISSING, EXIT_PASS, EXIT_USAGE, KdcError, explained

if TYPE_CHECKING:
    from compressor.losses import Loss
    from compressor.progress import Progress
    from compressor.spec import recipe as recipe_noun
    from compressor.spec.report import Report
    from compressor.spec.student import Student

__all__ = ["app", "main", "run"]

INTERRUPTED = KdcError("interrupted")

app = typer.Typer(
    name="kdc",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Distill a large vision model into one that fits a device, and prove it.",
    epilog="Exit codes: 0 the gate passes, 1 it fails, 2 wrong usage or input, 3 inconclusive or unmeasured, "
    "4 a runtime or tool is missing, 130 interrupted.",
)
profiles_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Hardware profiles: the devices kdc knows, and your own."
)
app.add_typer(profiles_app, name="profiles")


def _number(value: float) -> float:
    """NaN is neither below a minimum nor above a maximum."""
    if math.isnan(value):
        raise typer.BadParameter("nan is no number")
    return value


HUBS = "timm:NAME, timm:NAME@CHECKPOINT, timm:local-dir:PATH, hf:REPO_OR_PATH"
MODELS = f"{HUBS} or run:DIR"
TEACHERS = f"{HUBS}, run:DIR, specialists:DIR, outputs:FILE, self or peers"
DATA = "folder:PATH, idx:PATH, parquet:PATH, csv:PATH, hf:NAME_OR_PATH or digits"

Data = Annotated[str, typer.Option(help=f"What to train on: {DATA}.")]
Recipe = Annotated[Path | None, typer.Option(help="A recipe (YAML) instead of the default one.")]
InputSize = Annotated[int | None, typer.Option(min=8, max=4096, help="Input height and width in pixels.")]
Epochs = Annotated[int | None, typer.Option(min=1, max=1_000_000, help="Passes over the training data.")]
BatchSize = Annotated[int | None, typer.Option(min=2, max=1_000_000, help="Images a training step.")]
Seed = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Seed of everything that is drawn.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override one recipe value.")]
SetProfile = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override one value of the profile.")
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave out pictures that cannot be read; they are listed.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in --out.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what kdc made earlier in --out.")]
OverwriteFile = Annotated[bool, typer.Option("--overwrite", help="Replace the file.")]
DecodeCache = Annotated[
    str | None,
    typer.Option(metavar="SIZE|off", help="Disk for decoded pictures, e.g. 20GB. Default: half of what is free."),
]
Tracker = Annotated[str | None, typer.Option(help="Also log epochs to tensorboard, wandb or mlflow.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
ProfileName = Annotated[str, typer.Option(help="A profile's name, or the path of its YAML.")]
BundleDir = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that kdc export made.")]
AllowUnmeasured = Annotated[
    bool, typer.Option("--allow-unmeasured", help="Do not judge budget lines that were not measured.")
]
Rounds = Annotated[
    int, typer.Option(min=11, max=100_000, help="Rounds of latency blocks; more while a verdict is open.")
]
Seconds = Annotated[
    float, typer.Option(min=1, max=1_000_000, callback=_number, help="Seconds for the latency rounds in all.")
]
Throughput = Annotated[
    bool, typer.Option("--throughput/--no-throughput", help="Also try how many images a second go through.")
]
Device = Annotated[
    str, typer.Option(metavar="URL", help="local, ssh://[USER@]HOST[:PORT][/FOLDER] or adb:SERIAL[/FOLDER].")
]
DevicePython = Annotated[
    str | None, typer.Option(metavar="EXE", help="Python on the device, e.g. of a virtual environment there.")
]
Baseline = Annotated[Path | None, typer.Option(metavar="BUNDLE", help="An earlier bundle, whose student races along.")]


@app.command()
def teach(
    teacher: Annotated[str, typer.Option(help=f"The model to fine-tune: {MODELS}.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the run; use it as --teacher run:DIR.")],
    teacher_init: Annotated[
        str, typer.Option(help="Start from its own weights (pretrained), or at random.")
    ] = "pretrained",
    specialty: Annotated[
        list[str] | None,
        typer.Option(metavar="CLASS,CLASS", help="Only tell these classes apart; all others become one. Repeatable."),
    ] = None,
    recipe: Recipe = None,
    input_size: InputSize = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    assignments: Set = None,
    skip_bad: SkipBad = False,
    decode_cache: DecodeCache = None,
    tracker: Tracker = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Fine-tune a model on your classes, so that it can teach: first the new classifier, then everything."""
    from compressor.console import progress_for
    from compressor.distill import Resources
    from compressor.distill import teach as run
    from compressor.spec.student import Request

    if teacher_init not in ("pretrained", "random"):
        raise KdcError(f"--teacher-init {teacher_init!r} is neither pretrained nor random")
    flags, progress = {"epochs": epochs, "batch_size": batch_size, "seed": seed}, progress_for(quiet)
    request = Request(
        command="teach",
        teacher=teacher,
        student=None,
        init=teacher_init,
        data=data,
        skip_bad=skip_bad,
        input_size=input_size,
        recipe=_teaching(recipe, flags, assignments or [], progress),
        specialty=tuple(specialty) if specialty else None,
    )
    resources = Resources.of(decode_cache, None, tracker)
    done = run(request, out, resume=resume, overwrite=overwrite, progress=progress, resources=resources)
    _show_student(done, out, as_json)


def _teaching(
    file: Path | None, flags: dict[str, int | None], sets: list[str], progress: "Progress"
) -> "recipe_noun.Recipe":
    from compressor.distill.recipes import TEACH, recipe_from

    if flags["epochs"] == 1 and file is None and not any(text.startswith("head_epochs") for text in sets):
        progress.note("one epoch: it trains everything at once (head_epochs=0)")
        flags = {**flags, "head_epochs": 0}
    return recipe_from(TEACH, file, flags, sets)


@app.command()
def specialists(
    teacher: Annotated[str, typer.Option(help=f"The generalist, which knows all classes: {MODELS}.")],
    data: Data,
    count: Annotated[int, typer.Option(min=1, max=10_000, metavar="K", help="How many specialists.")],
    out: Annotated[Path, typer.Option(help="Folder for all of them; use it as --teacher specialists:DIR.")],
    jobs: Annotated[
        int, typer.Option(min=1, max=1_000, metavar="J", help="Train so many at a time, each in its process.")
    ] = 1,
    recipe: Recipe = None,
    input_size: InputSize = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    assignments: Set = None,
    skip_bad: SkipBad = False,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a specialist for each group of classes that a generalist confuses; together they are one teacher."""
    from compressor.console import progress_for, show_json, show_line
    from compressor.distill import specialists as run
    from compressor.spec.specialists import SpecialistsRequest

    flags, progress = {"epochs": epochs, "batch_size": batch_size, "seed": seed}, progress_for(quiet)
    request = SpecialistsRequest(
        teacher=teacher,
        data=data,
        skip_bad=skip_bad,
        input_size=input_size,
        count=count,
        recipe=_teaching(recipe, flags, assignments or [], progress),
    )
    done = run(request, out, jobs=jobs, resume=resume, overwrite=overwrite, progress=progress)
    if as_json:
        show_json(json.dumps({"out": str(out), **done.model_dump(mode="json")}, indent=2))
    else:
        before, after = done.generalist_validation, done.validation
        show_line(
            f"{out}: {len(done.specialists)} specialists, validation accuracy {after.accuracy:.2%} with them, "
            f"{before.accuracy:.2%} without (n={after.n}); use --teacher specialists:{out}"
        )


@app.command()
def distill(
    teacher: Annotated[list[str], typer.Option(help=f"The teacher: {TEACHERS}; several: an ensemble.")],
    data: Data,
    out: Annotated[Path, typer.Option(help="Folder for the run, which kdc export takes.")],
    profile: Annotated[str | None, typer.Option(help="Train at this profile's input size.")] = None,
    student: Annotated[str | None, typer.Option(help="Any timm model: timm:NAME or timm:local-dir:PATH.")] = None,
    student_init: Annotated[str, typer.Option(help="pretrained, random, or the PATH of a checkpoint.")] = "pretrained",
    assistant: Annotated[
        list[str] | None,
        typer.Option(metavar="timm:NAME", help="A model between teacher and student, that learns first; repeatable."),
    ] = None,
    qat: Annotated[
        bool, typer.Option("--qat", help="Then train on under the fake quantization of the profile's int8 kernels.")
    ] = False,
    teacher_classes: Annotated[
        Path | None, typer.Option(help="Names of the teacher's outputs, one a line, where its weights have none.")
    ] = None,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            metavar="REF", help="More pictures to learn from, without labels: any folder of them, or as --data."
        ),
    ] = None,
    recipe: Recipe = None,
    input_size: InputSize = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    seed: Seed = None,
    assignments: Set = None,
    skip_bad: SkipBad = False,
    teacher_cache: Annotated[
        str | None,
        typer.Option(metavar="DIR|off", help="Where the teacher's answers are kept. Default: the user's cache folder."),
    ] = None,
    precompute: Annotated[
        bool, typer.Option("--precompute", help="Only compute and keep the teacher's answers; trains nothing.")
    ] = False,
    decode_cache: DecodeCache = None,
    tracker: Tracker = None,
    resume: Resume = False,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train a small student to answer as the teacher does."""
    from compressor import workflow
    from compressor.console import progress_for
    from compressor.distill import Resources
    from compressor.distill import precompute as answer_ahead
    from compressor.distill.recipes import DEFAULT_STUDENT, distillation_recipe
    from compressor.profiles import load_profile
    from compressor.spec.student import Request

    if precompute and (resume or overwrite or as_json):
        raise KdcError("--precompute makes no run: --resume, --overwrite and --json have no meaning with it")
    if precompute and assistant:
        raise KdcError("--precompute asks the teacher for the student, and with --assistant another one teaches it")
    for alone in ("self", "peers"):
        if alone in teacher and len(teacher) > 1:
            raise KdcError(f"--teacher {alone} stands alone: it cannot be part of an ensemble", "give --teacher once")
    if len(set(teacher)) < len(teacher):
        raise KdcError("the same --teacher is given twice", "ensemble.weights in the recipe weighs them")
    progress = progress_for(quiet)
    if student is None:
        student = DEFAULT_STUDENT
        progress.note(f"student {student} (the default; choose another with --student)")
    device = load_profile(profile) if profile is not None else None
    if device is not None:
        of_profile = device.input_size
        said = "of" if input_size in (None, of_profile) else f"given; {of_profile} is that of"
        input_size = input_size or of_profile
        progress.note(f"input size {input_size} ({said} profile {profile})")
    flags = {"epochs": epochs, "batch_size": batch_size, "seed": seed}
    request = Request(
        command="distill",
        teacher=teacher[0],
        other_teachers=tuple(teacher[1:]),
        teacher_classes=str(teacher_classes) if teacher_classes else None,
        student=student,
        init=student_init,
        data=data,
        unlabelled=unlabelled,
        skip_bad=skip_bad,
        input_size=input_size,
        recipe=distillation_recipe(teacher, student, student_init, recipe, flags, assignments or [], progress),
        qat=workflow.scheme_for(device, progress) if qat else None,
        assistants=tuple(assistant or ()),
    )
    resources = Resources.of(decode_cache, teacher_cache, tracker)
    if precompute:
        answer_ahead(request, out, progress=progress, resources=resources)
        return
    done = workflow.distill(request, out, resume=resume, overwrite=overwrite, resources=resources, progress=progress)
    _show_student(done, out, as_json)


@app.command()
def predict(
    teacher: Annotated[str, typer.Option(help=f"The model that answers: {HUBS}, run:DIR or specialists:DIR.")],
    data: Data,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The table, .csv or .parquet: --teacher outputs:FILE.")],
    top_k: Annotated[
        int | None,
        typer.Option(
            min=1, max=1_000_000, help="Only the K most probable classes of each sample, and the rest's mass."
        ),
    ] = None,
    labels_only: Annotated[
        bool, typer.Option("--labels-only", help="Only the most probable class of each sample.")
    ] = False,
    teacher_classes: Annotated[
        Path | None, typer.Option(help="Names of the teacher's outputs, one a line, where its weights have none.")
    ] = None,
    unlabelled: Annotated[
        str | None, typer.Option(metavar="REF", help="Also pictures without labels, as kdc distill takes them.")
    ] = None,
    pixel_range: Annotated[
        tuple[float, float] | None,
        typer.Option(metavar="BLACK WHITE", help="Of deep pictures, as pixel_range in a recipe; runs know their own."),
    ] = None,
    skip_bad: SkipBad = False,
    overwrite: OverwriteFile = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write a teacher's answers to all samples into a table: log-probabilities of all classes, by sample id."""
    from compressor.console import progress_for, show_json, show_line
    from compressor.distill import predict as run

    done = run(
        teacher, data, out, top_k=top_k, labels_only=labels_only, teacher_classes=teacher_classes,
        unlabelled=unlabelled, pixel_range=pixel_range, skip_bad=skip_bad, overwrite=overwrite,
        progress=progress_for(quiet),
    )  # fmt: skip
    if as_json:
        show_json(done.model_dump_json(indent=2))
        return
    score = done.validation
    show_line(
        f"{out}: {sum(done.counts.values()):,} rows; validation accuracy {score.accuracy:.2%} "
        f"[{score.low:.2%}–{score.high:.2%}] (n={score.n}); teach with --teacher outputs:{out}"
    )


@app.command()
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
        bool, typer.Option("--bake-preprocessing", help="Build the normalization in: the model takes uint8 pictures.")
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
    from compressor import workflow
    from compressor.console import progress_for
    from compressor.profiles import load_profile

    chosen = workflow.narrow(load_profile(profile, assignments or []), target or [], precision or [])
    how = workflow.Measuring(device, device_python, baseline, rounds, seconds, allow_unmeasured, throughput)
    progress = progress_for(quiet)
    building = workflow.Building(qat, bake, dynamic_batch)
    report = workflow.export(
        run, chosen, out, how, teacher=teacher, building=building, overwrite=overwrite, progress=progress
    )
    _judge(report, allow_unmeasured, as_json)


@app.command()
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
    from compressor import workflow
    from compressor.console import progress_for

    how = workflow.Measuring(device, device_python, baseline, rounds, seconds, allow_unmeasured, throughput)
    report = workflow.measure(bundle, how, progress=progress_for(quiet))
    _judge(report, allow_unmeasured, as_json)


@app.command()
def report(
    bundle: BundleDir,
    format_: Annotated[str, typer.Option("--format", help="md, json or junit.")] = "md",
    out: Annotated[Path | None, typer.Option(help="Write it to this file instead of stdout.")] = None,
    overwrite: OverwriteFile = False,
    allow_unmeasured: AllowUnmeasured = False,
) -> None:
    """Render a bundle's report, recomputed from its raw samples; takes up measurements made on a device. Ends with 0
    whatever the verdict is: kdc check is the gate."""
    from compressor.console import show_json, show_result
    from compressor.report import refresh, to_json, to_junit, to_markdown
    from compressor.writing import refuse_existing, write_output

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


@app.command()
def check(
    bundle: BundleDir, allow_unmeasured: AllowUnmeasured = False, as_json: AsJson = False, quiet: Quiet = False
) -> None:
    """The gate alone: verify every file, recompute every verdict; the exit code says whether the budget holds.

    A bundle is not signed: its seal shows damage and edits, not forgery.
    """
    from compressor.console import show_json, show_line
    from compressor.report import check as run
    from compressor.report import exit_code_for, seal_line, to_json, verdict_line

    result = run(bundle)
    if as_json:
        show_json(to_json(result))
    elif not quiet:
        show_line(verdict_line(result, allow_unmeasured))
        show_line(seal_line(bundle))
    raise typer.Exit(exit_code_for(result, allow_unmeasured))


@profiles_app.command("list")
def profiles_list(as_json: AsJson = False) -> None:
    """The built-in profiles."""
    from dataclasses import asdict

    from compressor.console import show_json, show_result, table
    from compressor.profiles import list_profiles

    rows = list_profiles()
    if as_json:
        show_json(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        header = ("name", "kind", "cpu", "runtimes", "budget")
        show_result(table(header, [(r.name, r.kind, r.cpu, ", ".join(r.runtimes), r.budget) for r in rows]))


@profiles_app.command("show")
def profiles_show(
    name: Annotated[str, typer.Argument(help="A profile's name, or the path of its YAML.")],
    as_json: AsJson = False,
) -> None:
    """One profile, with the source of every fact."""
    from compressor.console import show_json, show_result
    from compressor.profiles import profile_and_text

    profile, text = profile_and_text(name)
    if as_json:
        show_json(profile.model_dump_json(indent=2))
    else:
        show_result(text)


@profiles_app.command("new")
def profiles_new(
    name: Annotated[str, typer.Argument(help="Lower case; writes NAME.yaml in the current folder.")],
    assignments: SetProfile = None,
    as_json: AsJson = False,
) -> None:
    """Write a profile for the machine that this runs on."""
    from compressor.console import show_json, show_line
    from compressor.measure.doctor import diagnose
    from compressor.profiles import write_new_profile

    diagnosis = diagnose()
    working = {found.name: found.precisions for found in diagnosis.runtimes if found.works}
    path = write_new_profile(name, Path(), diagnosis.machine, working, assignments or [])
    if as_json:
        show_json(json.dumps({"path": str(path)}))
    else:
        show_line(f"wrote {path}: set the budget in it, then use it with --profile {name}")


@app.command()
def losses(as_json: AsJson = False) -> None:
    """The losses that a recipe may name: formula, parameters with default and range, what they learn from, paper."""
    from compressor.console import show_json, show_result, table
    from compressor.losses import LOSSES, described

    if as_json:
        show_json(json.dumps([described(name) for name in LOSSES], indent=2))
        return
    header = ("name", "knowledge", "taps", "parameters", "formula", "paper")
    show_result(table(header, [_loss_cells(name, loss) for name, loss in LOSSES.items()]))


@app.command()
def doctor(
    profile: Annotated[str | None, typer.Option(help="Exit 4 where a runtime of this profile is missing.")] = None,
    device: Device = "local",
    device_python: DevicePython = None,
    as_json: AsJson = False,
) -> None:
    """Which runtimes and precisions work, here or on a device, and the install line for each that does not."""
    from compressor import workflow
    from compressor.console import progress_for, show_json, show_result
    from compressor.profiles import load_profile

    wanted = load_profile(profile) if profile else None
    found = workflow.doctor(device, device_python, wanted, progress_for(quiet=as_json))
    if as_json:
        show_json(found.diagnosis.model_dump_json(indent=2))
    else:
        show_result(found.text)
    if found.missing:
        raise KdcError(
            f"profile {profile} needs runtimes that do not work here", "; ".join(found.missing), EXIT_MISSING
        )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that it makes.")] = Path("kdc-demo"),
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of everything that is drawn.")] = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """The whole way on scikit-learn's handwritten digits: teacher, student, export, report. Offline, minutes."""
    from compressor.console import progress_for
    from compressor.demo import demo as run

    report = run(out, seed=seed, overwrite=overwrite, progress=progress_for(quiet))
    _judge(report, allow_unmeasured=False, as_json=as_json)


def _loss_cells(name: str, loss: "Loss") -> tuple[str, ...]:
    settable = (f"{key}={loss.defaults[key]:g} [{low:g}, {high:g}]" for key, (low, high) in loss.ranges.items())
    return name, loss.knowledge, loss.taps or "-", ", ".join(settable) or "-", loss.formula, loss.paper


def _show_student(student: "Student", out: Path, as_json: bool) -> None:
    """By the first process of a run that has several."""
    from compressor.console import show_json, show_line

    if os.environ.get("RANK", "0") not in ("", "0"):
        return
    if as_json:
        values: dict[str, Any] = {"out": str(out), **student.model_dump(mode="json")}
        show_json(json.dumps(values, indent=2))
    else:
        test = student.test
        show_line(
            f"{out}: {student.architecture}, {student.weights.parameters:,} parameters, test accuracy "
            f"{test.accuracy:.2%} [{test.low:.2%}–{test.high:.2%}] (n={test.n}), kept epoch {student.kept_epoch}"
        )


def _judge(report: "Report", allow_unmeasured: bool, as_json: bool) -> None:
    from compressor.console import show_json, show_result
    from compressor.report import exit_code_for, to_json, to_markdown

    if as_json:
        show_json(to_json(report))
    else:
        show_result(to_markdown(report, allow_unmeasured))
    raise typer.Exit(exit_code_for(report, allow_unmeasured))


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"kdc {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print it.")] = False,
) -> None:
    pass


def main() -> None:
    """Run a command, and turn however it ends into one clear line and an exit code."""
    interruption.catch()
    code = EXIT_USAGE
    try:
        code = run()
    finally:
        interruption.ignore(code)
    sys.exit(code)


def run() -> int:
    """Run a command; returns its exit code. Nothing but bugs under KDC_DEBUG leaves here as an exception."""
    put_back = interruption.catch()
    try:
        from compressor.console import show_error, steady_streams

        steady_streams()
        code, error = _ended()
        if error is not None:
            show_error(error)
        return code
    finally:
        put_back()


def _ended() -> tuple[int, KdcError | None]:
    """Run a command; its exit code, and what is to be said of it."""
    # typer uses click or brings its own copy, by its version. Either way this is the ancestor of its usage errors.
    usage_error: type[typer.BadParameter] = typer.BadParameter.__mro__[2]
    try:
        _readable(sys.argv[1:])
        code = app(standalone_mode=False)
        # typer turns an interruption into this code by itself, by its version.
        if code == EXIT_INTERRUPTED:
            raise KeyboardInterrupt
        return code if isinstance(code, int) else 0, None
    except (KeyboardInterrupt, typer.Abort):
        return EXIT_INTERRUPTED, INTERRUPTED
    except usage_error as error:
        _show_usage_error(error)
        return EXIT_USAGE, None
    except SystemExit as error:
        # typer's, where the reader of --help has gone (`kdc --help | head -1`): it saw enough.
        if isinstance(error.__context__, BrokenPipeError):
            return EXIT_PASS, None
        known = explained(RuntimeError(f"a library ended the program with {error.code!r}"))
        return known.exit_code, known
    except Exception as error:
        if interruption.asked():  # some libraries make an error of their own of it, and so does what waits for a child
            return EXIT_INTERRUPTED, INTERRUPTED
        if os.environ.get("KDC_DEBUG") and not isinstance(error, KdcError):
            raise
        return _told(error)


def _told(error: Exception) -> tuple[int, KdcError]:
    """What to say of an error, without the frames that it went through: they would keep files open until they are
    collected."""
    known = explained(error)
    return known.exit_code, KdcError(known.message, known.hint, known.exit_code)


def _readable(arguments: list[str]) -> None:
    """Raises KdcError for an argument that is not text in this locale (it could be written into no file of a run), and
    for an empty one, which as a path would mean the current folder."""
    for before, argument in zip(["kdc", *arguments], arguments, strict=False):
        if not argument or (argument.startswith("--") and argument.endswith("=") and argument.count("=") == 1):
            place = f"after {before}" if not argument else f"of {argument[:-1]}"
            raise KdcError(f"the argument {place} is empty", "is a variable of the shell not set?")
        if any("\ud800" <= sign <= "\udfff" for sign in argument):
            raise KdcError(
                f"the argument {argument!r} is not text in the encoding of this locale ({sys.getfilesystemencoding()})",
                "export LC_ALL=C.UTF-8, or rename the file",
            )


def _show_usage_error(error: typer.BadParameter) -> None:
    """As typer shows it. What stands on the command line cannot forge a line of ours."""
    from compressor.console import show_usage
    from compressor.printable import printable

    said, text = error.format_message(), io.StringIO()
    error.show(file=text)
    # Where no command was given the message is the help, whose lines are ours.
    line = said if said.startswith("Usage:") else printable(said)
    show_usage(text.getvalue().replace(said, line))


if __name__ == "__main__":
    main()
