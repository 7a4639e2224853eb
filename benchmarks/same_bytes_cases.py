"""The commands of same_bytes.py: three teachers, and six students of theirs that are exported.

The exports name a device that cannot be reached, so that nothing is measured: kdc builds everything, says that the
bundle waits to be measured, and ends with exit code 3. The ladder to int8 is kept below `fallback`, which orders layers
by the time that they take, and so differs from run to run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["CASES", "Case", "chosen", "commands", "export_line", "write_photos"]

NOWHERE = "ssh://127.0.0.1:1"

SMALL = ("--input-size", "32", "--batch-size", "64", "--quiet", "--set", "crop_pct=1.0",
         "--set", "optimizer.lr_for_batch=null")  # fmt: skip
DIGITS = ("--data", "digits", "--set", "views.hflip=false", *SMALL)
PHOTOS = ("--data", "folder:photos", *SMALL)
KD = "{name: kd, weight: 0.9, temperature: 4.0}, {name: cross_entropy, weight: 0.1}"
CNN = ("--student", "timm:test_efficientnet", "--student-init", "random")
FLOAT = ("onnxruntime-fp32", "openvino-f32")
INT8 = ("onnxruntime-int8", "openvino-int8")


@dataclass(frozen=True)
class Case:
    """A command and what of it is exported. `train`: of `kdc`, but for --out; `needs`: cases whose runs it names;
    `variants`: RUNTIME-PRECISION each; none: it is a teacher for others, and not exported."""

    train: tuple[str, ...]
    needs: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()


def _teach(model: str, data: tuple[str, ...], epochs: int = 4) -> Case:
    return Case(("teach", "--teacher", f"timm:{model}", "--teacher-init", "random", *data, "--epochs", f"{epochs}"))


def _distill(teachers: Sequence[str], losses: str, rest: Sequence[str], variants: tuple[str, ...]) -> Case:
    named = [part for name in teachers for part in ("--teacher", f"run:{name}")] or ["--teacher", "peers"]
    chosen = ("--set", f"losses=[{losses}]", "--epochs", "2")
    return Case(("distill", *named, *chosen, *rest), tuple(teachers), variants)


CASES = {
    "teacher-digits": _teach("test_resnet", DIGITS),
    "teacher-digits-2": _teach("test_efficientnet", DIGITS),
    "teacher-photos": _teach("test_resnet", PHOTOS, epochs=12),
    "kd": _distill(["teacher-digits"], KD, [*DIGITS, *CNN, "--set", "views.distinct=1"], FLOAT + INT8),
    "transformer": _distill(
        ["teacher-photos"], KD,
        [*PHOTOS, "--student", "timm:test_vit", "--student-init", "random", "--set", "views.mixup=0.2"], FLOAT + INT8,
    ),
    "features": _distill(
        ["teacher-photos"], f"{KD}, {{name: hint}}, {{name: pkd, weight: 10, at: same_stride}}, {{name: rkd_distance}}",
        [*PHOTOS, *CNN, "--set", "views.brightness=0.2", "--set", "views.rotation=10"], (*FLOAT, "onnxruntime-int8"),
    ),
    "ensemble": _distill(
        ["teacher-digits", "teacher-digits-2"], KD, [*DIGITS, *CNN, "--set", "ensemble.weights=[2, 1]"],
        (*FLOAT, "onnxruntime-int8"),
    ),
    "qat": _distill(
        ["teacher-digits"], KD, [*DIGITS, *CNN, "--qat", "--profile", "x86-avx2", "--set", "qat.epochs=1"], INT8
    ),
    "peers": _distill(
        [], "{name: cross_entropy}, {name: mutual, temperature: 2.0}",
        [*DIGITS, *CNN, "--set", "peers=[{student: timm:test_resnet}]"], (*FLOAT, "onnxruntime-int8"),
    ),
}  # fmt: skip


def export_line(name: str) -> list[str]:
    """The command that exports the run of a case."""
    line = ["export", name, "--profile", "x86-avx2", "--no-qat", "--device", NOWHERE, "--quiet"]
    line += ["--set", "threads=1", "--set", "max_drop=0.5", "--out", f"{name}-bundle"]
    return [*line, *(part for variant in CASES[name].variants for part in ("--target", variant))]


def chosen(only: Sequence[str]) -> list[str]:
    """The cases to run, those that others need first."""
    wanted = [*only] or [*CASES]
    wanted += [need for name in wanted for need in CASES[name].needs]
    return [name for name in CASES if name in wanted]


def commands(names: Sequence[str]) -> dict[str, list[str]]:
    """What is run, to tell whether a record was made by the same commands."""
    return {name: [*CASES[name].train, *(export_line(name) if CASES[name].variants else [])] for name in names}


def write_photos(folder: Path) -> None:
    """A folder data set of three colours: noisy images of several sizes, always the same."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    for name, colour in {"blue": (40, 60, 200), "green": (50, 180, 60), "red": (200, 50, 40)}.items():
        (folder / name).mkdir(parents=True)
        for number in range(120):
            height, width = rng.integers(24, 64, 2)
            pixels = rng.normal(colour, 60, (height, width, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{number:03}.png")
