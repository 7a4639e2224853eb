"""`kdc report --history FILE`: a file with one line of JSON a bundle, and the trend in it."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from compressor.errors import KdcError, os_error
from compressor.files.reading import JSON_BYTES, json_value, read_text
from compressor.files.writing import written
from compressor.report.gate import failed_lines
from compressor.report.integrity import MEASUREMENT
from compressor.report.render.markdown import code, table, text
from compressor.report.render.text import NOT_MEASURED, estimate, megabytes, number, share
from compressor.schema.base import parse, read_json
from compressor.schema.bundle import Bundle
from compressor.schema.history import HistoryEntry, HistoryVariant
from compressor.schema.report import Estimate, Report

__all__ = ["NONE", "SHOWN", "Trend", "entry_of", "read_history", "remember", "sparkline", "trend_note", "trend_table"]

BARS = "▁▂▃▄▅▆▇█"
WAIT_S = 60.0
"""For another command that adds to the same history to end."""

NONE = "–"
"""Where nothing ships."""

SHOWN = 12
"""Entries of the trend's table; its lines of bars go four times as far back."""


@dataclass(frozen=True)
class Trend:
    """What a history holds of one profile, the oldest first, and whether its last entry was added just now."""

    entries: tuple[HistoryEntry, ...]
    added: bool


def entry_of(bundle_dir: Path, report: Report) -> HistoryEntry:
    """What is remembered of a bundle, whose report that is."""
    digest = hashlib.sha256((bundle_dir / "bundle.json").read_bytes())
    if (bundle_dir / MEASUREMENT).is_file():
        digest.update((bundle_dir / MEASUREMENT).read_bytes())
    # The same measurement, held against another baseline, may have another verdict.
    beside = report.release and report.release.model_dump(include={"student", "kdc", "measured", "shared"})
    failed = failed_lines(report)
    digest.update(json.dumps([beside, report.verdict, failed], sort_keys=True).encode())
    return HistoryEntry(
        id=digest.hexdigest(),
        kdc=report.kdc,
        measured=report.session.finished if report.session is not None else None,
        profile=report.profile,
        machine=report.session.machine.cpu if report.session is not None else None,
        student=report.student,
        verdict=report.verdict,
        failed=failed,
        winner=report.winner,
        test_n=report.test_n,
        test=read_json(bundle_dir / "bundle.json", Bundle).eval.contents,
        variants=tuple(
            HistoryVariant(**{name: getattr(row, name) for name in HistoryVariant.model_fields})
            for row in report.rows
            if row.role == "student"
        ),
    )


def read_history(path: Path) -> tuple[HistoryEntry, ...]:
    """Every line of the file; raises KdcError naming the one that is no entry. A file that is missing holds none."""
    return _entries(_text(path), path)


def _text(path: Path) -> str:
    return read_text(path, most=JSON_BYTES) if path.exists() else ""


def _entries(lines: str, path: Path) -> tuple[HistoryEntry, ...]:
    numbered = [(count, line) for count, line in enumerate(lines.split("\n"), start=1) if line.strip()]
    return tuple(_entry(line, f"--history {path} line {count}") for count, line in numbered)


def _entry(line: str, where: str) -> HistoryEntry:
    try:
        return parse(HistoryEntry, json_value(line, where), where)
    except KdcError as error:
        raise KdcError(error.message, "nothing was added: mend that line, or name another --history") from None


def remember(path: Path, entry: HistoryEntry) -> Trend:
    """Add `entry` to the file at the end, unless the same measurement of the same bundle stands there: the file is as
    it was, or whole with one line more, whatever ends the command. Commands at the same time take turns. Raises
    KdcError, also where the file is none of kdc's."""
    if path.exists() and not path.is_file():
        raise KdcError(f"--history {path} is no regular file", "name a file")
    entries = read_history(path)
    if entry.id in {earlier.id for earlier in entries}:
        return _trend(entries, entry, added=False)
    with written(path, "kdc report", wait_s=WAIT_S) as temporary:
        before = _text(path)  # now that nobody else adds to it
        entries = _entries(before, path)
        added = entry.id not in {earlier.id for earlier in entries}
        line = f"{entry.model_dump_json()}\n" if added else ""
        try:
            temporary.write_text(before + ("\n" if before and not before.endswith("\n") else "") + line, "utf-8")
        except OSError as error:
            raise os_error(error, f"writing {path}") from error
    return _trend((*entries, entry) if added else entries, entry, added)


