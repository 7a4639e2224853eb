"""Several devices: a report on each, and one verdict over all of them."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from compressor import __version__
from compressor.errors import EXIT_GATE_FAILED, EXIT_INCONCLUSIVE, EXIT_PASS
from compressor.files.bundle_folder import DEVICE, MEASUREMENT, device_folders
from compressor.report.build import report_of
from compressor.report.gate import exit_code_for, failed_lines
from compressor.report.read import Results, read_results
from compressor.report.release import Baseline, results_beside
from compressor.schema.base import read_json, write_json
from compressor.schema.device import Device
from compressor.schema.devices import Cell, Devices, OfDevice
from compressor.schema.report import Check, Report, Row, Verdict

__all__ = ["OnDevice", "devices_of", "exit_code_over", "read_devices", "take_up", "verdict_over"]


@dataclass(frozen=True)
class OnDevice:
    """One of several devices: the report on it, and what that was made from. `name`: under which its figures stand;
    `folder`: where they lie, "devices/NAME/"; both empty for a bundle of one session. `bundle`: the folder of its own
    bundle, where each profile has one. `why`: it was not measured; `error` says it only where that is so."""

    name: str
    folder: str
    report: Report
    results: Results
    url: str = ""
    bundle: str = ""
    why: str | None = None

    @property
    def error(self) -> str | None:
        return None if self.report.session is not None else self.why or "it was not measured"


def read_devices(bundle_dir: Path, baseline: Baseline | None = None) -> tuple[OnDevice, ...]:
    """Every device that a bundle was measured on, by name, each report recomputed from its raw samples; none for a
    bundle of one session. `baseline`: another one to be held against. Raises KdcError."""
    return tuple(_read(bundle_dir, folder, baseline) for folder in device_folders(bundle_dir))


def _read(bundle_dir: Path, folder: str, baseline: Baseline | None) -> OnDevice:
    if baseline is None:
        results = read_results(bundle_dir, folder)
        report = report_of(results)
    else:
        results, report = results_beside(bundle_dir, baseline, folder)
    device = report.measured_on
    assert device is not None
    return OnDevice(device.name, folder, report, results, device.url, why=device.error)


def take_up(bundle_dir: Path) -> None:
    """Of a device that has a session by now, why it had none is over."""
    for folder in device_folders(bundle_dir):
        path = bundle_dir / folder / DEVICE
        if (bundle_dir / folder / MEASUREMENT).is_file() and (device := read_json(path, Device)).error is not None:
            write_json(path, device.model_copy(update={"error": None, "exit_code": None}))


def exit_code_over(measured: Sequence[OnDevice], allow_unmeasured: bool = False) -> int:
    """1 where one device fails, else 3 where one is open, else 0. A device on which nothing was measured, though it was
    named, is open, also with `allow_unmeasured`."""
    codes = {_exit_code(each, allow_unmeasured) for each in measured}
    if EXIT_GATE_FAILED in codes:
        return EXIT_GATE_FAILED
    return EXIT_PASS if codes == {EXIT_PASS} else EXIT_INCONCLUSIVE


def _exit_code(each: OnDevice, allow_unmeasured: bool) -> int:
    return exit_code_for(each.report, allow_unmeasured and each.error is None)


def verdict_over(verdicts: Collection[Verdict]) -> Verdict:
    """Of several devices: fail where one fails; pass where each passes; else inconclusive where one is."""
    if "fail" in verdicts:
        return "fail"
    if set(verdicts) == {"pass"}:
        return "pass"
    return "inconclusive" if "inconclusive" in verdicts else "unmeasured"


def devices_of(measured: Sequence[OnDevice]) -> Devices:
    """The matrix: every device and every student variant on it."""
    first = measured[0].report
    return Devices(
        kdc=__version__,
        student=first.student,
        teacher=first.teacher,
        test_n=first.test_n,
        verdict=verdict_over([each.report.verdict for each in measured]),
        devices=tuple(map(_of_device, measured)),
    )


def _of_device(each: OnDevice) -> OfDevice:
    report, session = each.report, each.report.session
    return OfDevice(
        name=each.name,
        url=each.url,
        profile=report.profile,
        verdict=report.verdict,
        winner=report.winner,
        why=report.why,
        failed=failed_lines(report),
        error=each.error,
        measured=session.finished if session is not None else None,
        machine=session.machine.cpu if session is not None else None,
        lost=session.lost if session is not None else None,
        report=f"{each.folder}report.json",
        cells=tuple(_cells(each)),
        release=report.release,
    )


def _cells(each: OnDevice) -> Iterator[Cell]:
    for row in each.report.rows:
        if row.role == "student":
            yield _cell(each, row, [check for check in each.report.checks if check.variant == row.name])


def _cell(each: OnDevice, row: Row, checks: Sequence[Check]) -> Cell:
    missing = each.error
    if missing is None and not row.measured:
        missing = row.error or "it was not measured"
    return Cell(
        variant=row.name,
        verdict=verdict_over([check.verdict for check in checks]) if checks else "unmeasured",
        ships=row.name == each.report.winner,
        executed_precision=row.executed_precision,
        p50_ms=row.p50_ms,
        p90_ms=row.p90_ms,
        p50_ratio=row.p50_ratio,
        peak_rss_mb=row.peak_rss_mb,
        accuracy=row.accuracy,
        failed=tuple(check.line for check in checks if check.verdict == "fail"),
        open=tuple(check.line for check in checks if check.verdict in ("inconclusive", "unmeasured")),
        missing=missing,
    )
