"""Image classification: from a reference such as `folder:PATH` to checked images, views, models, and what ships.

What it exports is imported when it is asked for, since it brings torch along, which `shipping` does not need.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from compressor.tasks.image_classification.decoding import decode_split
    from compressor.tasks.image_classification.opening import open_data
    from compressor.tasks.image_classification.preprocessing import normalise, resize_and_crop

__all__ = ["decode_split", "normalise", "open_data", "resize_and_crop"]

MODULES = {
    "decode_split": "decoding",
    "normalise": "preprocessing",
    "open_data": "opening",
    "resize_and_crop": "preprocessing",
}


def __getattr__(name: str) -> object:
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{MODULES[name]}"), name)
