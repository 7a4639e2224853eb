"""kdc profiles, losses, doctor and demo: what there is, what works here, and a first look."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from compressor.cli.options import AsJson, Device, DevicePython, Overwrite, OverwriteFile, QuietResult, SetProfile
from compressor.cli.ship import judge
from compressor.errors import EXIT_MISSING, KdcError

if TYPE_CHECKING:
    from compressor.losses import Loss

__all__ = ["demo", "doctor", "losses", "profiles_list", "profiles_new", "profiles_show"]


def profiles_list(as_json: AsJson = False) -> None:
    """The built-in profiles."""
    from dataclasses import asdict

    from compressor.profiles import list_profiles
    from compressor.terminal.console import show_json, show_result
    from compressor.terminal.tables import table

    rows = list_profiles()
    if as_json:
        show_json(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        header = ("name", "kind", "cpu", "runtimes", "budget")
        show_result(table([header, *((r.name, r.kind, r.cpu, ", ".join(r.runtimes), r.budget) for r in rows)]))


def profiles_show(
    name: Annotated[str, typer.Argument(help="A profile's name, or the path of its YAML.")],
    as_json: AsJson = False,
) -> None:
    """One profile, with the source of every fact."""
    from compressor.profiles import profile_and_text
    from compressor.terminal.console import show_json, show_result

    profile, text = profile_and_text(name)
    if as_json:
        show_json(profile.model_dump_json(indent=2))
    else:
        show_result(text)


def profiles_new(
    name: Annotated[str, typer.Argument(help="Lower case; writes NAME.yaml in the current folder.")],
    assignments: SetProfile = None,
    overwrite: OverwriteFile = False,
    as_json: AsJson = False,
) -> None:
    """Write a profile for the machine that this runs on, with what it computes and moves at most (some seconds)."""
    from datetime import date

    from compressor.measure.constants import crowded, facts_of, measure_constants
    from compressor.measure.doctor import diagnose
    from compressor.profiles import free_path, load_profile, write_new_profile
    from compressor.terminal.console import progress_for, show_json, show_line

    free_path(name, Path(), overwrite)  # before every runtime is started
    diagnosis = diagnose()
    working = {runtime.name: runtime.precisions for runtime in diagnosis.runtimes if runtime.works}

    def constants(threads: int) -> dict[str, Any]:
        if told := crowded(diagnosis.machine):
            progress_for(quiet=True).warn(told)
        try:
            return facts_of(measure_constants(threads), date.today())
        except KdcError as error:
            progress_for(quiet=True).warn(
                f"{error.message}; the profile says nothing of that, so nothing can be estimated from it"
            )
            return {}

    path = write_new_profile(
        name, Path(), diagnosis.machine, working, assignments or [], overwrite=overwrite, facts=constants
    )
    if as_json:
        show_json(json.dumps({"path": str(path)}))
    else:
        size = load_profile(f"./{path}").input_size
        show_line(
            f"wrote {path}: set the budget in it, then use it with --profile {name}. Of images, kdc distill takes its "
            f"input size, {size}, where --input-size gives none; a student keeps the one that it was made with"
        )


def losses(as_json: AsJson = False) -> None:
    """The losses that a recipe may name: formula, parameters with default and range, what they learn from, paper."""
    from compressor.losses import LOSSES, described
    from compressor.terminal.console import show_json, show_result
    from compressor.terminal.tables import table

    if as_json:
        show_json(json.dumps([described(name) for name in LOSSES], indent=2))
        return
    header = ("name", "knowledge", "taps", "parameters", "formula", "paper")
    show_result(table([header, *(_loss_cells(name, loss) for name, loss in LOSSES.items())]))


def doctor(
    profile: Annotated[str | None, typer.Option(help="Exit 4 where a runtime of this profile is missing.")] = None,
    device: Device = "local",
    device_python: DevicePython = None,
    as_json: AsJson = False,
) -> None:
    """Which runtimes and precisions work, here or on a device, and the install line for each that does not."""
    from compressor import api
    from compressor.terminal.console import progress_for, show_json, show_result

    result = api.doctor(
        profile=profile, device=device, device_python=device_python, progress=progress_for(quiet=as_json)
    )
    if as_json:
        show_json(result.diagnosis.model_dump_json(indent=2))
    else:
        show_result(result.text)
    if result.missing:
        raise KdcError(
            f"profile {profile} needs runtimes that do not work here", "; ".join(result.missing), EXIT_MISSING
        )


def demo(
    out: Annotated[Path, typer.Option(help="Folder for everything that it makes.")] = Path("kdc-demo"),
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1, help="Seed of everything that is drawn.")] = 0,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: QuietResult = False,
) -> None:
    """The whole way on scikit-learn's handwritten digits: teacher, student, export, report. Offline, minutes."""
    from compressor.api import BundleResult
    from compressor.demo import demo as run
    from compressor.terminal.console import progress_for

    report = run(out, seed=seed, overwrite=overwrite, progress=progress_for(quiet))
    judge(BundleResult(out / "bundle", report), as_json, quiet)


def _loss_cells(name: str, loss: "Loss") -> tuple[str, ...]:
    settable = (f"{key}={loss.defaults[key]:g} [{low:g}, {high:g}]" for key, (low, high) in loss.ranges.items())
    return name, loss.knowledge, loss.taps or "-", ", ".join(settable) or "-", loss.formula, loss.paper
