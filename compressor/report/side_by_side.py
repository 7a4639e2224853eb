"""`kdc report A B C`: what several bundles ship, side by side. Each figure is of its own session."""

from collections.abc import Callable
from pathlib import Path

from compressor.errors import KdcError
from compressor.files.bundle_folder import counted, device_folders, must_hold_a_bundle, read_steadily, remade_in
from compressor.report.build import build_report
from compressor.report.decision import seconds_read
from compressor.report.gate import failed_lines
from compressor.report.integrity import verify
from compressor.report.render.markdown import code, table, text
from compressor.report.render.text import NOT_MEASURED, estimate, megabytes, number
from compressor.schema.base import read_json
from compressor.schema.bundle import Bundle
from compressor.schema.report import ClassShare, Report, Row
from compressor.schema.side_by_side import Column, SideBySide

__all__ = ["side_by_side", "to_table"]


def side_by_side(folders: list[Path]) -> SideBySide:
    """The bundles, every file of them verified, and what each ships, on each device. Writes nothing. Raises
    KdcError."""
    seen: set[Path] = set()
    for path in folders:
        if path.resolve() in seen:
            raise KdcError(f"{path} is named twice", "name each bundle once")
        seen.add(path.resolve())
    return SideBySide(columns=tuple(column for path in folders for column in _columns(path)))


def _columns(path: Path) -> list[Column]:
    """One, or one a device."""
    must_hold_a_bundle(path)
    return read_steadily(path, lambda: _read(path))


def _read(path: Path) -> list[Column]:
    folder = counted(path)
    verify(path, may_change=remade_in(folder))
    return [_column(path, build_report(folder, device)) for device in device_folders(folder) or [""]]


def _column(path: Path, report: Report) -> Column:
    bundle, device = read_json(counted(path) / "bundle.json", Bundle), report.measured_on
    shipped = next((row for row in report.rows if row.name == report.winner), None)
    return Column(
        bundle=str(path) if device is None else f"{path} ({device.name})",
        kdc=bundle.kdc,
        profile=report.profile,
        verdict=report.verdict,
        failed=failed_lines(report),
        student=report.student,
        teacher=report.teacher,
        measured=report.session.finished if report.session is not None else None,
        machine=report.session.machine.cpu if report.session is not None else None,
        batch=report.session.batch if report.session is not None else None,
        tokens=report.lengths.timed if report.lengths is not None else None,
        seconds=seconds_read(report, shipped) if shipped is not None else None,
        threads=shipped.threads if shipped is not None else None,
        test_n=report.test_n,
        test=bundle.eval.contents,
        shipped=shipped,
    )


def _long(column: Column) -> str:
    """How long; nothing where all samples are as large."""
    return f"{column.tokens} tokens" if column.tokens else f"{number(column.seconds)} s" if column.seconds else ""


def to_table(bundles: SideBySide) -> str:
    """One markdown table, a column a bundle, and what must be known to compare them."""
    columns = bundles.columns
    header = ["", *(code(column.bundle) for column in columns)]
    told = [[title, *(cell(column) for column in columns)] for title, cell in LINES]
    rows = [row for row in told if any(row[1:])]
    return "\n\n".join(["## kdc: bundles side by side", table(header, rows), *_caveats(bundles)]) + "\n"


def _caveats(bundles: SideBySide) -> list[str]:
    said = [
        "What each ships. [low–high] are 95 % intervals. Each was measured in a session of its own, so small "
        "differences of latency mean nothing: `kdc measure BUNDLE --baseline EARLIER` lets two race."
    ]
    differing = [
        title
        for title, values in (
            ("batch", {column.batch for column in bundles.columns}),
            ("the length of a sample", {column.tokens or column.seconds for column in bundles.columns}),
            ("threads", {column.threads for column in bundles.columns if column.shipped is not None}),
            ("the machine", {column.machine for column in bundles.columns}),
        )
        if len(values - {None}) > 1
    ]
    if differing:
        said.append(f"Their latencies do not compare: {', '.join(differing)} differ{'s' * (len(differing) == 1)}.")
    tests = {(column.test, column.test_n) for column in bundles.columns}
    if len(tests) > 1 or None in {column.test for column in bundles.columns}:
        said.append(
            "They were not, or not for certain, tested on the same samples: `kdc report BUNDLE --baseline EARLIER` "
            "compares accuracy on what two bundles share."
        )
    return said


def _shipped(cell: Callable[[Row], str]) -> Callable[[Column], str]:
    return lambda column: "–" if column.shipped is None else cell(column.shipped)


def _class(worst: ClassShare | None) -> str:
    return NOT_MEASURED if worst is None else f"{text(worst.class_name)}: {estimate(worst.share, percent=True)}"


def _verdict(column: Column) -> str:
    failed = f": {', '.join(column.failed)}" if column.failed else ""
    return column.verdict if column.verdict == "pass" else f"**{column.verdict}**{failed}"


LINES: tuple[tuple[str, Callable[[Column], str]], ...] = (
    ("verdict", _verdict),
    ("profile", lambda column: code(column.profile)),
    ("student", lambda column: code(column.student)),
    ("teacher", lambda column: code(column.teacher)),
    ("ships", _shipped(lambda row: code(row.name))),
    ("size MB", _shipped(lambda row: number(megabytes(row.size_bytes)))),
    ("p50 ms", _shipped(lambda row: estimate(row.p50_ms))),
    ("p90 ms", _shipped(lambda row: estimate(row.p90_ms))),
    ("times as fast as its teacher", _shipped(lambda row: estimate(row.p50_ratio))),
    ("peak RSS MB", _shipped(lambda row: NOT_MEASURED if row.peak_rss_mb is None else number(row.peak_rss_mb))),
    ("accuracy %", _shipped(lambda row: estimate(row.accuracy, percent=True))),
    ("balanced %", _shipped(lambda row: estimate(row.balanced_accuracy, percent=True))),
    ("retention %", _shipped(lambda row: estimate(row.retention, percent=True))),
    ("lowest recall %", _shipped(lambda row: _class(row.worst_class))),
    ("test samples", lambda column: str(column.test_n)),
    ("measured", lambda column: text(column.measured or NOT_MEASURED)),
    ("machine", lambda column: text(column.machine or NOT_MEASURED)),
    ("batch", lambda column: str(column.batch or NOT_MEASURED)),
    ("a sample is timed at", _long),
    ("threads", _shipped(lambda row: str(row.threads or NOT_MEASURED))),
    ("made by kdc", lambda column: text(column.kdc)),
)
