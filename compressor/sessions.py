"""What `kdc measure` makes of a bundle: one session, which takes the place of the one before, or one for each of
several devices.

The devices that a command names are those that the bundle has afterwards. Only where it names one of several, that one
is measured again, and the others stay as they were.
"""

import os
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compressor.errors import EXIT_INCONCLUSIVE, KdcError
from compressor.files.bundle_folder import DEVICE, DEVICES, MATRIX, REMADE, device_folders
from compressor.progress import Progress
from compressor.schema.base import read_json, write_json
from compressor.schema.bundle import Bundle
from compressor.schema.device import Device

if TYPE_CHECKING:
    from compressor.measure.devices import NamedDevice
    from compressor.pipeline import Measuring
    from compressor.report import Baseline, OnDevice
    from compressor.schema.measurement import Measurement

__all__ = ["measured_in", "none_measured", "rows_of"]

LONGEST = 2_000
"""Of why a device was not measured."""


@dataclass(frozen=True)
class _Plan:
    """`devices`: whom to measure; `several`: whether each has a folder of its own; `beside`: those that stay as they
    were measured."""

    devices: tuple["NamedDevice", ...]
    several: bool
    beside: tuple[Device, ...] = ()


def measured_in(
    folder: Path, bundle: Path, measuring: "Measuring", devices: Sequence["NamedDevice"], progress: Progress,
    stop: threading.Event | None = None,
) -> tuple["OnDevice", ...]:  # fmt: skip
    """Measure the bundle that lies in `folder`, which is `bundle` or waits in it, report, and seal it. `stop`: see
    `measure_bundle`."""
    from compressor.files.bundle_change import next_state
    from compressor.measure.session import measure_bundle
    from compressor.report import (
        baseline_for,
        finish_each,
        open_lines,
        read_baseline,
        read_unmeasured,
        results_with,
        verify_made,
    )

    verify_made(folder)
    plan = _planned(folder, bundle, measuring, devices, progress)
    profile = read_json(folder / "bundle.json", Bundle).profile.name
    earlier = baseline_for(measuring.baseline, profile)
    baseline = None if earlier is None else read_baseline(earlier, folder)
    for device in plan.devices:
        named = f"{device.name} ({device.text})" if plan.several else device.text
        progress.note(f"measuring {bundle} on {'this machine' if device.url.kind == 'local' else named}")
    with next_state(folder) as following:
        if baseline is not None:
            _attach(following, baseline, progress)
        _clear(following, plan)
        results = read_unmeasured(following)
        run = partial(
            measure_bundle,
            following,
            rounds=measuring.rounds,
            seconds=measuring.seconds,
            throughput=measuring.throughput,
            explain=measuring.explain,
            undecided=lambda measurement: open_lines(results_with(results, measurement)),
        )
        if plan.several:
            _each(following, bundle, plan, measuring, run, progress)
        else:
            run(plan.devices[0].url, python=measuring.python, progress=progress, stop=stop)
        verify_made(following)  # a model that was changed meanwhile is not sealed
        return finish_each(following, measuring.allow_unmeasured)


def _planned(
    folder: Path, bundle: Path, measuring: "Measuring", devices: Sequence["NamedDevice"], progress: Progress
) -> _Plan:
    """Raises KdcError for a baseline beside which only one of several devices would be measured."""
    held = [read_json(folder / device / DEVICE, Device) for device in device_folders(folder)]
    again = _one_of(held, devices[0]) if len(devices) == 1 and held else None
    if again is not None:
        beside = tuple(device for device in held if device.name != again.name)
        if measuring.baseline is not None:
            everyone = " ".join(f"--device {device.name}={device.url}" for device in held)
            raise KdcError(
                f"--baseline is for all devices that {bundle} was measured on, and {again.name} is one of them",
                f"kdc measure {bundle} {everyone} --baseline {measuring.baseline}",
            )
        names = ", ".join(device.name for device in beside)
        progress.note(
            f"{names}, on which {bundle} was measured too, {'stay' if len(beside) > 1 else 'stays'} as before"
        )
        return _Plan((again,), several=True, beside=beside)
    if held and len(devices) == 1 and devices[0].url.kind == "local" and not devices[0].chosen:
        everyone = " ".join(f"--device {device.name}={device.url}" for device in held)
        raise KdcError(
            f"{bundle} was measured on {', '.join(device.name for device in held)}, and not on this machine",
            f"kdc measure {bundle} {everyone}; or in their place here: --device here=local",
        )
    kept = {device.name for device in devices} if len(devices) > 1 else set[str]()
    if gone := [device.name for device in held if device.name not in kept]:
        progress.warn(f"what {bundle} holds of {', '.join(gone)} gives way to this session")
    return _Plan(tuple(devices), several=len(devices) > 1)


