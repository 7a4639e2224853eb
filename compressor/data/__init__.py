"""Data: from a reference such as `folder:PATH` to checked pictures in three splits, and to the pixels of a model."""

from compressor.data.decode import decode_split
from compressor.data.opening import open_data
from compressor.data.pictures import normalise, resize_and_crop
from compressor.data.samples import ImageData, Split
from compressor.data.transfer import transfer_set

__all__ = ["ImageData", "Split", "decode_split", "normalise", "open_data", "resize_and_crop", "transfer_set"]
