"""Teachers and students: where their weights come from, how they see pictures, and which classes they answer."""

from compressor.models.classes import map_classes
from compressor.models.loaded import LoadedModel, freeze, logits_of, with_classes
from compressor.models.references import load_model
from compressor.models.runs import load_run, save_run
from compressor.tasks.image_classification.models.students import create_student

__all__ = [
    "LoadedModel",
    "create_student",
    "freeze",
    "load_model",
    "load_run",
    "logits_of",
    "map_classes",
    "save_run",
    "with_classes",
]
