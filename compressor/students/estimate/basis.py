"""What estimates rest on: the figures that are kept of the device, or, without them, the facts of its profile."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np

from compressor.runtimes import RUNTIMES
from compressor.schema.profile import Profile
from compressor.schema.students import KeptFigures
from compressor.schema.unmeasured import Accuracy, Basis
from compressor.students.estimate.calibration import (
    FOLDS,
    LEAST,
    LEAST_FAMILIES,
    Measured,
    accuracy_of,
    calibrated,
    left_out,
    split_families,
)
from compressor.students.estimate.layers import Layer
from compressor.students.estimate.roofline import Constants, missing_facts, peaks_of, start
from compressor.students.kept import machine_line

__all__ = [
    "ELSEWHERE", "Looked", "Looking", "arithmetic_of", "basis_of", "held_out_accuracy", "kept_of", "measured_of",
    "why_not",
]  # fmt: skip


@dataclass(frozen=True)
class Looked:
    """A candidate's layers for a whole batch, the number of its parameters, and the MACs of one sample."""

    layers: tuple[Layer, ...]
    parameters: int
    macs: int


Looking = Callable[[str, int, int], Looked]
"""A candidate's name, input size and classes -> what it is made of."""

LEFT_OUT = f"families left out of the calibration in turn, a {FOLDS}th of them at a time"
WHERE, DAY = "an AMD EPYC with AVX-512 VNNI, 2 threads on 2 cores", "2026-11-30"
ELSEWHERE = {
    variant: Accuracy(
        median_error=median_error, worst_error=worst, spearman=spearman, n=52,
        of="all candidates there, from whose figures these shares were rounded",
    )
    for variant, median_error, worst, spearman in (
        (("onnxruntime", "fp32"), 0.108, 0.45, 0.983),
        (("onnxruntime", "int8"), 0.085, 0.62, 0.980),
        (("openvino", "f32"), 0.098, 0.43, 0.989),
        (("openvino", "int8"), 0.079, 0.39, 0.983),
    )
}  # fmt: skip
"""How far estimates without calibration were off on the machine WHERE, by runtime and precision:
docs/experiments/estimates.md."""


def arithmetic_of(runtime: str, precision: str) -> str:
    """fp32, fp16, bf16 or int8: in what a variant computes."""
    executed = RUNTIMES[runtime].precisions[precision]
    return "fp" + executed[1:] if executed in ("f32", "f16") else executed


def why_not(profile: Profile, runtime: str, precision: str, kept: Sequence[KeptFigures]) -> str:
    """Why nothing can be estimated of a variant, in words; "" where it can. `kept`: what `kept_of` gives of it."""
    if RUNTIMES[runtime].on_gpu:
        return "it runs on a GPU, and only what runs on a CPU is estimated"
    missing = missing_facts(profile.device, arithmetic_of(runtime, precision))
    if missing:
        return f"the profile does not say {' and '.join(missing)}"
    if (runtime, precision) not in ELSEWHERE and not _is_enough(kept):
        return "too few figures of it are kept, and how far estimates without them are off was never measured"
    return ""


def kept_of(
    profile: Profile, runtime: str, precision: str, everything: Sequence[KeptFigures]
) -> tuple[KeptFigures, ...]:
    """Of all that is kept, what was measured of a variant on the profile's device with its threads and batch; of the
    machine and the version of the runtime that were measured last."""
    kept = [
        row
        for row in everything
        if (row.figures.runtime, row.figures.precision) == (runtime, precision)
        and (row.threads, row.batch) == (profile.threads, profile.batch)
        and row.figures.p50_ms is not None
        and not any(profile.differences(row.machine))
    ]
    last = max(kept, key=lambda row: row.figures.measured, default=None)
    return tuple(row for row in kept if last is not None and _setting(row) == _setting(last))


def basis_of(
    profile: Profile, runtime: str, precision: str, kept: Sequence[KeptFigures], look: Looking
) -> tuple[Basis, Constants]:
    """The roofline's constants for a variant that can be estimated, and what they rest on. `kept`: what `kept_of` gives
    of it."""
    arithmetic = arithmetic_of(runtime, precision)
    constants = start(peaks_of(profile.device, profile.threads, arithmetic), arithmetic, runtime)
    if not _is_enough(kept):
        basis = Basis(
            runtime=runtime, precision=precision, calibrated=False, machine=WHERE, days=(DAY,), candidates=0,
            families=0, accuracy=ELSEWHERE[runtime, precision], constants=constants.named(),
        )  # fmt: skip
        return basis, constants
    rows = measured_of(kept, look)
    accuracy = held_out_accuracy(rows, constants, arithmetic)
    constants = calibrated(rows, constants, arithmetic)
    days = sorted({row.figures.measured for row in kept})
    basis = Basis(
        runtime=runtime, precision=precision, calibrated=True, machine=machine_line(kept[0].machine),
        days=tuple(dict.fromkeys((days[0], days[-1]))), candidates=len(rows),
        families=len({row.family for row in rows}), accuracy=accuracy, constants=constants.named(),
    )  # fmt: skip
    return basis, constants


def _setting(row: KeptFigures) -> tuple[str, int, str | None]:
    return row.machine.cpu, row.machine.cores, row.figures.runtime_version


def measured_of(kept: Sequence[KeptFigures], look: Looking) -> list[Measured]:
    """The figures with the layers of their networks, and the drift that the reference shows, which ran in every
    session."""
    sessions = defaultdict(set)
    for row in kept:
        if row.reference is not None and row.reference_ms is not None:
            sessions[row.reference].add(row.reference_ms)
    rows = []
    for row in kept:
        figures = row.figures
        assert figures.p50_ms is not None, "kept_of leaves these out"
        drift = row.reference_ms / median(sessions[row.reference]) if row.reference and row.reference_ms else 1.0
        looked = look(figures.student.partition(":")[2], figures.input_size, figures.classes)
        rows.append(Measured(figures.family, looked.layers, figures.p50_ms.value, drift))
    return rows


def held_out_accuracy(rows: Sequence[Measured], constants: Constants, arithmetic: str) -> Accuracy:
    """How far the estimates of networks are off whose families had no part in the calibration."""
    answers = left_out(rows, constants, arithmetic, split_families(rows, FOLDS, seed=0))
    measured = np.array([row.p50_ms for row in rows])
    numbers = np.concatenate([numbers for numbers, _ in answers])
    return accuracy_of(np.concatenate([estimates for _, estimates in answers]), measured[numbers], LEFT_OUT)


def _is_enough(kept: Sequence[KeptFigures]) -> bool:
    return len(kept) >= LEAST and len({row.figures.family for row in kept}) >= LEAST_FAMILIES
