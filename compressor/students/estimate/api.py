"""`kdc students --estimate`: candidates for a device that is not at hand, ranked by the roofline. Nothing is measured,
and nothing judged."""

import warnings
from collections.abc import Mapping

import torch

from compressor.errors import KdcError, first_line
from compressor.progress import Progress
from compressor.schema.profile import Profile
from compressor.schema.unmeasured import EstimatedStudent, Estimates
from compressor.students.api import Wanted, entries_of, screened, tell_impossible
from compressor.students.estimate.basis import Looked, arithmetic_of, basis_of, kept_of, why_not
from compressor.students.estimate.layers import layers_of
from compressor.students.estimate.roofline import latencies_ms, work_of
from compressor.students.kept import all_kept, shelf
from compressor.tasks.table import candidates_of

__all__ = ["Layers", "estimate_students"]


class Layers:
    """Candidates as they ship, looked at without running them, each once."""

    def __init__(self, task: str, batch: int) -> None:
        self._candidates, self._batch = candidates_of(task), batch
        self._known: dict[tuple[str, int, int], Looked] = {}

    def __call__(self, name: str, input_size: int, classes: int) -> Looked:
        """Raises KdcError where it cannot be made, or its layers depend on values."""
        key = name, input_size, classes
        if key not in self._known:
            try:
                self._known[key] = self._look(name, input_size, classes)
            except KdcError:
                raise
            except Exception as error:  # of any type: networks are others' code
                raise KdcError(f"{name} cannot be looked at: {first_line(error)}") from error
        return self._known[key]

    def _look(self, name: str, input_size: int, classes: int) -> Looked:
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = self._candidates.create(name, classes, input_size)
            parameters = sum(parameter.numel() for parameter in model.network.parameters())
            layers = layers_of(model.network, model.preprocess.inputs, self._batch)
        return Looked(layers, parameters, sum(layer.macs for layer in layers) // self._batch)


def estimate_students(profile: Profile, wanted: Wanted, progress: Progress) -> Estimates:
    """Estimate the p50 of candidates on `profile`'s device, without reaching it.

    Calibrated on what `kdc students` has kept of that device; else by the profile's facts, and the shares of them that
    are usual. Raises KdcError: for a name that nobody knows; where nothing of the profile can be estimated.
    """
    entries, variants = entries_of(wanted, profile), screened(profile)
    tell_impossible(wanted, progress)
    everything = tuple(all_kept(shelf()))
    kept = {variant: kept_of(profile, *variant, everything) for variant in variants}
    reasons = {"-".join(variant): why for variant in variants if (why := why_not(profile, *variant, kept[variant]))}
    variants = tuple(variant for variant in variants if "-".join(variant) not in reasons)
    if not variants:
        told = "; ".join(
            f"{', '.join(name for name in reasons if reasons[name] == why)}: {why}"
            for why in dict.fromkeys(reasons.values())
        )
        raise KdcError(
            f"nothing can be estimated for profile {profile.name}: {told or 'it has no float precision'}",
            "kdc profiles new NAME, run on the device, measures these facts; or add them with their source "
            "(docs/own-device.md); or measure the candidates: kdc students --device …",
        )
    layers = Layers(wanted.task, profile.batch)
    chosen: dict[tuple[str, int], Looked] = {}
    for name, size in progress.track(entries, len(entries), "looking at candidates"):
        try:
            chosen[name, size] = layers(name, size, wanted.classes)
        except KdcError as error:
            reasons[f"timm:{name} at {size} px"] = error.message
    if not chosen:
        raise KdcError(f"none of the candidates can be estimated: {next(iter(reasons.values()))}")
    rows: list[EstimatedStudent] = []
    bases = []
    for variant in variants:
        basis, constants = basis_of(profile, *variant, kept[variant], layers)
        work = work_of([looked.layers for looked in chosen.values()])
        times = latencies_ms(work, constants, arithmetic_of(*variant))
        rows += _ranked(chosen, entries, variant, [float(time) for time in times])
        bases.append(basis)
    return Estimates(
        profile=profile.name, batch=profile.batch, threads=profile.threads, classes=wanted.classes, rows=tuple(rows),
        bases=tuple(bases), not_estimated=reasons,
    )  # fmt: skip


def _ranked(
    chosen: Mapping[tuple[str, int], Looked],
    families: Mapping[tuple[str, int], str],
    variant: tuple[str, str],
    times: list[float],
) -> list[EstimatedStudent]:
    """A row a candidate, the fastest first. Three digits: an estimate has no more."""
    runtime, precision = variant
    ordered = sorted(zip(times, chosen.items(), strict=True), key=lambda row: (row[0], row[1][0]))
    return [
        EstimatedStudent(
            student=f"timm:{name}", family=families[name, size], input_size=size, runtime=runtime, precision=precision,
            rank=rank, estimated_p50_ms=float(f"{time:.3g}"), parameters=looked.parameters, macs=looked.macs,
        )
        for rank, (time, ((name, size), looked)) in enumerate(ordered, 1)
    ]  # fmt: skip
