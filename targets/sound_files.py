"""Sound as it lies in a file: wav by this script alone, other kinds by the library soundfile.

Of the example programs and of the runners. Standard library and numpy only; runs on Python 3.9 and later.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
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
CUT_SHORT = re.compile(r"^ *(?:data|SSND|Data Size|Riff size|riff) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
UNKNOWN = (1 << 63) - 1  # frames of a FLAC that such a program wrote, as libsndfile says
BLOCK = 1 << 20  # frames
TAIL, TAGS = 4096, (b"TAG", b"APETAGEX", b"LYRICSBEGIN")  # what may lie behind the last frame of an MP3, or zeros
FIRST, LAST = 2, 4  # of the flags of an Ogg page: of its stream
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
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
        them; before the first and behind the last there is silence."""
        first, last = max(start, 0), min(stop, len(self))
        part = self.values[first:last]
        if part.ndim == 3:
            wide = np.zeros((*part.shape[:2], 4), np.uint8)
            wide[:, :, 1:] = part
            part = wide.view("<i4")[:, :, 0] >> 8
        scaled = ((part.astype(np.float64) - self.silence) / self.full).astype(np.float32)
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
        content = path.read_bytes()
    except OSError as error:
        raise SoundError(f"cannot read {path}: {error.strerror}") from error
    try:
        if not content:
            raise SoundError("it is empty")
        sound = _read_wav(content) if content[:4] == b"RIFF" and content[8:12] == b"WAVE" else None
        sound = _read_other(content) if sound is None else sound
        if not LOWEST_RATE <= sound.rate <= HIGHEST_RATE:
            raise SoundError(f"its rate is {sound.rate:,} Hz; {LOWEST_RATE:,} to {HIGHEST_RATE:,} are read")
        if not len(sound):
            raise SoundError("there is no sound in it")
        _require_numbers(sound.values)
    except SoundMissingError as error:
        raise SoundMissingError(f"{path}: {error}") from error
    except SoundError as error:
        raise SoundError(f"{path}: {error}") from error
    return sound


def _require_numbers(values: npt.NDArray[Any]) -> None:
    """Raise SoundError for floats, [frames, channels], that are no sound, wherever they stand: as training does."""
    for start in range(0, len(values) if values.dtype.kind == "f" else 0, BLOCK):
        loudest = float(np.abs(values[start : start + BLOCK]).max())
        if not math.isfinite(loudest):
            raise SoundError("it holds values that are not finite (NaN, or infinite)")
        if loudest > LOUDEST:
            raise SoundError(f"it has values up to {loudest:,.6g}, and sound is from -1 to 1")


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


def _read_other(content: bytes) -> Sound:
    try:
        import soundfile  # type: ignore[import-not-found,import-untyped,unused-ignore]  # here, since wav needs none
    except (ImportError, OSError) as error:  # OSError: its C library is not there
        raise SoundMissingError(f"this is no plain wav, and other kinds need soundfile: {INSTALL} ({error})") from error
    damage = _damage_of_ogg(content)
    if damage:
        raise SoundError(damage)
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            stated, mp3 = int(file.frames), file.format == "MP3"
            if not mp3:
                return _read_open(file, None if stated == UNKNOWN else stated)
        with soundfile.SoundFile(_Longer(content)) as file:
            sound = _read_open(file, stated if file.frames == stated else None)
            rest = content[file.name.tell() :]
    except SoundError:
        raise
    except Exception as error:  # whatever is wrong with the file
        raise SoundError(f"soundfile cannot read it: {_reason(error)}") from error
    if len(rest) > TAIL and not rest.startswith(TAGS) and rest.strip(b"\0"):
        raise SoundError(
            f"{len(rest):,} bytes follow the sound that its beginning tells of: damaged, or several sounds"
        )
    return sound


def _reason(error: Exception) -> str:
    reason = " ".join(str(error).split()).rpartition(">: ")[2][:200]
    return "cut short or damaged" if "internal error" in reason else reason


def _read_open(file: Any, frames: int | None) -> Sound:
    """`frames`: that it is said to have; None where nobody says so. Raises SoundError."""
    for stated, there in CUT_SHORT.findall(str(file.extra_info)):  # in libsndfile's log of wav, AIFF, AU, RF64 and W64
        if int(there) < int(stated) != STREAMED:
            raise SoundError(f"cut short, {int(there):,} of {int(stated):,} bytes of it are there")
    file.seekable = lambda: False  # or soundfile jumps about after every block: at the end of some FLAC that fails
    blocks = [np.zeros((0, file.channels), np.float32)]
    while len(blocks) == 1 or len(blocks[-1]):
        blocks.append(file.read(BLOCK, dtype="float32", always_2d=True))
    values = np.concatenate(blocks)
    if frames is not None and len(values) != frames:
        raise SoundError(f"cut short or damaged, {len(values):,} of {frames:,} frames are there")
    return Sound(values, int(file.samplerate))


class _Longer:
    """The content of an MP3 as a file that says that it is much longer. Where nobody wrote down how many frames it has,
    libsndfile reckons that from the file's length and the first frame's bit rate, and reads no further: of a variable
    bit rate half of the sound may be left out."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0
        self._end = 1024 * len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = (0, self._at, self._end)[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        piece = self._content[self._at : self._at + len(buffer)]
        if not piece and self._at == self._end - 128:  # asked whether a tag is there
            piece = bytes(128)
        buffer[: len(piece)] = piece
        self._at += len(piece)
        return len(piece)

    def write(self, _: bytes) -> int:
        raise io.UnsupportedOperation


def _damage_of_ogg(content: bytes) -> str:
    """Why what begins as an Ogg file is not whole, or not one sound; libsndfile leaves such parts out. The pages of RFC
    3533, sec. 6."""
    at, ended = 0, False
    while content[at : at + 4] == b"OggS":
        segments = content[at + 27 : at + 27 + content[at + 26]] if at + 27 <= len(content) else b""
        page = content[at : at + 27 + len(segments) + sum(segments)]
        if len(page) < 27 + len(segments) + sum(segments) or len(segments) < page[26]:
            return "cut short"
        plain = page[:22] + bytes(4) + page[26:]
        checksum = zlib.crc32(plain.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF  # that of RFC 3533, turned around
        if int(f"{checksum:032b}"[::-1], 2) != struct.unpack_from("<I", page, 22)[0]:
            return f"damaged at byte {at:,}"
        if ended and page[5] & FIRST:
            return "several sounds in one file"
        ended = ended or bool(page[5] & LAST)
        at += len(page)
    return f"damaged at byte {at:,}" if 0 < at < len(content) and b"OggS" in content[at:] else ""
