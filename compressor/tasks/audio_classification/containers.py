"""Sound files, read to their end: what libsndfile leaves out, and does not say, of MP3, FLAC, Ogg and streamed wav."""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compressor.errors import EXIT_MISSING, KdcError, first_line, needs
from compressor.install import install_line

__all__ = ["SoundFile", "opened", "require_decoder"]

FORMATS = "WAV, FLAC, Ogg, MP3, AIFF, AU"
BLOCK = 1 << 20
CUT_SHORT = re.compile(r"^ *(?:data|SSND|Data Size|Riff size|riff) *: (\d+) \(should be (\d+)\)", re.MULTILINE)
"""In libsndfile's log, of wav, AIFF, AU, RF64 and W64: how many bytes there are to be, and how many there are."""
STREAMED = 0xFFFFFFFF
"""The length of a wav whose program did not know it, such as one that wrote into a pipe."""
UNKNOWN = (1 << 63) - 1
"""Frames that libsndfile says of a FLAC of which nobody wrote down how many it has."""
TAIL, TAGS = 4096, (b"TAG", b"APETAGEX", b"LYRICSBEGIN")
"""What may lie behind the last frame of an MP3: so many bytes, or tags, or zeros."""
LONGER = 1 << 10
FIRST, LAST = 2, 4  # of the flags of an Ogg page: of its stream
REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


class SoundFile:
    """An open sound file. `frames`: how many values a channel it is said to have; None where nobody says so.
    `where`: names it in messages."""

    def __init__(self, file: Any, encoded: bytes, frames: int | None, where: str) -> None:
        self._file, self._encoded, self.frames, self._where = file, encoded, frames, where
        self.rate, self.channels = int(file.samplerate), int(file.channels)
        # Or soundfile jumps to where it is after every block: a FLAC of unknown length fails at its end then, and of
        # what was compressed with loss the values differ.
        file.seekable = lambda: False

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """All of it, float32 [n, channels]; raises KdcError at its end where that is not all that it should have."""
        count = 0
        while len(block := self._file.read(BLOCK, dtype="float32", always_2d=True)):
            count += len(block)
            yield block
        if self.frames is not None and count != self.frames:
            raise KdcError(
                f"{self._where} cannot be decoded: it is cut short or damaged, {count:,} of {self.frames:,} values are "
                "there"
            )
        if self._file.format == "MP3":
            self._require_no_more()

    def part(self, start: int, length: int) -> NDArray[np.float32]:
        """float32 [length, channels], fewer at the end, without a jump to `start`: see `__init__`."""
        parts, at = [np.zeros((0, self.channels), np.float32)], 0
        for block in self.blocks():
            parts.append(block[max(start - at, 0) : max(start + length - at, 0)])
            at += len(block)
            if at >= start + length:
                break
        return np.concatenate(parts)

    def _require_no_more(self) -> None:
        rest = self._encoded[self._file.name.tell() :]
        if len(rest) > TAIL and not rest.startswith(TAGS) and rest.strip(b"\0"):
            raise KdcError(
                f"{self._where} cannot be decoded: {len(rest):,} bytes follow the sound that its beginning tells of: "
                "it is damaged, or several recordings in one file",
                "encode it anew, each recording in a file of its own",
            )


def require_decoder() -> Any:
    """soundfile; raises KdcError with an install line where it, or its C library, is missing."""
    try:
        return needs("soundfile", install_line("soundfile"), "sound")
    except OSError as error:
        reason = f"sound needs libsndfile, by which soundfile reads: {first_line(error)}"
        raise KdcError(reason, "sudo apt-get install libsndfile1", EXIT_MISSING) from error


@contextmanager
def opened(encoded: bytes, where: str) -> Iterator[SoundFile]:
    """A sound file; what it is is told by its content. Raises KdcError, in the block too, that names `where`."""
    soundfile = require_decoder()
    if not encoded:
        raise KdcError(f"{where} cannot be decoded: it is empty")
    if damage := _damage_of_ogg(encoded):
        raise KdcError(f"{where} cannot be decoded: {damage}")
    try:
        with soundfile.SoundFile(io.BytesIO(encoded)) as file:
            stated, mp3 = int(file.frames), file.format == "MP3"
            if not mp3:
                _require_uncut(str(file.extra_info), where)
                yield SoundFile(file, encoded, None if stated == UNKNOWN else stated, where)
        if mp3:
            with soundfile.SoundFile(_Longer(encoded)) as file:
                yield SoundFile(file, encoded, stated if file.frames == stated else None, where)
    except soundfile.SoundFileError as error:
        raise KdcError(f"{where} cannot be decoded: {_reason(error)}") from None


class _Longer:
    """The content of an MP3 as a file that says that it is much longer. Where nobody wrote down how many frames it has,
    libsndfile reckons that from the file's length and the first frame's bit rate, and reads no further: of a variable
    bit rate half of the sound may be left out."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0
        self._end = LONGER * len(content)

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


def _require_uncut(log: str, where: str) -> None:
    for stated, there in CUT_SHORT.findall(log):
        if int(there) < int(stated) != STREAMED:
            raise KdcError(
                f"{where} cannot be decoded: it is cut short, {int(there):,} of {int(stated):,} bytes are there"
            )


def _damage_of_ogg(content: bytes) -> str:
    """Why what begins as an Ogg file is not whole, or not one recording; libsndfile leaves such parts out. The pages of
    RFC 3533, sec. 6."""
    at, ended = 0, False
    while content[at : at + 4] == b"OggS":
        segments = content[at + 27 : at + 27 + content[at + 26]] if at + 27 <= len(content) else b""
        page = content[at : at + 27 + len(segments) + sum(segments)]
        if len(page) < 27 + len(segments) + sum(segments) or len(segments) < page[26]:
            return "it is cut short"
        if _checksum(page) != int.from_bytes(page[22:26], "little"):
            return f"it is damaged at byte {at:,}"
        if ended and page[5] & FIRST:
            return "it is several recordings in one file"
        ended = ended or bool(page[5] & LAST)
        at += len(page)
    return f"it is damaged at byte {at:,}" if 0 < at < len(content) and b"OggS" in content[at:] else ""


def _checksum(page: bytes) -> int:
    """Of RFC 3533: that of zlib with the bits of every byte, and of the sum, the other way round, and no inversion."""
    plain = page[:22] + bytes(4) + page[26:]
    turned = zlib.crc32(plain.translate(REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{turned:032b}"[::-1], 2)


def _reason(error: Exception) -> str:
    text = first_line(error)
    reason = text.rpartition(">: ")[2].removeprefix("Error : ").rstrip(".")
    if "Format not recognised" in reason or "not a regular file" in reason:
        return f"it is no sound ({FORMATS} are read)"
    if "internal error" in reason.lower():
        return "it is cut short or damaged"
    return reason or type(error).__name__