def _one_of(held: Sequence[Device], device: "NamedDevice") -> "NamedDevice | None":
    """The device, as it is called in the bundle, if it is one of those there."""
    same = [each for each in held if each.url == device.text]
    called = [each for each in held if device.chosen and each.name == device.name]
    if same and device.chosen and not called:
        raise KdcError(
            f"--device {device.text} is called {same[0].name} in this bundle, and not {device.name}",
            f"--device {same[0].name}={device.text}",
        )
    match = [*called, *same]
    if not match and not device.chosen and (near := [each for each in held if _host(each) == device.url.name]):
        raise KdcError(
            f"--device {device.text} may be {near[0].name}, which in this bundle is {near[0].url}",
            f"--device {near[0].name}={device.text} to measure that one again",
        )
    return replace(device, name=match[0].name) if match else None


def _host(device: Device) -> str:
    from compressor.measure.devices import parse_device

    try:
        return parse_device(device.url).name
    except KdcError:  # of a bundle from elsewhere
        return ""


def _clear(following: Path, plan: _Plan) -> None:
    """Take out of the next state what is not measured in it any more: nothing of another session stays."""
    stale = [DEVICES, *MATRIX]
    if plan.several:
        stale = [*REMADE, *(f"{DEVICES}/{device.name}" for device in plan.devices)]
        kept = {device.name for device in plan.beside} | {device.name for device in plan.devices}
        stale += [folder for folder in device_folders(following) if folder.split("/")[1] not in kept]
    for path in stale:
        if (following / path).is_dir():
            shutil.rmtree(following / path)
        else:
            (following / path).unlink(missing_ok=True)


def _each(
    following: Path, bundle: Path, plan: _Plan, measuring: "Measuring", run: Callable[..., "Measurement"],
    progress: Progress,
) -> None:  # fmt: skip
    """Measure on each device into its own folder. Raises KdcError where nothing was measured on any of them."""
    from compressor.measure.together import Session, together

    def measure(device: "NamedDevice", heard: Progress, stop: threading.Event) -> Any:
        python = None if device.url.kind == "local" else measuring.python
        into = following / DEVICES / device.name
        return run(device.url, python=python, progress=heard, into=into, stop=stop)

    results: dict[str, Any] = {}
    for rows in rows_of(plan.devices, progress):
        results |= together([[Session(device.name, device) for device in row] for row in rows], measure, progress)
    failed = {name: result for name, result in results.items() if isinstance(result, KdcError)}
    if len(failed) == len(plan.devices):
        raise none_measured(list(failed.items()))
    for device in plan.devices:
        error = failed.get(device.name)
        why, code = None, None
        if error is not None:
            said = f"{error.message} ({error.hint})" if error.hint else error.message
            why, code = said.replace(os.fspath(following), os.fspath(bundle))[:LONGEST], error.exit_code
            progress.warn(f"{device.name} was not measured: {why}")
            shutil.rmtree(following / DEVICES / device.name, ignore_errors=True)
        (following / DEVICES / device.name).mkdir(parents=True, exist_ok=True)
        told = Device(name=device.name, url=device.text, error=why, exit_code=code)
        write_json(following / DEVICES / device.name / DEVICE, told)


def rows_of(devices: Sequence["NamedDevice"], progress: Progress) -> Iterator[list[list["NamedDevice"]]]:
    """Who is measured one after the other, in a row, and which rows at a time: those that are this machine first and
    alone, since it takes part in measuring the others."""
    from compressor.measure.devices import same_machines

    here, *others = ([devices[number] for number in row] for row in same_machines([each.url for each in devices]))
    for row in (here, *others):
        if len(row) > 1:
            names = ", ".join(device.name for device in row)
            machine = "this machine" if row is here else "one machine"
            progress.note(f"{names} are {machine}: they are measured one after the other")
    if here and others:
        names = ", ".join(device.name for device in here)
        progress.note(f"{names}: this machine, which is measured first, since it takes part in measuring the others")
    if here:
        yield [here]
    if others:
        yield others


def none_measured(failed: Sequence[tuple[str, KdcError]]) -> KdcError:
    """Of the devices, none was measured: with the exit code of all where it is one and the same."""
    codes = {error.exit_code for _, error in failed}
    if len(failed) == 1:
        return failed[0][1]
    names: dict[str, list[str]] = {}
    for name, error in failed:
        names.setdefault(error.message, []).append(name)
    said = "; ".join(f"{', '.join(of)}: {message}" for message, of in names.items())  # the same is said once
    hints = list(dict.fromkeys(error.hint for _, error in failed if error.hint))
    return KdcError(said, "; ".join(hints), codes.pop() if len(codes) == 1 else EXIT_INCONCLUSIVE)


def _attach(folder: Path, baseline: "Baseline", progress: Progress) -> None:
    """Put a baseline into the bundle that is to be measured, and say what of the test both have."""
    from compressor.files.bundle_folder import counted
    from compressor.measure.baseline import attach_baseline
    from compressor.report import compared_with

    shared = compared_with(folder, baseline)
    earlier = None if baseline.folder is None else counted(baseline.folder)
    attach_baseline(folder, earlier, shared.release, same_test=shared.is_whole)
    if shared.text:
        progress.note(f"{baseline.where}: {shared.text}")
