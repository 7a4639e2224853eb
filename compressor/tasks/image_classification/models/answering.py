"""Images straight to logits, for scripts and tests."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from compressor.models.loaded import LoadedModel
from compressor.modes import evaluating
from compressor.schema.preprocess import ImagePreprocess
from compressor.tasks.image_classification.preprocessing import normalise, resize_and_crop

__all__ = ["logits_of"]


def logits_of(model: LoadedModel, images: Sequence[Image.Image], device: torch.device | None = None) -> Tensor:
    """Logits [N, classes] of RGB images, through the model's own preprocessing. `device`: where the network lies."""
    preprocess = model.preprocess
    assert isinstance(preprocess, ImagePreprocess)
    pixels = np.stack([resize_and_crop(image, preprocess) for image in images])
    with evaluating(model.network):
        logits: Tensor = model.network(torch.from_numpy(normalise(pixels, preprocess)).to(device))
    return logits
