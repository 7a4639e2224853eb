"""What the commands' options are called and mean, once for all of them."""

import math
from pathlib import Path
from typing import Annotated

import typer

from compressor.references import DATA, TEACHERS

__all__ = [
    "AllowSurgery",
    "AllowUnmeasured",
    "AsJson",
    "Assistant",
    "Baseline",
    "BatchSize",
    "BundleDir",
    "ClipSeconds",
    "Data",
    "DecodeCache",
    "Device",
    "DevicePython",
    "Devices",
    "Epochs",
    "Explain",
    "ExplainTimes",
    "InputSize",
    "LabelColumn",
    "MaxLength",
    "Overwrite",
    "OverwriteFile",
    "Plan",
    "Precompute",
    "ProfileName",
    "ProfileNames",
    "Qat",
    "Quiet",
    "QuietResult",
    "RaceLosses",
    "RaceShare",
    "Recipe",
    "ReportFormat",
    "Resume",
    "Rounds",
    "Seconds",
    "Seed",
    "Set",
    "SetProfile",
    "SkipBad",
    "Student",
    "Students",
    "Task",
    "TeacherCache",
    "TeacherClasses",
    "Teachers",
    "TextColumn",
    "Throughput",
    "Tracker",
    "Unlabelled",
]


def _number(value: float) -> float:
    """NaN is neither below a minimum nor above a maximum."""
    if math.isnan(value):
        raise typer.BadParameter("nan is no number")
    return value


def _profiles_like(incomplete: str) -> list[str]:
    """For a shell that completes a command line."""
    from compressor.profiles import profile_names

    return [name for name in profile_names() if name.startswith(incomplete)]


