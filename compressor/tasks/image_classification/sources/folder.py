"""`folder:PATH`: one folder a class, directly in PATH or in its train, validation and test folders."""

from dataclasses import replace
from pathlib import Path

from compressor.data.class_folders import Kind, every_file, find_class_folders
from compressor.data.layout import masks_told
from compressor.data.samples import Found
from compressor.errors import KdcError
from compressor.files.reading import read_bytes
from compressor.progress import Progress
from compressor.tasks.image_classification.preprocessing import SUFFIXES

__all__ = ["find_folder", "find_images", "read_image"]

IMAGE_BYTES = 1_000_000_000  # more than the largest image that is decoded takes on disk


def read_image(path: Path) -> bytes:
    """The bytes of an image file, which must be a regular one, or KdcError."""
    try:
        return read_bytes(path, most=IMAGE_BYTES)
    except KdcError as error:
        if isinstance(error.__cause__, OSError):
            raise KdcError(f"{path} cannot be read: {error.__cause__.strerror or error.__cause__}") from error
        raise


IMAGES = Kind(SUFFIXES, "image", "images", read_image)


def find_folder(location: str, progress: Progress) -> Found:
    """Images by suffix, in folders as `find_class_folders` reads them."""
    listing = find_class_folders(location, IMAGES)
    ids = [sample_id for part in listing.parts.values() for sample_id in part.ids]
    return replace(listing, notes=(*listing.notes, *masks_told(ids)))


def find_images(location: str, progress: Progress) -> Found:
    """All images under a folder at any depth, whatever the folders in it mean; none has a label."""
    return every_file(location, IMAGES)
