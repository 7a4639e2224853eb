"""A baseline from where the user says: a bundle, or a file that holds what one cost and predicted."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from compressor.errors import KdcError
from compressor.files.atomic import file_sha256
from compressor.files.bundle_folder import counted, device_folders, read_steadily
from compressor.files.reading import JSON_BYTES, json_value, read_bytes
from compressor.report.build import report_of
from compressor.report.checks.artefact import ran_as_asked
from compressor.report.integrity import verify
from compressor.report.read import Results, read_results, read_unmeasured
from compressor.report.shared import Shared, digests_of, packed, shared_with
from compressor.schema.base import parse
from compressor.schema.bundle import Variant
from compressor.schema.release import Release, Released
from compressor.schema.report import Report

__all__ = [
    "Baseline",
    "Baselines",
    "bundle_of",
    "compared_with",
    "read_baseline",
    "release_of",
    "report_beside",
    "require_baseline",
]


@dataclass(frozen=True)
class Baseline:
    """What `--baseline` names: `where`, as messages say it; its release; and its `folder`, where it is a bundle, whose
    models can race."""

    where: str
    release: Release
    folder: Path | None


@dataclass(frozen=True)
class Baselines:
    """A baseline for each of several profiles, by the name of the profile."""

    of_profile: Mapping[str, Baseline]


def read_baseline(path: Path, bundle_dir: Path | None = None) -> Baseline:
    """The bundle in the folder `path` (or whose report.json that is), every file verified; or the release in the file
    `path`. Raises KdcError, also where it is the bundle that is held against it, in `bundle_dir`."""
    where, path = f"--baseline {path}", bundle_of(path)
    if bundle_dir is not None and path.resolve() == bundle_dir.resolve():
        raise KdcError(f"{where} is the bundle itself", "give an earlier one")
    if path.is_dir():
        return Baseline(where, read_steadily(path, lambda: _of_bundle(path)), path)
    return Baseline(where, _of_file(path, where), None)


def require_baseline(path: Path) -> None:
    """Raise KdcError for what `read_baseline` would refuse, but for a bundle's measurement, which is not read."""
    if (folder := bundle_of(path)).is_dir():
        verify(folder)
    else:
        _of_file(path, f"--baseline {path}")


def bundle_of(path: Path) -> Path:
    """The bundle whose report.json that is; anything else as it is."""
    return path.parent if path.name == "report.json" and (path.parent / "bundle.json").is_file() else path


def _of_file(path: Path, where: str) -> Release:
    if not path.exists():
        raise KdcError(
            f"{where} does not exist", "give an earlier bundle, or a file of `kdc report … --format release`"
        )
    values = json_value(read_bytes(path, most=JSON_BYTES), where)
    if not isinstance(values, dict) or values.get("kind") != "release":
        kind = "a report, which holds no predictions" if _is_report(values) else "no bundle, and no release"
        raise KdcError(
            f"{where} is {kind}", "give the bundle itself, or what `kdc report BUNDLE --format release` writes"
        )
    return parse(Release, values, where)


def _is_report(values: object) -> bool:
    return isinstance(values, dict) and {"rows", "checks", "verdict"} <= values.keys()


def _of_bundle(path: Path) -> Release:
    verify(path)
    return release_of(counted(path))


def release_of(bundle_dir: Path) -> Release:
    """What the bundle cost, and what its student variants predicted when they were measured; of several devices each on
    the first, by name, on which it ran at its precision."""
    sessions = [read_results(bundle_dir, device) for device in device_folders(bundle_dir) or [""]]
    results, ended = sessions[0], [each.measurement.finished for each in sessions if each.measurement is not None]
    bundle, digests = results.bundle, digests_of(bundle_dir, results.bundle)
    return Release(
        kdc=bundle.kdc,
        student=bundle.student.architecture,
        profile=bundle.profile.name,
        measured=max(ended, default=None),
        class_names=bundle.student.class_names,
        n=bundle.eval.n,
        labels=packed(results.labels, "<i4"),
        digests=None if digests is None else packed(digests, "<u8"),
        contents=bundle.eval.contents,
        ids_sha256=file_sha256(results.ids),
        variants=tuple(
            Released(
                name=variant.name,
                runtime=variant.runtime,
                precision=variant.precision,
                size_bytes=variant.size_bytes,
                top1=next((top1 for each in sessions if (top1 := _top1(each, variant)) is not None), None),
            )
            for variant in bundle.variants
            if variant.role in ("student", "reference")
        ),
    )


def _top1(results: Results, variant: Variant) -> str | None:
    """What it predicted; None where it was not measured, or ran in another precision, of which that says nothing."""
    if variant.name not in results.answers:
        return None
    executed = results.contestants[variant.name].executed_precision
    if ran_as_asked(variant.runtime, variant.precision, executed, variant.weight_bytes)[0] == "fail":
        return None
    return packed(results.answers[variant.name].top1, "<i4")


def compared_with(bundle_dir: Path, baseline: Baseline) -> Shared:
    """The samples that a bundle, measured or not, shares with a baseline. Raises KdcError where the two cannot be
    compared: other classes, no test sample or no variant in both."""
    results = read_unmeasured(bundle_dir)
    shared = shared_with(bundle_dir, results.bundle, results.labels, baseline.release, baseline.where)
    students = [variant for variant in results.bundle.variants if variant.role == "student"]
    if not any(shared.released(variant.runtime, variant.precision) for variant in students):
        has = ", ".join(variant.name for variant in baseline.release.variants)
        asked = ", ".join(sorted(f"{variant.runtime}-{variant.precision}" for variant in students))
        raise KdcError(f"{baseline.where} has no variant of this bundle ({asked}); it has: {has}")
    return shared


def results_beside(bundle_dir: Path, baseline: Baseline, device: str = "") -> tuple[Results, Report]:
    """What a bundle holds, of one of several devices what lies in the folder `device`, with another baseline than the
    one that it was measured beside, if any: what that one predicted then; and the report on it. Which variant ships is
    settled, and what raced in this session is left out."""
    shared, results = compared_with(bundle_dir, baseline), read_results(bundle_dir, device)
    as_measured = report_of(results)
    if results.shared is not None and results.shared.release == shared.release:
        return results, as_measured
    kept = tuple(variant for variant in results.bundle.variants if variant.role != "baseline")
    alone = {"variants": kept, "baseline": None, "baseline_n": None, "release": None}
    beside = replace(results, bundle=results.bundle.model_copy(update=alone), shared=shared)
    return beside, report_of(beside, chosen=(as_measured.winner, as_measured.why))


def report_beside(bundle_dir: Path, baseline: Baseline, device: str = "") -> Report:
    """The report on a bundle, held against a baseline: see `results_beside`."""
    return results_beside(bundle_dir, baseline, device)[1]