def _trend(entries: tuple[HistoryEntry, ...], entry: HistoryEntry, added: bool) -> Trend:
    return Trend(tuple(earlier for earlier in entries if earlier.profile == entry.profile), added)


def sparkline(values: Sequence[float | None]) -> str:
    """A bar a value, the lowest ▁ and the highest █; a dot where there is none."""
    known = [value for value in values if value is not None]
    low, reach = min(known, default=0.0), max(known, default=0.0) - min(known, default=0.0)
    return "".join(
        "·" if value is None else BARS[min(len(BARS) - 1, int((value - low) / reach * len(BARS))) if reach else 0]
        for value in values
    )


def trend_table(trend: Trend) -> str:
    """The trend of what ships on one profile, as markdown: bars over time, then the last entries."""
    entries, shipped = trend.entries, [entry.shipped for entry in trend.entries]
    bars = []
    for title, value, shown in FIGURES:
        values = [None if variant is None else value(variant) for variant in shipped][-4 * SHOWN :]
        told = [figure for figure in values if figure is not None]
        if told:
            bars.append(
                [
                    title,
                    sparkline(values),
                    shown(min(told)),
                    shown(max(told)),
                    NONE if values[-1] is None else shown(values[-1]),
                ]
            )
    header = ["measured", "kdc", "student", "ships", "size MB", "p50 ms", "accuracy %", "balanced %", "test", "verdict"]
    rows = [_row(entry) for entry in entries[-SHOWN:]]
    head = f"### History on {code(entries[-1].profile)}: {len(entries)} bundle{'s' if len(entries) != 1 else ''}"
    drawn = [table(["of what ships", "oldest to newest", "lowest", "highest", "now"], bars, 3)] if bars else []
    return "\n\n".join([head, *drawn, table(header, rows), trend_note(trend)])


def trend_note(trend: Trend) -> str:
    """What the figures are, and whether the last one is new."""
    known = "" if trend.added else " The last measurement stood there already, and was not added again."
    return (
        "Each was measured in a session of its own; accuracies compare only where `test` is the same. [low–high] are "
        f"95 % intervals.{known}"
    )


def _row(entry: HistoryEntry) -> list[str]:
    variant = entry.shipped
    figures = [NONE] * 4
    if variant is not None:
        accuracies = (estimate(figure, percent=True) for figure in (variant.accuracy, variant.balanced_accuracy))
        figures = [number(megabytes(variant.size_bytes)), estimate(variant.p50_ms), *accuracies]
    test = f"n = {entry.test_n}" + (f", {text(entry.test[:8])}" if entry.test is not None else "")
    failed = text(", ".join(entry.failed))
    verdict = entry.verdict if entry.verdict == "pass" else f"**{entry.verdict}** {failed}".rstrip()
    names = (text(entry.measured or NOT_MEASURED), text(entry.kdc), code(entry.student), code(entry.winner or "none"))
    return [*names, *figures, test, verdict]


def _value(figure: Estimate | None) -> float | None:
    return None if figure is None else figure.value


FIGURES: tuple[tuple[str, Callable[[HistoryVariant], float | None], Callable[[float], str]], ...] = (
    ("size MB", lambda variant: megabytes(variant.size_bytes), number),
    ("p50 ms", lambda variant: _value(variant.p50_ms), number),
    ("accuracy %", lambda variant: _value(variant.accuracy), share),
    ("balanced %", lambda variant: _value(variant.balanced_accuracy), share),
)
"""What is drawn over time, of the variant that ships."""
