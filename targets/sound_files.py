"""Sound as it lies in a file: wav by this script alone, other kinds by the library soundfile.

Of the example programs and of the runners. Standard library and numpy only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
INSTALL = "pip install soundfile"
LONGEST_FILE = 2_000_000_000  # bytes
LOWEST_RATE, HIGHEST_RATE = 1_000, 384_000  # as training reads them
LOUDEST = 16.0  # times full scale, in a file of floats
PCM, FLOAT, EXTENSIBLE = 1, 3, 0xFFFE  # kinds of wav
STREAMED = 0xFFFFFFFF  # as a program writes that does not know yet how long the sound will be
RANGES = {8: (128.0, 128.0), 16: (0.0, 2.0**15), 24: (0.0, 2.0**23), 32: (0.0, 2.0**31)}  # of PCM: silence, and full
TYPES = {(PCM, 8): "u1", (PCM, 16): "<i2", (PCM, 24): "u1", (PCM, 32): "<i4", (FLOAT, 32): "<f4", (FLOAT, 64): "<f8"}


class SoundError(Exception):
    """A file is not what the model takes: one line for people."""


class SoundMissingError(SoundError):
    """The library that this kind of file is read with is missing: one line for people, with that which installs it."""


class Sound:
    """`values`: as the file has them, [frames, channels], of 24 bits [frames, channels, 3]; in [-1, 1] they are
    `(value - silence) / full`. `rate`: frames a second."""

    def __init__(self, values: npt.NDArray[Any], rate: int, silence: float = 0.0, full: float = 1.0) -> None:
        self.values, self.rate, self.silence, self.full = values, rate, silence, full

    def __len__(self) -> int:
        """How many frames."""
        return len(self.values)

    @property
    def channels(self) -> int:
        return int(self.values.shape[1])

    @property
    def seconds(self) -> float:
        return len(self) / self.rate

    def mono(self, start: int, stop: int) -> Floats:
        """The mean of the channels of these frames, each value and the mean rounded to float32, as training reads
        them; before the first and behind the last there is silence. Raises SoundError."""
        first, last = max(start, 0), min(stop, len(self))
        part = self.values[first:last]
        if part.ndim == 3:
            wide = np.zeros((*part.shape[:2], 4), np.uint8)
            wide[:, :, 1:] = part
            part = wide.view("<i4")[:, :, 0] >> 8
        scaled = ((part.astype(np.float64) - self.silence) / self.full).astype(np.float32)
        if not np.isfinite(scaled).all():
            raise SoundError("a value of it is not finite (NaN, or without end)")
        if len(scaled) and np.abs(scaled).max() > LOUDEST:
            raise SoundError(f"it has values up to {np.abs(scaled).max():,.6g}, and sound is from -1 to 1")
        mean = scaled.mean(axis=1, dtype=np.float64).astype(np.float32)
        made = np.zeros(stop - start, np.float64)
        made[first - start : first - start + len(mean)] = mean
        return made


def read_sound(path: Path) -> Sound:
    """The sound in a file. Raises SoundError; SoundMissingError where its kind needs soundfile, which is not there."""
    try:
        if not path.is_file():
            raise SoundError(f"{path} is no file")
        if path.stat().st_size > LONGEST_FILE:
            raise SoundError(f"{path} has more than {LONGEST_FILE:,} bytes")
        with path.open("rb") as file:
            start = file.read(12)
        content = path.read_bytes() if start[:4] == b"RIFF" and start[8:] == b"WAVE" else b""
    except OSError as error:
        raise SoundError(f"cannot read {path}: {error.strerror}") from error
    try:
        sound = _read_wav(content) if content else None
        sound = _read_other(path) if sound is None else sound
        if not LOWEST_RATE <= sound.rate <= HIGHEST_RATE:
            raise SoundError(f"its rate is {sound.rate:,} Hz; {LOWEST_RATE:,} to {HIGHEST_RATE:,} are read")
        if not len(sound):
            raise SoundError("there is no sound in it")
    except SoundMissingError as error:
        raise SoundMissingError(f"{path}: {error}") from error
    except SoundError as error:
        raise SoundError(f"{path}: {error}") from error
    return sound


def _read_wav(content: bytes) -> Sound | None:
    """A wav of plain numbers; None for other kinds, such as A-law. Raises SoundError."""
    layout: tuple[int, int, int, int, int] | None = None
    at = 12
    while at + 8 <= len(content):
        name, size = content[at : at + 4], struct.unpack_from("<I", content, at + 4)[0]
        at += 8
        if name == b"fmt ":
            layout = _layout(content[at : at + size])
        elif name == b"data":
            if layout is None:
                raise SoundError("a damaged wav: its data come before what says how they lie")
            return _sound(content, at, size, layout)
        at += size + size % 2
    raise SoundError("a damaged wav: there are no data in it")


def _layout(chunk: bytes) -> tuple[int, int, int, int, int]:
    """Kind, channels, rate, bytes of a frame, bits of a value."""
    if len(chunk) < 16:
        raise SoundError("a damaged wav: what says how its data lie is cut off")
    kind, channels, rate, _, step, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == EXTENSIBLE and len(chunk) >= 26:
        kind = struct.unpack_from("<H", chunk, 24)[0]
    return kind, channels, rate, step, bits


def _sound(content: bytes, at: int, size: int, layout: tuple[int, int, int, int, int]) -> Sound | None:
    kind, channels, rate, step, bits = layout
    if (kind, bits) not in TYPES:
        return None
    if channels < 1 or step != channels * bits // 8:
        raise SoundError(f"a damaged wav: {channels} channels of {bits} bits are not {step} bytes")
    left = len(content) - at
    size = left // step * step if size == STREAMED else size
    if size > left:
        raise SoundError(f"a damaged wav: cut off, {left:,} of {size:,} bytes of sound are there")
    frames, more = divmod(size, step)
    if more:
        raise SoundError(f"a damaged wav: {size:,} bytes are no whole number of {step}")
    count = frames * step // np.dtype(TYPES[kind, bits]).itemsize
    values = np.frombuffer(content, TYPES[kind, bits], count, at)
    silence, full = RANGES[bits] if kind == PCM else (0.0, 1.0)
    return Sound(values.reshape((frames, channels, 3) if bits == 24 else (frames, channels)), rate, silence, full)


def _read_other(path: Path) -> Sound:
    try:
        import soundfile  # type: ignore[import-not-found,import-untyped,unused-ignore]  # here, since wav needs none
    except (ImportError, OSError) as error:  # OSError: its C library is not there
        raise SoundMissingError(f"this is no plain wav, and other kinds need soundfile: {INSTALL} ({error})") from error
    try:
        values, rate = soundfile.read(str(path), dtype="float32", always_2d=True)
    except Exception as error:  # whatever is wrong with the file
        raise SoundError(f"soundfile cannot read it: {' '.join(str(error).split())[:200]}") from error
    return Sound(values, int(rate) if math.isfinite(rate) else 0)
