"""Reads what a report is made of, and refuses what does not fit together, naming the file."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import KdcError
from compressor.files.bundle_folder import DEVICE, DEVICES, device_folders
from compressor.report.arrays import ArrayFile, open_array
from compressor.report.consistency import bundle_fits, measurement_fits
from compressor.report.explanations import explanations, layer_times
from compressor.report.integrity import MEASUREMENT, inside
from compressor.report.shared import Shared, shared_with
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle, TeacherTable
from compressor.schema.device import Device
from compressor.schema.explain import Explanation, LayerTimes
from compressor.schema.measurement import Contestant, Measurement
from compressor.schema.release import Release
from compressor.stats import ParityFigures, parity_figures, top1

__all__ = ["Answers", "Results", "read_results", "read_unmeasured", "results_with"]


@dataclass(frozen=True)
class Answers:
    """What figures are made of a model's logits: its top-1 [N], and for two classes the second logit less the first
    [N], where all are finite. `parity`: against torch, for what ran here."""

    top1: NDArray[np.int64]
    margin: NDArray[np.float64] | None
    parity: ParityFigures | None = None


@dataclass(frozen=True)
class Results:
    """A bundle, its test labels [N], and what was measured of it. `references`: torch's logits [N, classes] by variant,
    checked but not read; `answers`: of the variants that ran. Logits are many and large, so none is kept.

    `contestants` by variant, without the second copy of the reference: that one is no variant, and its blocks in
    `measurement` serve the A/A comparison alone. `table`: of a teacher that is a table, where it answers the test, and
    `table_file`: all of its answers. `ids`: the file with the samples' names. `shared`: what of the test a baseline
    has, of which predictions are known. `device`: where the measurement was made, if it is one of several.

    `lengths`: how many tokens of each test sample the student reads [N], where samples are made of tokens.

    `explanations`, `layer_times`: by variant, where they were asked for (--explain).
    """

    bundle: Bundle
    labels: NDArray[np.int64]
    references: dict[str, ArrayFile]
    measurement: Measurement | None
    contestants: dict[str, Contestant]
    answers: dict[str, Answers]
    table: Answers | None
    ids: Path
    shared: Shared | None
    table_file: ArrayFile | None = None
    explanations: Mapping[str, Explanation] = field(default_factory=dict)
    layer_times: Mapping[str, LayerTimes] = field(default_factory=dict)
    device: Device | None = None
    lengths: NDArray[np.int64] | None = None


def read_results(bundle_dir: Path, device: str = "") -> Results:
    """Everything in the bundle that figures are made from. `device`: the folder in it of one of several devices. Raises
    KdcError for anything damaged or contradictory, and where several devices were measured and none is given."""
    results = read_unmeasured(bundle_dir)
    if device:
        results = replace(results, device=_device(bundle_dir, device))
    elif devices := device_folders(bundle_dir):
        names = ", ".join(folder.split("/")[1] for folder in devices)
        raise KdcError(f"{bundle_dir} was measured on several devices, and this is about one: {names}")
    path = bundle_dir / device / MEASUREMENT
    if not path.exists():
        return results
    shape = (results.bundle.eval.n, len(results.bundle.student.class_names))
    measurement = read_json(inside(bundle_dir, f"{device}{MEASUREMENT}", "kdc"), Measurement)
    results = results_with(results, measurement, str(path))
    elsewhere = _tested_elsewhere(results.bundle)
    answers = {
        name: _answers(
            _logits(inside(bundle_dir, f"{device}measurements/{contestant.logits}", MEASUREMENT), shape),
            results.references[name],
            contestant.requested_precision,
        )
        for name, contestant in results.contestants.items()
        if contestant.logits is not None and contestant.error is None and name not in elsewhere
    }
    return replace(results, answers=answers, layer_times=layer_times(bundle_dir, results.contestants, device))


def _device(bundle_dir: Path, folder: str) -> Device:
    path = f"{folder}{DEVICE}"
    device = read_json(inside(bundle_dir, path, "kdc"), Device)
    if f"{DEVICES}/{device.name}/" != folder:
        raise KdcError(f"{bundle_dir / path} is of a device called {device.name}, which lies in another folder")
    return device


def read_unmeasured(bundle_dir: Path) -> Results:
    """What the bundle holds but for what was measured of it, of which there may be none, or some that does not fit any
    more. Raises KdcError for anything damaged or contradictory."""
    bundle = read_json(bundle_dir / "bundle.json", Bundle)
    bundle_fits(bundle, bundle_dir / "bundle.json")
    shape = (bundle.eval.n, len(bundle.student.class_names))
    labels = _labels(inside(bundle_dir, bundle.eval.labels, "bundle.json"), *shape)
    elsewhere = _tested_elsewhere(bundle)
    references = {
        variant.name: _logits(inside(bundle_dir, variant.reference_logits, "bundle.json"), shape)
        for variant in bundle.variants
        if variant.name not in elsewhere
    }
    ids, shared = inside(bundle_dir, bundle.eval.ids, "bundle.json"), None
    if bundle.release is not None:
        path = inside(bundle_dir, bundle.release, "bundle.json")
        shared = shared_with(bundle_dir, bundle, labels, read_json(path, Release), str(path))
    table, table_file = _table(bundle_dir, bundle.teacher_table, shape)
    told, lengths = explanations(bundle_dir, bundle), _lengths(bundle_dir, bundle)
    return Results(bundle, labels, references, None, {}, {}, table, ids, shared, table_file, told, lengths=lengths)


def _lengths(bundle_dir: Path, bundle: Bundle) -> NDArray[np.int64] | None:
    if bundle.eval.lengths is None:
        return None
    path = inside(bundle_dir, bundle.eval.lengths, "bundle.json")
    file = open_array(path)
    lengths = file.read().astype(np.int64) if file.shape == (bundle.eval.n,) and file.dtype.kind in "iu" else None
    if lengths is None or lengths.min(initial=1) < 1:
        raise KdcError(f"{path}: expected {bundle.eval.n} lengths of at least 1, found {file.dtype} {list(file.shape)}")
    return lengths


def _tested_elsewhere(bundle: Bundle) -> set[str]:
    """The variants whose inputs are other samples than the bundle's: those of a baseline with another test set. They
    race, and what they predict there says nothing here."""
    if bundle.baseline_n is None:
        return set()
    return {variant.name for variant in bundle.variants if variant.role == "baseline"}


def results_with(results: Results, measurement: Measurement, where: str = "the measurement") -> Results:
    """`results` with another measurement of the same bundle, one that has no logits yet: what `open_lines` judges
    while a session is still going on. Raises KdcError, naming `where`, for one that does not fit the bundle."""
    measurement_fits(measurement, results.bundle, where)
    contestants = {
        contestant.variant: contestant for contestant in measurement.contestants if contestant.copy_of is None
    }
    return replace(results, measurement=measurement, contestants=contestants, answers={})


def _table(
    bundle_dir: Path, table: TeacherTable | None, shape: tuple[int, int]
) -> tuple[Answers | None, ArrayFile | None]:
    if table is None or table.answers is None:
        return None, None
    path = inside(bundle_dir, table.answers, "bundle.json")
    if table.kind in ("labels", "top-k"):
        return Answers(_labels(path, *shape), None), None
    logits = _logits(path, shape)
    return _answers(logits), logits


def _answers(logits: ArrayFile, torchs: ArrayFile | None = None, precision: str = "") -> Answers:
    """One pass over the file, and over torch's beside it, which those of `precision` are held against."""
    kept = _Kept()
    parity = None
    if torchs is not None:
        parity = parity_figures(zip(kept.seen(logits), torchs.parts(), strict=True), precision)
    else:
        deque(kept.seen(logits), maxlen=0)
    margin = np.concatenate(kept.margins) if logits.shape[1] == 2 else None
    return Answers(np.concatenate(kept.top1), margin if kept.finite else None, parity)


