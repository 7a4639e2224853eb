"""A sample of a source -> its image."""

from PIL import Image

from compressor.data.samples import Part
from compressor.tasks.image_classification.depth import Seen
from compressor.tasks.image_classification.preprocessing import read

__all__ = ["load", "load_seen"]


def load(part: Part, row: int) -> Image.Image:
    """The image of one sample in RGB, or KdcError."""
    return load_seen(part, row)[0]


def load_seen(part: Part, row: int) -> tuple[Image.Image, Seen]:
    """As `load`, and what is to be said of its file."""
    content = part.content(row)
    if isinstance(content, bytes):
        return read(content, part.where(row), part.pixel_range)
    return Image.fromarray(content).convert("RGB"), Seen()
