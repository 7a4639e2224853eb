"""Commands that take several steps, put together: each step leaves a folder on disk and can be rerun alone."""

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.choice import Choosing, settled
from compressor.errors import KdcError
from compressor.files.atomic import file_sha256
from compressor.files.locks import locked
from compressor.progress import InAll, Progress
from compressor.schema.base import Noun
from compressor.schema.profile import Profile
from compressor.schema.quantization import Scheme
from compressor.schema.student import Request, Student

if TYPE_CHECKING:
    from compressor.distill import Destination, Resources
    from compressor.measure.devices import NamedDevice
    from compressor.report import OnDevice

__all__ = [
    "Building",
    "Doctor",
    "Measuring",
    "built",
    "distill",
    "doctor",
    "export",
    "measure",
    "require_measurable",
    "scheme_for",
]


def scheme_for(profile: Profile | None, progress: Progress) -> Scheme:
    """How the int8 kernels of the profile's first int8 target round: what `kdc distill --qat` trains for."""
    from compressor.export.builders import builder_of

    if profile is None:
        raise KdcError("--qat needs a profile, which says how the device's int8 kernels round", "--profile NAME")
    for target in profile.targets:
        quantizer = builder_of(target.runtime).quantizer
        if "int8" in target.precisions and quantizer is not None:
            scheme = quantizer.scheme(profile)
            rounding = f"{scheme.activations} activations, {scheme.weight_bits}-bit weights"
            progress.note(f"--qat: for int8 on {target.runtime}: {rounding}")
            return scheme
    raise KdcError(f"--qat: profile {profile.name} has no target with int8", "choose another, or leave --qat out")


def distill(
    request: Request, out: "Destination", choosing: Choosing, *, resources: "Resources", progress: Progress
) -> Student:
    """Distill, by way of assistants where there are some, and with `request.qat` go on under fake quantization. Where
    no student is named, one is chosen first; where no recipe is given, a default is; with `request.control` the same
    is trained on labels alone, too."""
    from compressor.distill import distill_chain as in_float
    from compressor.distill import distill_controlled, distill_quantized
    from compressor.distill.beside_run import answers_beside

    resources = answers_beside(out.folder, request, resources)
    request, data = settled(request, choosing, out, resources, progress)
    run = in_float if request.qat is None else distill_quantized
    if request.control:
        run = distill_controlled
    tried = request.race is not None or (request.regime is not None and bool(request.regime.arms))
    if not (out.resume or tried):  # else some of it is done already, or not yet known
        progress = InAll(progress, _epochs_in_all(request))
    return run(request, out, resources=resources, progress=progress, data=data)


def _epochs_in_all(request: Request) -> int:
    """Of every training that `distill` goes through."""
    trained_on = request.recipe.qat.epochs if request.qat is not None else 0
    once = request.recipe.epochs_in_all + trained_on
    return len(request.assistants) * request.recipe.epochs_in_all + (2 if request.control else 1) * once


@dataclass(frozen=True)
class Doctor:
    """What a machine has: as a noun, as a text, and the install lines of what a profile needs and it lacks."""

    diagnosis: Noun
    text: str
    missing: tuple[str, ...]


def doctor(device: str, python: str | None, profile: Profile | None, progress: Progress) -> Doctor:
    """Ask this machine, or a device, what works there."""
    from compressor.measure import devices
    from compressor.measure.doctor import diagnose, missing_for, to_text

    url = devices.parse_device(device)
    devices.refuse_python_here(url, python)
    if url.kind == "local":
        here = diagnose()
        return Doctor(here, to_text(here), missing_for(profile, here) if profile else ())
    there = devices.diagnose_device(url, python=python, progress=progress)
    return Doctor(there, devices.to_text(there), devices.missing_on(profile, there) if profile else ())


@dataclass(frozen=True)
class Measuring:
    """How to measure: on which devices, each URL or NAME=URL, with which interpreter there, beside which earlier
    bundle, for how long. `explain`: time each layer too, in a run of its own."""

    devices: tuple[str, ...] = ("local",)
    python: str | None = None
    baseline: Path | None = None
    rounds: int = 30
    seconds: float = 60.0
    allow_unmeasured: bool = False
    throughput: bool = True
    explain: bool = False


@dataclass(frozen=True)
class Building:
    """How to build. `qat`: whether the ladder to int8 may train the student on, where nothing below keeps the accuracy;
    `bake`, `dynamic_batch`, `explain`, `trim`: see export.Delivery."""

    qat: bool = True
    bake: bool = False
    dynamic_batch: bool = False
    explain: bool = False
    trim: bool = False


def require_measurable(measuring: Measuring) -> None:
    """Raise KdcError for a device that cannot be one, and for a baseline that is none. Reaches no device."""
    from compressor.report import require_baseline

    _named(measuring)
    if measuring.baseline is not None:
        require_baseline(measuring.baseline)


def _named(measuring: Measuring) -> "tuple[NamedDevice, ...]":
    from compressor.measure.devices import parse_devices, refuse_python_here

    devices = parse_devices(measuring.devices)
    for device in devices[:1] if all(device.url.kind == "local" for device in devices) else ():
        refuse_python_here(device.url, measuring.python)
    return devices