class _Kept:
    """What is kept of logits as they go by."""

    def __init__(self) -> None:
        self.top1: list[NDArray[np.int64]] = []
        self.margins: list[NDArray[np.float64]] = []
        self.finite = True

    def seen(self, logits: ArrayFile) -> Iterator[NDArray[Any]]:
        for part in logits.parts():
            answers = top1(part)
            self.top1.append(answers)
            self.finite = self.finite and bool((answers >= 0).all())
            if part.shape[1] == 2 and self.finite:
                self.margins.append(part[:, 1].astype(np.float64) - part[:, 0])
            yield part


def _logits(path: Path, shape: tuple[int, int]) -> ArrayFile:
    array = open_array(path)
    if array.shape != shape or array.dtype.kind != "f":
        raise KdcError(
            f"{path}: expected float logits of shape [{shape[0]}, {shape[1]}] (test samples, classes), "
            f"found {array.dtype} of shape {list(array.shape)}"
        )
    return array


def _labels(path: Path, n: int, classes: int) -> NDArray[np.int64]:
    file = open_array(path)
    if file.shape != (n,) or file.dtype.kind not in "iu":
        expected = f"expected {n} integer labels (eval.n in bundle.json)"
        raise KdcError(f"{path}: {expected}, found {file.dtype} of shape {list(file.shape)}")
    if n == 0:
        raise KdcError(f"{path}: there are no test samples, so nothing can be said of any model")
    array = file.read()
    if array.min() < 0 or array.max() >= classes:
        raise KdcError(f"{path}: labels must lie in 0..{classes - 1}, found {array.min()}..{array.max()}")
    return array.astype(np.int64)
