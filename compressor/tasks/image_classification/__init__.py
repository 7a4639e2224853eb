"""Data: from a reference such as `folder:PATH` to checked pictures in three splits, and to the pixels of a model."""

from compressor.data.samples import ImageData, Split
from compressor.tasks.image_classification.decoding import decode_split
from compressor.tasks.image_classification.opening import open_data
from compressor.tasks.image_classification.preprocessing import normalise, resize_and_crop

__all__ = ["ImageData", "Split", "decode_split", "normalise", "open_data", "resize_and_crop"]
