"""Views: what a sample is shown as. Of a recipe; nothing here is code."""

from typing import Annotated

from pydantic import Field, model_validator

from compressor.schema.base import Noun

__all__ = ["OF_SOUNDS", "OF_TEXTS", "Epochs", "Share", "Views"]

Share = Annotated[float, Field(ge=0, le=1)]
Alpha = Annotated[float, Field(ge=0, le=100)]
Epochs = Annotated[int, Field(ge=1, le=1_000_000)]

OF_TEXTS = "token_dropping", "word_replacement"
"""The keys that change texts."""

OF_SOUNDS = "time_shift", "gain", "noise", "time_masking", "frequency_masking"
"""The keys that change sounds, beside `mixup`; all others but `distinct` change images."""


class Views(Noun):
    """The augmented view of an image, the same for teacher and student: a random-resized crop of `scale` of the area
    with an aspect ratio in `ratio`, turned by up to `rotation` degrees either way, mirrored half of the time where
    `hflip`. Each image of a batch has its own.

    The first view of a text is the text as it stands; others lack tokens, or have other words in their place.

    A sound is shifted, made louder or softer, and has noise added, in this order; then it is mixed with another; then
    stretches of its log-mel features are masked."""

    scale: tuple[float, float] = (0.5, 1.0)
    """Lowest and highest share of the area that the crop keeps."""
    ratio: tuple[float, float] = (0.8, 1.25)
    """Lowest and highest aspect ratio of the crop."""
    hflip: bool = True
    """Half of the views are mirrored; false where a mirrored image means something else."""
    rotation: Annotated[float, Field(ge=0, le=180)] = 0.0
    """Degrees, either way."""
    brightness: Share = 0.0
    """x multiplies it by a factor from [1 - x, 1 + x]."""
    contrast: Share = 0.0
    """Likewise, about mid-grey."""
    saturation: Share = 0.0
    """Likewise."""
    erasing: Share = 0.0
    """Share of the views from which a rectangle is erased (Zhong et al. 2017, arXiv 1708.04896)."""
    mixup: Alpha = 0.0
    """Alpha of its Beta distribution (arXiv 1710.09412); 0: off."""
    cutmix: Alpha = 0.0
    """Alpha of its Beta distribution (arXiv 1905.04899); 0: off."""
    mix_probability: Share = 1.0
    """Share of the views that are mixed, half by each where both are on."""
    token_dropping: Share = 0.0
    """Of texts: the share of the tokens that a view leaves out; of each text one stays at least."""
    word_replacement: Share = 0.0
    """Of texts: the share of the words of one token in whose place a view has another, one of the 15 that the teacher's
    own masked-LM head finds most probable there (Jiao et al. 2020, arXiv 1909.10351, algorithm 1)."""
    time_shift: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Of sounds: the most seconds that a view begins earlier or later."""
    gain: Annotated[float, Field(ge=0, le=60)] = 0.0
    """Of sounds: the most decibels that a view is louder or softer."""
    noise: Share = 0.0
    """Of sounds: the loudest white noise that a view has, its root mean square as a share of the sound's own."""
    time_masking: Share = 0.0
    """Of sounds: the longest stretch of time that a view masks, as a share of the whole (Park et al. 2019, SpecAugment,
    arXiv 1904.08779, sec. 2)."""
    frequency_masking: Share = 0.0
    """Of sounds: the widest band that a view masks, as a share of the mel channels (likewise)."""
    distinct: Epochs | None = None
    """How many different views an image has, one an epoch and then from the first again; null: a new one every
    epoch."""

    @model_validator(mode="after")
    def _ranges(self) -> "Views":
        if not 0.001 <= self.scale[0] <= self.scale[1] <= 1:
            raise ValueError("scale must be (low, high) with 0.001 <= low <= high <= 1")
        if not 0.01 <= self.ratio[0] <= self.ratio[1] <= 100:
            raise ValueError("ratio must be (low, high) with 0.01 <= low <= high <= 100")
        return self