def export(
    run: Path,
    profile: Profile,
    out: Path,
    measuring: Measuring,
    *,
    teacher: str | None,
    building: Building,
    overwrite: bool,
    progress: Progress,
) -> "tuple[OnDevice, ...]":
    """Export the run for the profile, measure it, and report: of several devices on each."""
    from compressor.files.bundle_folder import claim
    from compressor.report import baseline_for

    # What cannot go well is known before minutes of work: a mistyped device, a folder that may not be written.
    measuring = replace(measuring, baseline=baseline_for(measuring.baseline, profile.name))
    require_measurable(measuring)
    claim(out, overwrite)
    with locked(out, "kdc export", warn=progress.warn):
        claim(out, overwrite)  # another command may have ended just before
        made = built(run, profile, out, building, teacher=teacher, progress=progress)
        try:
            return _measured_in_place(out, measuring, progress)
        except (KeyboardInterrupt, KdcError):
            kept = "" if made == out else f", and waits in {made}, while the bundle before it stays"
            progress.warn(f"{out} is exported but not measured{kept}: kdc measure {out} finishes it")
            raise


def built(
    run: Path, profile: Profile, out: Path, building: Building, *, teacher: str | None, progress: Progress
) -> Path:
    """Export the run for the profile into `out`, which is locked, and not measure it; returns where it is."""
    from compressor.export import Delivery, export_bundle
    from compressor.files.bundle_change import settle

    settle(out)
    with _retraining(run, out, teacher, progress) as retrain:
        return export_bundle(
            run,
            profile,
            out,
            teacher=teacher,
            retrain=retrain if building.qat else None,
            delivery=Delivery(building.bake, building.dynamic_batch, building.explain, building.trim),
            progress=progress,
        )


@contextmanager
def _retraining(run: Path, out: Path, teacher: str | None, progress: Progress) -> Iterator[Callable[[Scheme], Path]]:
    """How the top rung trains the student on: into a folder in `out`, which only an interruption leaves there."""
    from compressor.distill import Destination, quantization_aware

    def clear() -> None:
        for folder in out.glob(".kdc-qat-*"):
            shutil.rmtree(folder, ignore_errors=True)

    def retrain(scheme: Scheme) -> Path:
        # Named after what it comes from: what an interrupted export of another student left is not gone on with.
        key = hashlib.sha256(f"{file_sha256(run / 'student.json')} {run} {teacher}".encode()).hexdigest()[:12]
        to = out / f".kdc-qat-{key}" / f"{scheme.activations}-{scheme.weight_bits}"
        progress.note(
            "int8 falls short of the accuracy or of torch's answers: training the student on under fake quantization"
        )
        quantization_aware(
            run,
            scheme,
            Destination(to, resume=(to / "run.json").exists()),
            teacher=teacher,
            epochs=None,
            progress=progress,
        )
        return to

    try:
        yield retrain
    except KeyboardInterrupt:
        if any(out.glob(".kdc-qat-*/*/run.json")):
            progress.warn(
                f"stopped; what was trained for int8 is kept in {out}: the same kdc export goes on from there"
            )
        raise
    except BaseException:
        clear()
        raise
    clear()


def measure(bundle: Path, measuring: Measuring, *, progress: Progress) -> "tuple[OnDevice, ...]":
    """Measure a bundle on a device, or on several, report, and seal it. Rounds go on while a verdict on latency is
    open.

    What was measured, its report, best/ and the seal count together, or none of them. Where an export waits in the
    bundle to be measured, that one is, and takes the bundle's place.
    """
    from compressor.files.bundle_folder import UNMEASURED, holds_bundle

    if holds_bundle(bundle / UNMEASURED) and holds_bundle(bundle):
        progress.note(f"{bundle} holds a newer export that was not measured yet: that one is, and takes its place")
    measured = _measured_in_place(bundle, measuring, progress)
    _said_of_all(bundle, measuring, progress)
    return measured


def _said_of_all(bundle: Path, measuring: Measuring, progress: Progress) -> None:
    """Where the bundle is that of one of several profiles, bring what is said of all of them up to date."""
    from compressor.report import holds_bundles, matrix_anew

    bundle = bundle if bundle.name not in ("", "..") else bundle.resolve()
    folder = bundle.parent
    if not holds_bundles(folder):
        return
    try:
        matrix_anew(bundle, _named(measuring)[0].text, measuring.allow_unmeasured)
        progress.note(f"{folder}/devices.md, which is about all profiles, was brought up to date")
    except KdcError as error:
        progress.warn(
            f"{folder}/devices.md does not know of this measurement yet: {error.message}; then `kdc report {folder}`"
        )


def _measured_in_place(bundle: Path, measuring: Measuring, progress: Progress) -> "tuple[OnDevice, ...]":
    """`measure`, where what waits in the bundle need not be told of."""
    from compressor.files.bundle_change import promote, settle
    from compressor.files.bundle_folder import UNMEASURED, holds_bundle
    from compressor.report import must_hold_a_bundle
    from compressor.sessions import measured_in

    devices = _named(measuring)
    waiting = bundle / UNMEASURED
    if not holds_bundle(waiting):
        must_hold_a_bundle(bundle)
    with locked(bundle, "kdc measure", warn=progress.warn):
        settle(bundle)
        if not holds_bundle(waiting):
            return measured_in(bundle, bundle, measuring, devices, progress)
        settle(waiting)
        measured = measured_in(waiting, bundle, measuring, devices, progress)
        promote(waiting, bundle)
        return measured
