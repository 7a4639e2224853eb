"""Augmented views as a pure function of (image, key): the same key gives the same view, in any process, after any
resumption, for teacher and student alike."""

from enum import IntEnum

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from compressor.schema.recipe import Views
from compressor.tasks.mixing import onto

__all__ = ["DRAWS", "Draw", "coverage", "random_views"]

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601: the grey that a colour is as bright as
ERASED_AREA = (0.02, 0.33)
ERASED_ASPECT = 0.3  # and its inverse


class Draw(IntEnum):
    """Which of a view's uniform numbers is for what. New ones go to the end: the old views stay what they were."""

    AREA = 0
    ASPECT = 1
    X = 2
    Y = 3
    MIRROR = 4
    ROTATION = 5
    BRIGHTNESS = 6
    CONTRAST = 7
    SATURATION = 8
    ERASED = 9
    ERASED_AREA = 10
    ERASED_ASPECT = 11
    ERASED_X = 12
    ERASED_Y = 13
    ERASED_GREY = 14


DRAWS = len(Draw)


def random_views(images: Tensor, numbers: NDArray[np.float64], views: Views, size: tuple[int, int]) -> Tensor:
    """Random-resized crops, rotated, mirrored, recoloured and erased as `views` says.

    `images`: uint8 [B, H, W, 3]; `numbers`: uniform in [0, 1), [B, DRAWS], from `keyed_uniform`; returns float32
    [B, 3, *size] in [0, 1], channels_last in memory. Everything is relative to the image or to the view, so that the
    same numbers give the same view at every size. Nothing waits for the device. Raises ValueError where the shapes do
    not fit each other.

    Before and after the resampling there are only operations that round once, no fused multiply-add and no lerp: a
    vector unit and the code for what is left over at the end of its loop may round those differently, and a view would
    depend on its place in the batch.
    """
    if images.ndim != 4 or images.shape[-1] != 3 or numbers.shape != (len(images), DRAWS):
        raise ValueError(
            f"images must be [B, H, W, 3] and numbers [B, {DRAWS}], found {tuple(images.shape)} and {numbers.shape}"
        )
    # The copy from uint8 to float32 keeps the colours of a pixel together: the resampling reads them together.
    pixels = torch.div(images.permute(0, 3, 1, 2), 255)
    grid = _grid(onto(_crops(numbers, views, (images.shape[1], images.shape[2])), pixels.device), size)
    seen = F.grid_sample(pixels, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return _erased(_recoloured(seen, numbers, views), numbers, views).contiguous(memory_format=torch.channels_last)


def _crops(numbers: NDArray[np.float64], views: Views, shape: tuple[int, int]) -> NDArray[np.float64]:
    """[B, 2, 3]: from a place in the view to the place in the image of `shape` (height, width) that is seen there,
    both from -1 to 1.

    The crop's area and aspect follow Szegedy et al. 2015 (arXiv 1409.4842, sec. 6), as shares of the image's sides.
    The rectangle lies inside the image and is then turned about its own middle; what its corners see outside repeats
    the image's edge.
    """
    area = views.scale[0] + (views.scale[1] - views.scale[0]) * numbers[:, Draw.AREA]
    low, high = np.log(views.ratio[0]), np.log(views.ratio[1])
    aspect = np.exp(low + (high - low) * numbers[:, Draw.ASPECT])
    width, height = np.minimum(np.sqrt(area * aspect), 1.0), np.minimum(np.sqrt(area / aspect), 1.0)
    across = width * np.where(numbers[:, Draw.MIRROR] < 0.5, -1.0, 1.0) if views.hflip else width
    angle = np.radians(views.rotation) * (2 * numbers[:, Draw.ROTATION] - 1)
    cos, sin = np.cos(angle), np.sin(angle)
    # A right angle is one between pixels. Places are measured in half heights and half widths, hence the ratios.
    tall, wide = shape[0] / shape[1], shape[1] / shape[0]
    x, y = (2 * numbers[:, Draw.X] - 1) * (1 - width), (2 * numbers[:, Draw.Y] - 1) * (1 - height)
    theta = [[across * cos, -height * sin * tall, x], [across * sin * wide, height * cos, y]]
    return np.moveaxis(np.array(theta), -1, 0)


def _grid(theta: Tensor, size: tuple[int, int]) -> Tensor:
    """The places in the image that the view's pixels see, [B, *size, 2], from -1 to 1; `theta` [B, 2, 3].

    `F.affine_grid` does the same by a matrix product, which takes longer than the resampling itself and which CUDA may
    compute in TF32, with 10 bits for a place.
    """
    down, across = (torch.linspace(-1, 1, n, device=theta.device) * (n - 1) / n for n in size)
    grid = theta.new_empty(len(theta), 2, *size)
    for axis in (0, 1):
        a, b, c = theta[:, axis].unsqueeze(-1).unbind(1)
        torch.add((a * across + c).unsqueeze(1), (b * down).unsqueeze(2), out=grid[:, axis])
    return grid.permute(0, 2, 3, 1)


def _recoloured(seen: Tensor, numbers: NDArray[np.float64], views: Views) -> Tensor:
    """Brightness, contrast and saturation, in this order; `seen` [B, 3, h, w] in [0, 1] is changed in place.

    Each blends with black, mid-grey 0.5, and the pixel's own grey, by a factor from [1 - x, 1 + x]. Contrast usually
    takes the image's mean grey for the middle; that would depend on the size that the view is asked for at, and mid-
    grey does not. All three together are one linear map, so that colours are cut to [0, 1] once, at the end.
    """
    if not (views.brightness or views.contrast or views.saturation):
        return seen
    brightness = 1 + views.brightness * (2 * numbers[:, Draw.BRIGHTNESS] - 1)
    contrast = 1 + views.contrast * (2 * numbers[:, Draw.CONTRAST] - 1)
    saturation = 1 + views.saturation * (2 * numbers[:, Draw.SATURATION] - 1)
    gain = brightness * contrast
    factors = onto(np.stack([gain * saturation, gain * (1 - saturation), (1 - contrast) / 2]), seen.device)
    from_pixel, from_grey, shift = factors.view(3, -1, 1, 1, 1)
    if views.saturation:
        grey = seen[:, :1] * LUMA[0]
        grey.add_(seen[:, 1:2] * LUMA[1]).add_(seen[:, 2:] * LUMA[2])
        shift = grey.mul_(from_grey).add_(shift)
    return seen.mul_(from_pixel).add_(shift).clamp_(0, 1)


def _erased(seen: Tensor, numbers: NDArray[np.float64], views: Views) -> Tensor:
    """Random erasing (Zhong et al. 2017, arXiv 1708.04896, algorithm 1), one grey a rectangle; `seen` [B, 3, h, w] is
    changed in place.

    The rectangle takes 2 to 33 % of the view; its height by its width, each as a share of the view's, is from 0.3 to
    1/0.3, as often tall as wide. A view has a fixed number of draws: where the paper draws again until a rectangle
    fits, here the aspect comes from those that fit, which matters above 30 % of the area.
    """
    if not views.erasing:
        return seen
    area = ERASED_AREA[0] + (ERASED_AREA[1] - ERASED_AREA[0]) * numbers[:, Draw.ERASED_AREA]
    extreme = np.minimum(-np.log(ERASED_ASPECT), -np.log(area))
    aspect = np.exp(extreme * (2 * numbers[:, Draw.ERASED_ASPECT] - 1))
    height, width = np.sqrt(area * aspect), np.sqrt(area / aspect)
    top, left = numbers[:, Draw.ERASED_Y] * (1 - height), numbers[:, Draw.ERASED_X] * (1 - width)
    rows, columns = coverage(top, top + height, seen.shape[2]), coverage(left, left + width, seen.shape[3])
    rows *= (numbers[:, Draw.ERASED] < views.erasing)[:, None]
    share = onto(rows, seen.device)[:, None, :, None] * onto(columns, seen.device)[:, None, None, :]
    grey = onto(numbers[:, Draw.ERASED_GREY], seen.device).view(-1, 1, 1, 1)
    return seen.mul_(1 - share).add_(share * grey)


def coverage(low: NDArray[np.float64], high: NDArray[np.float64], length: int) -> NDArray[np.float64]:
    """[B, length]: the share of each of `length` pixels that lies between `low` and `high`, [B], in shares of all.

    A pixel on the border of a rectangle counts in part: so its area is exact, and the same, at every size.
    """
    pixel = np.arange(length)
    inside = np.minimum(high[:, None] * length, pixel + 1) - np.maximum(low[:, None] * length, pixel)
    return np.asarray(np.clip(inside, 0, 1), np.float64)
