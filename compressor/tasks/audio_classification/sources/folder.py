"""`folder:PATH`: one folder a class, directly in PATH or in its train, validation and test folders."""

from pathlib import Path

from compressor.data.class_folders import Kind, every_file, find_class_folders
from compressor.data.samples import Found
from compressor.errors import KdcError
from compressor.files.reading import read_bytes
from compressor.progress import Progress
from compressor.tasks.audio_classification.reading import SUFFIXES, Cut, Recording

__all__ = ["find_folder", "find_sounds", "read_sound", "recording_at"]

SOUND_BYTES = 4_000_000_000


def read_sound(path: Path) -> bytes:
    """The bytes of a sound file, which must be a regular one, or KdcError."""
    try:
        return read_bytes(path, most=SOUND_BYTES)
    except KdcError as error:
        if isinstance(error.__cause__, OSError):
            raise KdcError(f"{path} cannot be read: {error.__cause__.strerror or error.__cause__}") from error
        raise


def recording_at(path: Path) -> Recording:
    return Recording(lambda: read_sound(path), str(path))


SOUNDS = Kind(SUFFIXES, "sound", "sounds", lambda path: Cut(recording_at(path)))


def find_folder(location: str, progress: Progress) -> Found:
    """Sounds by suffix, in folders as `find_class_folders` reads them."""
    return find_class_folders(location, SOUNDS)


def find_sounds(location: str) -> Found:
    """All sounds under a folder at any depth, whatever the folders in it mean; none has a label."""
    return every_file(location, SOUNDS)
