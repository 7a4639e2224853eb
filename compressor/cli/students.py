"""kdc students: which networks a device can carry, measured before any is trained, or estimated."""

from pathlib import Path
from typing import Annotated, Any

import typer

from compressor.cli.options import AllowSurgery, AsJson, Device, DevicePython, Quiet, SetProfile
from compressor.errors import KdcError

__all__ = ["students"]

Teacher = Annotated[
    str | None,
    typer.Option(metavar="REF", help="Of texts: the model that candidates are made of, run:DIR or hf:REPO_OR_PATH."),
]
InputSizes = Annotated[
    list[int] | None,
    typer.Option(help="Pixels; may be given several times. Default: the profile's. Of texts: --set sequence_length."),
]
Candidates = Annotated[
    list[str] | None,
    typer.Option(help="Only this one, timm:NAME, or of texts as of kdc distill; may be given several times."),
]
Estimate = Annotated[
    bool,
    typer.Option(
        "--estimate",
        help="Measure nothing and reach no device: rank them by estimated p50, and say how far such estimates are "
        "off. Nothing is judged by them.",
    ),
]


def students(
    profile: Annotated[str, typer.Option(help="The profile: what to build, how many threads, the budget.")],
    teacher: Teacher = None,
    classes: Annotated[int, typer.Option(min=2, max=100_000, help="Classes of the task.")] = 1000,
    input_size: InputSizes = None,
    student: Candidates = None,
    allow_surgery: AllowSurgery = False,
    device: Device = "local",
    device_python: DevicePython = None,
    assignments: SetProfile = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure anew what is kept, too.")] = False,
    estimate: Estimate = False,
    csv: Annotated[Path | None, typer.Option(help="Write all figures to this file as CSV.")] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Candidates for a student, measured on the device before any is trained: latency, size, memory, the budget."""
    from compressor import api
    from compressor.terminal.console import progress_for, show_json, show_result

    asked: dict[str, Any] = {
        "profile": profile, "classes": classes, "input_size": input_size or (), "student": student or (),
        "allow_surgery": allow_surgery, "set": assignments or (), "csv": csv, "progress": progress_for(quiet),
    }  # fmt: skip
    if estimate and teacher is not None:
        raise KdcError("--estimate knows networks of images alone, and --teacher is of texts", "leave --estimate out")
    if estimate and (device != "local" or device_python is not None or fresh):
        raise KdcError("--estimate reaches no device, so --device, --device-python and --fresh mean nothing with it")
    measuring: dict[str, Any] = {
        "device": device, "device_python": device_python, "fresh": fresh, "teacher": teacher,
    }  # fmt: skip
    result = api.estimate_students(**asked) if estimate else api.students(**asked, **measuring)
    if as_json:
        show_json(result.answer.model_dump_json(indent=2))
    else:
        show_result(result.text)
