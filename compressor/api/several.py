"""What `export`, `measure`, `report` and `check` return of a bundle that was measured on several devices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from compressor.api.results import BundleResult, ReportResult
from compressor.api.shown import Shown, html_table
from compressor.errors import EXIT_PASS, KdcError

if TYPE_CHECKING:
    from compressor.report import Baseline, Baselines, OnDevice
    from compressor.schema.report import Report

__all__ = ["DevicesResult", "refuse_for_several", "reported", "result_of"]


@dataclass(frozen=True, repr=False)
class DevicesResult(Shown):
    """A bundle that was measured on several devices, or the bundles of several profiles, in the folder `bundle`: a
    report on each in `devices`, by name, and one verdict over all. What each ships lies in the folder `best/` of its
    own. `allow_unmeasured`: see BundleResult; `text`: in the `format` that `report` was asked for; `pushed`: None,
    since only one report can be."""

    FORMATS: ClassVar[Mapping[str, tuple[str, ...]]] = {
        name: endings for name, endings in ReportResult.FORMATS.items() if name != "html"
    }
    bundle: Path
    measured: tuple["OnDevice", ...]
    allow_unmeasured: bool = False
    warnings: tuple[str, ...] = ()
    baseline: Path | None = None
    format: str = "text"
    pushed: str | None = None

    @property
    def devices(self) -> "dict[str, Report]":
        return {each.name: each.report for each in self.measured}

    @property
    def report(self) -> NoReturn:
        """There is none over all, and to take the one of them for it would be wrong."""
        raise KdcError(f"{self.bundle} was measured on several devices: `devices` has a report on each")

    @property
    def verdict(self) -> str:
        """Over all devices: "pass", "fail", "inconclusive" or "unmeasured"."""
        from compressor.report import devices_of

        return devices_of(self.measured).verdict

    @property
    def exit_code(self) -> int:
        """With what the command ends: 1 where one device fails, else 3 where one is open, else 0."""
        from compressor.report import exit_code_over

        return exit_code_over(self.measured, self.allow_unmeasured)

    @property
    def passed(self) -> bool:
        return self.exit_code == EXIT_PASS

    @property
    def summary(self) -> str:
        from compressor.report import devices_line

        return devices_line(self.measured)

    def to_dict(self) -> dict[str, Any]:
        from compressor.report import devices_of

        return devices_of(self.measured).model_dump(mode="json")

    def to_markdown(self) -> str:
        from compressor.report import to_matrix

        return to_matrix(self.measured, self.allow_unmeasured)

    def to_text(self) -> str:
        """What a terminal shows of it, without colours: at most 80 signs wide."""
        from compressor.report import devices_summary
        from compressor.terminal.console import rendered_text

        return rendered_text(devices_summary(self.measured, str(self.bundle), self.baseline))

    @property
    def text(self) -> str:
        from compressor.report import counted, devices_of, release_of, to_bencher, to_json, to_junit

        reports = self.devices.values()
        if self.format in ("text", "md"):
            return self.to_text() if self.format == "text" else self.to_markdown()
        if self.format == "release":
            return release_of(counted(self.bundle)).model_dump_json(indent=1) + "\n"
        if self.format == "json":
            return to_json(devices_of(self.measured))
        if self.format == "junit":
            return to_junit(*reports, missing=[each.error for each in self.measured])
        return to_bencher(*reports)

    def _repr_html_(self) -> str:
        from compressor.report import devices_of
        from compressor.report.render.devices import decides

        rows = [
            (device.name, device.verdict, device.winner or "–", decides(device))
            for device in devices_of(self.measured).devices
        ]
        return super()._repr_html_() + html_table(("device", "verdict", "ships", ""), rows)


def result_of(
    bundle: Path,
    measured: "Sequence[OnDevice]",
    allow_unmeasured: bool,
    warnings: tuple[str, ...] = (),
    baseline: Path | None = None,
) -> "BundleResult | DevicesResult":
    """Of one session, or of several devices."""
    if not measured[0].folder:
        return BundleResult(bundle, measured[0].report, allow_unmeasured, warnings, baseline)
    return DevicesResult(bundle, tuple(measured), allow_unmeasured, warnings, baseline)


def refuse_for_several(bundle: Path, format: str, wanted: Mapping[str, object]) -> None:
    """Raise KdcError where the bundle was measured on several devices, for options that are `wanted` and for a format
    that mean nothing there."""
    from compressor.files.bundle_folder import device_folders
    from compressor.report import counted, holds_bundles

    folders, inner = device_folders(counted(bundle)), holds_bundles(bundle)
    if not folders and not inner:
        return
    where = "has a bundle for each of several profiles" if inner else "was measured on several devices"
    if options := [option for option, value in wanted.items() if value is not None]:
        raise KdcError(f"{', '.join(options)} is for one report, and {bundle} {where}", "leave it out")
    if format not in DevicesResult.FORMATS or (inner and format == "release"):
        said = ", ".join(f"{bundle}/{folder}report.html" for folder in folders) or f"{bundle}/PROFILE"
        raise KdcError(f"--format {format} is about one, and {bundle} {where}", f"each has its own: {said}")


def reported(
    folder: Path, format: str, allow_unmeasured: bool, held_against: "tuple[Path | None, Baseline | Baselines | None]",
    history: Path | None,
) -> ReportResult | DevicesResult:  # fmt: skip
    """What `report` returns, once all that was asked for makes sense. `held_against`: what the user called a baseline,
    and that."""
    from compressor.report import (
        Baseline,
        check_each,
        counted,
        entry_of,
        holds_bundles,
        read_devices,
        refresh_each,
        remember,
        results_beside,
    )

    (earlier, baseline), measured = held_against, refresh_each(folder, allow_unmeasured)
    if measured[0].folder:
        if baseline is not None and holds_bundles(folder):
            measured = check_each(folder, baseline)
        elif isinstance(baseline, Baseline):
            measured = read_devices(counted(folder), baseline)
        return DevicesResult(folder, measured, allow_unmeasured, baseline=earlier, format=format)
    made, beside = measured[0].report, None
    if isinstance(baseline, Baseline):
        beside, made = results_beside(counted(folder), baseline)
    trend = None if history is None else remember(history, entry_of(counted(folder), made))
    return ReportResult(folder, made, allow_unmeasured, baseline=earlier, format=format, trend=trend, beside=beside)
