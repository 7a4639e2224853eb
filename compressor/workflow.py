"""Commands that take several steps, put together: each step leaves a folder on disk and can be rerun alone."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from compressor.errors import KdcError, did_you_mean
from compressor.progress import Progress
from compressor.spec.base import parse
from compressor.spec.profile import Profile
from compressor.spec.recipe import Recipe
from compressor.spec.report import Report

__all__ = ["demo", "export", "measure", "narrow", "recipe_from"]


def recipe_from(defaults: dict[str, Any], file: Path | None, flags: dict[str, Any], sets: Sequence[str]) -> Recipe:
    """The recipe in `file` (or `defaults`), with the command's flags and --set laid over it.

    Raises KdcError where the same key is given by a flag and by --set.
    """
    from compressor.overrides import apply_overrides, read_yaml

    given = {key: value for key, value in flags.items() if value is not None}
    for assignment in sets:
        key = assignment.partition("=")[0].strip()
        if key in given:
            flag = "--" + key.replace("_", "-")
            raise KdcError(f"{flag} {given[key]} and --set {assignment} both set {key}", "give one of them")
    values = dict(read_yaml(file)) if file else dict(defaults)
    where = f"recipe {file}" if file else "recipe"
    return parse(Recipe, apply_overrides({**values, **given}, sets, where), where)


def narrow(profile: Profile, targets: Sequence[str]) -> Profile:
    """`profile` with only the targets named: a runtime, or RUNTIME-PRECISION. Raises KdcError for one it has not."""
    if not targets:
        return profile
    rows = {target.runtime: target for target in profile.targets}
    variants = {
        f"{t.runtime}-{precision}": (t.runtime, precision) for t in profile.targets for precision in t.precisions
    }
    chosen: dict[str, set[str]] = {}
    for name in targets:
        if name in rows:
            chosen.setdefault(name, set()).update(rows[name].precisions)
        elif name in variants:
            runtime, precision = variants[name]
            chosen.setdefault(runtime, set()).add(precision)
        else:
            known = [*rows, *variants]
            raise KdcError(
                f"--target {name}: profile {profile.name} does not have it{did_you_mean(name, known)}",
                f"it has: {', '.join(known)}",
            )
    kept = tuple(
        rows[name].model_copy(update={"precisions": tuple(p for p in rows[name].precisions if p in precisions)})
        for name, precisions in sorted(chosen.items(), key=lambda item: list(rows).index(item[0]))
    )
    return profile.model_copy(update={"targets": kept})


def export(
    run: Path,
    profile: Profile,
    out: Path,
    *,
    teacher: str | None,
    overwrite: bool,
    rounds: int,
    seconds: float,
    allow_unmeasured: bool,
    progress: Progress,
) -> Report:
    """Export the run for the profile, measure it here, and report."""
    from compressor.export import export_bundle

    export_bundle(run, profile, out, teacher=teacher, overwrite=overwrite, progress=progress)
    try:
        return measure(out, rounds=rounds, seconds=seconds, allow_unmeasured=allow_unmeasured, progress=progress)
    except (KeyboardInterrupt, KdcError):
        progress.warn(f"{out} is exported but not measured: kdc measure {out} finishes it")
        raise


def measure(bundle: Path, *, rounds: int, seconds: float, allow_unmeasured: bool, progress: Progress) -> Report:
    """Measure a bundle on this machine, report, and seal it."""
    from compressor.measure.session import measure_bundle
    from compressor.report import REMADE, finish, refresh, verify

    sealed = (bundle / "SHA256SUMS").exists()
    if sealed:
        verify(bundle, may_change=REMADE)
    progress.note(f"measuring {bundle} on this machine")
    measure_bundle(bundle, rounds=rounds, seconds=seconds, progress=progress)
    return (refresh if sealed else finish)(bundle, allow_unmeasured)


def _make_way_for_demo(out: Path, progress: Progress) -> None:
    """Make `out` an empty folder; what an earlier demo left there goes, anything else is left alone with an error."""
    import shutil

    from compressor.errors import os_error

    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if out.exists() and (not out.is_dir() or found - DEMO_LEAVES):
        raise KdcError(f"--out {out} exists and is no demo of kdc, so it is left alone", "choose another --out")
    if found:
        progress.note(f"replacing the earlier demo in {out}")
    try:
        shutil.rmtree(out, ignore_errors=not out.exists())
        out.mkdir(parents=True)
    except OSError as error:
        raise os_error(error, f"preparing {out}") from error


DEMO_LEAVES = {"teacher", "run", "bundle", "demo.yaml", ".teacher.decoded", ".run.decoded", ".bundle.part"}

DEMO_VIEWS = ["views.scale=[0.7, 1.0]", "views.hflip=false", "crop_pct=1.0", "batch_size=64"]
"""Digits are no photographs: mirrored they are other signs, and their strokes reach the border."""

DEMO_INPUT_SIZE = 32


def demo(out: Path, *, seed: int, progress: Progress) -> Report:
    """The whole way on scikit-learn's handwritten digits; leaves OUT/teacher, OUT/run, OUT/demo.yaml, OUT/bundle."""
    from compressor.distill import distill, teach
    from compressor.distill.recipes import DISTILL, TEACH
    from compressor.measure.doctor import diagnose
    from compressor.profiles import load_profile, write_new_profile
    from compressor.spec.student import Request

    _make_way_for_demo(out, progress)
    common: dict[str, Any] = {
        "data": "digits",
        "skip_bad": False,
        "input_size": DEMO_INPUT_SIZE,
        "teacher_classes": None,
    }
    teacher = f"run:{out / 'teacher'}"
    recipe = recipe_from(TEACH, None, {"seed": seed, "epochs": 8}, ["head_epochs=0", *DEMO_VIEWS])
    request = Request(command="teach", teacher="timm:resnet10t", student=None, init="random", recipe=recipe, **common)
    progress.note("1/3 a teacher, trained on the spot: timm:resnet10t")
    teach(request, out / "teacher", resume=False, overwrite=False, progress=progress)
    recipe = recipe_from(DISTILL, None, {"seed": seed, "epochs": 15}, DEMO_VIEWS)
    student = "timm:mobilenetv3_small_050"
    request = Request(command="distill", teacher=teacher, student=student, init="random", recipe=recipe, **common)
    progress.note(f"2/3 a student, distilled from it: {student}")
    distill(request, out / "run", resume=False, overwrite=False, progress=progress)
    diagnosis = diagnose()
    working = {check.name: check.precisions for check in diagnosis.runtimes if check.works}
    profile = write_new_profile("demo", out, diagnosis.machine, working)
    progress.note("3/3 exported for this machine, measured and judged")
    return export(
        out / "run", load_profile(str(profile)), out / "bundle",
        teacher=None, overwrite=False, rounds=30, seconds=30.0, allow_unmeasured=False, progress=progress,
    )  # fmt: skip
