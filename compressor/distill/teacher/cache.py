"""A teacher's answers on disk: one record a view and sample, each with a checksum.

    FOLDER/SHA256-OF-KEY/key.json     what the answers depend on; the folder's name is the sha256 of it
                         records      [views, samples] records: checksum uint64, then the answer's bytes

A record of zeros is one that nobody has written yet. Every other whose checksum does not fit (torn by a kill, spoilt on
disk) is damaged: it is never used, and written anew. Several runs may share a folder: all of them write the same.
"""

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from compressor.errors import KdcError, os_error
from compressor.files.atomic import is_temporary, temporary_beside, write_text
from compressor.files.locks import is_lock, locked
from compressor.files.reading import JSON_BYTES, json_value, read_text
from compressor.files.rows import RowFile
from compressor.schema.base import flat

__all__ = ["ABSENT", "DAMAGED", "WHOLE", "AnswerStore"]

FORMAT = 1
"""Raise it where records, keys or keyed numbers come to mean something else: older answers are then not found."""

ABSENT, WHOLE, DAMAGED = 0, 1, 2
CHECKSUM = 8
SCAN, SCAN_BYTES = 8192, 1 << 26
"""How many records are looked at together, at most."""
MAKING_ROOM_S = 600.0
AGAIN, AGAIN_S = 2, 0.002
"""How often a damaged record is read again, and after how long: longer than a record takes to be written."""

U64 = np.uint64


@dataclass(frozen=True)
class Records:
    """Records that were read: `states` uint8 [N] (ABSENT, WHOLE or DAMAGED), `answers` uint8 [N, size]."""

    states: NDArray[np.uint8]
    answers: NDArray[np.uint8]

    @property
    def complete(self) -> bool:
        return bool((self.states == WHOLE).all())


