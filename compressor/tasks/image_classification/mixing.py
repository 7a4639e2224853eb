"""Views of images mixed with others."""

import numpy as np
from torch import Tensor

from compressor.tasks.image_classification.views import coverage
from compressor.tasks.mixing import Mix, area_of, onto

__all__ = ["mixed"]


def mixed(images: Tensor, partners: Tensor, mix: Mix) -> Tensor:
    """Views mixed with their partners' views; all float32 [B, 3, h, w], returned channels_last in memory.

    What each model's preprocessing subtracts and divides by may come before or after. Raises ValueError where the
    shapes differ.
    """
    if images.shape != partners.shape or len(images) != len(mix.weight):
        raise ValueError(
            f"shapes differ: own {tuple(images.shape)}, partners {tuple(partners.shape)}, mix of {len(mix.weight)}"
        )
    count, channels, height, width = images.shape
    box = np.zeros((count, 4)) if mix.box is None else mix.box.astype(np.float64)
    blended = area_of(box) == 0
    box[blended] = 0, 0, 1, 1
    share = np.where(blended, 1 - mix.weight.astype(np.float64), 1.0)
    down = coverage(box[:, 1], box[:, 3], height) * share[:, None]
    # All colours of a line of pixels in one row: elsewise the innermost loop would have 3 steps.
    across = np.repeat(coverage(box[:, 0], box[:, 2], width), channels, axis=1)
    theirs = onto(down, images.device)[:, :, None] * onto(across, images.device)[:, None, :]
    lines = [views.permute(0, 2, 3, 1).reshape(count, height, width * channels) for views in (images, partners)]
    out = (1 - theirs).mul_(lines[0]).add_(theirs.mul_(lines[1]))
    return out.view(count, height, width, channels).permute(0, 3, 1, 2)
