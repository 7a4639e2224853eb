"""A sample of a source -> its sound: a recording, or a part of one, decoded to one channel."""

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from compressor.data.samples import Part
from compressor.errors import KdcError
from compressor.tasks.audio_classification.containers import SoundFile, opened

__all__ = ["SUFFIXES", "Clip", "Cut", "Decoded", "Recording", "clip_of", "decode", "digest"]

SUFFIXES = frozenset(".wav .flac .ogg .oga .opus .mp3 .aiff .aif .au".split())  # noqa: SIM905
MOST_VALUES = 1 << 28
"""Of a recording, of one channel: more than four hours at 16 kHz, a gigabyte."""
MOST_CHANNELS = 64
LOWEST_RATE, HIGHEST_RATE = 1_000, 384_000
LOUDEST = 16.0
"""Times full scale that a float file may reach: beyond that its values are no sound in [-1, 1]."""
KEPT_BYTES = 256 << 20


@dataclass(frozen=True)
class Decoded:
    """`values`: float32 [n] in [-1, 1], the mean of the channels. `channels`: how many there were."""

    values: NDArray[np.float32]
    rate: int
    channels: int


@dataclass(frozen=True, eq=False)
class Recording:
    """A sound file. `content` fetches its bytes, or raises KdcError; `where` names it in messages."""

    content: Callable[[], bytes]
    where: str
    lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def decoded(self) -> Decoded:
        """Raises KdcError where it cannot be."""
        return decode(self.content(), self.where)

    def kept(self) -> Decoded:
        """`decoded`, once for all that ask soon after: a recording that many samples are cut from."""
        with self.lock:
            known = _KEPT.get(self)
            if known is None:
                known = self.decoded()
                _KEPT.put(self, known)
        return known


@dataclass(frozen=True)
class Cut:
    """What a source lists: a recording, and where of it a sample begins and ends, in seconds; None: the whole."""

    recording: Recording
    begin: float | None = None
    end: float | None = None

    @property
    def whole(self) -> bool:
        return self.begin is None and self.end is None


@dataclass(frozen=True)
class Clip:
    """A sample: `length` values from `start` on, of a recording of `total` values at `rate` Hz. `whole`: it is all of
    it, and no other sample is cut from it."""

    recording: Recording
    rate: int
    start: int
    length: int
    total: int
    whole: bool

    def values(self) -> NDArray[np.float32]:
        """float32 [length]; raises KdcError where the file is gone, or was changed."""
        decoded = self.recording.decoded() if self.whole else self.recording.kept()
        if decoded.rate != self.rate or len(decoded.values) != self.total:
            raise KdcError(f"{self.recording.where} was changed while it was used")
        return decoded.values[self.start : self.start + self.length]


class _Kept:
    """Recordings that were decoded last, up to so many bytes, and one at least. For threads."""

    def __init__(self, most: int) -> None:
        self._most, self._lock = most, threading.Lock()
        self._held: OrderedDict[Recording, Decoded] = OrderedDict()

    def get(self, recording: Recording) -> Decoded | None:
        with self._lock:
            if recording in self._held:
                self._held.move_to_end(recording)
            return self._held.get(recording)

    def put(self, recording: Recording, decoded: Decoded) -> None:
        with self._lock:
            self._held[recording] = decoded
            while len(self._held) > 1 and sum(each.values.nbytes for each in self._held.values()) > self._most:
                self._held.popitem(last=False)


_KEPT = _Kept(KEPT_BYTES)


def clip_of(part: Part, row: int) -> tuple[Clip, Decoded]:
    """A sample of a source and its recording, decoded; raises KdcError for what is no sound, or lies outside of it."""
    cut: Cut = part.content(row)
    where = part.where(row)
    decoded = cut.recording.decoded() if cut.whole else cut.recording.kept()
    total, rate = len(decoded.values), decoded.rate
    begin, end = 0.0 if cut.begin is None else cut.begin, total / rate if cut.end is None else cut.end
    start, stop = _nearest(begin, rate), total if cut.end is None else _nearest(end, rate)
    if stop > total or start >= total:
        raise KdcError(
            f"{where} is from {begin:.10g} to {end:.10g} s, and the recording has {total / rate:.10g} s",
            "start and end are seconds of this file: not milliseconds or samples, nor of a file that it was cut from",
        )
    if start >= stop:
        raise KdcError(f"{where} is from {begin:.10g} to {end:.10g} s, which holds no sound")
    return Clip(cut.recording, rate, start, stop - start, total, cut.whole), decoded


def _nearest(seconds: float, rate: int) -> int:
    return int(np.floor(seconds * rate + 0.5))


def digest(clip: Clip, decoded: Decoded) -> bytes:
    """What a sample sounds like, as a sha256: over its rate and its values, of one channel, in whatever file and format
    they lie. A sound that was resampled, or compressed with loss, has other values, and counts as another one."""
    hasher = hashlib.sha256(f"{clip.rate}\n".encode())
    hasher.update(np.ascontiguousarray(decoded.values[clip.start : clip.start + clip.length], "<f4").data)
    return hasher.digest()


def decode(encoded: bytes, where: str) -> Decoded:
    """A sound file as float32, the mean of its channels; raises KdcError that names `where` if it cannot be decoded
    whole. What it is is told by its content, not by its name."""
    with opened(encoded, where) as file:
        _require_plain(file, where)
        values = _mono(file, where)
    if not len(values):
        raise KdcError(f"{where} holds no sound: its length is zero")
    peak = float(np.abs(values).max())
    if not np.isfinite(peak):
        raise KdcError(f"{where} cannot be decoded: it holds values that are no numbers, or infinite")
    if peak > LOUDEST:
        raise KdcError(
            f"{where} has values up to {peak:,.6g}, and sound is from -1 to 1", "scale it, or save it as integers"
        )
    return Decoded(values, file.rate, file.channels)


def _require_plain(file: SoundFile, where: str) -> None:
    if not LOWEST_RATE <= file.rate <= HIGHEST_RATE:
        raise KdcError(f"{where} has a sample rate of {file.rate:,} Hz; {LOWEST_RATE:,} to {HIGHEST_RATE:,} are read")
    if file.channels > MOST_CHANNELS:
        raise KdcError(f"{where} has {file.channels} channels; {MOST_CHANNELS} are the most that are read")
    if file.frames is not None and file.frames > MOST_VALUES:
        raise KdcError(f"{where} has {file.frames:,} values a channel; {MOST_VALUES:,} are the most that are read")


def _mono(file: SoundFile, where: str) -> NDArray[np.float32]:
    """The mean of the channels, a block at a time: all channels of a long recording may be larger than memory."""
    blocks, count = [np.zeros(0, np.float32)], 0
    for block in file.blocks():
        count += len(block)
        if count > MOST_VALUES:
            raise KdcError(f"{where} has more than {MOST_VALUES:,} values a channel, the most that is read")
        blocks.append(block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float64).astype(np.float32))
    return np.concatenate(blocks)
