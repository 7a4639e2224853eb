"""`kdc demo`: the whole way on scikit-learn's handwritten digits, offline."""

import shutil
from pathlib import Path
from typing import Any

from compressor.errors import KdcError, os_error
from compressor.progress import Progress
from compressor.spec.report import Report
from compressor.workflow import Building, Measuring, export

__all__ = ["demo"]


def _make_way_for_demo(out: Path, progress: Progress) -> None:
    """Make `out` an empty folder; what an earlier demo left there goes, anything else is left alone with an error."""
    found = {path.name for path in out.iterdir()} if out.is_dir() else set()
    foreign = {name for name in found - DEMO_LEAVES if not name.startswith(".bundle.")}
    if out.exists() and (not out.is_dir() or foreign):
        raise KdcError(f"--out {out} exists and is no demo of kdc, so it is left alone", "choose another --out")
    if found:
        progress.note(f"replacing the earlier demo in {out}")
    try:
        shutil.rmtree(out, ignore_errors=not out.exists())
        out.mkdir(parents=True)
    except OSError as error:
        raise os_error(error, f"preparing {out}") from error


DEMO_LEAVES = {"teacher", "run", "bundle", "demo.yaml", ".teacher.decoded", ".run.decoded", ".bundle.part"}

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


def demo(out: Path, *, seed: int, progress: Progress) -> Report:
    """The whole way on scikit-learn's handwritten digits; leaves OUT/teacher, OUT/run, OUT/demo.yaml, OUT/bundle."""
    from compressor.distill import distill, teach
    from compressor.distill.recipes import LAYERS, TEACH, recipe_from
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
    recipe = recipe_from(LAYERS, None, {"seed": seed, "epochs": 15}, DEMO_VIEWS)
    student = "timm:mobilenetv3_small_050"
    request = Request(command="distill", teacher=teacher, student=student, init="random", recipe=recipe, **common)
    progress.note(f"2/3 a student, distilled from it: {student}")
    distill(request, out / "run", resume=False, overwrite=False, progress=progress)
    diagnosis = diagnose()
    working = {
        check.name: check.precisions for check in diagnosis.runtimes if check.works and check.name in DEMO_RUNTIMES
    }
    profile = write_new_profile("demo", out, diagnosis.machine, working)
    progress.note("3/3 exported for this machine, measured and judged")
    return export(
        out / "run", load_profile(str(profile)), out / "bundle", Measuring(seconds=30.0),
        teacher=None, building=Building(), overwrite=False, progress=progress,
    )  # fmt: skip
