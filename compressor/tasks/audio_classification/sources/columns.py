"""Which columns of a table say what of a sound: known by their names, and said."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from compressor.data.table_files import pick
from compressor.errors import KdcError

__all__ = ["AUDIO_COLUMNS", "LABEL_COLUMNS", "Chosen", "Times", "choose", "group_column", "time_columns", "times_of"]

# Where several are there, the first of these counts, and a note says so.
AUDIO_COLUMNS = ("audio", "sound", "wav", "recording", "clip", "audio_path", "path", "file", "file_name", "filename")
LABEL_COLUMNS = ("label", "class", "class_name", "label_name", "target", "category", "phone", "word", "language")
START_COLUMNS = ("start", "begin", "start_time", "begin_time", "onset", "start_s")
END_COLUMNS = ("end", "stop", "end_time", "offset", "end_s")
OTHER_TIMES = re.compile(
    r"(start|begin|onset|end|stop|offset)[ _-]?(in[ _-]?)?"
    r"(m(illi)?s(ec(ond)?s?)?|secs?|seconds?|samples?|frames?|time[ _-]?(ms|sec|seconds))"
)
"""Names of columns that mean times too, perhaps in another unit."""
GROUP_COLUMNS = ("group", "speaker", "speaker_id", "client_id", "spk", "talker")

Times = tuple[float | None, float | None]


@dataclass(frozen=True)
class Chosen:
    """As the table spells them; None where there is none."""

    audio: str
    label: str | None
    start: str | None
    end: str | None
    group: str | None

    @property
    def names(self) -> tuple[str, ...]:
        """All that are there."""
        return tuple(name for name in (self.audio, self.label, self.start, self.end, self.group) if name is not None)

    @property
    def note(self) -> str:
        parts = [f"sounds from column {self.audio}"]
        if self.start is not None:
            parts.append(f"of which each is from {self.start} to {self.end}, in seconds")
        if self.label is not None:
            parts.append(f"labels from column {self.label}")
        if self.group is not None:
            parts.append(f"groups from column {self.group}")
        return ", ".join(parts)


def choose(columns: Sequence[str], where: object, *, labelled: bool = True) -> Chosen:
    """The columns that count. Raises KdcError where the sounds or the labels have none, and as `time_columns`."""
    start, end = time_columns(columns, where)
    return Chosen(
        pick(columns, AUDIO_COLUMNS, "sounds", where),
        pick(columns, LABEL_COLUMNS, "labels", where) if labelled else None,
        start,
        end,
        group_column(columns, where),
    )


def time_columns(columns: Sequence[str], where: object) -> tuple[str | None, str | None]:
    """Those that say where a sample begins and ends. Raises KdcError where there is one of them alone, or where they
    are called as if in another unit: whole recordings would be heard in place of parts."""
    start, end = _perhaps(columns, START_COLUMNS, "beginnings", where), _perhaps(columns, END_COLUMNS, "ends", where)
    if (start is None) != (end is None):
        there, known = (start, END_COLUMNS) if end is None else (end, START_COLUMNS)
        raise KdcError(
            f"{where} has a column {there}, and none for the {'ends' if end is None else 'beginnings'}",
            f"name one {' or '.join(known[:2])}, in seconds; or rename {there}, where whole recordings are meant",
        )
    for name in columns if start is None else ():
        if OTHER_TIMES.fullmatch(name.strip().lower()):
            raise KdcError(
                f"{where} has a column {name}, and parts are cut by start and end, in seconds",
                f"name columns so; or rename {name}, where whole recordings are meant",
            )
    return start, end


def group_column(columns: Sequence[str], where: object) -> str | None:
    """The column that says which samples belong together, if there is one."""
    return _perhaps(columns, GROUP_COLUMNS, "groups", where)


def _perhaps(columns: Sequence[str], known: Sequence[str], content: str, where: object) -> str | None:
    named = any(name.strip().lower() in known for name in columns)
    return pick(columns, known, content, where) if named else None


def times_of(start: object, end: object, where: str) -> Times:
    """When a sample begins and ends, in seconds; raises KdcError for what is no time."""
    begin, stop = _seconds(start, where), _seconds(end, where)
    if not 0 <= begin < stop:
        raise KdcError(
            f"{where} is from {begin:.10g} to {stop:.10g} s", "0 <= start < end, in seconds of the recording"
        )
    return begin, stop


def _seconds(value: object, where: str) -> float:
    try:
        seconds = float(str(value).strip())
    except ValueError:
        raise KdcError(f"{where}: {value!r} is no time in seconds", "a number, such as 1.25") from None
    if not abs(seconds) < 1e9:
        raise KdcError(f"{where}: {value!r} is no time in seconds", "a number, such as 1.25")
    return seconds
