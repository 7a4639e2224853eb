"""`kdc demo`: the whole way on scikit-learn's handwritten digits, offline."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compressor import __version__
from compressor.errors import KdcError, os_error
from compressor.files.atomic import is_temporary, write_text
from compressor.files.locks import is_lock, locked
from compressor.pipeline import Building, Measuring, export
from compressor.progress import InAll, Progress
from compressor.schema.report import Report

__all__ = ["demo"]

MARK = "demo.txt"
"""Written first: what a folder without it holds is not the demo's, whatever it is called."""

LEAVES = {MARK, "teacher", "run", "bundle", "demo.yaml"}
HIDDEN = (".bundle.", ".run.", ".teacher.")
"""How what is unfinished of them begins."""

DEMO_VIEWS = [
    "views.scale=[0.7, 1.0]",
    "views.hflip=false",
    "crop_pct=1.0",
    "batch_size=64",
    "optimizer.lr_for_batch=null",
]
"""Digits are no photographs: mirrored they are other signs, and their strokes reach the border. The learning rates of
the default recipes suit such small networks at this batch size too."""

DEMO_INPUT_SIZE = 32

DEMO_RUNTIMES = ("onnxruntime", "openvino")
"""Of those that work here: enough to see a tournament, and over in minutes."""


@contextmanager
def _claimed(out: Path, overwrite: bool, progress: Progress) -> Iterator[bool]:
    """Inside, `out` is a demo's, and no other command's; whether an earlier demo stands there, to be replaced."""
    _refuse(out, overwrite)
    with locked(out, "kdc demo", warn=progress.warn):
        _refuse(out, overwrite)
        again = bool(_stands_in(out) - {MARK})
        if again:
            progress.note(f"replacing the earlier demo in {out}")
        write_text(out / MARK, f"A demo of kdc {__version__}: kdc demo --overwrite replaces what lies here.\n")
        try:
            yield again
        finally:
            if _stands_in(out) == {MARK}:
                (out / MARK).unlink()


def _refuse(out: Path, overwrite: bool) -> None:
    """Raise KdcError where `out` may not be written. Each part is looked at again by the command that makes it."""
    if out.is_symlink() and not out.exists():
        raise KdcError(f"--out {out} is a link to {out.readlink()}, which does not exist", "make that folder")
    if not out.exists() or (out.is_dir() and not _stands_in(out)):
        return
    if not out.is_dir() or not (out / MARK).is_file():
        raise KdcError(f"--out {out} exists and is no demo of kdc, so it is left alone", "choose another --out")
    foreign = sorted(name for name in _stands_in(out) - LEAVES if not name.startswith(HIDDEN))
    if foreign:
        raise KdcError(
            f"--out {out} holds {foreign[0]} too, which is no part of the demo, so it is left alone",
            "move it away, or choose another --out",
        )
    if not overwrite and _stands_in(out) != {MARK}:
        raise KdcError(f"--out {out} holds a demo", "--overwrite to replace it, or another --out")


def _stands_in(out: Path) -> set[str]:
    return {path.name for path in out.iterdir() if not is_lock(path.name) and not is_temporary(path.name)}


def demo(out: Path, *, seed: int, overwrite: bool, progress: Progress) -> Report:
    """The whole way on scikit-learn's handwritten digits; leaves OUT/teacher, OUT/run, OUT/demo.yaml, OUT/bundle."""
    with _claimed(out, overwrite, progress) as again:
        return _demo(out, seed, again, progress)


def _demo(out: Path, seed: int, again: bool, progress: Progress) -> Report:
    from compressor.distill import Destination, distill, teach
    from compressor.distill.recipes import recipe_from
    from compressor.distill.regimes import built_in
    from compressor.distill.run_folder import acquire
    from compressor.measure.doctor import diagnose
    from compressor.profiles import load_profile, write_new_profile
    from compressor.schema.student import Request
    from compressor.tasks.table import DEFAULT

    common: dict[str, Any] = {
        "task": DEFAULT,
        "data": "digits",
        "skip_bad": False,
        "input_size": DEMO_INPUT_SIZE,
        "teacher_classes": None,
    }
    teacher = f"run:{out / 'teacher'}"
    recipe = recipe_from(built_in("teach"), None, {"seed": seed, "epochs": 8}, ["head_epochs=0", *DEMO_VIEWS])
    to_teach = Request(command="teach", teacher="timm:resnet10t", student=None, init="random", recipe=recipe, **common)
    recipe = recipe_from(built_in("large"), None, {"seed": seed, "epochs": 15}, DEMO_VIEWS)
    student = "timm:mobilenetv3_small_050"
    to_distill = Request(command="distill", teacher=teacher, student=student, init="random", recipe=recipe, **common)
    for name, request in (("teacher", to_teach), ("run", to_distill)):
        acquire(Destination(out / name, overwrite=again), request)
    progress = InAll(progress, to_teach.recipe.epochs + to_distill.recipe.epochs)
    progress.note("1/3 a teacher, trained on the spot: timm:resnet10t")
    teach(to_teach, Destination(out / "teacher", overwrite=again), progress=progress)
    progress.note(f"2/3 a student, distilled from it: {student}")
    distill(to_distill, Destination(out / "run", overwrite=again), progress=progress)
    diagnosis = diagnose()
    working = {
        check.name: check.precisions for check in diagnosis.runtimes if check.works and check.name in DEMO_RUNTIMES
    }
    try:
        (out / "demo.yaml").unlink(missing_ok=True)
    except OSError as error:
        raise os_error(error, f"preparing {out}") from error
    profile = write_new_profile("demo", out, diagnosis.machine, working)
    progress.note("3/3 exported for this machine, measured and judged")
    return export(
        out / "run", load_profile(str(profile)), out / "bundle", Measuring(seconds=30.0),
        teacher=None, building=Building(), overwrite=again, progress=progress,
    )[0].report  # fmt: skip