Teachers = Annotated[list[str], typer.Option(help=f"The teacher: {TEACHERS}; several: an ensemble.")]
TeacherClasses = Annotated[
    Path | None, typer.Option(help="Names of the teacher's outputs, one a line, where its weights have none.")
]
TeacherCache = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|off",
        help="Where the teacher's predictions are kept. Default: in the run until it is finished; with views.distinct "
        "given, the user's cache folder.",
    ),
]
Student = Annotated[
    str | None,
    typer.Option(
        help="Of images any timm model, timm:NAME or timm:local-dir:PATH, cut or changed as timm:NAME+width0.5; "
        "of texts layers:N, layers:0,2,5, layers:N,width:W, static:D or hf:PATH."
    ),
]
Students = Annotated[
    list[str] | None,
    typer.Option(metavar="A,B,C", help="Let these race, and take the best. Default: those that the budget admits."),
]
AllowSurgery = Annotated[
    bool,
    typer.Option(
        "--allow-surgery",
        help="Candidates changed for speed, too: hard-swish and SiLU to ReLU, squeeze-excite out, channels pruned.",
    ),
]
RaceShare = Annotated[
    float,
    typer.Option(
        min=0.01, max=100, callback=_number, help="How long all trials of the race may take together, in trainings."
    ),
]
RaceLosses = Annotated[
    bool,
    typer.Option(
        help="Before the training, try other weights of a default recipe's losses, labels alone among them, where "
        "validation has 1,000 samples or more; that takes at most half as long as the training."
    ),
]
Assistant = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MODEL", help="A model as of --student, between teacher and student, that learns first; repeatable."
    ),
]
Qat = Annotated[
    bool, typer.Option("--qat", help="Then train on under the fake quantization of the profile's int8 kernels.")
]
Control = Annotated[
    bool, typer.Option("--control", help="Also train the student on labels alone: what did distillation gain?")
]
Plan = Annotated[
    bool, typer.Option("--plan", help="Only check everything, time a few steps, and say what would be done.")
]
Precompute = Annotated[
    bool, typer.Option("--precompute", help="Only compute and keep the teacher's predictions; trains nothing.")
]
Unlabelled = Annotated[
    str | None,
    typer.Option(
        metavar="REF",
        help="More to learn from, without labels: any folder of it, or as --data; of texts text:FILE, one a line, too.",
    ),
]
Data = Annotated[str, typer.Option(help=f"What to train on: {DATA}.")]
Recipe = Annotated[
    Path | None,
    typer.Option(
        help="A recipe (YAML) instead of the default one; or text_distilbert, text_tinybert: stages for texts."
    ),
]
InputSize = Annotated[int | None, typer.Option(min=8, max=4096, help="Of images: height and width in pixels.")]
Task = Annotated[
    str | None,
    typer.Option(
        help="image-classification, text-classification or audio-classification. Default: as data and models tell."
    ),
]
TextColumn = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME", help="The column with the texts; twice for a pair. Default: found by its name."),
]
LabelColumn = Annotated[
    str | None, typer.Option(metavar="NAME", help="The column with the labels of texts. Default: found by its name.")
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        min=8, max=4096, help="Tokens of a text, at most. Default: what 95 % of the training texts need, up to 128."
    ),
]
ClipSeconds = Annotated[
    float | None,
    typer.Option(
        min=0.01, max=600,
        help="Of a sound, so much is heard. Default: what 95 % of the training sounds need, up to 10 s.",
    ),
]  # fmt: skip
Epochs = Annotated[int | None, typer.Option(min=1, max=1_000_000, help="Passes over the training data.")]
BatchSize = Annotated[int | None, typer.Option(min=2, max=1_000_000, help="Samples a training step.")]
Seed = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Seed of everything that is drawn.")]
Set = Annotated[list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override one recipe value.")]
SetProfile = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY.PATH=VALUE", help="Override one value of the profile.")
]
SkipBad = Annotated[
    bool,
    typer.Option(
        "--skip-bad", help="Leave out samples that cannot be read, and texts without a label; they are listed."
    ),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run in --out.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what kdc made earlier in --out.")]
OverwriteFile = Annotated[bool, typer.Option("--overwrite", help="Replace the file.")]
DecodeCache = Annotated[
    str | None,
    typer.Option(metavar="SIZE|off", help="Disk for decoded samples, e.g. 20GB. Default: half of what is free."),
]
Tracker = Annotated[str | None, typer.Option(help="Also log epochs to tensorboard, wandb or mlflow.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress.")]
QuietResult = Annotated[bool, typer.Option("--quiet", help="Show no progress, and of the result one line.")]
ProfileName = Annotated[
    str, typer.Option(help="A profile's name, or the path of its YAML.", autocompletion=_profiles_like)
]
ProfileNames = Annotated[
    list[str],
    typer.Option(
        "--profile",
        help="A profile's name, or the path of its YAML; repeatable: a bundle each in OUT/NAME, one verdict.",
        autocompletion=_profiles_like,
    ),
]
BundleDir = Annotated[Path, typer.Argument(metavar="BUNDLE", help="A folder that kdc export made.")]
ReportFormat = Annotated[
    str | None,
    typer.Option("--format", help="text, md, json, html, junit, bencher or release. Default: as --out ends, or text."),
]
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
Explain = Annotated[
    bool,
    typer.Option("--explain", help="Also tell which layers take the time, and which of them int8 costs most."),
]
ExplainTimes = Annotated[bool, typer.Option("--explain", help="Also tell which layers take the time.")]
Device = Annotated[
    str, typer.Option(metavar="URL", help="local, ssh://[USER@]HOST[:PORT][/FOLDER] or adb:SERIAL[/FOLDER].")
]
Devices = Annotated[
    list[str] | None,
    typer.Option(
        "--device",
        metavar="[NAME=]URL",
        help="local (the default), ssh://[USER@]HOST[:PORT][/FOLDER] or adb:SERIAL[/FOLDER]; repeatable: several "
        "devices in one verdict.",
    ),
]
DevicePython = Annotated[
    str | None, typer.Option(metavar="EXE", help="Python on the device, e.g. of a virtual environment there.")
]
Baseline = Annotated[
    Path | None, typer.Option(metavar="BUNDLE", help="An earlier bundle, whose student races along, or its release.")
]
HeldAgainst = Annotated[
    Path | None,
    typer.Option("--baseline", metavar="BUNDLE", help="An earlier bundle, or its release: what got better or worse?"),
]
