"""The values that become black and white in deep images: the same ones for all models of a run."""

from dataclasses import replace

from compressor.errors import KdcError
from compressor.models.loaded import LoadedModel
from compressor.progress import Progress, Silent
from compressor.schema.preprocess import PixelRange
from compressor.tasks.image_classification.depth import stated_as
from compressor.tasks.image_classification.preprocessing import of_images

__all__ = ["seeing"]

SILENT = Silent()


def seeing(model: LoadedModel, pixel_range: PixelRange | None, progress: Progress = SILENT) -> LoadedModel:
    """`model` for images that are read with `pixel_range` (`Recipe.pixel_range`), which travels with it from here on.

    Raises KdcError where it learned from images that were read with another one.
    """
    preprocess = of_images(model.preprocess)
    trained_range, source = preprocess.pixel_range, model.weights.source
    if trained_range is not None and trained_range != pixel_range:
        here = "none is stated" if pixel_range is None else f"it is {stated_as(pixel_range)}"
        raise KdcError(
            f"{source} learned from images that were read with pixel_range {stated_as(trained_range)}, and here {here}",
            f"pixel_range: {stated_as(trained_range)} in the recipe (--set 'pixel_range={stated_as(trained_range)}')",
        )
    if trained_range is None and pixel_range is not None and source.startswith("run:"):
        progress.note(f"{source} was trained without a pixel_range: of deep images it learned from their whole range")
    return replace(model, preprocess=preprocess.model_copy(update={"pixel_range": pixel_range}))
