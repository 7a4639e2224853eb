"""`kdc export` with several `--profile`: a bundle for each, OUT/PROFILE/, measured on a device each or all on one."""

import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from compressor.errors import KdcError
from compressor.files.atomic import is_temporary
from compressor.files.bundle_folder import MATRIX, UNMEASURED, claim, holds_bundle
from compressor.files.locks import is_lock, locked
from compressor.pipeline import Building, Measuring, built, require_measurable
from compressor.progress import Progress
from compressor.schema.profile import Profile
from compressor.sessions import measured_in, none_measured, rows_of

if TYPE_CHECKING:
    from compressor.measure.devices import NamedDevice
    from compressor.report import OnDevice

__all__ = ["export_each"]

BESIDE = (*MATRIX, "junit.xml")


@dataclass(frozen=True)
class _Target:
    """A bundle to measure: for which profile, where it is `made`, and where it belongs."""

    name: str
    made: Path
    bundle: Path
    device: "NamedDevice"
    measuring: Measuring


def export_each(
    run: Path,
    profiles: Sequence[Profile],
    out: Path,
    measuring: Measuring,
    *,
    teacher: str | None,
    building: Building,
    overwrite: bool,
    progress: Progress,
) -> tuple["OnDevice", ...]:
    """Export the run for each profile, measure every bundle, those of different machines at a time, and report on all.

    Raises KdcError where one cannot be built, and where none was measured. What could not be measured waits for that.
    """
    from compressor.report import baseline_for

    names = [profile.name for profile in profiles]
    ways = [replace(measuring, baseline=baseline_for(measuring.baseline, name)) for name in names]
    devices = _devices_for(names, measuring)
    for way in ways:
        require_measurable(replace(way, devices=("local",), python=None))
    _claim(out, names, overwrite)
    with ExitStack() as stack:
        for folder in (out, *(out / name for name in names)):
            stack.enter_context(locked(folder, "kdc export", warn=progress.warn))
        _claim(out, names, overwrite)
        targets = []
        for number, profile in enumerate(profiles):
            progress.note(f"{number + 1}/{len(profiles)} for profile {profile.name}")
            made = built(run, profile, out / profile.name, building, teacher=teacher, progress=progress)
            targets.append(_Target(profile.name, made, out / profile.name, devices[number], ways[number]))
        return _measured(out, targets, measuring.allow_unmeasured, progress)


def _devices_for(names: Sequence[str], measuring: Measuring) -> list["NamedDevice"]:
    """A device for each profile, called as that is."""
    from compressor.measure.devices import parse_devices, refuse_python_here

    if len({name.casefold() for name in names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise KdcError(f"--profile {twice} is named twice", "name each profile once")
    texts = measuring.devices
    if len(texts) not in (1, len(names)):
        raise KdcError(
            f"--device is given {len(texts)} times, and --profile {len(names)} times",
            "one --device for each --profile, in the same order, or one for all",
        )
    # The same one may be that of several profiles.
    devices = [parse_devices([text])[0] for text in (texts if len(texts) > 1 else texts * len(names))]
    if all(device.url.kind == "local" for device in devices):
        refuse_python_here(devices[0].url, measuring.python)
    return [replace(device, name=name) for device, name in zip(devices, names, strict=True)]


def _claim(out: Path, names: Sequence[str], overwrite: bool) -> None:
    """Raise KdcError where bundles of these profiles may not be made in `out`."""
    if holds_bundle(out) or holds_bundle(out / UNMEASURED):
        raise KdcError(f"--out {out} holds the bundle of one profile", "choose another --out for several")
    for name in names:
        if name in BESIDE:
            raise KdcError(f"--profile {name} is called as a file that lies beside the bundles", "give it another name")
        claim(out / name, overwrite)
    if not out.is_dir():
        claim(out, overwrite)
        return
    others = [path.name for path in sorted(out.iterdir()) if not (is_temporary(path.name) or is_lock(path.name))]
    foreign = [name for name in others if name not in (*BESIDE, *names)]
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise KdcError(
            f"--out {out} holds {foreign[0]}{more}, which is of none of these profiles ({', '.join(names)})",
            "name that profile too, put it elsewhere, or choose another --out",
        )


def _measured(
    out: Path, targets: Sequence[_Target], allow_unmeasured: bool, progress: Progress
) -> tuple["OnDevice", ...]:
    from compressor.measure.together import Session, together
    from compressor.report import write_matrix

    by_name = {target.name: target for target in targets}
    waiting = [each for target in targets for each in _told(out, target, {})]
    write_matrix(out, waiting, allow_unmeasured)  # which bundles these are, whatever comes
    results: dict[str, tuple[OnDevice, ...] | KdcError] = {}
    try:
        for rows in rows_of([target.device for target in targets], progress):
            sessions = [[Session(device.name, by_name[device.name]) for device in row] for row in rows]
            together(sessions, _measure, progress, results)
        failed = {name: result for name, result in results.items() if isinstance(result, KdcError)}
        if len(failed) == len(targets):
            raise none_measured(list(failed.items()))
    except (KeyboardInterrupt, KdcError):
        names = [target.name for target in targets if not isinstance(results.get(target.name), tuple)]
        progress.warn(f"exported but not measured: {', '.join(names)}; kdc measure {out / names[0]} finishes that one")
        write_matrix(out, [each for target in targets for each in _told(out, target, results)], allow_unmeasured)
        raise
    for target in targets:
        result = results[target.name]
        if isinstance(result, KdcError):
            why = _reason(result)
            progress.warn(f"{target.name} was not measured: {why}; kdc measure {target.bundle} finishes it")
    measured = tuple(each for target in targets for each in _told(out, target, results))
    write_matrix(out, measured, allow_unmeasured)
    return measured


def _reason(error: KdcError) -> str:
    return f"{error.message} ({error.hint})" if error.hint else error.message


def _told(
    out: Path, target: _Target, results: Mapping[str, "tuple[OnDevice, ...] | KdcError"]
) -> tuple["OnDevice", ...]:
    """What is known of a bundle; of one that was not reached, that."""
    from compressor.report import not_measured, of_profile

    result = results.get(target.name)
    if isinstance(result, tuple):
        return tuple(of_profile(each, target.name, target.device.text) for each in result)
    why = "it was not measured yet" if result is None else _reason(result)
    return (not_measured(out, target.name, target.device.text, why),)


def _measure(target: _Target, heard: Progress, stop: threading.Event) -> tuple["OnDevice", ...]:
    from compressor.files.bundle_change import promote

    python = None if target.device.url.kind == "local" else target.measuring.python
    way = replace(target.measuring, python=python)
    measured = measured_in(target.made, target.bundle, way, (target.device,), heard, stop)
    if target.made != target.bundle:
        promote(target.made, target.bundle)
    return measured
