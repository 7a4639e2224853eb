"""Image classification: from a reference such as `folder:PATH` to checked images, views, models, and what ships."""

from compressor.tasks.image_classification.decoding import decode_split
from compressor.tasks.image_classification.opening import open_data
from compressor.tasks.image_classification.preprocessing import normalise, resize_and_crop

__all__ = ["decode_split", "normalise", "open_data", "resize_and_crop"]
