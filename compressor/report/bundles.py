"""Several profiles: a folder with a bundle for each, OUT/PROFILE/, and one verdict over all of them."""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from compressor.errors import KdcError
from compressor.files.atomic import write_text
from compressor.files.bundle_folder import MATRIX, SUMS, UNMEASURED, counted, holds_bundle, must_hold_a_bundle
from compressor.files.reading import JSON_BYTES, read_text
from compressor.report.build import report_of
from compressor.report.devices import OnDevice, devices_of
from compressor.report.integrity import verify_made
from compressor.report.read import read_results
from compressor.report.release import Baseline, Baselines, read_baseline
from compressor.report.render.devices import to_matrix
from compressor.report.render.formats import to_json
from compressor.report.render.junit import to_junit
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from compressor.schema.devices import Devices, OfDevice

__all__ = [
    "baseline_for",
    "baselines_for",
    "holds_bundles",
    "not_measured",
    "of_profile",
    "read_bundles",
    "write_matrix",
]

PROFILE = re.compile(r"([a-z0-9][a-z0-9._-]{0,99})/.*report\.json")


def holds_bundles(folder: Path) -> bool:
    """Whether `kdc export` has made `folder` for several profiles."""
    return not holds_bundle(folder) and (folder / MATRIX[0]).is_file()


def baseline_for(baseline: Path | None, profile: str) -> Path | None:
    """Of a baseline that is itself a folder of bundles, that of the profile; any other one as it is. Raises KdcError
    where that one is not there."""
    if baseline is None or not holds_bundles(baseline):
        return baseline
    names = [name for name, _ in _listed(baseline)]
    if profile not in names:
        raise KdcError(
            f"--baseline {baseline} holds no bundle for profile {profile}; it has: {', '.join(names)}",
            "give the bundle that it shall be held against",
        )
    return baseline / profile


def baselines_for(baseline: Path, bundle_dir: Path) -> Baseline | Baselines:
    """What `--baseline` names, to hold `bundle_dir` against: for a folder of bundles one for each of its profiles."""
    if not holds_bundles(bundle_dir):
        return read_baseline(baseline_for(baseline, profile_of(bundle_dir)) or baseline, bundle_dir)
    if baseline.resolve() == bundle_dir.resolve():
        raise KdcError(f"--baseline {baseline} is the folder of bundles itself", "give an earlier one")
    if not holds_bundles(baseline):
        return read_baseline(baseline)
    inner = {name: bundle_dir / name for name, _ in _listed(bundle_dir)}
    return Baselines({name: read_baseline(baseline_for(baseline, name) or baseline, inner[name]) for name in inner})


def profile_of(bundle_dir: Path) -> str:
    """The profile that a bundle is for; "" where there is no bundle, of which whoever reads it next says so."""
    manifest = counted(bundle_dir) / "bundle.json"
    return read_json(manifest, Bundle).profile.name if manifest.is_file() else ""


def read_bundles(folder: Path, look: Callable[[Path], Sequence[OnDevice]]) -> tuple[OnDevice, ...]:
    """What was measured of each bundle in `folder`, by profile. `look`: what reads one that is sealed; one that waits
    to be measured is not. Raises KdcError, also for a bundle there that devices.json does not list."""
    listed = list(_listed(folder))
    names = {name for name, _ in listed}
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name not in names and (holds_bundle(path) or holds_bundle(path / UNMEASURED)):
            raise KdcError(f"{path} is a bundle that {folder / MATRIX[0]} does not list", "move it elsewhere")
    return tuple(each for name, entry in listed for each in _of_bundle(folder, name, entry, look))


def _listed(folder: Path) -> Iterator[tuple[str, OfDevice]]:
    """The bundles by the folder of each, and what was said of it last."""
    seen = set()
    for entry in read_json(folder / MATRIX[0], Devices).devices:
        match = PROFILE.fullmatch(entry.report)
        if match is None:
            raise KdcError(
                f"{folder / MATRIX[0]} names the report {entry.report!r}, which lies in no bundle of a profile"
            )
        if match[1] not in seen:
            seen.add(match[1])
            yield match[1], entry


def _of_bundle(
    folder: Path, name: str, entry: OfDevice, look: Callable[[Path], Sequence[OnDevice]]
) -> Iterator[OnDevice]:
    waiting = folder / name / UNMEASURED
    if not holds_bundle(waiting):
        must_hold_a_bundle(folder / name)
    if holds_bundle(waiting) or not (counted(folder / name) / SUMS).is_file():
        yield not_measured(folder, name, entry.url, entry.error or "it was exported, and not measured")
        return
    for each in look(folder / name):
        # Measured again since then, it may have been elsewhere.
        session = each.report.session
        same = session is not None and session.finished == entry.measured
        yield of_profile(each, name, each.url or (entry.url if same else ""))


def of_profile(each: OnDevice, name: str, url: str) -> OnDevice:
    """What was measured of the bundle in the folder `name`, as one of several."""
    shown = f"{name}/{each.name}" if each.name else name
    return replace(each, name=shown, folder=f"{name}/{each.folder}", url=url, bundle=name)


def not_measured(folder: Path, name: str, url: str, why: str) -> OnDevice:
    """The bundle in the folder `name`, of which an export waits to be measured."""
    waiting = folder / name / UNMEASURED
    made = counted(waiting if holds_bundle(waiting) else folder / name)
    verify_made(made)
    results = read_results(made)
    return OnDevice(name, f"{name}/", report_of(results), results, url, name, why)


def write_matrix(folder: Path, measured: Sequence[OnDevice], allow_unmeasured: bool = False) -> None:
    """Write what is said of all bundles in `folder` beside them, each file whole."""
    texts = (to_json(devices_of(measured)), to_matrix(measured, allow_unmeasured))
    junit = to_junit(*(each.report for each in measured), missing=[each.error for each in measured])
    files = dict(zip(MATRIX, texts, strict=True)) | {"junit.xml": junit}
    for name, text in files.items():
        if not (folder / name).is_file() or read_text(folder / name, most=JSON_BYTES) != text:
            write_text(folder / name, text)
