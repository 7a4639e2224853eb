"""Teachers and students: where their weights come from, how they see images, and which classes they answer."""

from compressor.models.classes import map_classes
from compressor.models.loaded import LoadedModel, with_classes
from compressor.models.references import load_model
from compressor.models.runs import load_run, save_run
from compressor.modes import freeze

__all__ = [
    "LoadedModel",
    "freeze",
    "load_model",
    "load_run",
    "map_classes",
    "save_run",
    "with_classes",
]