class AnswerStore:
    """The answers under `key` in `folder`; `size`: the bytes of one."""

    def __init__(self, folder: Path, key: Mapping[str, object], *, views: int, samples: int, size: int) -> None:
        """Open the records, or make room for them: a disk that is too small is found now, not in the fifth epoch."""
        text = _text(key)
        self.folder = _folder_of(folder, text)
        self.views, self.samples, self.size = views, samples, size
        self.bytes = self.bytes_of(views, samples, size)
        path = self.folder / "records"
        self.new, self.nearest = not path.exists(), _nearest(folder, json.loads(text))
        if self.new or not (self.folder / "key.json").exists() or _unfinished(self.folder):  # killed in between
            _make(self.folder, self.bytes, text)
        if path.stat().st_size != self.bytes:
            sizes = f"{path.stat().st_size:,} bytes, expected {self.bytes:,}"
            raise KdcError(f"{path} is damaged: {sizes}", f"remove {self.folder}")
        self._file = RowFile(path, CHECKSUM + size, writable=True)
        # Odd, so that no change of a single word can keep the sum (modulo 2^64).
        self._factors = np.random.Generator(np.random.PCG64(FORMAT)).integers(0, 2**64, -(-size // 8), U64) | U64(1)

    @staticmethod
    def bytes_of(views: int, samples: int, size: int) -> int:
        """What answers of `size` bytes take on disk."""
        return views * samples * (CHECKSUM + size)

    @staticmethod
    def is_there(folder: Path, key: Mapping[str, object]) -> bool:
        """Whether there is room for the answers under `key` already."""
        return (_folder_of(folder, _text(key)) / "records").exists()

    def read(self, view: int, samples: NDArray[np.int64]) -> Records:
        records = self._read(view, samples)
        for _ in range(AGAIN):
            torn = np.flatnonzero(records.states == DAMAGED)
            if not len(torn):
                break
            # Another run may be writing it at this very moment.
            time.sleep(AGAIN_S)
            again = self._read(view, samples[torn])
            records.states[torn], records.answers[torn] = again.states, again.answers
        return records

    def _read(self, view: int, samples: NDArray[np.int64]) -> Records:
        records = self._file.read(self._rows(view, samples))
        sums, answers = records[:, :CHECKSUM].copy().view(U64)[:, 0], records[:, CHECKSUM:]
        fits = sums == self._checksums(view, samples, answers)
        states = np.where(fits, WHOLE, np.where(records.any(1), DAMAGED, ABSENT)).astype(np.uint8)
        return Records(states, answers)

    def write(self, view: int, samples: NDArray[np.int64], answers: NDArray[np.uint8]) -> None:
        """Keep `answers`, uint8 [N, size]; raises KdcError where the disk is full."""
        sums = self._checksums(view, samples, answers)
        records = np.concatenate([sums[:, None].view(np.uint8), answers], axis=1)
        self._file.write(self._rows(view, samples), np.ascontiguousarray(records))

    def missing(self, view: int) -> NDArray[np.int64]:
        """The samples whose answer to this view is not there, or damaged."""
        return np.concatenate(list(self._missing(view)))

    def lacks(self, view: int) -> bool:
        """Whether an answer to this view is not there, or damaged."""
        return any(len(samples) for samples in self._missing(view))

    def _missing(self, view: int) -> Iterator[NDArray[np.int64]]:
        scan = max(1, min(SCAN, SCAN_BYTES // self.size))
        for start in range(0, self.samples, scan):
            samples = np.arange(start, min(start + scan, self.samples))
            yield samples[self.read(view, samples).states != WHOLE]

    def _rows(self, view: int, samples: NDArray[np.int64]) -> NDArray[np.int64]:
        return view * self.samples + samples

    def _checksums(self, view: int, samples: NDArray[np.int64], answers: NDArray[np.uint8]) -> NDArray[np.uint64]:
        """uint64 [N], of the bytes and of where they belong; never 0, which marks a record that was not written."""
        whole = self.size // 8
        position = (self._rows(view, samples) + 1).astype(U64) * U64(0x9E3779B97F4A7C15)
        with np.errstate(over="ignore"):
            mixed = answers[:, : whole * 8].view(U64) @ self._factors[:whole] + position
            if self.size % 8:
                rest = np.zeros((len(answers), 8), np.uint8)
                rest[:, : self.size % 8] = answers[:, whole * 8 :]
                mixed += rest.view(U64)[:, 0] * self._factors[-1]
            mixed = (mixed ^ (mixed >> U64(31))) * U64(0x94D049BB133111EB)
        return np.where(mixed == 0, U64(1), mixed)


def _text(key: Mapping[str, object]) -> str:
    return json.dumps({"format": FORMAT, **key}, indent=2, sort_keys=True)


def _folder_of(folder: Path, key: str) -> Path:
    return folder / hashlib.sha256(key.encode()).hexdigest()[:32]


def _nearest(folder: Path, key: object) -> list[str] | None:
    """What the key that lies in `folder` and is most like `key` differs in, for people who wonder why it is not used;
    None where there is none."""
    wanted, differences = flat(key), []
    for file in folder.glob("*/key.json"):
        try:
            stored = flat(json_value(read_text(file, most=JSON_BYTES), str(file)))
        except KdcError:
            continue  # another run may be writing it, or removing it
        differences.append(
            sorted(name for name in wanted.keys() | stored.keys() if wanted.get(name) != stored.get(name))
        )
    return min(differences, key=len, default=None)


def _unfinished(folder: Path) -> bool:
    """Whether another run is making room right now, or was killed while it did."""
    return any(is_lock(path.name) or is_temporary(path.name) for path in folder.iterdir())


def _make(folder: Path, size: int, key: str) -> None:
    """Make room for the records, and say what they depend on; what kills left of either goes."""
    without: list[str] = []
    try:
        with locked(folder, "kdc distill", wait_s=MAKING_ROOM_S, warn=without.append):
            for left in folder.iterdir():
                if is_temporary(left.name) and not without:
                    left.unlink(missing_ok=True)
            _make_room(folder / "records", size)
            write_text(folder / "key.json", key + "\n")
    except OSError as error:
        raise os_error(error, f"making {folder}") from error
    except KdcError as error:
        raise KdcError(error.message, "choose another place: --teacher-cache DIR, or --teacher-cache off") from error


def _make_room(path: Path, size: int) -> None:
    """A file of `size` zeros, its space reserved; under another name until it is whole."""
    if path.exists():
        return
    temporary = temporary_beside(path)
    try:
        with temporary.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
        # Not `replace`: where there are no locks and another run was quicker, its file, and what it holds, must stay.
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            if not path.exists():  # a file system without links
                temporary.replace(path)
    except OSError as error:
        doing = f"making room for {size / 1e6:,.1f} MB of the teacher's answers in {path.parent}"
        raise os_error(error, doing) from error
    finally:
        temporary.unlink(missing_ok=True)
