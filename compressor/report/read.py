"""Reads what a report is made of, and refuses what does not fit together, naming the file."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import KdcError
from compressor.report.fits import bundle_fits, measurement_fits
from compressor.report.integrity import MEASUREMENT, inside
from compressor.spec.base import read_json
from compressor.spec.bundle import Bundle, TeacherTable
from compressor.spec.measurement import Contestant, Measurement
from compressor.statistics import top1

__all__ = ["Results", "TableAnswers", "read_results", "read_unmeasured", "results_with"]


@dataclass(frozen=True)
class TableAnswers:
    """What a teacher's table answers to the test samples: its top-1 [N], and logits or log-probabilities [N, classes]
    where it tells them of every class."""

    top1: NDArray[np.int64]
    logits: NDArray[np.float64] | None


@dataclass(frozen=True)
class Results:
    """A bundle, its test labels [N], and what was measured of it; logits and references [N, classes] by variant.

    `contestants` by variant, without the second copy of the reference: that one is no variant, and its blocks in
    `measurement` serve the A/A comparison alone. `table`: of a teacher that is a table, where it answers the test.
    """

    bundle: Bundle
    labels: NDArray[np.int64]
    references: dict[str, NDArray[np.float64]]
    measurement: Measurement | None
    contestants: dict[str, Contestant]
    logits: dict[str, NDArray[np.float64]]
    table: TableAnswers | None


def read_results(bundle_dir: Path) -> Results:
    """Everything in the bundle that figures are made from. Raises KdcError for anything damaged or contradictory."""
    results = read_unmeasured(bundle_dir)
    path = bundle_dir / MEASUREMENT
    if not path.exists():
        return results
    shape = (results.bundle.eval.n, len(results.bundle.student.class_names))
    results = results_with(results, read_json(inside(bundle_dir, MEASUREMENT, "kdc"), Measurement), str(path))
    logits = {
        name: _logits(inside(bundle_dir, f"measurements/{contestant.logits}", MEASUREMENT), shape)
        for name, contestant in results.contestants.items()
        if contestant.logits is not None and contestant.error is None
    }
    return replace(results, logits=logits)


def read_unmeasured(bundle_dir: Path) -> Results:
    """What the bundle holds but for what was measured of it, of which there may be none, or some that does not fit any
    more. Raises KdcError for anything damaged or contradictory."""
    bundle = read_json(bundle_dir / "bundle.json", Bundle)
    bundle_fits(bundle, bundle_dir / "bundle.json")
    shape = (bundle.eval.n, len(bundle.student.class_names))
    labels = _labels(inside(bundle_dir, bundle.eval.labels, "bundle.json"), *shape)
    references = {
        variant.name: _logits(inside(bundle_dir, variant.reference_logits, "bundle.json"), shape)
        for variant in bundle.variants
    }
    return Results(bundle, labels, references, None, {}, {}, _table(bundle_dir, bundle.teacher_table, shape))


def results_with(results: Results, measurement: Measurement, where: str = "the measurement") -> Results:
    """`results` with another measurement of the same bundle, one that has no logits yet: what `open_lines` judges
    while a session is still going on. Raises KdcError, naming `where`, for one that does not fit the bundle."""
    measurement_fits(measurement, results.bundle, where)
    contestants = {one.variant: one for one in measurement.contestants if one.copy_of is None}
    return replace(results, measurement=measurement, contestants=contestants, logits={})


def _table(bundle_dir: Path, table: TeacherTable | None, shape: tuple[int, int]) -> TableAnswers | None:
    if table is None or table.answers is None:
        return None
    path = inside(bundle_dir, table.answers, "bundle.json")
    if table.kind in ("labels", "top-k"):
        return TableAnswers(_labels(path, *shape), None)
    logits = _logits(path, shape)
    return TableAnswers(top1(logits), logits)


def _array(path: Path) -> NDArray[Any]:
    """The array of plain numbers in a .npy file.

    Not np.load: from a hostile header that allocates what the file does not hold, and with memory mapping a dtype of
    zero bytes ends the process. Here the header must be that of an array which exactly fills the file.
    """
    try:
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            if version not in ((1, 0), (2, 0)):
                raise ValueError(f"version {version} of the format")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(file)
            if dtype.kind not in "fiu" or any(side < 0 for side in shape):
                raise ValueError(f"found {dtype} of shape {shape}, expected plain numbers")
            content = file.read()
            if len(content) != math.prod(shape) * dtype.itemsize:
                raise ValueError(f"{len(content)} bytes do not hold {dtype} of shape {shape}")
            return np.frombuffer(content, dtype).reshape(shape, order="F" if fortran_order else "C")
    # The header parser fails in many ways: ValueError, SyntaxError, TokenError, TypeError, OverflowError, …
    except Exception as error:
        raise KdcError(f"{path} is damaged: no .npy array that may be read ({error})") from None


def _logits(path: Path, shape: tuple[int, int]) -> NDArray[np.float64]:
    array = _array(path)
    if array.shape != shape or array.dtype.kind != "f":
        raise KdcError(
            f"{path}: expected float logits of shape [{shape[0]}, {shape[1]}] (test samples, classes), "
            f"found {array.dtype} of shape {list(array.shape)}"
        )
    return array.astype(np.float64)


def _labels(path: Path, n: int, classes: int) -> NDArray[np.int64]:
    array = _array(path)
    if array.shape != (n,) or array.dtype.kind not in "iu":
        expected = f"expected {n} integer labels (eval.n in bundle.json)"
        raise KdcError(f"{path}: {expected}, found {array.dtype} of shape {list(array.shape)}")
    if n == 0:
        raise KdcError(f"{path}: there are no test samples, so nothing can be said of any model")
    if array.min() < 0 or array.max() >= classes:
        raise KdcError(f"{path}: labels must lie in 0..{classes - 1}, found {array.min()}..{array.max()}")
    return array.astype(np.int64)
